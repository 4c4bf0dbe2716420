"""train_releases.py: chains of updates, in order, on spoken tones."""

import importlib
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from speechbrain_amnet.corpus import spoken
from speechbrain_amnet.corpus.releases import make_releases
from speechbrain_amnet.diff.file import read_diff

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "LibriSpeech"


def run(*arguments):
    """Run train_releases.py; gives the finished process."""
    script = RECIPE / "train_releases.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Releases of tones."""

    def tone(words, speed, seed):
        return np.sin(np.arange(12000) * 0.1).astype(np.float32)

    monkeypatch.setattr(spoken, "_load_voice", lambda: tone)
    lengths = {"train": 0.2, "dev": 0.05, "test": 0.05}
    return make_releases(tmp_path / "corpus", 0.5, lengths, speakers=8)


def test_a_grammar_and_a_fold_are_those_of_each_update(train, tmp_path):
    releases = importlib.import_module("train_releases")
    given = ["--data_folder=data", "--base=base", f"--out={tmp_path}"]
    given += ["--methods", "full", "hash", "--budgets=2%", "--generations=2"]
    for more in ([], ["--grammar=some.gram", "--fold=2"]):
        args = releases.build_parser().parse_args([*given, *more])
        updates = releases.updates(args)
        assert len(updates) == 4
        for one in updates:
            options = [w for w in one.command if re.match("--(gra|fold)", w)]
            assert options == more


def test_two_generations(corpus, tmp_path, run_here):
    base, out = tmp_path / "base", tmp_path / "out"
    tiny = ["--epochs=1", "--layers=1", "--hidden_size=32", "--tokens=40"]
    tiny += ["--predictor_size=8", "--joint_size=8", "--buckets=2"]
    done = run_here(
        "train.py",
        ROOT / "hparams" / "demo.yaml",
        f"--data_folder={corpus / 'base'}",
        f"--output_folder={base}",
        *tiny,
        "--average_checkpoints=1",
        "--noprogressbar",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    arguments = [
        f"--data_folder={corpus}",
        f"--base={base}",
        f"--out={out}",
        "--methods=full",
        "--generations=2",
    ]
    arguments[3:4] = ["--methods", "full", "hash", "--budgets", "5%"]
    settings = ["--set", "find_epochs=1", "tune_epochs=1", "buckets=2"]
    done = run(*arguments, "--jobs=2", *settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "4 of 4 updates to train" in done.stdout
    assert "| hash 5 % |" in done.stdout
    assert (out / "updates.png").stat().st_size
    chain = out / "hash_5" / "1"
    first, second = (read_diff(chain / n / "update.diff") for n in "12")
    assert first.base != second.base
    seeds = [next(iter(d.changes.values())).seed for d in (first, second)]
    assert seeds[0] != seeds[1]
    record = json.loads((chain / "2" / "diff.json").read_text())
    assert record["generation"] == 2 and record["old_wer"] is not None
    assert record["words"] > 0 and record["old_words"] > 0
    start = partial(run_here, "train_releases.py")
    # Nothing is trained again.
    done = start(*arguments, *settings)
    assert "0 of 4 updates to train" in done.stdout
    fresh = [*arguments[:3], "--methods", "sparse", "--budgets", "7%"]
    for more, said in (
        (["--generations=0"], "--generations: expected 1 or more, got 0"),
        (["--jobs=0"], "--jobs: expected 1 or more, got 0"),
        (["--generations=6"], "6/train is not there; expected what"),
        (["--set", "find_epoch=2"], "unknown key 'find_epoch'"),
        ([f"--base={tmp_path}/nowhere"], "nowhere: no model"),
    ):
        done = start(*fresh, *more)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert "to train" not in done.stdout
    # Nor is it taken for an update of other weights, or made twice at once.
    (chain / "1" / "base.txt").write_text("another")
    done = start(*arguments, *settings)
    assert done.returncode == 2 and "of another base" in done.stderr
    done = start(*arguments[:3], "--budgets", "2%", "2")
    assert done.returncode == 2 and "asked for 2 times" in done.stderr
    done = start(*arguments[:3], "--methods", "magic")
    assert done.returncode == 2
    assert "expected some of full, sparse" in done.stderr
    done = start(*arguments[:3], "--budgets", "5%", "2 %%")
    assert done.returncode == 2
    assert "budget: expected a share of the model" in done.stderr
