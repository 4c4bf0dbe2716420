"""docs/how-to-new-words.md: its commands are there and take its options."""

import re
import shlex
from pathlib import Path

import pytest

from speechbrain_amnet.cli import build_parser
from speechbrain_amnet.corpus.releases import RELEASES
from speechbrain_amnet.hparams import load_hparams, parse_arguments

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to-new-words.md").read_text(encoding="utf-8")
CODE = "".join(re.findall(r"^```\n(.*?)^```$", PAGE, re.M | re.S))
COMMANDS = list(map(shlex.split, CODE.replace("\\\n", " ").splitlines()))


def test_the_first_release_brings_the_words():
    assert {"LEDECKY", "KALISZ"} <= RELEASES[0].words


@pytest.mark.parametrize(
    "words", [c for c in COMMANDS if c[0] == "amnet"], ids=" ".join
)
def test_commands_are_understood(words):
    assert build_parser().parse_args(words[1:]).run


@pytest.mark.parametrize(
    "words", [c for c in COMMANDS if ".yaml" in c[2]], ids=" ".join
)
def test_trainings_load(words, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT / "recipes" / "LibriSpeech")
    script, *options = words[1:]
    options = [o.replace("--base=", "--base_model=") for o in options]
    options = [o.replace("=results/", f"={tmp_path}/") for o in options]
    path, _, overrides = parse_arguments(options)
    hparams = load_hparams(path, overrides)
    assert hparams["data_folder"].startswith("corpus"), script


def test_nothing_else_is_run():
    scripts = {words[1] for words in COMMANDS if words[0] == "python"}
    assert scripts == {"train.py", "train_diff.py", "train_releases.py"}
