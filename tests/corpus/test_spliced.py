"""Recordings cut and joined: fewest pieces, nothing lost, new sentences."""

import json

import numpy as np
import pytest
import soundfile

from speechbrain_amnet import cli
from speechbrain_amnet.corpus import spliced
from speechbrain_amnet.corpus.align import RATE, Word
from speechbrain_amnet.corpus.prepare import prepare_librispeech
from speechbrain_amnet.corpus.spliced import Piece, Recording, cover, join

GRAMMAR = """#JSGF V1.0;
grammar drinks;
public <order> = [please] (a | one) <size> {size} <drink> {drink};
<size> = small | large;
<drink> = latte | mocha;
"""


def recording(text, path="", seconds=0.5):
    """Words of half a second each, after half a second of nothing."""
    words = [
        Word(word, seconds * n, seconds * (n + 1))
        for n, word in enumerate(text.split(), 1)
    ]
    return Recording(str(path), words)


def texts(pieces):
    return [" ".join(p.recording.texts[p.first : p.last]) for p in pieces]


def test_fewest_pieces():
    said = [recording(t) for t in ("A SMALL LATTE", "SMALL LATTE WITH MILK")]
    rng = np.random.default_rng(0)
    assert texts(cover("A SMALL LATTE WITH MILK".split(), said, rng)) in (
        ["A SMALL LATTE", "WITH MILK"],
        ["A", "SMALL LATTE WITH MILK"],
    )
    assert cover("A LARGE LATTE".split(), said, rng) == []


def test_a_piece_that_followed_the_same_word_is_preferred():
    said = [
        recording(t) for t in ("ONE LATTE", "SMALL MOCHA", "A SMALL", "MOCHA")
    ]
    for seed in range(9):
        rng = np.random.default_rng(seed)
        [_, piece] = cover("SMALL LATTE".split(), said[:3], rng)
        assert piece.recording is said[0]
        [_, piece] = cover("A MOCHA".split(), said[1:], rng)
        assert piece.recording in said[1::2]
        [piece] = cover(["MOCHA"], said[1:], rng)
        assert piece.recording is said[3]  # at its beginning, as here


@pytest.fixture
def files(tmp_path):
    """Two recordings, the second half as loud, both of noise."""
    rng = np.random.default_rng(0)
    made = []
    for loud in (0.1, 0.05):
        path = tmp_path / f"{loud}.wav"
        noise = loud * rng.standard_normal(3 * RATE)
        soundfile.write(path, noise, RATE, "FLOAT")
        made.append(recording("A SMALL LATTE", path))
    return made


def test_neighbours_give_the_recording_back(files):
    [one, _] = files
    audio, end = join([Piece(one, 0, 1), Piece(one, 1, 3)])
    whole, _ = soundfile.read(one.path, dtype="float32")
    assert end == pytest.approx(2.0, abs=1e-3)  # of 0.5 to 2.0, after 0.5
    np.testing.assert_allclose(audio, whole, atol=1e-6)


def test_every_piece_is_as_loud_as_the_first(files):
    one, other = files
    audio, end = join([Piece(one, 0, 1), Piece(other, 1, 3)])
    seconds = [
        np.std(audio[round(t * RATE) : round((t + 0.4) * RATE)])
        for t in (0.55, 1.05, 1.5)
    ]
    np.testing.assert_allclose(seconds, 0.1, rtol=0.05)
    assert end == pytest.approx(2.0, abs=0.05)


def test_a_cut_is_where_it_is_quiet(tmp_path):
    audio = np.full(3 * RATE, 0.1, np.float32)
    audio[round(0.98 * RATE) : round(0.99 * RATE)] = 0
    audio[round(1.2 * RATE) : round(1.4 * RATE)] = 0  # but too far away
    words = recording("A SMALL LATTE").words
    assert spliced.cut(audio, words, 1) == pytest.approx(0.985 * RATE, abs=2)


