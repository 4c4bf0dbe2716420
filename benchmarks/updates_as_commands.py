"""How many commands a model gets right after each update, held to a grammar.

    python benchmarks/updates_as_commands.py results/releases \\
        --grammar=corpus/{generation}/commands.gram --out=commands
    amnet diff table commands

Updates that were measured in words are measured again in commands: right if
the intent and every slot are, before each update and after it, on what is new
and on what was known before. `{generation}` in the grammar's name is the
update's: what can be said by then, which a device gets with it (its bytes are
not counted), and of which the model before the update has not heard all.
Nothing is trained.
"""

import argparse
import json
import re
from pathlib import Path

from tqdm import tqdm

from speechbrain_amnet import files
from speechbrain_amnet.cli import run_script
from speechbrain_amnet.corpus.manifest import read_manifest
from speechbrain_amnet.corpus.prepare import prepare_librispeech
from speechbrain_amnet.evaluation import evaluate
from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.hparams import plain_values
from speechbrain_amnet.inference import load
from speechbrain_amnet.report.updates import (
    markdown_table,
    read_updates,
    summarise_updates,
)

WORDS = re.compile("wer|words")  # what was measured in them


def measure(folder, out, grammar):
    """The record of an update, in commands."""
    text = (folder / "hyperparams.yaml").read_text()
    hparams = plain_values(text)
    record = json.loads((folder / "diff.json").read_text())
    record = {k: v for k, v in record.items() if not WORDS.search(k)}
    record |= {"task": "slu", "grammar": grammar.name}
    record["grammar_digest"] = Grammar.read(grammar).digest
    for prefix, model in (
        ("base_", hparams["base_model"]),
        ("", folder / "updated"),
    ):
        asr = load(model)
        asr.hold_to(grammar)
        manifests = prepare_librispeech(
            hparams["data_folder"],
            out / "manifests",
            {"test": hparams["test_splits"], "old": hparams["old_splits"]},
            asr.mods.features.sample_rate,
        )
        for split, name in (("test", "command"), ("old", "old_command")):
            manifest = manifests[split]
            found = evaluate(asr, manifest, prefix + split, out, record["data"])
            record[f"{prefix}{name}_error"] = 100 - found["command_accuracy"]
            record[f"{name}s"] = len(read_manifest(manifest))
    return record


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "updates", type=Path, help="the folder that train_releases.py filled"
    )
    parser.add_argument("--grammar", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args(argv)
    found = sorted(args.updates.rglob("diff.json"))
    if not found:
        raise FileNotFoundError(f"{args.updates}: there are no updates in it")
    for file in tqdm(found, "updates", unit="update"):
        generation = json.loads(file.read_text())["generation"]
        grammar = str(args.grammar).replace("{generation}", str(generation))
        digest = Grammar.read(grammar).digest
        out = args.out / file.parent.relative_to(args.updates)
        if (out / "diff.json").exists():
            known = json.loads((out / "diff.json").read_text())
            if known.get("grammar_digest", digest) != digest:
                raise ValueError(
                    f"{out} was measured with another grammar; give another "
                    "--out"
                )
            continue
        record = measure(file.parent, out, Path(grammar))
        files.write(out / "diff.json", json.dumps(record, indent=1) + "\n")
    print(markdown_table(summarise_updates(read_updates([args.out]))))


if __name__ == "__main__":
    run_script("updates_as_commands.py", main)
