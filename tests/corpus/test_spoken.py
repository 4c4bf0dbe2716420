"""The built-in corpus: the same bytes, apart by split, whole or made again."""

import json
import shutil
import sys

import numpy as np
import pytest
import soundfile

from speechbrain_amnet.corpus import (
    CorpusError,
    make_spoken_corpus,
    prepare_librispeech,
)
from speechbrain_amnet.corpus import spoken as module
from speechbrain_amnet.grammar import Grammar

MINUTES = 0.3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("hibari", reason="hibari-tts is not installed")
    folder = tmp_path_factory.mktemp("corpus") / "spoken"
    return make_spoken_corpus(folder, minutes=MINUTES, speakers=8)


@pytest.fixture
def corpus(made, tmp_path):
    return shutil.copytree(made, tmp_path / "spoken")


@pytest.fixture
def spy(monkeypatch):
    """Counts makings, with a synthesiser that says a short tone."""
    calls = []

    def speak(*arguments):
        calls.append(arguments)
        return original(*arguments)

    def tone(words, speed, seed):
        return np.sin(np.arange(12000) * 0.1).astype(np.float32)

    original = module._speak
    monkeypatch.setattr(module, "_speak", speak)
    monkeypatch.setattr(module, "_load_voice", lambda: tone)
    return calls


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def commands(folder, split):
    lines = (folder / split / "commands.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def audio_of(folder, split, name):
    path = folder / split / name.split("-")[0] / "1" / f"{name}.flac"
    return soundfile.read(path)


def test_same_seed_same_bytes(made, tmp_path):
    again = make_spoken_corpus(tmp_path / "b", minutes=MINUTES, speakers=8)
    assert contents(again) == contents(made)


def test_another_seed_other_sentences(made, tmp_path, spy):
    other = make_spoken_corpus(tmp_path / "b", MINUTES, seed=1, speakers=8)
    assert commands(other, "train")[0] != commands(made, "train")[0]


def test_an_utterance_does_not_depend_on_those_before_it(tmp_path, spy):
    short = make_spoken_corpus(tmp_path / "a", minutes=0.2)
    long = make_spoken_corpus(tmp_path / "b", minutes=0.5)
    few, many = commands(short, "train"), commands(long, "train")
    assert len(few) < len(many)
    assert many[: len(few)] == few


def test_splits_share_no_speaker_and_no_sentence(tmp_path, spy):
    corpus = make_spoken_corpus(tmp_path / "a", minutes=4)
    for key in (lambda c: c["id"].split("-")[0], lambda c: c["text"]):
        train, dev, test = (
            {key(c) for c in commands(corpus, split)}
            for split in ("train", "dev", "test")
        )
        assert train and dev and test
        assert not (train & dev or train & test or dev & test)


def test_minutes_and_shares(tmp_path, spy):
    corpus = make_spoken_corpus(tmp_path / "a", minutes=4)
    splits = json.loads((corpus / "corpus.json").read_text())["splits"]
    minutes = {split: told["minutes"] for split, told in splits.items()}
    for split, share in {"train": 0.85, "dev": 0.07, "test": 0.08}.items():
        assert minutes[split] == pytest.approx(4 * share, abs=0.1)


def test_sentences_of_a_grammar(tmp_path, spy):
    """And another grammar makes it again."""
    text = "public <go> = (a|b|c|d|e|f) {x} (k|l|m|n|o) {y} (g|h);"
    text = f"#JSGF V1.0; grammar g; {text}"
    grammar, out = Grammar(text), tmp_path / "spoken"
    for calls in (1, 1):
        make_spoken_corpus(out, minutes=1, speakers=8, grammar=grammar)
        assert len(spy) == calls
    seen = set()
    for split in ("train", "dev", "test"):
        found = commands(out, split)
        for one in found:
            said = grammar.command(one["text"])
            assert said.intent == one["intent"] == "go"
            assert said.slots == one["slots"] and set(said.slots) == {"x", "y"}
        texts = {one["text"] for one in found}
        assert not texts & seen
        seen |= texts
        # No name of the built-in corpus, with which it may be trained.
        assert all(int(one["id"].split("-")[1]) >= 1000 for one in found)
    assert len(seen) > 30  # of 60
    other = Grammar(text.replace("(g|h)", "(g|i)"))
    make_spoken_corpus(out, minutes=1, speakers=8, grammar=other)
    assert len(spy) == 2
    few = Grammar("#JSGF V1.0; grammar g; public <go> = a | b;")
    with pytest.raises(CorpusError, match="the grammar has too few of them"):
        make_spoken_corpus(tmp_path / "few", 1, speakers=8, grammar=few)
    assert not (tmp_path / "few").exists()


def test_a_short_intent_of_a_grammar_is_not_said_all_the_time(tmp_path, spy):
    text = (
        "#JSGF V1.0; grammar g; public <stop> = stop;"
        "public <go> = (a|b|c|d|e|f) {x} (k|l|m|n|o) {y} (g|h);"
    )
    out = make_spoken_corpus(tmp_path / "a", 2, grammar=Grammar(text))
    splits = [commands(out, split) for split in ("train", "dev", "test")]
    every = max(splits, key=lambda one: any(c["text"] == "STOP" for c in one))
    intents = [one["intent"] for one in every]
    # By chance it would be half of its split.
    assert 0 < intents.count("stop") < len(intents) / 4


def test_no_two_speakers_are_alike():
    speakers = module.make_speakers(0, 48)
    for ratio in ("pitch", "pace"):
        values = sorted(getattr(speaker, ratio) for speaker in speakers)
        assert np.diff(values).min() > 0
    parts = module.split_speakers(speakers)
    assert {k: len(v) for k, v in parts.items()} == {
        "train": 36,
        "dev": 6,
        "test": 6,
    }


def test_audio_is_16_khz_pcm_16_and_in_range(made):
    paths = list(made.rglob("*.flac"))
    assert len(paths) >= 3
    for path in paths:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert (info.format, info.subtype) == ("FLAC", "PCM_16")
        assert 0.05 < np.abs(soundfile.read(path)[0]).max() < 0.9


def test_speech_ends_where_it_says(made):
    for command in commands(made, "train"):
        samples, rate = audio_of(made, "train", command["id"])
        end = round(command["speech_end"] * rate)
        assert 0.2 <= len(samples) / rate - command["speech_end"] <= 1.0
        speech = np.mean(samples[:end] ** 2)
        last = np.mean(samples[end - rate // 5 : end] ** 2)
        after = np.mean(samples[end:] ** 2)
        assert after < 0.05 * speech
        assert after < 0.5 * last


def test_commands_and_manifest_agree(made, tmp_path):
    paths = prepare_librispeech(made, tmp_path, {"train": ["train"]})
    with open(paths["train"]) as file:
        lines = [line.rstrip().split(",") for line in file][1:]
    told = {c["id"]: c for c in commands(made, "train")}
    assert {line[0]: line[-1] for line in lines} == {
        name: command["text"] for name, command in told.items()
    }
    for command in told.values():
        assert set(command) == {"id", "text", "intent", "slots", "speech_end"}


def test_a_whole_corpus_is_left_alone(corpus, spy):
    before = contents(corpus)
    make_spoken_corpus(corpus, minutes=MINUTES, speakers=8)
    assert not spy
    assert contents(corpus) == before


def marker_gone(corpus):
    (corpus / "corpus.json").unlink()


def marker_broken(corpus):
    (corpus / "corpus.json").write_text("{")


def audio_gone(corpus):
    next(corpus.rglob("*.flac")).unlink()


def audio_cut(corpus):
    path = next(corpus.rglob("*.flac"))
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    "damage", [marker_gone, marker_broken, audio_gone, audio_cut]
)
def test_a_half_made_corpus_is_made_again(corpus, spy, damage):
    damage(corpus)
    make_spoken_corpus(corpus, minutes=MINUTES, speakers=8)
    assert len(spy) == 1
    make_spoken_corpus(corpus, minutes=MINUTES, speakers=8)
    assert len(spy) == 1
    assert [p.name for p in corpus.parent.iterdir()] == ["spoken"]


@pytest.mark.parametrize(
    "other", [{"minutes": 0.2}, {"seed": 1}, {"speakers": 9}]
)
def test_other_settings_make_it_again(corpus, spy, other):
    settings = {"minutes": MINUTES, "seed": 0, "speakers": 8, **other}
    make_spoken_corpus(corpus, **settings)
    assert len(spy) == 1


def test_an_interrupted_making_is_made_again(tmp_path, spy, monkeypatch):
    out = tmp_path / "a"
    with monkeypatch.context() as patch:
        flac = module.flac
        made = []

        def fails(audio):
            made.append(audio)
            if len(made) == 3:
                raise OSError(28, "No space left on device")
            return flac(audio)

        patch.setattr(module, "flac", fails)
        with pytest.raises(CorpusError, match="No space left"):
            make_spoken_corpus(out, minutes=MINUTES)
    assert not out.exists()
    make_spoken_corpus(out, minutes=MINUTES)
    assert (out / "corpus.json").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_somebody_else_is_refused(tmp_path, spy):
    mine = tmp_path / "thesis.tex"
    mine.write_text("years of work")
    with pytest.raises(CorpusError, match=str(tmp_path)):
        make_spoken_corpus(tmp_path, minutes=MINUTES)
    with pytest.raises(CorpusError, match="thesis"):
        make_spoken_corpus(mine, minutes=MINUTES)
    aside = tmp_path / "out.part"
    aside.mkdir()
    (aside / "data").write_text("precious")
    with pytest.raises(CorpusError, match="out.part"):
        make_spoken_corpus(tmp_path / "out", minutes=MINUTES)
    assert mine.read_text() == "years of work"
    assert (aside / "data").read_text() == "precious"


@pytest.mark.parametrize("mine", ["my.gram", "train/notes.txt", "a/b.txt"])
def test_what_a_user_put_into_a_corpus_is_kept(corpus, spy, mine):
    (corpus / mine).parent.mkdir(exist_ok=True)
    (corpus / mine).write_text("work")
    with pytest.raises(CorpusError, match=f"has {mine.split('/b')[0]}.* move"):
        make_spoken_corpus(corpus, minutes=MINUTES, speakers=9)
    assert (corpus / mine).read_text() == "work" and not spy


def test_an_empty_folder_is_welcome(tmp_path, spy):
    make_spoken_corpus(tmp_path / "a", minutes=0.05)
    (tmp_path / "b").mkdir()
    make_spoken_corpus(tmp_path / "b", minutes=0.05)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_that_make_no_sense(tmp_path, minutes):
    with pytest.raises(CorpusError, match="minutes"):
        make_spoken_corpus(tmp_path / "a", minutes=minutes)


def test_too_few_speakers(tmp_path):
    with pytest.raises(CorpusError, match="speakers"):
        make_spoken_corpus(tmp_path / "a", speakers=2)


def test_without_the_synthesiser(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(CorpusError, match=r"speechbrain_amnet\[demo\]"):
        make_spoken_corpus(tmp_path / "a")
