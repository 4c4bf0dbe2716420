"""`amnet pack`: a trained model as one file for the device."""

import argparse
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands import arguments


def add(subparsers: Any) -> None:
    """Declares `amnet pack`."""
    parser = subparsers.add_parser(
        "pack", help="write a trained model as one file, to run without PyTorch"
    )
    arguments.add_model(parser)
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="the file to write, as model.safetensors",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="round matrices to 8 bits: a quarter of the bytes",
    )
    parser.add_argument(
        "--grammar",
        type=Path,
        help="a file in JSGF, whose sentences alone are searched; it travels "
        "in the model",
    )
    arguments.add_load(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Writes the file, and says what it takes."""
    from speechbrain_amnet.files import check_name
    from speechbrain_amnet.inference import load
    from speechbrain_amnet.runtime.convert import as_int8, pack
    from speechbrain_amnet.runtime.packed import write_packed

    check_name(args.file)
    asr = load(args.folder, args.load, run_opts={"device": "cpu"})
    asr.hold_to(args.grammar)
    packed = pack(asr)
    if args.int8:
        packed = as_int8(packed)
    write_packed(packed, args.file)
    weights = sum(array.size for array in packed.arrays.values())
    print(
        f"{args.file}: {weights:,} numbers, "
        f"{args.file.stat().st_size / 1e6:.1f} MB; "
        f"amnet transcribe {args.file} some.wav"
    )
