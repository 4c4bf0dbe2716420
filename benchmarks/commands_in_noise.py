"""Commands understood in kitchen noise, beside others, run or published.

    python benchmarks/commands_in_noise.py amnet=results/coffee/amnet/1 \\
        --data_folder=FOLDER --noise=FOLDER/noise/kitchen.flac \\
        --grammar=coffee.gram --out=commands_in_noise.json

Percent of the commands of `test` of which the intent and every slot are right,
clean and with the second half of the noise at seven ratios, as Picovoice's
speech-to-intent benchmark mixes them. `--peers` runs others on the same
recordings (`peers.py` says what they need): PocketSphinx held to the grammar,
and whisper-tiny with a matcher that wants the phrase of every slot in its text
and minds nothing else there. Rows that the file has of other engines stay in
it.
"""

import argparse
import tempfile
from pathlib import Path

import peers
import torch
from tqdm import tqdm

from speechbrain_amnet.audio import read_audio
from speechbrain_amnet.cli import run_script
from speechbrain_amnet.corpus.manifest import has_slots, read_commands
from speechbrain_amnet.corpus.prepare import AUDIO
from speechbrain_amnet.folder_evaluation import evaluate_folder
from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.noise import BackgroundNoise, place_of
from speechbrain_amnet.report.figures import (
    markdown_text,
    read_figures,
    write_figures,
)
from speechbrain_amnet.report.markdown import update_markdown
from speechbrain_amnet.slots import SCORES, score

DECIBELS = (24, 21, 18, 15, 12, 9, 6)
# github.com/Picovoice/speech-to-intent-benchmark, commit 47b1ca6: share of all
# 619 commands accepted, at 6, 9, ... 24 dB.
PUBLISHED = {
    "Picovoice Rhino": (0.96, 0.97, 0.98, 0.99, 0.99, 0.99, 0.99),
    "Microsoft LUIS": (0.86, 0.89, 0.90, 0.91, 0.92, 0.93, 0.93),
    "IBM Watson": (0.72, 0.84, 0.89, 0.93, 0.95, 0.95, 0.96),
    "Amazon Lex": (0.80, 0.84, 0.85, 0.87, 0.87, 0.87, 0.88),
    "Google Dialogflow": (0.70, 0.78, 0.78, 0.80, 0.81, 0.82, 0.83),
}
PEERS = {  # how peers.py calls them, what they are told, and here
    "pocketsphinx": ("pocketsphinx", None, "PocketSphinx, held to the grammar"),
    "whisper": ("whisper", None, "whisper-tiny int8, phrases found"),
    "whisper_prompted": (
        "whisper",
        peers.PROMPTS["coffee"],
        "whisper-tiny int8, prompted, phrases found",
    ),
}
SENTENCE = (
    "What is published is another measurement: of all 619 commands, by engines "
    "that know the grammar and none of the recordings. The others here are of "
    "the {count} of `{split}`: ours, other voices than those in training, "
    "learnt from recordings of the same grammar; PocketSphinx and "
    "whisper-tiny, where they are here, never heard any of them."
)


def measure(run, args, decibels):
    """What a run gets right, in percent, by the names of `SCORES`."""
    mixed = {}
    if decibels is not None:
        mixed = {"noise": args.noise, "noise_db": float(decibels)}
    # In the run's folder they would stand beside results of the same.
    with tempfile.TemporaryDirectory() as out:
        (found,) = evaluate_folder(
            run,
            args.data_folder,
            [args.split],
            grammar=args.grammar,
            out=out,
            **mixed,
        )
    if found["command_accuracy"] is None:
        raise ValueError(
            f"{run}: expected a model that understands commands, or a "
            "--grammar, and a commands.jsonl beside the recordings"
        )
    return {key: found[key] for key in SCORES}


