"""`amnet corpus`: the built-in spoken corpus; releases of any corpus."""

import argparse
import re
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declares `amnet corpus`."""
    parser = subparsers.add_parser(
        "corpus",
        help="make the built-in spoken corpus, in LibriSpeech layout",
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="the corpus's folder"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=60,
        help="speech to make, in minutes (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the same seed makes the same corpus (default: %(default)s)",
    )
    parser.add_argument(
        "--releases",
        action="store_true",
        help="also what five releases bring: OUT/base and OUT/1 to OUT/5",
    )
    parser.add_argument(
        "--grammar",
        metavar="FILE",
        type=Path,
        help="speak the sentences of this grammar (JSGF), instead of its own",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER",
        type=Path,
        help="speak nothing: these releases of a corpus of real speech, as "
        "links to its recordings; with --grammar its sentences, of words cut "
        "from the recordings of train",
    )
    parser.add_argument(
        "--by",
        metavar="speaker|SLOT",
        default="speaker",
        help="what is new in a release of it: speakers, or a value of this "
        "slot (default: %(default)s)",
    )
    parser.add_argument(
        "--fold",
        metavar="N/M",
        default="1/5",
        help="by a slot: whose voices are for testing (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Makes the corpus, or says that it is there already."""
    if args.source and args.grammar:
        from speechbrain_amnet.corpus.spliced import make_spliced
        from speechbrain_amnet.grammar import Grammar

        grammar = Grammar.read(args.grammar)
        make_spliced(args.source, args.out, grammar, args.minutes, args.seed)
        print(args.out)
        return
    if args.source:
        from speechbrain_amnet.corpus.resplit import resplit

        fold = re.fullmatch(r"(\d+)/(\d+)", args.fold)
        if fold is None:
            raise ValueError(f"--fold: expected N/M, as 1/5, got {args.fold}")
        number, folds = map(int, fold.groups())
        resplit(args.source, args.out, args.by, (number, folds), args.seed)
        print(args.out)
        return
    from speechbrain_amnet.corpus.releases import make_releases
    from speechbrain_amnet.corpus.spoken import make_spoken_corpus

    options = {}
    if args.grammar:
        from speechbrain_amnet.grammar import Grammar

        if args.releases:
            raise ValueError(
                "--releases are of the built-in sentences; leave out --grammar"
            )
        options = {"grammar": Grammar.read(args.grammar)}
    make = make_releases if args.releases else make_spoken_corpus
    make(args.out, minutes=args.minutes, seed=args.seed, **options)
    print(args.out)
