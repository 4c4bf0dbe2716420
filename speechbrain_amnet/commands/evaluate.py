"""`amnet evaluate`: a trained model on data with transcripts."""

import argparse
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands import arguments


def add(subparsers: Any) -> None:
    """Declares `amnet evaluate`."""
    parser = subparsers.add_parser(
        "evaluate", help="measure a trained model on data with transcripts"
    )
    arguments.add_model(parser)
    parser.add_argument(
        "--data_folder",
        "--data-folder",
        required=True,
        type=Path,
        help="data in LibriSpeech layout",
    )
    parser.add_argument(
        "--split",
        action="append",
        help="a split's folder; may be repeated (default: test)",
    )
    parser.add_argument(
        "--data",
        help="name of the data (default: that of the training where it is the "
        "training's, else its folder's)",
    )
    parser.add_argument(
        "--soft",
        action="store_true",
        help="also the word errors with all branches mixed",
    )
    arguments.add_load(parser)
    parser.add_argument(
        "--resample",
        action="store_true",
        help="accept audio of another sample rate",
    )
    parser.add_argument(
        "--noise",
        type=Path,
        help="a recording of noise, whose second half is mixed in",
    )
    parser.add_argument(
        "--noise_db",
        "--noise-db",
        type=float,
        help="decibels of speech over noise, loudest over loudest",
    )
    parser.add_argument(
        "--grammar",
        type=Path,
        help="a file in JSGF, whose sentences alone are searched",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="where results are written (default: FOLDER; for other data, "
        "another device than the training's, noise or a grammar, one in it)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Prints the table of the splits, and a sentence for each."""
    from speechbrain_amnet.folder_evaluation import evaluate_folder
    from speechbrain_amnet.report.text import sentence, table

    if (args.noise is None) != (args.noise_db is None):
        raise ValueError("--noise FILE and --noise_db DECIBELS go together")
    results = evaluate_folder(
        args.folder,
        args.data_folder,
        args.split or ["test"],
        args.load,
        data=args.data,
        resample=args.resample,
        out=args.out,
        soft=args.soft,
        noise=args.noise,
        noise_db=args.noise_db,
        grammar=args.grammar,
    )
    print(f"{table(results)}\n")
    for result in results:
        print(f"{sentence(result)} ({result['path']})")
