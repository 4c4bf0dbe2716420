#!/usr/bin/env python3
"""Update a model five times in a row, with each method and budget.

    amnet corpus corpus --releases
    python train.py hparams/demo.yaml --data_folder=corpus/base \\
        --output_folder=results/releases/base
    python train_releases.py --data_folder=corpus \\
        --base=results/releases/base --jobs=2

Every update starts from what the one before it left on the device. It learns
from the release's new material and from as much of what was there before, and
is measured on both. Goes on where it was stopped.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from train_diff import check_base

from speechbrain_amnet.cli import run_script
from speechbrain_amnet.diff.budget import parse_budget
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.report.updates import (
    markdown_table,
    plot_updates,
    read_updates,
    summarise_updates,
)
from speechbrain_amnet.running import train
from speechbrain_amnet.trainings import Training, check_settings, loaded

HERE = Path(__file__).resolve().parent
WEIGHTS = 1_000_000  # of some model, to see that budgets are some
METHODS = (
    "full",
    "sparse",
    "sparse_gated",
    "hash",
    "lora",
    "lora_linear",
    "last",
    "shira",
    "compressed_sparse",
    "compressed_hash",
    "compressed_lowrank",
)


def updates(args) -> list[Training]:
    """One for each method, budget, seed and generation, in their order."""
    found = []
    for generation in range(1, args.generations + 1):
        for method in args.methods:
            budgets = ["all"] if method == "full" else args.budgets
            for budget in budgets:
                for seed in args.seeds:
                    found.append(update(args, method, budget, seed, generation))
    twice = Counter(one.folder for one in found).most_common(1)[0]
    if twice[1] > 1:
        raise ValueError(
            f"{twice[0]} is asked for {twice[1]} times; give each of "
            "--methods, --budgets and --seeds once"
        )
    return found


def update(args, method, budget, seed, generation) -> Training:
    """One update, from what the one before it left."""
    name = method if budget == "all" else f"{method}_{budget.rstrip('%')}"
    chain = args.out / name / str(seed)
    folder, after = chain / str(generation), []
    base = args.base
    if generation > 1:
        after = [chain / str(generation - 1)]
        base = after[0] / "updated"
    if (folder / "diff.json").exists() and base.exists():
        check_base(folder, base)  # it is done, and has to be of this one
    splits = {
        "train_splits": [f"{generation}/train", f"{generation}/replay"],
        "valid_splits": [f"{generation}/dev"],
        "test_splits": [f"{generation}/test"],
        "old_splits": [
            "base/test",
            *(f"{n}/test" for n in range(1, generation)),
        ],
    }
    values = {
        "base_model": base,
        "data_folder": args.data_folder,
        "dataset": args.dataset,
        "output_folder": folder,
        "generation": generation,
        "seed": seed,
        **{k: f"[{', '.join(v)}]" for k, v in splits.items()},
    }
    for key in ("grammar", "fold"):
        if getattr(args, key) is not None:
            values[key] = getattr(args, key)
    if budget != "all":
        values["budget"] = budget
    command = [
        sys.executable,
        str(HERE / "train_diff.py"),
        str(HERE / "hparams" / f"diff_{method}.yaml"),
        *(f"--{key}={value}" for key, value in values.items()),
        *(f"--{setting}" for setting in args.set),
        "--noprogressbar",
    ]
    name = f"{name}/{seed}/{generation}"
    return Training(name, folder, command, 1, after, last="diff.json")


def build_parser():
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--dataset", default="spoken")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument(
        "--budgets", nargs="+", default=["10%", "5%", "2%", "1%"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--generations", type=int, default=5)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/releases/updates"),
        metavar="FOLDER",
    )
    parser.add_argument(
        "--grammar",
        type=Path,
        metavar="FILE",
        help="a file in JSGF that tests are held to; commands count whole",
    )
    parser.add_argument(
        "--fold", type=int, help="which part of the voices tests, in results"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="hparams of every update, as find_epochs=2",
    )
    return parser


def main(argv=None):
    """Run from the command line."""
    args = build_parser().parse_args(argv)
    for method in args.methods:
        if method not in METHODS:
            raise ValueError(
                f"--methods: expected some of {', '.join(METHODS)}, got "
                f"{method}"
            )
    for budget in args.budgets:
        parse_budget(budget, WEIGHTS)
    for name in ("generations", "jobs"):
        if getattr(args, name) < 1:
            raise ValueError(
                f"--{name}: expected 1 or more, got {getattr(args, name)}"
            )
    for generation in range(1, args.generations + 1):
        folder = args.data_folder / str(generation) / "train"
        if not folder.is_dir():
            raise FileNotFoundError(
                f"--data_folder: {folder} is not there; expected what `amnet "
                "corpus --releases` or `--from` writes"
            )
    ModelFiles(args.base)  # there is a model
    wanted = updates(args)
    for one in wanted:
        check_settings(one)
    # One of each hparams file: what is wrong with one is so with all.
    for one in {one.command[2]: one for one in wanted}.values():
        loaded(one.command[2:-1])
    missing = [one for one in wanted if not one.done]
    print(f"{len(missing)} of {len(wanted)} updates to train")
    train(missing, args.jobs, "update")
    rows = summarise_updates(read_updates([one.folder for one in wanted]))
    print(markdown_table(rows))
    picture = plot_updates(rows, args.out / "updates.png")
    print(f"Picture: {picture}")


if __name__ == "__main__":
    run_script("train_releases.py", main)