def measure_peer(name, args):
    """Percent of the commands that another engine gets right, by column."""
    kind, prompt, title = PEERS[name]
    rows = peers.utterances(args.data_folder / args.split)
    commands = read_commands(rows)
    rows = [row for row in rows if row["ID"] in commands]
    grammar = Grammar.read(args.grammar)
    noise = BackgroundNoise(args.noise, peers.RATE, part=(0.5, 1.0))
    told = args.grammar if kind == "pocketsphinx" else None
    engine = peers.KINDS[kind](told, [], prompt)
    found = {"Engine": title}
    for decibels in (None, *args.decibels):
        right = 0
        for row in tqdm(rows, desc=f"{title}, {column(decibels)}"):
            wav = torch.from_numpy(read_audio(row["wav"], peers.RATE))
            if decibels is not None:
                wav = noise.mix(wav, float(decibels), place_of(row["ID"]))
            engine.start()
            engine.feed(wav.numpy(), final=True)
            said, wanted = engine.result(), commands[row["ID"]]
            if kind == "whisper":
                slots = {k: peers.normal(v) for k, v in wanted["slots"].items()}
                right += has_slots(peers.normal(said), slots)
            else:
                heard = grammar.command(said)
                right += score([wanted], [heard])["command_accuracy"] > 0
        found[column(decibels)] = 100 * right / len(rows)
    return found


def written_before(file, columns, data, noise):
    """What a file has of the same table; nothing if there is none."""
    if not file.exists():
        return {"rows": [], "about": None}
    found = read_figures(file)
    for what, there, here in (
        ("data", found["about"]["data"], data),
        ("columns", list(found["columns"]), list(columns)),
        ("noise", found["about"].get("noise", noise), noise),
    ):
        if there != here:
            raise ValueError(
                f"--out: {file} is of other {what}, {there} instead of {here}; "
                "name another file"
            )
    return found


def column(decibels):
    """The title of a column."""
    return "clean" if decibels is None else f"{decibels} dB"


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="NAME=RUN")
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--grammar", type=Path, help="a file in JSGF")
    parser.add_argument("--split", default="test")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[])
    parser.add_argument("--decibels", type=int, nargs="+", default=DECIBELS)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--name", default="commands_in_noise")
    args = parser.parse_args(argv)
    if args.peers and not args.grammar:
        raise ValueError("--peers: expected a --grammar, too")
    data = f"{args.data_folder.name} {args.split}"
    titles = [column(decibels) for decibels in (None, *args.decibels)]
    columns = {"Engine": 0, **dict.fromkeys(titles, 1)}
    before = written_before(args.out, columns, data, args.noise.name)
    rows = []
    for run in args.runs:
        name, _, folder = run.partition("=")
        row = {"Engine": f"`{name}`"}
        scores = {
            column(decibels): measure(folder, args, decibels)
            for decibels in (None, *args.decibels)
        }
        row |= {
            title: found["command_accuracy"] for title, found in scores.items()
        }
        # The others stay in the file, without a column.
        rows.append(row | {"scores": scores})
    rows += [measure_peer(name, args) for name in args.peers]
    for engine, shares in PUBLISHED.items():
        known = dict(zip(reversed(DECIBELS), shares))
        row = {"Engine": f"{engine}, published", "clean": None}
        for decibels in args.decibels:
            share = known.get(decibels)
            row[column(decibels)] = None if share is None else 100 * share
        rows.append(row)
    mine = {row["Engine"] for row in rows}
    rows[:0] = [r for r in before["rows"] if r["Engine"] not in mine]
    about = {"data": data, "noise": args.noise.name}
    about["before"] = before["about"]
    inside = args.data_folder.glob(f"{args.split}/*/*/*")
    count = sum(path.suffix.lower() in AUDIO for path in inside)
    sentence = SENTENCE.format(count=count, split=args.split)
    write_figures(args.out, columns, rows, sentence, **about)
    text = markdown_text(read_figures(args.out))
    if args.markdown:
        update_markdown(args.markdown, text, args.name)
    print(text)


if __name__ == "__main__":
    run_script("commands_in_noise.py", main)
