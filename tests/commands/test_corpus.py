"""`amnet corpus` passes its arguments on."""

import json
from functools import partial

import numpy as np
import pytest

from speechbrain_amnet import cli
from speechbrain_amnet.corpus import releases, spoken
from speechbrain_amnet.grammar import Grammar


@pytest.fixture
def tone(monkeypatch):
    """A voice that is there at once."""
    said = 0.1 * np.arange(12000)
    monkeypatch.setattr(
        spoken, "_load_voice", lambda: lambda *_, **__: np.sin(said)
    )


def test_corpus_passes_its_arguments_on(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        spoken, "make_spoken_corpus", lambda *a, **k: calls.append((a, k))
    )
    out = tmp_path / "corpus"
    arguments = ["corpus", str(out), "--minutes", "2.5", "--seed", "7"]
    assert cli.main(arguments) == 0
    assert calls == [((out,), {"minutes": 2.5, "seed": 7})]


def test_a_corpus_with_its_releases(tone, tmp_path, monkeypatch, capsys):
    short = {"train": 0.05, "dev": 0.05, "test": 0.05}
    make = partial(releases.make_releases, release_minutes=short)
    monkeypatch.setattr(releases, "make_releases", make)
    out = tmp_path / "corpus"
    options = ["--releases", "--minutes=0.2", "--speakers=8", "--seed=7"]
    assert cli.main(["corpus", str(out), *options]) == 0
    for number in range(1, 6):
        text = (out / str(number) / "corpus.json").read_text()
        settings = json.loads(text)["settings"]
        assert settings["release"] == number and settings["seed"] == 7
        assert settings["base_minutes"] == 0.2 and settings["speakers"] == 8
    assert len(list((out / "base").rglob("*.flac"))) > 5


def test_a_corpus_of_a_grammar(tone, root, tmp_path, capsys):
    file = root / "recipes" / "LibriSpeech" / "grammars" / "lights.gram"
    out, grammar = tmp_path / "corpus", Grammar.read(file)
    options = [f"--grammar={file}", "--minutes=0.2", "--speakers=8"]
    assert cli.main(["corpus", str(out), *options]) == 0
    lines = "".join(p.read_text() for p in out.rglob("commands.jsonl"))
    records = list(map(json.loads, lines.splitlines()))
    assert len(records) > 3 and len({r["intent"] for r in records}) > 1
    for record in records:
        expected = (record["text"], record["intent"], record["slots"])
        assert grammar.command(record["text"]) == expected
    assert (out / "commands.gram").read_text() == file.read_text()


@pytest.mark.parametrize(
    "options, wrong",
    [
        (["--seed=-1"], "--seed: expected 0 or more, got -1"),
        (["--by=size"], "--by says nothing about the built-in corpus"),
        (["--fold=1/5"], "--fold says nothing"),
        (["--grammar=x", "--releases"], "--releases says nothing about sen"),
        (["--from=x", "--minutes=3"], "--minutes says nothing about releases"),
        (["--from=x", "--minutes=0"], "--minutes says nothing about releases"),
        (["--from=x", "--grammar=x"], "--grammar says nothing about releases"),
        (["--from=x", "--fold=1/5"], "--fold says nothing about releases by s"),
    ],
)
def test_options_that_say_nothing(options, wrong, tmp_path, capsys):
    assert cli.main(["corpus", str(tmp_path / "out"), *options]) == 2
    assert wrong in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
