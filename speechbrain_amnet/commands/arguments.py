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
