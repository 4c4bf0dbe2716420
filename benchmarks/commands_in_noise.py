"""Commands understood in kitchen noise, beside what others published.

    python benchmarks/commands_in_noise.py amnet=results/coffee/amnet/1 \\
        --data_folder=FOLDER --noise=FOLDER/noise/kitchen.flac \\
        --grammar=coffee.gram --out=commands_in_noise.json

Percent of the commands of `test` of which the intent and every slot are right,
clean and with the second half of the noise at seven ratios, as Picovoice's
speech-to-intent benchmark mixes them.
"""

import argparse
from pathlib import Path

from speechbrain_amnet.cli import run_script
from speechbrain_amnet.evaluation import evaluate_folder
from speechbrain_amnet.report.figures import (
    markdown_text,
    read_figures,
    write_figures,
)
from speechbrain_amnet.report.markdown import update_markdown

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
SENTENCE = (
    "Ours and theirs are not the same measurement: theirs are published, of "
    "all 619 commands, by engines that know the grammar and none of the "
    "recordings; ours are of the {count} of `{split}`, of other voices than "
    "those in training, by models that learnt from recordings of the same "
    "grammar."
)


def measure(run, args, decibels):
    """Percent of the commands that a run gets right."""
    mixed = {}
    if decibels is not None:
        mixed = {"noise": args.noise, "noise_db": float(decibels)}
    (found,) = evaluate_folder(
        run,
        args.data_folder,
        [args.split],
        grammar=args.grammar,
        bootstrap=100,
        **mixed,
    )
    if found["command_accuracy"] is None:
        raise ValueError(
            f"{run}: expected a model that understands commands, or a "
            "--grammar, and a commands.jsonl beside the recordings"
        )
    return found["command_accuracy"]


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--grammar", type=Path, help="a file in JSGF")
    parser.add_argument("--split", default="test")
    parser.add_argument("--decibels", type=int, nargs="+", default=DECIBELS)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--name", default="commands_in_noise")
    args = parser.parse_args(argv)
    rows = []
    for run in args.runs:
        name, _, folder = run.partition("=")
        row = {"Engine": f"`{name}`"}
        for decibels in (None, *args.decibels):
            title = "clean" if decibels is None else f"{decibels} dB"
            row[title] = measure(folder, args, decibels)
        rows.append(row)
    for engine, shares in PUBLISHED.items():
        known = dict(zip(reversed(DECIBELS), shares))
        row = {"Engine": f"{engine}, published", "clean": None}
        for decibels in args.decibels:
            share = known.get(decibels)
            row[f"{decibels} dB"] = None if share is None else 100 * share
        rows.append(row)
    pattern = f"{args.split}/*/*/*.flac"
    count = len(list(args.data_folder.glob(pattern)))
    sentence = SENTENCE.format(count=count, split=args.split)
    data = f"{args.data_folder.name} {args.split}"
    columns = {"Engine": 0, **dict.fromkeys(list(rows[0])[1:], 1)}
    write_figures(args.out, columns, rows, sentence, data=data)
    text = markdown_text(read_figures(args.out))
    if args.markdown:
        update_markdown(args.markdown, text, args.name)
    print(text)


if __name__ == "__main__":
    run_script("commands_in_noise.py", main)
