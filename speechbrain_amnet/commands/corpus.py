"""`amnet corpus`: the built-in spoken corpus; releases of any corpus."""

import argparse
import re
from pathlib import Path
from typing import Any

# Those that not every kind of corpus has.
OPTIONS = "minutes speakers releases grammar voices by fold".split()


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
        help="speech to make, in minutes (default: 60)",
    )
    parser.add_argument(
        "--speakers",
        type=int,
        help="who speak it, three of four of them in train (default: 96)",
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
        "--voices",
        metavar="FOLDER",
        type=Path,
        help="speak with Kokoro's 54 voices and what lies between them: a "
        "folder with kokoro-v1.0.onnx and voices-v1.0.bin of kokoro-onnx's "
        "releases (default: one voice, made into many)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER",
        type=Path,
        help="speak nothing: make releases of this corpus of real speech, as "
        "links to its recordings",
    )
    parser.add_argument(
        "--by",
        metavar="speaker|SLOT",
        help="what is new in a release of it: speakers, or a value of this "
        "slot (default: speaker)",
    )
    parser.add_argument(
        "--fold",
        metavar="N/M",
        help="by a slot: whose voices are for testing (default: 1/5)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Makes the corpus, or says that it is there already."""
    if args.seed < 0:
        raise ValueError(f"--seed: expected 0 or more, got {args.seed}")
    if args.source:
        check_options(args, "releases of real speech (--from)", "by", "fold")
        make_resplit(args)
    elif args.grammar:
        kinds = "grammar", "minutes", "speakers", "voices"
        check_options(args, "sentences of a grammar (--grammar)", *kinds)
        make_spoken(args)
    else:
        # A release's voices are that of the base and one more.
        kinds = ["releases"] if args.releases else ["voices"]
        what = "releases" if args.releases else "the built-in corpus"
        check_options(args, what, "minutes", "speakers", *kinds)
        make_spoken(args)
    print(args.out)


def check_options(args, what, *options) -> None:
    """Refuse those that would say nothing."""
    for option in OPTIONS:
        given = getattr(args, option)
        if given is None or given is False or option in options:
            continue
        raise ValueError(f"--{option} says nothing about {what}; leave it")


def make_resplit(args) -> None:
    """Releases of real speech."""
    from speechbrain_amnet.corpus.resplit import resplit

    said = args.fold or "1/5"
    fold = re.fullmatch(r"(\d+)/(\d+)", said)
    if fold is None:
        raise ValueError(f"--fold: expected N/M, as 1/5, got {said}")
    number, folds = map(int, fold.groups())
    by = args.by or "speaker"
    if by == "speaker" and args.fold:
        raise ValueError(
            "--fold says nothing about releases by speaker, whose dev and test "
            "stay; name a slot (--by), or leave it"
        )
    resplit(args.source, args.out, by, (number, folds), args.seed)


def make_spoken(args) -> None:
    """What the synthesizer says."""
    from speechbrain_amnet.corpus.releases import make_releases
    from speechbrain_amnet.corpus.spoken import make_spoken_corpus

    options = {}
    if args.grammar:
        from speechbrain_amnet.grammar import Grammar

        options = {"grammar": Grammar.read(args.grammar)}
    if args.voices:
        options["voices"] = args.voices
    if args.speakers is not None:
        options["speakers"] = args.speakers
    make = make_releases if args.releases else make_spoken_corpus
    make(args.out, minutes=minutes_of(args), seed=args.seed, **options)


def minutes_of(args) -> float:
    """How many there are to be."""
    return 60 if args.minutes is None else args.minutes
