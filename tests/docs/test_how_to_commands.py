"""docs/how-to-commands.md: its grammar is the file's and means what it says."""

import re
from pathlib import Path

import numpy as np
import pytest

from speechbrain_amnet.grammar import Grammar

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to-commands.md").read_text(encoding="utf-8")
FILE = ROOT / "recipes" / "LibriSpeech" / "grammars" / "lights.gram"


def test_the_rules_of_the_page_are_those_of_the_file():
    (shown,) = re.findall(r"^```\n(public .*?)^```$", PAGE, re.M | re.S)
    assert set(shown.splitlines()) <= set(FILE.read_text().splitlines())


@pytest.mark.parametrize(
    "words, intent, slots",
    [
        (
            "PLEASE DIM THE LIVING ROOM LIGHTS TO FORTY FIVE PERCENT",
            "dim",
            {"room": "LIVING ROOM", "level": "FORTY FIVE"},
        ),
        (
            "SWITCH OFF EVERYTHING",
            "switch",
            {"state": "OFF", "room": "EVERYTHING"},
        ),
        ("CANCEL THAT", "stop", {}),
        ("MAKE THE HALL EVERYTHING RED", None, {}),
    ],
)
def test_what_its_sentences_mean(words, intent, slots):
    assert tuple(Grammar.read(FILE).command(words)) == (words, intent, slots)


def test_there_are_sentences_for_every_split():
    grammar, random = Grammar.read(FILE), np.random.default_rng(0)
    assert len({grammar.draw(random).words for _ in range(5000)}) > 1000
