"""`amnet demo`: from nothing to a trained, measured recogniser in minutes.

Speaks a corpus, trains a small amortized network beside its dense baseline,
evaluates both on speakers and sentences that neither has heard, and draws
what they did.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from speechbrain_amnet.commands.cp import RECIPES
from speechbrain_amnet.running import train
from speechbrain_amnet.trainings import Training, training

RECIPE = RECIPES / "LibriSpeech"
RUNS = {"full": "demo_full.yaml", "amnet": "demo.yaml"}
SEED = 1  # of corpus and training; settings were chosen on corpus 0


def add(subparsers: Any) -> None:
    """Declares `amnet demo`."""
    parser = subparsers.add_parser(
        "demo", help="speak a corpus, train two small models, compare them"
    )
    parser.add_argument("--out", default="demo", help="folder of the results")
    parser.add_argument(
        "--minutes", type=float, default=60, help="speech to make (60)"
    )
    parser.add_argument("--epochs", type=int, help="instead of the YAML's")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Makes the corpus, trains, and shows the table and the pictures."""
    from speechbrain_amnet.corpus.spoken import make_spoken_corpus
    from speechbrain_amnet.report.animation import animate_utterance
    from speechbrain_amnet.report.page import write_page
    from speechbrain_amnet.report.plots import plot_runs
    from speechbrain_amnet.report.results import read_results
    from speechbrain_amnet.report.summary import summarise
    from speechbrain_amnet.report.table import terminal_text

    if args.epochs is not None and args.epochs < 1:
        raise ValueError(f"--epochs: expected 1 or more, got {args.epochs}")
    start = time.monotonic()
    out = Path(args.out)
    corpus = make_spoken_corpus(out / "corpus", args.minutes, seed=SEED)
    folders = {name: out / name / str(SEED) for name in RUNS}
    train(trainings(corpus, folders, args.epochs), jobs=len(RUNS))
    rows = summarise(read_results(folders.values()))
    print(f"\n{terminal_text(rows)}\nPictures:")
    for picture in plot_runs(folders.values()):
        print(f"  {os.path.relpath(picture)}")
    film = animate_utterance(folders.values(), "test", out / "live.gif")
    print(f"  {os.path.relpath(film)}")
    both = [folders["amnet"], folders["full"]]
    page = write_page(both, out / "page.html")
    print(f"Listen to them: open {os.path.relpath(page)} in a browser")
    example = next((corpus / "test").rglob("*.flac"))
    print(
        f"Watch it work: {os.path.relpath(sys.argv[0])} transcribe --frames "
        f"{folders['amnet']} "
        f"{os.path.relpath(example)}\n"
        f"The demo took {(time.monotonic() - start) / 60:.0f} minutes; the "
        f"amortized network's word error rate is "
        f"{next(r['wer'] for r in rows if r['experiment'] == 'amnet'):.1f} %."
    )


def trainings(
    corpus: Path, folders: dict[str, Path], epochs: int | None = None
) -> list[Training]:
    """The two models, trained side by side.

    Arguments
    ---------
    corpus : Path
        Data in LibriSpeech layout with splits train, dev and test.
    folders : dict
        Where each of `RUNS` goes.
    epochs : int, optional
        Instead of what the YAML says.

    Returns
    -------
    list of Training
        One for each of `RUNS`.
    """
    found = []
    for name, folder in folders.items():
        arguments = [
            str(RECIPE / "hparams" / RUNS[name]),
            f"--data_folder={corpus}",
            f"--output_folder={folder}",
            f"--seed={SEED}",
            *([] if epochs is None else [f"--epochs={epochs}"]),
        ]
        found.append(training(name, folder, RECIPE / "train.py", arguments))
    return found
