"""`amnet learnt`: which frames the arbitrators of runs give to which branch."""

import argparse
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands import arguments


def add(subparsers: Any) -> None:
    """Declares `amnet learnt`."""
    parser = subparsers.add_parser(
        "learnt", help="show which frames go to the dense branch"
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="a run's folder, or a file of counts that were kept",
    )
    parser.add_argument(
        "--split", default="test", help="evaluated before (default: test)"
    )
    parser.add_argument(
        "--publish", metavar="FILE", type=Path, help="keep the counts as JSON"
    )
    arguments.add_markdown(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Counts, and prints the percentages."""
    from speechbrain_amnet.report import learnt
    from speechbrain_amnet.report.markdown import update_markdown

    arguments.check_markdown(args)
    counts = []
    for run in args.runs:
        if run.is_file():
            counts += learnt.read_counts(run)
        else:
            counts.append(learnt.count_frames(run, args.split))
    table = learnt.markdown_text(counts)
    print("Frames on the first branch, percent:")
    print(table)
    if args.publish:
        learnt.write_counts(counts, args.publish)
    if args.markdown:
        update_markdown(args.markdown, table, args.name)
