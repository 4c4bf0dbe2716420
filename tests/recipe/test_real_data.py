"""The same files train on other corpora; only data and splits are named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_amnet.corpus.manifest import read_commands, read_manifest
from speechbrain_amnet.corpus.prepare import prepare_librispeech
from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.slots import SCORES, score

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "LibriSpeech"
TINY = {
    "epochs": 1,
    "hidden_size": 32,
    "layers": 1,
    "predictor_size": 8,
    "joint_size": 8,
    "average_checkpoints": 1,
}


def run_alone(script, *arguments):
    """In a process of its own."""
    return subprocess.run(
        [sys.executable, str(RECIPE / script), *arguments],
        capture_output=True,
        text=True,
    )


def train(run, hparams, folder, *options, **values):
    """A tiny training; gives its results."""
    values = {"output_folder": folder / "run", **values}
    values = {**TINY, "data_folder": folder, **values}
    to_the_end(run, "train.py", hparams, *options, **values)
    return json.loads((values["output_folder"] / "results.json").read_text())


def to_the_end(run, script, hparams, *options, **values):
    """A program of the recipe."""
    done = run(
        script,
        str(ROOT / "hparams" / hparams),
        "--noprogressbar",
        *(f"--{key}={value}" for key, value in values.items()),
        *options,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def copy_some(voice, folder, count=4):
    """The first recordings of a voice."""
    shutil.copytree(voice, folder)
    for file in folder.rglob("*.trans.txt"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:count]))
        for line in lines[count:]:
            (file.parent / f"{line.split()[0]}.flac").unlink()


def test_the_grammar_of_the_coffee_commands(coffee, tmp_path):
    """Each command of train and dev is in it, and means what its label says."""
    manifests = prepare_librispeech(
        coffee, tmp_path, {"seen": ["train", "dev"]}
    )
    rows = read_manifest(manifests["seen"])
    commands = read_commands(rows)
    file = RECIPE / "grammars" / "coffee.gram"
    grammar = Grammar.read(file)
    found = [grammar.command(row["wrd"]) for row in rows]
    right = score([commands[row["ID"]] for row in rows], found)
    assert len(rows) == 424 and right["command_accuracy"] == 100


def test_commands_with_slots(coffee, tmp_path, run_here):
    for split, count in (("train", 2), ("dev", 1), ("test", 1)):
        (tmp_path / split).mkdir()
        for voice in sorted(
            p for p in (coffee / split).iterdir() if p.is_dir()
        )[:count]:
            copy_some(voice, tmp_path / split / voice.name)
        shutil.copy(coffee / split / "commands.jsonl", tmp_path / split)
    results = train(run_here, "amnet.yaml", tmp_path, dataset="coffee")
    assert results["data"] == "coffee" and results["words"] > 20
    # Nothing is learnt in an epoch, but it was looked for.
    assert results["commands_matched"] == pytest.approx(0, abs=50)
    assert results["command_accuracy"] is None
    words = tmp_path / "run"
    results = train(
        run_here,
        "commands.yaml",
        tmp_path,
        start_from=words,
        output_folder=tmp_path / "slots",
    )
    assert all(results[key] is not None for key in SCORES)
    # An update of it is measured in whole commands.
    out = tmp_path / "update"
    values = {"base": tmp_path / "slots", "budget": "5%", "output_folder": out}
    values |= {"find_epochs": 1, "tune_epochs": 1, "data_folder": tmp_path}
    values["halvings"] = 0
    options = ["diff_sparse.yaml", "--old_splits=[dev]"]
    to_the_end(run_here, "train_diff.py", *options, **values)
    record = json.loads((out / "diff.json").read_text())
    assert record["task"] == "slu"
    found = json.loads((out / "results.json").read_text())
    error = 100 - found["command_accuracy"]
    assert record["command_error"] == pytest.approx(error)
    assert 0 <= record["old_command_error"] <= 100
    old, new = (
        torch.load(folder / "model" / "joint.ckpt")
        for folder in (words, tmp_path / "slots")
    )
    name = "output.weight"
    assert len(old[name]) == 30 and len(new[name]) == 60
    # It began with the old rows and went on with them for an epoch.
    moved = (new[name][:30] - old[name]).norm() / old[name].norm()
    assert moved < 0.5


def test_strings_of_telephone_digits(digits, tmp_path):
    """8 kHz, splits of other names, and hparams of other speech."""
    names = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()
    wavs = sorted((digits / "recordings").glob("*.wav"))
    random = np.random.default_rng(0)
    for split, count in (
        ("train-clean-5", 12),
        ("dev-clean", 3),
        ("test-clean", 3),
    ):
        folder = tmp_path / split / "1" / "1"
        folder.mkdir(parents=True)
        lines = []
        for n in range(count):
            said = [wavs[i] for i in random.integers(len(wavs), size=3)]
            audio = [soundfile.read(wav)[0] for wav in said]
            name = f"1-1-{split}-{n}"
            soundfile.write(
                folder / f"{name}.flac", np.concatenate(audio), 8000
            )
            words = (names[int(wav.name[0])] for wav in said)
            lines.append(f"{name} {' '.join(words)}\n")
        (folder / "1-1.trans.txt").write_text("".join(lines))
    results = train(
        run_alone,
        "demo.yaml",
        tmp_path,
        "--train_splits=[train-clean-5]",
        "--valid_splits=[dev-clean]",
        "--test_splits=[test-clean]",
        "--token_type=char",
        "--resample=True",
        dataset="digits",
        tokens=30,
    )
    assert results["data"] == "digits" and results["words"] == 9