@pytest.fixture
def voices(monkeypatch, tmp_path):
    """Two voices, one of which never said enough; words are found at once."""
    rng = np.random.default_rng(0)
    said = {
        "7-b": ["A SMALL LATTE", "ONE LARGE MOCHA", "PLEASE A LARGE LATTE"],
        "8": ["A SMALL MOCHA"],
    }
    for voice, sentences in said.items():
        folder = tmp_path / "data" / "train" / voice / "1"
        folder.mkdir(parents=True)
        lines = ""
        for n, sentence in enumerate(sentences):
            noise = 0.1 * rng.standard_normal(3 * RATE)
            file = folder / f"{voice}-1-{n}.wav"
            soundfile.write(file, noise, RATE, "FLOAT" if n else "PCM_16")
            lines += f"{voice}-1-{n} {sentence}\n"
        (folder / f"{voice}-1.trans.txt").write_text(lines)

    class AtOnce:
        def unknown(self, text):
            return []

        def words(self, audio, text):
            assert audio.dtype == np.int16 and np.abs(audio).max() > 5000
            return recording(text).words

    monkeypatch.setattr(spliced, "Aligner", AtOnce)
    (tmp_path / "drinks.gram").write_text(GRAMMAR)
    return said


def run(folder, out, *more):
    arguments = [f"--grammar={folder}/drinks.gram", f"--from={folder}/data"]
    return cli.main(["corpus", str(folder / out), *arguments, *more])


def test_new_sentences_in_old_voices(voices, tmp_path, caplog):
    assert run(tmp_path, "more", "--minutes=0.5") == 0
    commands = [
        json.loads(line)
        for line in (tmp_path / "more/train/commands.jsonl").open()
    ]
    for command in commands:
        # Its voice says more than one sentence, and none of its own again.
        assert command["id"].startswith("7-b-")
        assert command["text"] not in voices["7-b"]
        assert command["intent"] == "order"
        assert set(command["slots"]) == {"size", "drink"}
    assert len({c["text"] for c in commands}) >= len(commands) / 2
    assert "8: has too few words" in caplog.text
    # A training reads it, beside the recordings themselves, and still more.
    assert run(tmp_path, "again", "--minutes=0.1", "--seed=1") == 0
    made = [str(tmp_path / name / "train") for name in ("more", "again")]
    paths = prepare_librispeech(
        tmp_path / "data", tmp_path / "manifests", {"x": ["train", *made]}
    )
    with open(paths["x"]) as file:
        assert len(file.readlines()) > 1 + 4 + len(commands)


def test_the_same_again(voices, tmp_path):
    for out in ("one", "other"):
        run(tmp_path, out, "--minutes=0.3")
    one, other = (
        {
            p.relative_to(tmp_path / out): p.read_bytes()
            for p in (tmp_path / out).rglob("*.*")
        }
        for out in ("one", "other")
    )
    assert one == other
    run(tmp_path, "third", "--minutes=0.3", "--seed=1")
    third = (tmp_path / "third/train/commands.jsonl").read_bytes()
    assert third != (tmp_path / "one/train/commands.jsonl").read_bytes()


def test_what_cannot_be_made_leaves_nothing(voices, tmp_path, capsys):
    assert run(tmp_path, "more", "--minutes=0") != 0
    assert "minutes" in capsys.readouterr().err
    (tmp_path / "drinks.gram").write_text(
        GRAMMAR.replace("(a | one)", "quite another")
    )
    assert run(tmp_path, "more") != 0
    assert "no voice of train" in capsys.readouterr().err
    (tmp_path / "more").mkdir()
    assert run(tmp_path, "more") != 0
    assert "is there already" in capsys.readouterr().err
    for option in ("--releases", "--by=size", "--fold=9/2"):
        assert run(tmp_path, "other", option) != 0
        assert "says nothing about words of rec" in capsys.readouterr().err
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"data", "drinks.gram", "more"}


def test_where_no_word_is_found(voices, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(spliced.Aligner, "words", lambda *_: [])
    monkeypatch.setattr(spliced.Aligner, "unknown", lambda *_: ["MOCHA"])
    assert run(tmp_path, "more") != 0
    said = capsys.readouterr().err
    assert "4 of 4 recordings are left out" in said
    assert "not in the dictionary: MOCHA" in said
