"""`amnet grammar`: what people can say, from what people said."""

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declares `amnet grammar`."""
    parser = subparsers.add_parser(
        "grammar", help="write a grammar (JSGF) of the commands of a corpus"
    )
    parser.add_argument(
        "data_folder",
        metavar="DATA",
        type=Path,
        help="data in LibriSpeech layout, with a commands.jsonl in each split",
    )
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="the grammar to write"
    )
    parser.add_argument(
        "--split",
        action="append",
        help="a split's folder; may be repeated (default: train)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Writes the file, and says what is in it."""
    from speechbrain_amnet import files
    from speechbrain_amnet.corpus.manifest import COMMANDS, read_labels
    from speechbrain_amnet.corpus.prepare import read_transcripts
    from speechbrain_amnet.grammar import Grammar
    from speechbrain_amnet.grammar_writer import written

    splits = args.split or ["train"]
    said = read_transcripts(args.data_folder, splits)
    files_of = [args.data_folder / split / COMMANDS for split in splits]
    records = read_labels(files_of, list(said))
    commands = [
        (words, records[name]["slots"], records[name].get("intent"))
        for name, words in said.items()
        if "slots" in records.get(name, {})
    ]
    if not commands:
        raise ValueError(
            f"{args.data_folder}: no commands in {', '.join(splits)}; expected "
            "a commands.jsonl with id, slots and intent in each split's folder"
        )
    name = "".join(c if c.isalnum() else "_" for c in args.file.stem)
    text = written(commands, name)
    grammar = Grammar(text, name=str(args.file))
    files.write(args.file, text)
    known = {word for words, _, _ in commands for word in words.split()}
    intents = {intent for _, _, intent in commands}
    print(
        f"{args.file}: {len(known)} words and {len(intents)} intents of "
        f"{len(commands)} commands, {len(grammar.rules)} rules; "
        f"amnet transcribe MODEL some.wav --grammar={args.file}"
    )
