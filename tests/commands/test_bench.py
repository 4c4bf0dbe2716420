"""`amnet bench`: what it prints, and what it refuses."""

import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from speechbrain_amnet import cli
from speechbrain_amnet.commands import bench
from speechbrain_amnet.inference import load
from speechbrain_amnet.report.figures import read_figures
from speechbrain_amnet.runtime import live, speed
from speechbrain_amnet.runtime.convert import pack
from speechbrain_amnet.runtime.recogniser import Recogniser

SECONDS = [0.012, 0.002]  # that a frame of each branch computes


@pytest.fixture
def model(run, clock, clocks, monkeypatch):
    """One whose frames take the time of a clock that passes by itself."""
    model = Recogniser(pack(load(run, run_opts={"device": "cpu"})))
    step = model.encoder.step

    def encode(x, branch, cells):
        clock.now += SECONDS[branch]
        return step(x, branch, cells)

    monkeypatch.setattr(model.encoder, "step", encode)
    monkeypatch.setattr(bench, "find_model", lambda path: model)
    monkeypatch.setattr(live, "run_live", partial(live.run_live, **clocks))
    return model


@pytest.fixture
def wavs(tmp_path):
    """Two recordings, 9 seconds together."""
    paths = [tmp_path / "one.wav", tmp_path / "two.wav"]
    random = np.random.default_rng(0)
    for path, count in zip(paths, (112000, 32000)):
        soundfile.write(path, 0.1 * random.standard_normal(count), 16000)
    return list(map(str, paths))


