"""`amnet learnt`: which frames the arbitrators of runs give to which branch."""

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declares `amnet learnt`."""
    parser = subparsers.add_parser(
        "learnt", help="show which frames go to the dense branch"
    )
    parser.add_argument(
        "runs", metavar="RUN_FOLDER", nargs="+", type=Path, help="a run"
    )
    parser.add_argument(
        "--split", default="test", help="evaluated before (default: test)"
    )
    parser.add_argument(
        "--publish", metavar="FILE", type=Path, help="keep the counts as JSON"
    )
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        type=Path,
        help="put the table into this Markdown file, between the lines "
        "`<!-- table: NAME -->` and `<!-- end -->`",
    )
    parser.add_argument("--name", help="of the table in the Markdown file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Counts, and prints the percentages."""
    from speechbrain_amnet.report import learnt
    from speechbrain_amnet.report.markdown import update_markdown

    if (args.markdown is None) != (args.name is None):
        raise ValueError("--markdown FILE and --name NAME go together")
    counts = [learnt.count_frames(folder, args.split) for folder in args.runs]
    table = learnt.markdown_text(counts)
    print("Frames on the dense branch, percent:")
    print(table)
    if args.publish:
        learnt.write_counts(counts, args.publish)
    if args.markdown:
        update_markdown(args.markdown, table, args.name)
