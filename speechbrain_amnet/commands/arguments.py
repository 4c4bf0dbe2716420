"""Arguments that several commands have, and the model that some name."""

import argparse
import math
from pathlib import Path
from typing import Any


def add_model(parser: argparse.ArgumentParser) -> None:
    """FOLDER: the model to use."""
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="the output folder of a training, or the model folder in it",
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """MODEL: what the runtime streams with."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="the output folder of a training, the model folder in it, or "
        "what `amnet pack` wrote",
    )


def add_load(parser: argparse.ArgumentParser) -> None:
    """--load: the device to reckon with."""
    parser.add_argument(
        "--load",
        type=above_zero,
        help="frame durations that a dense frame takes on the device "
        "(default: as in training)",
    )


def above_zero(text: str) -> float:
    """A number that is above 0, and not endless."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0, got {text}"
        )
    return value


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


def find_model(path: Path, load: float | None = None) -> Any:
    """The runtime of a packed model, or of the folder of a training."""
    from speechbrain_amnet.device import Device
    from speechbrain_amnet.runtime.packed import read_packed
    from speechbrain_amnet.runtime.recogniser import Recogniser

    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no model; expected what `amnet pack` wrote, or the "
            "output folder of a finished training"
        )
    if path.is_file():
        packed = read_packed(path)
    else:
        try:
            from speechbrain_amnet import inference
            from speechbrain_amnet.runtime.convert import pack
        except ImportError as error:
            raise ValueError(
                f"{path}: a training's folder needs PyTorch and SpeechBrain, "
                f"which are not here ({error}); `amnet pack` it where they are"
            ) from None

        packed = pack(inference.load(path, run_opts={"device": "cpu"}))
    device = None if load is None else Device(load=load)
    try:
        return Recogniser(packed, device)
    except (LookupError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{path}: not a whole model ({type(error).__name__}: {error})"
        ) from None
