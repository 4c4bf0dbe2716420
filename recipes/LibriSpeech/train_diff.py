#!/usr/bin/env python3
"""Train a neural diff: a small file that updates a deployed model.

    python train_diff.py hparams/diff_sparse.yaml --base=FOLDER --budget=2% \\
        --data_folder=FOLDER

OUTPUT_FOLDER/update.diff is the file, OUTPUT_FOLDER/updated the model that
`amnet diff apply` makes of it, which is evaluated on what is new and on what is
old. An interrupted training goes on when the same command is given again.
"""

import json
import logging
import re
import shutil
import time
from pathlib import Path

import speechbrain as sb
import torch
from checks import check_data, check_noise, check_optimizer, check_words
from data import read_data, splits_of, with_items
from updating import METHODS, base_of, check_room, load_base, wrap

from speechbrain_amnet import __version__, files
from speechbrain_amnet.cli import run_script
from speechbrain_amnet.corpus.manifest import read_commands, read_manifest
from speechbrain_amnet.corpus.prepare import prepare_librispeech
from speechbrain_amnet.diff.budget import fitted_diff, parse_budget
from speechbrain_amnet.diff.file import (
    fingerprint,
    make_diff,
    model_of,
    write_diff,
)
from speechbrain_amnet.diff.folder import apply_update
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.evaluation import evaluate
from speechbrain_amnet.hparams import (
    check_recorded,
    load_hparams,
    parse_arguments,
    resolve_hparams,
)
from speechbrain_amnet.inference import load
from speechbrain_amnet.report.updates import error_keys, title_of
from speechbrain_amnet.slots import tags_of
from speechbrain_amnet.tokens import missing_letters
from speechbrain_amnet.values import check_values

logger = logging.getLogger("train_diff")

ANY_SIZE = 2**40  # weights: whether a budget is one, not whether it is kept
BASE = "base.txt"  # in the output folder: the fingerprint of the base model


def make_update(hparams, run_opts, begun):
    """Train the diff and write its file; gives what is known of it.

    What had begun must have begun with the same speech.
    """
    method = hparams["method"]
    asr = load_base(hparams, run_opts)
    check_features(hparams, asr.mods.features)
    check_noise(hparams)
    check_optimizer(hparams, "find_rate")
    updated = wrap(asr, hparams)
    weights = updated.size
    budget = parse_budget(hparams["budget"], weights)
    about = {
        "method": method,
        "generation": hparams["generation"],
        "data": hparams["dataset"],
        "seed": hparams["seed"],
        "epochs": [hparams["find_epochs"], hparams["tune_epochs"]],
        "by": f"speechbrain_amnet {__version__}",
    }
    if method != "full":
        about["budget"] = str(hparams["budget"])
        check_room(updated, hparams, budget, about)
    if hparams["augment"] is None:
        # What a model never heard in its training undoes more than it teaches.
        hparams["augment"] = getattr(asr.hparams, "augment", True)
    if hparams["grammar"]:
        asr.hold_to(hparams["grammar"])  # it can be read, and written
        asr.hold_to(None)
    sets = read_speech(hparams, asr, begun)
    check_tokens(sets, asr)
    old = old_manifest(hparams)  # it can be made
    if asr.understands or hparams["grammar"]:
        for manifest in filter(None, (new_manifest(hparams), old)):
            check_commands(manifest)
    sets = with_items(sets, asr.hparams.tokenizer, hparams["max_seconds"])
    changes = METHODS[method](hparams, run_opts, sets, budget, about)
    path = Path(hparams["output_folder"]) / "update.diff"
    old = ModelFiles(base_of(hparams))
    if method == "full":
        diff = make_diff(changes, old, about, model_of(old))
    else:
        diff = fitted_diff(changes, old, budget, about, model_of(old))
    size = write_diff(diff, path)
    logger.info("%s: %d bytes of %d", path, size, budget)
    return {
        "task": "slu" if asr.understands or hparams["grammar"] else "asr",
        "data": hparams["dataset"],
        "generation": hparams["generation"],
        "method": method,
        "budget": 1.0 if method == "full" else budget / (4 * weights),
        "bytes": size,
        "model_bytes": 4 * weights,
        "seed": hparams["seed"],
        "fold": hparams["fold"],
    }


