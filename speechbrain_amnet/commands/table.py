"""`amnet table`: runs compared, in the terminal and in Markdown files."""

import argparse
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands import arguments


def add(subparsers: Any) -> None:
    """Declares `amnet table`."""
    parser = subparsers.add_parser(
        "table", help="compare runs in a table, made from their results"
    )
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        nargs="+",
        type=Path,
        help="a run, a folder of runs or of published results, or a results "
        "file",
    )
    add_outputs(parser)
    parser.add_argument(
        "--study",
        metavar="FILE",
        type=Path,
        help="only the runs of this study, by its names",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 1 if the Markdown file's table is stale",
    )
    parser.set_defaults(run=run)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Where a table goes, beside the terminal."""
    arguments.add_markdown(parser)
    parser.add_argument(
        "--csv", metavar="FILE", type=Path, help="write the table as CSV too"
    )
    parser.add_argument(
        "--publish",
        metavar="FOLDER",
        type=Path,
        help="write the runs' results there, as EXPERIMENT-SEED.json and "
        ".csv, without the words of the utterances",
    )


def run(args: argparse.Namespace) -> None:
    """Prints the table; puts it into files, or compares it with theirs."""
    from speechbrain_amnet.report.results import read_results
    from speechbrain_amnet.study import as_named

    arguments.check_markdown(args)
    if args.check and args.markdown is None:
        raise ValueError("--check needs --markdown FILE --name NAME")
    results = read_results(args.folders)
    if args.study:
        results = as_named(results, args.study)
    stale = show(results, args, args.check)
    if stale and args.check:
        raise SystemExit(
            f"amnet: table {args.name} in {args.markdown} is stale; run "
            "the same command without --check"
        )


def show(
    results: list[dict[str, Any]],
    args: argparse.Namespace,
    check: bool = False,
) -> bool:
    """Prints results as a table; puts it into files, unless it is to check.

    Gives whether the Markdown file's table was another.
    """
    from speechbrain_amnet.files import write
    from speechbrain_amnet.report.markdown import update_markdown
    from speechbrain_amnet.report.results import publish
    from speechbrain_amnet.report.summary import summarise
    from speechbrain_amnet.report.table import (
        csv_table,
        markdown_text,
        terminal_text,
    )

    rows = summarise(results)
    print(terminal_text(rows))
    if args.publish and not check:
        publish(results, args.publish)
    if args.csv and not check:
        write(args.csv, csv_table(rows))
    if args.markdown is None:
        return False
    return update_markdown(args.markdown, markdown_text(rows), args.name, check)
