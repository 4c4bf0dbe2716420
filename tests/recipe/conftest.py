"""The recipe as a module, and a corpus of tones, made in a second."""

import importlib
import logging
import os
import random
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_amnet import evaluation, files
from speechbrain_amnet.cli import run_script

WORDS = ["DO", "RE", "MI", "FA", "SO"]

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "LibriSpeech"


@pytest.fixture
def train(monkeypatch):
    """The training script."""
    monkeypatch.syspath_prepend(str(RECIPE))
    monkeypatch.delitem(sys.modules, "train", raising=False)
    return importlib.import_module("train")


@contextmanager
def as_before():
    """What a process takes with it when it ends: seeds, threads, claims."""
    threads, claimed = torch.get_num_threads(), set(files.CLAIMED)
    numbers = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])
        torch.set_rng_state(numbers[2])
        torch.set_num_threads(threads)
        for one in set(files.CLAIMED) - claimed:
            os.close(files.CLAIMED.pop(one))


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Runs a script of the recipe without the seconds of a new Python.

    What streaming takes is not measured, which would take a process each time.
    """
    times = {"real_time_factor": 0.1, "peak_memory_mb": 9.0}
    monkeypatch.setattr(evaluation, "measure_stream", lambda *some: times)

    def run_here(script, *arguments):
        monkeypatch.syspath_prepend(str(RECIPE))
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # and back
        main = importlib.import_module(script.removesuffix(".py")).main
        root = logging.getLogger()
        before, level, code = list(root.handlers), root.level, 0
        monkeypatch.setenv("SB_LOG_LEVEL", os.environ.get("SB_LOG_LEVEL", ""))
        capsys.readouterr()
        try:
            with as_before():
                run_script(script, main)
        except SystemExit as ended:
            code = ended.code
        finally:  # SpeechBrain's handlers write to what is captured
            for handler in set(root.handlers) - set(before):
                handler.close()
            root.handlers[:] = before
            root.setLevel(level)
        said = capsys.readouterr()
        return SimpleNamespace(
            returncode=code, stdout=said.out, stderr=said.err
        )

    return run_here


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """LibriSpeech layout; a word is a tone of its own pitch."""
    root = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("dev", 3), ("test", 3)):
        folder = root / split / "1" / "1"
        folder.mkdir(parents=True)
        lines = []
        for n in range(count):
            said = rng.integers(len(WORDS), size=rng.integers(1, 4))
            time = np.arange(4000) / 16000
            audio = np.concatenate(
                [np.sin(2 * np.pi * 200 * (2 + w) * time) for w in said]
            )
            audio = 0.3 * audio + 0.01 * rng.normal(size=len(audio))
            name = f"1-1-{n:04d}"
            soundfile.write(folder / f"{name}.flac", audio, 16000)
            lines.append(f"{name} {' '.join(WORDS[w] for w in said)}\n")
        (folder / "1-1.trans.txt").write_text("".join(lines))
    return root