def read_speech(hparams, asr, begun):
    """What it learns; another command's must have been the same."""
    if begun:
        check_words(hparams, splits_of(hparams))
    sets = read_data({**hparams, "slots": asr.understands})
    check_data(sets, Path(hparams["save_folder"]) / "data.txt", begun)
    return sets


def check_features(hparams, features):
    """What is read here for the base must be what the base reads."""
    theirs = {
        "sample_rate": features.sample_rate,
        "n_mels": len(features.mean),
    }
    for key, value in theirs.items():
        if hparams[key] != value:
            raise ValueError(
                f"{key}: the base was trained with {value}, got "
                f"{hparams[key]}; give --{key}={value}"
            )


def check_tokens(sets, asr):
    """A diff changes weights, and no tokens."""
    texts = (
        row["text"] for data in sets.values() for row in data.data.values()
    )
    unknown = sorted(set(tags_of(texts)) - set(asr.pieces))
    # Elsewhere a letter that it cannot write is an error, and counts as one.
    words = [row["wrd"] for row in sets["train"].data.values()]
    model = asr.hparams.tokenizer.serialized_model_proto()
    unknown += missing_letters(model, words)
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: no tokens of the base, and a diff brings "
            "none; leave them out of what it learns, or train the base with "
            "speech that has them"
        )


def check_commands(manifest):
    """Commands can count where someone says what was meant."""
    if not count_commands(manifest):
        raise ValueError(
            f"{manifest}: no commands.jsonl in these splits says what was "
            "meant, and commands are to count; give splits that have one, "
            "with slots"
        )


def count_commands(manifest):
    """Recordings of which someone says what was meant."""
    records = read_commands(read_manifest(manifest)).values()
    return sum("slots" in record for record in records)


def new_manifest(hparams):
    """Of what is new, kept for the test."""
    return Path(hparams["save_folder"]) / "manifests" / "test.csv"


def old_manifest(hparams):
    """Of what was known before; None where nothing is measured on it."""
    if not hparams["old_splits"]:
        return None
    return prepare_librispeech(
        hparams["data_folder"],
        Path(hparams["save_folder"]) / "old",
        {"old": hparams["old_splits"]},
        sample_rate=hparams["sample_rate"],
        resample=hparams["resample"],
    )["old"]


def measure(hparams, run_opts):
    """Errors on what is new and what is old, before the update and after."""
    folder = Path(hparams["output_folder"])
    updated = folder / "updated"
    shutil.rmtree(updated, ignore_errors=True)
    apply_update(base_of(hparams), folder / "update.diff", updated)
    manifests = {"wer": new_manifest(hparams)}
    if hparams["old_splits"]:
        manifests["old_wer"] = old_manifest(hparams)
    record = dict.fromkeys(("old_wer", "base_old_wer", "old_words"))
    if hparams["grammar"] or load_base(hparams, run_opts).understands:
        kinds = "old_command_error", "base_old_command_error", "old_commands"
        record |= dict.fromkeys(kinds)
    for prefix, model in (("base_", hparams["base_model"]), ("", updated)):
        asr = load(model, run_opts=run_opts)
        asr.hold_to(hparams["grammar"])
        for name, manifest in manifests.items():
            split = "test" if name == "wer" else "old"
            found = evaluate(
                asr, manifest, prefix + split, folder, hparams["dataset"]
            )
            record[prefix + name] = found["wer"]
            record[f"{prefix}{name}_interval"] = found["wer_interval"]
            record[name.replace("wer", "words")] = found["words"]
            if asr.understands:
                error = name.replace("wer", "command_error")
                record[prefix + error] = 100 - found["command_accuracy"]
                count = name.replace("wer", "commands")
                record[count] = count_commands(manifest)
    return record


