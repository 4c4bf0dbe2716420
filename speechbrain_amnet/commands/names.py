"""`amnet names`: what hparams files may use."""

import argparse
from typing import Any


def add(subparsers: Any) -> None:
    """Declares `amnet names`."""
    parser = subparsers.add_parser(
        "names", help="list the names that hparams files may use"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the reference page"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Prints the catalogue."""
    from speechbrain_amnet import catalogue

    text = catalogue.markdown() if args.markdown else catalogue.plain()
    print(text, end="")
