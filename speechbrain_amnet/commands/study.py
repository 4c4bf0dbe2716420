"""`amnet study`: the trainings behind a table, and the table."""

import argparse
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands import arguments
from speechbrain_amnet.commands.table import add_outputs, show


def add(subparsers: Any) -> None:
    """Declares `amnet study`."""
    parser = subparsers.add_parser(
        "study", help="train what a table is made of, and make the table"
    )
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="which trainings these are"
    )
    parser.add_argument(
        "--data_folder",
        required=True,
        metavar="FOLDER",
        type=Path,
        help="what they train on",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="trainings at a time (1)"
    )
    parser.add_argument(
        "--only",
        metavar="EXPERIMENT",
        nargs="+",
        help="these experiments, or runs as amnet/1, alone",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="show what is missing, train nothing",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        default=[],
        help="hparams of every training, as epochs=2",
    )
    add_outputs(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Shows what is there, trains what is missing, prints the table."""
    from speechbrain_amnet.report.plots import plot_runs
    from speechbrain_amnet.running import train
    from speechbrain_amnet.study import read_study

    arguments.check_markdown(args)
    trainings = chosen(
        read_study(args.file, args.data_folder, args.set), args.only
    )
    width = max(len(training.name) for training in trainings)
    for one in trainings:
        state = "done" if one.done else f"{one.epochs_done} of {one.epochs}"
        print(f"{one.name:{width}}  {state}")
    missing = [training for training in trainings if not training.done]
    left = sum(one.epochs - one.epochs_done for one in missing)
    print(f"{len(missing)} of {len(trainings)} to train, {left} epochs left")
    if args.list:
        return
    train(missing, args.jobs)
    print()
    show(evaluated(trainings), args)
    print("\nPictures:")
    folders = [folder for one in trainings for folder in one.folders]
    for picture in plot_runs(folders, study=args.file):
        print(f"  {picture}")


def evaluated(trainings):
    """The results of all, by the names of their rows; for other devices, too.

    What is missing for another device is measured first.
    """
    from speechbrain_amnet.evaluation import evaluate
    from speechbrain_amnet.inference import load
    from speechbrain_amnet.report.results import read_results

    results = []
    for one in trainings:
        folders = one.folders
        for folder, device_load in zip(folders[1:], one.loads):
            if not (folder / "results.json").exists():
                # Of the recordings that its own figures are of.
                evaluate(load(one.folder, device_load), one.test, folder=folder)
        for result in read_results(folders):
            results.append({**result, "experiment": one.row})
    return results


def chosen(trainings, names):
    """Those of these experiments or runs; all if none is named."""
    if not names:
        return trainings
    known = {t.name for t in trainings}
    known |= {t.row for t in trainings}
    for name in names:
        if name not in known:
            raise ValueError(
                f"--only: no such run: {name}; there are "
                f"{', '.join(sorted(known))}"
            )
    picked = [t for t in trainings if t.name in names or t.row in names]
    folders = {t.folder for t in picked}
    for other in trainings:
        if not other.done and other.folder not in folders:
            for t in picked:
                if other.folder in t.after:
                    raise ValueError(
                        f"--only: {t.name} starts from {other.name}, which is "
                        "not trained yet; name it too"
                    )
    return picked
