"""The recipe's data: manifests, tokens, what is learnt of each utterance."""

import logging
import os
from functools import partial
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.utils.distributed import run_on_main

from speechbrain_amnet import files
from speechbrain_amnet.corpus.manifest import read_commands, read_manifest
from speechbrain_amnet.corpus.prepare import prepare_librispeech
from speechbrain_amnet.slots import tagged, tags_of
from speechbrain_amnet.tokens import (
    add_symbols,
    missing_letters,
    train_tokenizer,
    without_tokens,
)

logger = logging.getLogger("train")


def make_data(hparams):
    """The datasets of the three sets, and the tokenizer that they share."""
    sets = read_data(hparams)
    rows = sets["train"].data.values()
    tags = tags_of(row["text"] for row in rows)
    if hparams["start_from"]:
        words = [row["wrd"] for row in rows]
        run_on_main(copy_tokenizer, args=(hparams, tags, words))
    tokenizer_args = (
        [row["wrd"] for row in rows],
        Path(hparams["save_folder"]) / "tokenizer.model",
        hparams["token_type"],
        hparams["tokens"],
        tags,
    )
    run_on_main(train_tokenizer, args=tokenizer_args)
    hparams["tokenizer"] = train_tokenizer(*tokenizer_args)
    run_on_main(warn_of_letters, args=(sets, hparams))
    return with_items(sets, hparams["tokenizer"], hparams["max_seconds"])


def splits_of(hparams):
    """Name of each set's manifest to its folders."""
    return {
        "train": hparams["train_splits"],
        "valid": hparams["valid_splits"],
        "test": hparams["test_splits"],
    }


def read_data(hparams):
    """The three sets' manifests, made if they are not there yet."""
    splits = splits_of(hparams)
    manifests = Path(hparams["save_folder"]) / "manifests"
    run_on_main(
        prepare_librispeech,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": manifests,
            "splits": splits,
            "sample_rate": hparams["sample_rate"],
            "resample": hparams["resample"],
        },
    )
    sets = {}
    for name in splits:
        # Not SpeechBrain's reader: to that one, $ begins a placeholder.
        rows = {
            row.pop("ID"): {**row, "duration": float(row["duration"])}
            for row in read_manifest(manifests / f"{name}.csv")
        }
        write_texts(rows, hparams.get("slots"))
        sets[name] = DynamicItemDataset(rows)
    run_on_main(warn_of_shared, args=(sets, splits))
    return sets


def warn_of_letters(sets, hparams):
    """Say which letters of dev and test the training speech has not.

    A training goes on: for one odd word in thousands it is not worth stopping.
    """
    model = hparams["tokenizer"].serialized_model_proto()
    splits = splits_of(hparams)
    for name in ("valid", "test"):
        words = [row["wrd"] for row in sets[name].data.values()]
        if said := without_tokens(model, words):
            logger.warning("%s: %s", ", ".join(splits[name]), said)


def warn_of_shared(sets, splits):
    """Say how much of dev and test is training speech.

    By the file that a path leads to; copies of another sample rate are files
    of their own.
    """
    train = set(files_of(sets["train"]))
    for name in ("valid", "test"):
        heard = files_of(sets[name])
        if count := sum(file in train for file in heard):
            logger.warning(
                "%s: %d of %d utterances are recordings that %s trains with, "
                "too; errors on them say little of other speech",
                ", ".join(splits[name]),
                count,
                len(heard),
                ", ".join(splits["train"]),
            )


def files_of(data):
    """What tells a set's recordings apart, whatever links lead to them."""
    stats = [os.stat(row["wav"]) for row in data.data.values()]
    return [(stat.st_dev, stat.st_ino) for stat in stats]


def write_texts(rows, slots):
    """What is learnt of each utterance: its words, and maybe its slots."""
    commands = {}
    if slots:
        commands = read_commands(
            [{"ID": name, **row} for name, row in rows.items()]
        )
    for name, row in rows.items():
        row["text"] = row["wrd"]
        if slots:
            said = commands.get(name, {})
            if "slots" not in said:
                raise ValueError(
                    f"slots: {name} ({row['wav']}) has no slots in the "
                    "commands.jsonl of its split"
                )
            try:
                row["text"] = tagged(
                    row["wrd"], said["slots"], said.get("intent")
                )
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


def with_items(sets, tokenizer, max_seconds):
    """The sets with audio and tokens; train without what is too long."""
    for data in sets.values():
        # No functions made here: other processes (num_workers) read them too.
        data.add_dynamic_item(sb.dataio.dataio.read_audio, "wav", "sig")
        data.add_dynamic_item(partial(tokens_of, tokenizer), "text", "tokens")
        data.set_output_keys(["id", "sig", "tokens", "wrd"])
    everything = sets["train"]
    sets["train"] = everything.filtered_sorted(
        key_max_value={"duration": max_seconds}
    )
    if not len(sets["train"]):
        raise ValueError(
            f"No training utterance is shorter than max_seconds = "
            f"{max_seconds}."
        )
    if left_out := len(everything) - len(sets["train"]):
        logger.warning(
            "%d of %d training utterances are longer than max_seconds = %g "
            "and left out",
            left_out,
            len(everything),
            max_seconds,
        )
    return sets


def tokens_of(tokenizer, text):
    """A text's tokens, ``[tokens]``."""
    return torch.tensor(tokenizer.encode(text))


def copy_tokenizer(hparams, tags, words):
    """Take over the tokens of the training that this one starts from.

    Those of slots and intents are added to them, and letters that were not
    there.
    """
    source = Path(hparams["start_from"]) / "save" / "tokenizer.model"
    target = Path(hparams["save_folder"]) / "tokenizer.model"
    if target.exists():
        return
    if not source.exists():
        raise FileNotFoundError(
            f"start_from: expected the output folder of a training, but there "
            f"is no {source}."
        )
    model = source.read_bytes()
    new = [*missing_letters(model, words), *tags]
    if new:
        model = add_symbols(model, new, hparams["tokens"])
    files.write(target, model)


def make_loaders(sets, hparams):
    """Batches of similar length for training, fixed ones for dev."""
    rows, ids = sets["train"].data, sets["train"].data_ids
    lengths = [float(rows[i]["duration"]) for i in ids]
    # As many utterances in each. SpeechBrain's own edges grow with the batch,
    # so that a larger one soon has no more utterances, of any length.
    edges = np.quantile(lengths, np.linspace(0, 1, hparams["buckets"] + 1)[1:])
    sampler = DynamicBatchSampler(
        sets["train"],
        max_batch_length=max(hparams["batch_seconds"], max(lengths)),
        bucket_boundaries=np.unique(edges).tolist(),
        lengths_list=lengths,
        shuffle=True,
        batch_ordering="random",
        seed=hparams["seed"],
    )
    train = {
        "batch_sampler": sampler,
        "num_workers": hparams["num_workers"],
        # Its own, so that a resumed epoch draws from the other as before.
        "generator": torch.Generator(),
    }
    valid = {"batch_size": 16}
    return sampler, train, valid


def fit_statistics(features, train):
    """Measure the features' mean and deviation on training audio."""
    if features.fitted:
        return
    # Enough for a mean, and quick for a large corpus too.
    step = max(1, len(train) // 1000)
    with train.output_keys_as(["sig"]):
        features.fit_statistics(
            train[i]["sig"] for i in range(0, len(train), step)
        )