@pytest.fixture
def shown(capsys):
    """Runs the command; its lines by their first words."""

    def show(*words):
        assert cli.main(["bench", "RUN", *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        found = {line.split()[0]: line for line in lines}
        assert len(found) == len(lines)
        return found, lines[-1]

    return show


def figures(line):
    return list(map(float, line.split()[-4:]))


def test_measured_beside_reckoned(model, wavs, shown):
    lines, last = shown(*wavs, "--load=2")
    # A dense frame of 40 ms takes 80; the cheap one a sixth, as before.
    share = model.branch_flops[0] / model.dense_flops
    for branch, once in (("dense", 12), ("cheap", 2)):
        *_, first, held = map(float, lines[branch].split()[1:])
        assert first == pytest.approx(once)
        assert held == pytest.approx(once * 80 * share / 12, rel=0.01)
    measured, reckoned = figures(lines["measured"]), figures(lines["reckoned"])
    assert measured == pytest.approx(reckoned, abs=4) and measured[0] > 10
    assert "half" not in lines
    assert last.startswith("9.0 s of audio, 2 recordings: encoded")
    assert last.endswith("taking 2.00 frame durations.")


def test_published(model, wavs, shown, tmp_path):
    file = tmp_path / "live.json"
    lines, last = shown(*wavs, "--load=2", f"--publish={file}")
    found = read_figures(file)
    assert found["sentence"].startswith(f"{last} First word ")
    assert "; peak memory not measured beside" in found["sentence"]
    assert found["about"]["date"]
    for row in found["rows"]:
        name, *spread = (row[column] for column in found["columns"])
        assert spread == pytest.approx(figures(lines[name]), abs=0.05)


def test_how_far_each_recording_is_apart(wavs, shown, model, monkeypatch):
    """One that waits longer than reckoned does not hide one that does not."""
    waits = {112000: (0.03, 0.04), 32000: (0.05, 0.02)}

    def run(model, samples, *_, **__):
        latency, _ = waits.get(len(samples), (0, 0))
        return SimpleNamespace(
            latency=latency,
            took=np.full(9, 0.01),
            around=0.0,
            first_word=None,
            frames=[],
        )

    monkeypatch.setattr(live, "run_live", run)
    monkeypatch.setattr(live, "simulate", lambda m, s, *_: waits[len(s)][1])
    lines, _ = shown(*wavs)
    assert figures(lines["apart"]) == pytest.approx([20, 20, 28, 30])


def test_where_nothing_can_be_published(model, wavs, tmp_path, capsys):
    """Before anything is played."""
    words = ["bench", str(model), *map(str, wavs), f"--publish={tmp_path}"]
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert "expected a file, is a folder" in said.err and not said.out


def test_as_fast_as_it_is(model, wavs, shown):
    lines, last = shown(*wavs)
    for branch in ("dense", "cheap"):
        first, held = lines[branch].split()[-2:]
        assert first == held
    assert last.endswith("taking 0.28 frame durations.")
    assert lines["layers"].endswith("dense: 2 dense; cheap: 2 low rank")


def test_a_device_that_throttles(model, wavs, shown):
    lines, last = shown(*wavs, "--load=0.5", "--then=4")
    *_, before, after = map(float, lines["dense"].split()[1:])
    assert after == pytest.approx(8 * before, rel=0.01)
    first, second = (
        dict(zip(("load", "dense", "cheap", "backlog"), figures(lines[half])))
        for half in ("before", "then")
    )
    assert (first["load"], second["load"]) == pytest.approx((0.5, 4), rel=0.01)
    for half in (first, second):
        assert half["dense"] + half["cheap"] == pytest.approx(100, abs=0.2)
    # Nothing waits, and then a lot does, which the arbitrator heeds.
    assert first["backlog"] < 1 < 30 < second["backlog"]
    assert first["dense"] != second["dense"]
    measured, reckoned = figures(lines["measured"]), figures(lines["reckoned"])
    assert measured == pytest.approx(reckoned, rel=0.05)
    assert last.endswith("taking 0.50, then 4.00 frame durations.")


def test_calibration_is_short_and_has_a_bar(model, wavs, monkeypatch, capsys):
    lengths = []
    seconds = speed.frame_seconds

    def measured(model, branch, samples, *slowdown):
        lengths.append(len(samples) / 16000)
        return seconds(model, branch, samples, *slowdown)

    monkeypatch.setattr(speed, "frame_seconds", measured)
    assert cli.main(["bench", "RUN", *wavs, "--load=2"]) == 0
    assert lengths == [3.0] * 7
    assert "calibration: 100%" in capsys.readouterr().err


def test_what_was_not_found_is_said(model, wavs, shown):
    model.search.output_bias[model.search.blank] += 1e9
    lines, _ = shown(wavs[1])
    assert lines["first"].split() == ["first", "word", "no", "words"]
    assert lines["peak"].endswith(
        "not measured beside PyTorch; `amnet pack` the model for it"
    )


@pytest.mark.parametrize("option", ["--load", "--then"])
@pytest.mark.parametrize(
    "load, message",
    [
        ("0.1", "0.1: expected a number from 0.279 on, which a"),
        ("1000", "1000: expected 20 or less"),
    ],
)
def test_a_device_that_cannot_be_played(
    model, wavs, option, load, message, capsys
):
    assert cli.main(["bench", "RUN", wavs[1], f"{option}={load}"]) == 2
    assert f"{option} {message}" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("load", ["0", "-1", "nan", "inf", "fast"])
@pytest.mark.parametrize(
    "command",
    [
        "bench RUN a.wav --load",
        "bench RUN a.wav --then",
        "transcribe RUN a.wav --load",
        "evaluate RUN --load",
    ],
)
def test_no_load(command, load, capsys):
    words = f"{command}={load}".split()
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(
        f"argument {words[-1].partition('=')[0]}: expected a number above 0, "
        f"got {load}"
    )


def test_a_packed_model_on_the_real_clock(run, tmp_path):
    """Its memory, too, in a process that has no PyTorch."""
    file, wav = tmp_path / "model.safetensors", tmp_path / "some.wav"
    soundfile.write(wav, np.zeros(3000), 16000)
    assert cli.main(["pack", str(run), str(file)]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "speechbrain_amnet.cli", "bench"]
        + [str(file), str(wav), "--load=0.5"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["peak"].endswith(" MB")
    # The weights alone take more than half of what the file has.
    assert float(lines["peak"].split()[2]) > file.stat().st_size / 2e6
    assert all(figure > 0 for figure in figures(lines["measured"]))
