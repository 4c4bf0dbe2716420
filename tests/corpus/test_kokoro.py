"""Many voices: whose they are, and what the synthesizer is asked for."""

import json
import os
import sys
import types

import numpy as np
import pytest

from speechbrain_amnet import cli
from speechbrain_amnet.corpus import CorpusError, make_spoken_corpus
from speechbrain_amnet.corpus import spoken as module
from speechbrain_amnet.corpus.kokoro import Kokoro, blends
from speechbrain_amnet.corpus.spoken import split_speakers
from speechbrain_amnet.corpus.voices import make_speakers

ENGLISH = [f"{kind}_{n}" for kind in ("af", "am", "bf", "bm") for n in "abcd"]
OTHERS = [f"{kind}_{n}" for kind in ("ef", "hm", "zf") for n in "abcd"]


def names_of(speakers):
    return {name for one in speakers for name in one.blend}


@pytest.fixture
def people():
    return split_speakers(make_speakers(0, 64))


def test_no_voice_is_in_two_splits(people):
    found = blends(people, ENGLISH + OTHERS, 0)
    splits = [names_of(found[split]) for split in people]
    assert sum(map(len, splits)) == len(set().union(*splits))
    assert set().union(*splits) == {*ENGLISH, *OTHERS}
    for split, speakers in people.items():
        assert [s.number for s in found[split]] == [s.number for s in speakers]


def test_an_english_voice_has_at_least_half_of_a_speaker(people):
    for speakers in blends(people, ENGLISH + OTHERS, 0).values():
        for one in speakers:
            first, *more = one.blend
            assert first in ENGLISH and one.blend[first] >= 0.5
            assert len(more) <= 1 and sum(one.blend.values()) == pytest.approx(
                1
            )


def test_the_seed_chooses_and_the_order_of_names_does_not(people):
    one = blends(people, ENGLISH + OTHERS, 0)
    assert blends(people, OTHERS + ENGLISH[::-1], 0) == one
    assert blends(people, ENGLISH + OTHERS, 1) != one


def test_too_few_english_voices(people):
    with pytest.raises(ValueError, match="for each of test, dev, train"):
        blends(people, ["af_a", "zf_a", "zf_b", "zf_c"], 0)


# The synthesizer ----------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "kokoro").mkdir()
    for name in ("kokoro-v1.0.int8.onnx", "voices-v1.0.bin"):
        (tmp_path / "kokoro" / name).touch()
    return tmp_path / "kokoro"


@pytest.fixture
def asked(monkeypatch):
    """What Kokoro is asked for; its voices are numbers."""
    calls = []

    class Fake:
        from_session = classmethod(lambda cls, session, voices: cls())

        def get_voices(self):
            return ENGLISH + OTHERS

        def get_voice_style(self, name):
            return np.full((3, 1, 4), ord(name[-1]) - ord("a"), np.float32)

        def create(self, text, **options):
            calls.append({"text": text, **options})
            return np.sin(np.arange(12000) * 0.1).astype(np.float32), 24000

    runtime = types.ModuleType("onnxruntime")
    runtime.SessionOptions = types.SimpleNamespace
    runtime.InferenceSession = lambda *arguments, **options: None
    kokoro = types.ModuleType("kokoro_onnx")
    kokoro.Kokoro = Fake
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setitem(sys.modules, "kokoro_onnx", kokoro)
    return calls


def test_a_style_between_two(asked, folder):
    voice = Kokoro(folder)
    blend = {"bf_b": 0.75, "zf_d": 0.25}
    audio = voice("A LATTE.", speed=5.0, seed=1, blend=blend)
    assert audio.dtype == np.float32 and len(audio) == 12000
    (call,) = asked
    assert call["text"] == "A LATTE." and call["lang"] == "en-gb"
    assert call["speed"] == 2.0  # the most it can do
    assert call["voice"].dtype == np.float32
    assert (call["voice"] == 0.75 * 1 + 0.25 * 3).all()


def test_files_that_are_missing_or_ambiguous(asked, folder):
    (folder / "kokoro-v1.0.onnx").touch()
    with pytest.raises(ValueError, match="one file kokoro-.*, found 2"):
        Kokoro(folder)
    (folder / "kokoro-v1.0.onnx").unlink()
    (folder / "voices-v1.0.bin").unlink()
    with pytest.raises(ValueError, match="one file voices-.*, found 0"):
        Kokoro(folder)


def test_the_package_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "kokoro_onnx", None)
    with pytest.raises(ValueError, match=r"speechbrain_amnet\[voices\]"):
        Kokoro(folder)


def test_a_corpus_of_many_voices(asked, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module.metadata, "version", lambda name: f"{name} 1")
    out = tmp_path / "corpus"
    command = ["corpus", str(out), "--minutes=0.2", "--speakers=8"]
    command.append(f"--voices={folder}")
    assert cli.main(command) == 0
    settings = json.loads((out / "corpus.json").read_text())["settings"]
    assert settings["voices"] == [
        ["kokoro-v1.0.int8.onnx", 0],
        ["voices-v1.0.bin", 0],
    ]
    assert settings["speakers"] == 8 and len(asked) > 3
    assert settings["versions"]["kokoro-onnx"] == "kokoro-onnx 1"
    assert "hibari-tts" not in settings["versions"]
    assert len({call["voice"].tobytes() for call in asked}) > 2
    said = len(asked)
    assert cli.main(command) == 0 and len(asked) == said  # it is there
    (folder / "voices-v1.0.bin").write_text("others")
    assert cli.main(command) == 0 and len(asked) > said


def test_a_corpus_names_what_is_wrong(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kokoro_onnx", None)
    with pytest.raises(CorpusError, match="many voices need kokoro-onnx"):
        make_spoken_corpus(tmp_path / "corpus", voices=folder)
    command = ["corpus", str(tmp_path / "corpus"), f"--voices={folder}"]
    assert cli.main([*command, "--releases"]) == 2
    assert "--voices says nothing about releases" in capsys.readouterr().err
    assert not (tmp_path / "corpus").exists()


@pytest.mark.skipif(
    "AMNET_KOKORO" not in os.environ,
    reason="AMNET_KOKORO names no folder with Kokoro's model and voices",
)
def test_the_real_one_has_other_voices():
    pytest.importorskip("kokoro_onnx")
    voice = Kokoro(os.environ["AMNET_KOKORO"])
    said = [
        voice("one latte", speed=1.0, seed=0, blend=blend)
        for blend in ({"af_sky": 1.0}, {"af_sky": 0.5, "am_puck": 0.5})
    ]
    assert all(0.3 < len(audio) / 24000 < 3 for audio in said)
    assert len(said[0]) != len(said[1]) or (said[0] != said[1]).any()
