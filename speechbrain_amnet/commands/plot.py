"""`amnet plot`: pictures of runs."""

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declares `amnet plot`."""
    parser = subparsers.add_parser(
        "plot", help="draw utterances, the trade-off and the training of runs"
    )
    parser.add_argument(
        "folders",
        metavar="RUN_FOLDER",
        nargs="+",
        type=Path,
        help="a run, finished or in training, or a folder of runs or of "
        "published results",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="for all pictures (default: each run's own folder)",
    )
    parser.add_argument(
        "--study",
        metavar="FILE",
        type=Path,
        help="in the trade-off only the runs of this study, by its names",
    )
    parser.add_argument(
        "--only",
        metavar="EXPERIMENT",
        nargs="+",
        help="in the trade-off only these",
    )
    parser.add_argument(
        "--animate",
        metavar="GIF",
        type=Path,
        help="let an utterance go by in all these evaluated runs, in real time",
    )
    parser.add_argument(
        "--split", default="test", help="of the utterance (default: test)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Draws all that there is to draw, and names the pictures."""
    from speechbrain_amnet.report.animation import animate_utterance
    from speechbrain_amnet.report.plots import plot_runs
    from speechbrain_amnet.report.results import find_results, is_run

    if args.animate:
        for name in ("out", "study", "only"):
            if getattr(args, name):
                raise ValueError(
                    f"--{name} is for pictures; --animate names its own file"
                )
        runs = []
        for folder in args.folders:
            if (folder / "train_log.txt").is_file():
                runs.append(folder)  # which may have dev's results alone
            else:
                runs += [p.parent for p in find_results(folder) if is_run(p)]
        print(animate_utterance(runs, args.split, args.animate))
        return
    if args.split != "test":
        raise ValueError(
            "--split is for --animate; pictures are of all that is there"
        )
    for picture in plot_runs(args.folders, args.out, args.study, args.only):
        print(picture)
