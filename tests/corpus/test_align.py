"""Words in recordings: where they are, and what cannot be found."""

import sys

import numpy as np
import pytest

from speechbrain_amnet.corpus.align import RATE, Aligner
from speechbrain_amnet.corpus.voices import make_speakers, utter


@pytest.fixture(scope="module")
def aligner():
    pytest.importorskip("pocketsphinx")
    return Aligner()


@pytest.fixture(scope="module")
def speech():
    """Two phrases with a long pause between them."""
    voice = pytest.importorskip("hibari").Hibari(threads=1)
    [speaker, *_] = make_speakers(0, 3)
    rng = np.random.default_rng(0)
    one, _ = utter(voice, ["A LARGE LATTE"], speaker, rng)
    other, _ = utter(voice, ["WITH SOME MILK"], speaker, rng)
    pause = np.zeros(RATE, one.dtype)
    audio = np.concatenate([one, pause, other])
    return (32767 * audio).astype(np.int16), len(one) / RATE


def test_words_follow_each_other_around_the_pause(aligner, speech):
    audio, pause = speech
    words = aligner.words(audio, "A LARGE LATTE WITH SOME MILK")
    said = [word.text for word in words]
    assert said == "A LARGE LATTE WITH SOME MILK".split()
    times = [t for word in words for t in (word.start, word.end)]
    assert times == sorted(times)
    assert words[2].end <= pause + 0.2
    assert words[3].start >= pause + 0.8
    assert times[-1] <= len(audio) / RATE


def test_one_recording_after_the_other(aligner, speech):
    audio, _ = speech
    text = "A LARGE LATTE WITH SOME MILK"
    first = aligner.words(audio, text)
    aligner.words(audio[: len(audio) // 2], "A LARGE LATTE")
    assert aligner.words(audio, text) == first


def test_a_transcript_that_is_not_said_is_not_found(aligner):
    too_short = np.zeros(800, np.int16)
    assert aligner.words(too_short, "A LARGE LATTE WITH SOME MILK") == []


def test_words_of_no_dictionary(aligner):
    assert aligner.unknown("A FLIBBERTY LATTE") == ["FLIBBERTY"]


def test_without_pocketsphinx(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ValueError, match=r"speechbrain_amnet\[align\]"):
        Aligner()
