"""Releases bring what was not there, and little of what was."""

import json

import numpy as np
import pytest
import soundfile

from speechbrain_amnet.corpus import CorpusError, prepare_librispeech
from speechbrain_amnet.corpus import spoken as module
from speechbrain_amnet.corpus.grammar import TEMPLATES, vocabulary
from speechbrain_amnet.corpus.releases import (
    RELEASES,
    grammar_after,
    make_releases,
    sample_new,
)
from speechbrain_amnet.grammar import Grammar

MINUTES = {"train": 0.3, "dev": 0.1, "test": 0.1}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Releases that are spoken as tones."""

    def tone(words, speed, seed):
        return np.sin(np.arange(12000) * 0.1).astype(np.float32)

    monkeypatch.setattr(module, "_load_voice", lambda: tone)
    return make_releases(tmp_path / "r", 1.0, MINUTES, speakers=8)


def commands(folder):
    lines = (folder / "commands.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_words_and_intents_are_new_each_time():
    seen, intents = vocabulary(), set(TEMPLATES)
    for release in RELEASES:
        assert len(release.words) >= 8
        assert not release.words & (seen - vocabulary())
        assert len(release.templates) == 2
        assert not intents & set(release.templates)
        seen |= release.words
        intents |= set(release.templates)
    assert {"LEDECKY", "KALISZ"} <= RELEASES[0].words


@pytest.mark.parametrize("release", RELEASES)
def test_every_new_word_is_said_and_is_in_every_sentence(release):
    rng, heard, new = np.random.default_rng(0), set(), 0
    for _ in range(600):
        sentence = sample_new(rng, release)
        words = set(sentence.text.split()) & release.words
        assert words
        heard |= words
        new += sentence.intent in release.templates
        assert all(slot in sentence.text for slot in sentence.slots.values())
    assert heard == release.words
    assert 200 < new < 400


@pytest.mark.parametrize("number", range(1, len(RELEASES) + 1))
def test_the_grammar_of_a_release_knows_what_is_said_by_then(number):
    grammar = Grammar(grammar_after(number))
    rng = np.random.default_rng(0)
    for release in RELEASES[:number]:
        for _ in range(100):
            sentence = sample_new(rng, release)
            _, intent, slots = grammar.command(sentence.text)
            assert (intent, slots) == (sentence.intent, sentence.slots)
    if number < len(RELEASES):
        later = sample_new(rng, RELEASES[number])
        assert grammar.command(later.text).intent is None


def test_each_folder_has_its_grammar(made):
    for name in ("base", *map(str, range(1, 6))):
        grammar = Grammar.read(made / name / "commands.gram")
        for split in ("train", "dev", "test"):
            for command in commands(made / name / split):
                found = grammar.command(command["text"])
                assert found.intent == command["intent"]
                assert found.slots == command["slots"]


def test_releases_are_spoken_by_old_voices_and_a_new_one(made):
    old = {c["id"].split("-")[0] for s in ("train", "dev", "test")
           for c in commands(made / "base" / s)}  # fmt: skip
    for number in range(1, 6):
        people = {
            split: {
                c["id"].split("-")[0]
                for c in commands(made / str(number) / split)
            }
            for split in MINUTES
        }
        for split, some in people.items():
            assert some - old <= {f"90{number}"}, split
        assert f"90{number}" in people["train"]
        texts = [
            {c["text"] for c in commands(made / str(number) / split)}
            for split in MINUTES
        ]
        assert not texts[0] & texts[1] and not texts[0] & texts[2]


def test_replay_is_of_before(made):
    for number in range(1, 6):
        before = {c["text"] for c in commands(made / "base" / "train")}
        for earlier in range(1, number):
            before |= {
                c["text"] for c in commands(made / str(earlier) / "train")
            }
        folder = made / str(number)
        again = commands(folder / "replay")
        assert {c["text"] for c in again} <= before
        assert len({c["id"] for c in again}) == len(again)
        seconds = sum(
            soundfile.info(f).duration
            for f in (folder / "replay").rglob("*.flac")
        )
        assert 0 <= seconds - 60 * MINUTES["train"] < 15
        # As much of each release as of the base.
        names = ["base", *map(str, range(1, number))]
        counts = [
            len({c["id"] for c in again}
                & {c["id"] for c in commands(made / n / "train")})
            for n in names
        ]  # fmt: skip
        assert max(counts) - min(counts) <= 1


def test_releases_are_prepared_and_made_once(made, tmp_path, monkeypatch):
    splits = {
        "train": ["2/train", "2/replay"],
        "old": ["base/test", "1/test"],
    }
    prepare_librispeech(made, tmp_path / "csv", splits)
    rows = (tmp_path / "csv" / "train.csv").read_text().splitlines()
    both = commands(made / "2" / "train") + commands(made / "2" / "replay")
    assert len(rows) == 1 + len(both)
    monkeypatch.setattr(module, "_speak", lambda *_: pytest.fail("again"))
    make_releases(made, 1.0, MINUTES, speakers=8)


def test_minutes_must_make_sense(tmp_path):
    with pytest.raises(CorpusError, match="test: expected minutes above 0"):
        make_releases(tmp_path / "r", 1.0, {"test": 0})


def test_a_corpus_and_releases_have_folders_of_their_own(made, tmp_path):
    corpus = module.make_spoken_corpus(tmp_path / "plain", 0.1, speakers=8)
    with pytest.raises(CorpusError, match="is a corpus of its own"):
        make_releases(corpus, 1.0, MINUTES, speakers=8)
    assert not (corpus / "base").exists()
    # What lies in a corpus is not lost when another one is asked for.
    (corpus / "base").mkdir()
    with pytest.raises(CorpusError, match="plain: has base, not of this"):
        module.make_spoken_corpus(corpus, 0.2, speakers=8)
    assert (corpus / "base").is_dir()