def arguments(argv):
    """As `parse_arguments`; also takes --base=FOLDER or --base FOLDER."""
    return parse_arguments(
        [re.sub("^--base(?==|$)", "--base_model", a) for a in argv]
    )


def main(argv):
    """Train, write the file, apply it, evaluate."""
    path, run_opts, overrides = arguments(argv)
    text = resolve_hparams(path, overrides)
    check_values(text, run_opts)
    hparams = load_hparams(path, overrides)
    torch.set_num_threads(hparams["threads"])
    if hparams["method"] not in METHODS:
        raise ValueError(
            f"method: expected {', '.join(METHODS)}, got {hparams['method']!r}"
        )
    parse_budget(hparams["budget"], ANY_SIZE)
    folder = Path(hparams["output_folder"])
    begun = check_folder(folder, hparams, text)
    if (folder / "diff.json").exists():
        if Path(hparams["data_folder"]).exists():
            read_speech(hparams, load_base(hparams, run_opts), begun)
        record = json.loads((folder / "diff.json").read_text())
    else:
        sb.create_experiment_directory(folder)
        start = time.process_time()
        record = make_update(hparams, run_opts, begun)
        # Of an interrupted one nobody knows what the first part took.
        took = None if begun else round(time.process_time() - start, 1)
        record["seconds"] = took
        record.update(measure(hparams, run_opts))
        files.write(folder / "diff.json", f"{json.dumps(record, indent=1)}\n")
    print(sentence(record, folder / "update.diff"))


def sentence(record, file):
    """What came of an update, in words."""
    share = record["bytes"] / record["model_bytes"]
    new, old, base, base_old = error_keys(record)
    text = (
        f"{file}: {record['bytes']:,} bytes, {100 * share:.2f} % of the model; "
        f"{title_of([record])} on what is new {record[base]:.1f} -> "
        f"{record[new]:.1f} %"
    )
    if record[old] is not None:
        text += (
            f", on what is old {record[base_old]:.1f} -> {record[old]:.1f} %"
        )
    return text


def check_folder(folder, hparams, text):
    """A folder is for one update of one base; what is there must be that.

    Gives whether something was trained there.
    """
    for key in ("base_model", "full_model"):
        other = hparams[key] and Path(hparams[key]).resolve()
        if other and other.is_relative_to(folder.resolve()):
            raise ValueError(
                f"{key} {other} is in the output_folder, where it would be "
                "overwritten; give another output_folder"
            )
    save = Path(hparams["save_folder"])
    if save.resolve() == folder.resolve():
        raise ValueError(
            f"save_folder {save} is the output_folder, which is locked where "
            "the updated model is made; give a folder in it, as by default"
        )
    recorded = folder / "hyperparams.yaml"
    if recorded.exists() and not (folder / BASE).exists():
        raise ValueError(
            f"{folder} holds another training, no update (there is no {BASE}); "
            "give another output_folder"
        )
    ModelFiles(hparams["base_model"])  # it is there
    files.claim(save)  # the folder itself is locked where `updated` is made
    made = [folder / name for name in ("update.diff", "diff.json")]
    if any(save.glob("*/CKPT*")) or any(file.exists() for file in made):
        check_base(folder, hparams["base_model"])
        check_recorded(recorded, text)
        return True
    # Nothing was trained here; a command that was refused may have left both.
    base = fingerprint(ModelFiles(hparams["base_model"]))
    files.write(folder / BASE, f"{base}\n")
    files.write(recorded, text)
    return False


def check_base(folder, base):
    """Refuse an output folder whose update is of other weights."""
    if (folder / BASE).read_text() != f"{fingerprint(ModelFiles(base))}\n":
        raise ValueError(
            f"{folder} holds an update of another base (see {BASE}); give "
            "another output_folder, or remove it"
        )


if __name__ == "__main__":
    run_script("train_diff.py", main)
