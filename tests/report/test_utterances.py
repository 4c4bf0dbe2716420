"""The picture of utterances, and what it says of runs that are incomplete."""

import json

import numpy as np
import pytest
import soundfile

from speechbrain_amnet.report import style, utterances


def test_utterances(runs, picture, has_color):
    run = runs.make("amnet")
    out = utterances.plot_utterances(run, "test")
    assert out == run / "utterances_test.png"
    pixels = picture(out)
    for color in (style.BRANCHES[0], style.BRANCHES[1], style.RED):
        assert has_color(pixels, color)
    assert not has_color(pixels, style.BRANCHES[2])


def test_utterances_of_a_single_branch(runs, tmp_path, picture, has_color):
    run = runs.make("full")
    pixels = picture(
        utterances.plot_utterances(run, "test", 1, tmp_path / "a.png")
    )
    assert not has_color(pixels, style.BRANCHES[1])


def test_chosen_are_short_median_long(runs):
    run = runs.make("amnet", errors=[0] * 5)
    read = utterances.read_frames(run, "test")
    assert [u["id"] for u in read] == ["u0", "u1", "u2", "u3", "u4"]
    assert utterances.spread(5, 3) == [0, 2, 4]
    assert utterances.spread(1000, 3) == [100, 500, 899]
    assert utterances.spread(5, 1) == [2]
    assert utterances.spread(10, 10) == list(range(10))
    assert utterances.spread(1, 3) == [0]


def test_what_is_drawn_of_an_utterance(runs):
    run = runs.make("amnet", errors=(1,), period=4)
    drawn = utterances.prepare(utterances.read_frames(run, "test")[0], run)
    assert drawn["end"] == pytest.approx(1.0)
    assert drawn["shares"] == pytest.approx([0.28, 0.72])
    assert drawn["limit"] == pytest.approx(1.0 + drawn["latency"] / 1000)
    assert [word for word, times, row in drawn["words"]] == ["LIGHTS", "ON"]
    assert len(drawn["words"][0][1]) == 6
    assert len(drawn["wave"]) == drawn["rate"] == 16000


def test_a_slow_device_has_its_words_later(runs):
    """The dense baseline's are out when it has caught up, not when spoken."""
    first, late = [
        utterances.prepare(utterances.read_frames(run, "test")[-1], run)
        for run in (runs.make("amnet", period=1000), runs.make("full"))
    ]
    word, times, _ = first["words"][-1]
    assert late["words"][-1][0] == word and times[-1] < first["end"]
    at = round(times[-1] / late["frame"] - 0.5)  # half a frame to encode it
    # Each of the frames before it took two durations, and so does its own.
    ready = (2 * at + 1) * late["frame"]
    assert late["words"][-1][1][-1] == pytest.approx(ready)


def test_words_from_subword_pieces():
    pieces = [("▁KIT", 1), ("CHEN", 3), ("▁", 4), ("▁ON", 5)]
    words = utterances.words_of(pieces, 0.04, [0.0, 0.02, 0.1, 0.5, 0.5, 0.5])
    assert [word for word, _ in words] == ["KITCHEN", "ON"]
    assert words[0][1] == pytest.approx([0.1, 0.66])


def test_words_are_those_of_the_hypothesis():
    """Without tags, and what is unknown is a word of its own."""
    pieces = [("▁GO", 0), ("<unk>", 1), ("<drink>", 2), ("S", 3), ("▁ON", 4)]
    words = utterances.words_of(pieces, 0.04, [0.0] * 5)
    assert [word for word, _ in words] == ["GO", "⁇", "S", "ON"]


def test_odd_texts_are_drawn_as_they_are(runs, picture):
    run = runs.make("amnet")
    frames = run / "frames_test.jsonl"
    # A dollar is not mathematics, U+2028 no end of a line.
    text = frames.read_text(encoding="utf-8").replace("O", "$^\u2028$")
    frames.write_text(text, encoding="utf-8")
    picture(utterances.plot_utterances(run, "test"))


def test_damaged_audio_is_named(runs):
    run = runs.make("amnet")
    wav = runs.audio / "u4.wav"
    kept = wav.read_bytes()
    for content in (kept[:20], kept[:44]):
        wav.write_bytes(content)
        with pytest.raises(ValueError, match="u4.wav: .*audio"):
            utterances.plot_utterances(run, "test")
    soundfile.write(wav, np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="u4.wav: .* NaN"):
        utterances.plot_utterances(run, "test")
    wav.write_bytes(kept)


def test_rows_of_words_follow_the_length_of_the_axis(runs):
    run = runs.make("amnet")
    frames = utterances.read_frames(run, "test")[3]
    wide = utterances.prepare(frames, run)
    narrow = utterances.prepare(frames, run, limit=50 * wide["limit"])
    assert narrow["limit"] == 50 * wide["limit"]
    assert narrow["rows"] > wide["rows"]


def test_words_at_one_place_are_stacked():
    assert utterances.stack([("WORD", 1.0, 1.0)] * 3) == [0, 1, 2]
    assert utterances.stack([("WORD", 1.0, 1.0), ("WORD", 2.0, 2.0)]) == [0, 0]
    assert utterances.stack([]) == []


def test_nothing_found_is_drawn_too(runs, picture):
    picture(utterances.plot_utterances(runs.make("amnet", errors=(3,)), "test"))


def test_utterances_of_a_run_that_is_incomplete(runs):
    run = runs.make("amnet")
    with pytest.raises(FileNotFoundError, match="evaluate the run on dev"):
        utterances.plot_utterances(run, "dev")
    frames = run / "frames_test.jsonl"
    lines = frames.read_text().splitlines()
    frames.write_text("\n".join([lines[0], lines[1][:50]]))
    with pytest.raises(ValueError, match="line 2, is incomplete"):
        utterances.plot_utterances(run, "test")
    empty = {"branch": "", "backlog_ms": [], "wait_ms": []}
    for part in ({"branch": "01"}, {"branch": ""}, {"backlog_ms": []}, empty):
        frames.write_text(json.dumps({**json.loads(lines[0]), **part}))
        with pytest.raises(ValueError, match="differ in length"):
            utterances.plot_utterances(run, "test")
    frames.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        utterances.plot_utterances(run, "test")
    frames.write_text("\n".join(lines))
    (runs.audio / "u4.wav").unlink()
    with pytest.raises(FileNotFoundError, match="audio of u4 is no longer"):
        utterances.plot_utterances(run, "test")
    assert not list(run.glob("*.png*"))
