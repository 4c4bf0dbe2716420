"""Arguments that several commands have."""

import argparse
from pathlib import Path


def add_model(parser: argparse.ArgumentParser) -> None:
    """FOLDER: the model to use."""
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="the output folder of a training, or the model folder in it",
    )


def add_load(parser: argparse.ArgumentParser) -> None:
    """--load: the device to reckon with."""
    parser.add_argument(
        "--load",
        type=float,
        help="frame durations that a dense frame takes on the device "
        "(default: as in training)",
    )


def add_markdown(parser: argparse.ArgumentParser) -> None:
    """The place of a table in a Markdown file."""
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        type=Path,
        help="put the table into this Markdown file, between the lines "
        "`<!-- table: NAME -->` and `<!-- end -->`",
    )
    parser.add_argument("--name", help="of the table in the Markdown file")


def check_markdown(args: argparse.Namespace) -> None:
    """Both of them or none; the file has a place for the table."""
    from speechbrain_amnet.report.markdown import update_markdown

    if (args.markdown is None) != (args.name is None):
        raise ValueError("--markdown FILE and --name NAME go together")
    if args.markdown is not None:
        update_markdown(args.markdown, "", args.name, check=True)
