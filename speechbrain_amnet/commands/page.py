"""`amnet page`: a page to watch runs, and to listen to them."""

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declares `amnet page`."""
    parser = subparsers.add_parser(
        "page", help="make an HTML page on which utterances play"
    )
    parser.add_argument(
        "runs",
        metavar="RUN_FOLDER",
        nargs="+",
        type=Path,
        help="evaluated runs, to stand beside each other",
    )
    parser.add_argument(
        "--split", default="test", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--count", type=int, default=5, help="utterances (default: %(default)s)"
    )
    parser.add_argument(
        "--others",
        metavar="FOLDER",
        nargs="*",
        type=Path,
        default=[],
        help="further results for the plots of errors against computation",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="(default: page_SPLIT.html in the first run's folder)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Writes the page, and names it."""
    from speechbrain_amnet.report.page import write_page

    out = args.out or args.runs[0] / f"page_{args.split}.html"
    write_page(args.runs, out, args.split, args.count, args.others)
    print(f"{out}: open it in a browser")
