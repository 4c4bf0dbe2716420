"""`amnet transcribe MODEL -`: samples from a pipe, words as they come."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from speechbrain_amnet import cli
from speechbrain_amnet.commands import transcribe
from speechbrain_amnet.commands.transcribe import find_model
from speechbrain_amnet.runtime import live, speed

COUNT = 20 * 640 + 100  # samples: the last frame is not whole


@pytest.fixture
def samples():
    random = np.random.default_rng(0)
    return (3000 * random.standard_normal(COUNT)).astype("<i2")


@pytest.fixture
def model(run, tmp_path, capsys):
    """Packed, which is read in no time."""
    file = tmp_path / "model.safetensors"
    assert cli.main(["pack", str(run), str(file)]) == 0
    capsys.readouterr()
    return file


@pytest.fixture
def expected(model, samples, tmp_path, capsys):
    """The lines of the same samples in a file."""
    wav = tmp_path / "some.wav"
    soundfile.write(wav, samples, 16000)
    assert cli.main(["transcribe", str(model), str(wav), "--frames"]) == 0
    *frames, result = capsys.readouterr().out.splitlines()
    assert len(frames) == 21 and result.startswith("0.8 s of audio in ")
    return frames


def pipe(data, monkeypatch, terminal=False):
    """Makes bytes the standard input."""
    stdin = SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: terminal)
    monkeypatch.setattr(sys, "stdin", stdin)


@pytest.mark.parametrize("chunk", [40, 17.3])
@pytest.mark.parametrize("more", [b"", b"x"], ids=["whole", "half a sample"])
def test_words_are_those_of_a_file(
    model, samples, expected, chunk, more, monkeypatch, capsys
):
    pipe(samples.tobytes() + more, monkeypatch)
    command = ["transcribe", str(model), "-", "--frames", "--load=2"]
    assert cli.main([*command, f"--chunk-ms={chunk}"]) == 0
    *frames, result = capsys.readouterr().out.splitlines()
    assert frames == expected and result.startswith("0.8 s of audio in ")


def test_a_pipe_that_stalls_for_long_ends(
    model, samples, expected, monkeypatch, capsys
):
    ours, theirs = os.pipe()
    with open(ours, "rb") as file, open(theirs, "wb") as source:
        stdin = SimpleNamespace(buffer=file, isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)
        source.write(samples.tobytes())
        source.flush()
        # What never ends fails, and does not hang.
        guard = threading.Timer(30, source.close)
        guard.start()
        command = ["transcribe", str(model), "-", "--frames", "--load=2"]
        assert cli.main([*command, "--timeout=0.1"]) == 0
        assert not source.closed  # it was open still
        guard.cancel()
    *frames, result = capsys.readouterr().out.splitlines()
    assert frames == expected and result.startswith("0.8 s of audio in ")


def test_without_a_load_the_backlog_is_the_clocks(
    model, samples, clocks, monkeypatch, capsys
):
    """A device that is far too slow; all of a file is there at once."""
    clocks["worked"] = count(0, 0.1).__next__  # a frame takes 0.1 s
    stream, took = live.LiveStream(find_model(model), **clocks), []
    feed = stream.feed
    monkeypatch.setattr(
        stream, "feed", lambda *some: (feed(*some), took.extend(stream.took))[0]
    )
    timed = partial(live.arrivals, clock=clocks["clock"])
    monkeypatch.setattr(live, "arrivals", timed)
    monkeypatch.setattr(live, "LiveStream", lambda model: stream)
    pipe(samples.tobytes(), monkeypatch)
    assert cli.main(["transcribe", str(model), "-", "--frames"]) == 0
    *frames, result = capsys.readouterr().out.splitlines()
    assert len(frames) == len(took) == 21
    # An endless stream must not fill the memory.
    assert len(stream.took) <= 1
    told = [int(line.split("backlog")[1].split()[0]) for line in frames]
    # What the frames before it took, but for the time that audio lasts.
    due = np.cumsum([0, *took[:20]]) - 0.04 * np.arange(21)
    due[20] += 0.04 - 100 / 16000  # there are no more samples of the last
    assert due[-1] > 1 and (np.diff(due) > 0).all()
    assert told == pytest.approx(1000 * due, abs=60)
    last = told[-1] + 1000 * took[-1]
    (said,) = re.findall(r"encoded (\d+) ms after the last sample by", result)
    assert int(said) == pytest.approx(last, abs=1)


def test_what_came_while_the_model_was_loaded_waits(
    samples, clocks, monkeypatch
):
    """The first frame is as old as all that lies behind it in the pipe."""
    clock = clocks["clock"]
    ours, theirs = os.pipe()
    with open(ours, "rb") as file:
        stdin = SimpleNamespace(buffer=file, isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)
        with open(theirs, "wb") as source:
            source.write(samples.tobytes())
        came = live.arrivals(
            transcribe.chunks("-", 16000, 640),
            16000,
            lambda: True,
            clock,
            transcribe.samples_behind,
        )
        waited = [clock() - when for _, when in came]
    last = (COUNT - 640) / 16000
    assert waited[:3] == pytest.approx([last, last - 0.04, last - 0.08])
    assert waited[-1] == 0


def test_the_arbitrator_is_told_of_this_machine(
    model, samples, monkeypatch, capsys
):
    """What was measured here, and not what the model was trained for."""
    told, dense = [], []

    def find(path, load=None):
        found = find_model(path, load)
        choose = found.router.choose
        found.dense_flops *= 2  # the first branch is no dense one
        dense.append(0.0312 * found.dense_flops / found.branch_flops[0])
        monkeypatch.setattr(
            found.router,
            "choose",
            lambda *frame: told.append(frame[-1]) or choose(*frame),
        )
        return found

    monkeypatch.setattr(transcribe, "find_model", find)
    monkeypatch.setattr(speed, "load_here", lambda model: 0.0312)
    pipe(samples.tobytes(), monkeypatch)
    assert cli.main(["transcribe", str(model), "-"]) == 0
    assert told == [0.0312] * 21 and dense[0] > 0.05
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert said.endswith(
        f"by the clock, on a device where a dense frame takes {dense[0]:.2g} "
        "times its duration, as measured here."
    )


@pytest.mark.parametrize(
    "data, terminal, said",
    [
        (b"", False, "the stream has ended without any audio"),
        (b"x", False, "the stream has ended without any audio"),
        (b"RIFF....WAVEfmt ", False, "expected raw samples, as of"),
        (b"", True, "arecord -t raw -f S16_LE -r 16000 | amnet"),
    ],
    ids=["nothing", "half a sample", "WAV", "terminal"],
)
def test_what_is_no_audio_ends_with_a_line(
    model, data, terminal, said, monkeypatch, capsys
):
    pipe(data, monkeypatch, terminal)
    assert cli.main(["transcribe", str(model), "-"]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error


def test_a_closed_input_is_told(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it then
    assert cli.main(["transcribe", str(model), "-"]) == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_standard_input_goes_alone(model, tmp_path, capsys):
    assert cli.main(["transcribe", str(model), "a.wav", "-"]) == 2
    assert "give it alone" in capsys.readouterr().err


@pytest.fixture
def started(model):
    """The command with a pipe of its own."""
    command = [sys.executable, "-m", "speechbrain_amnet.cli"]
    command += ["transcribe", str(model), "-", "--frames", "--load=2"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:
        # Words that never come end a test, and do not hang it.
        guard = threading.Timer(60, process.kill)
        guard.start()
        yield process
        guard.cancel()
        process.kill()


def test_words_come_while_the_pipe_is_open_and_stalls(
    started, samples, expected
):
    data, shown = samples.tobytes(), []
    for n in (0, 10):
        started.stdin.write(data[n * 1280 : (n + 10) * 1280])
        started.stdin.flush()
        # No more comes until these are read.
        shown += [started.stdout.readline() for _ in range(10)]
    said, errors = started.communicate(data[20 * 1280 :], timeout=60)
    *rest, result = said.decode().splitlines()
    assert started.returncode == 0 and not errors
    assert [line.decode().rstrip() for line in shown] + rest == expected
    assert result.startswith("0.8 s of audio in ")


def test_ctrl_c_ends_the_audio(started, samples, expected):
    """What was read is encoded to its end, while the pipe stays open."""
    started.stdin.write(samples.tobytes()[: 10 * 1280 + 200])
    started.stdin.flush()
    shown = [started.stdout.readline().decode().rstrip()]
    started.send_signal(signal.SIGINT)
    shown += started.stdout.read().decode().splitlines()
    assert started.wait(timeout=60) == 0 and not started.stderr.read()
    # It may have come before all of the pipe was read.
    *frames, result = shown
    assert 1 <= len(frames) <= 11 and " s of audio in " in result
    assert frames[:-1] == expected[: len(frames) - 1]


def test_ctrl_c_does_not_break_into_a_frame():
    """But a second one does."""
    before = signal.getsignal(signal.SIGINT)
    chunks = transcribe.until_stopped(iter([1, 2, 3]))
    assert next(chunks) == 1
    signal.raise_signal(signal.SIGINT)
    assert list(chunks) == []
    assert signal.getsignal(signal.SIGINT) == before

    chunks = transcribe.until_stopped(iter([1, 2, 3]))
    assert next(chunks) == 1
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    chunks.close()
    assert signal.getsignal(signal.SIGINT) == before


def test_held_to_a_grammar(run, model, samples, tmp_path, capsys):
    """The same words from a file beside the model and from one within it."""
    wav, file = tmp_path / "some.wav", tmp_path / "go.gram"
    soundfile.write(wav, samples, 16000)
    file.write_text("#JSGF V1.0; grammar g; public <go> = (g | o | t)+ {way};")
    shown = []
    for options in ([str(model), f"--grammar={file}"], [str(run)]):
        if len(options) == 1:
            held = tmp_path / "held.safetensors"
            command = ["pack", str(run), str(held), f"--grammar={file}"]
            assert cli.main(command) == 0
            options = [str(held)]
            capsys.readouterr()
        assert cli.main(["transcribe", options[0], str(wav), *options[1:]]) == 0
        words, command, _ = capsys.readouterr().out.splitlines()
        shown.append((words, command))
    assert shown[0] == shown[1]
    words, command = shown[0]
    assert set(words) <= set("GOT ") and command == f"go: way {words}"
    file.write_text("public <go> = go")
    command = ["transcribe", str(model), f"--grammar={file}", str(wav)]
    assert cli.main(command) == 2
    assert "go.gram: not a grammar in JSGF" in capsys.readouterr().err
    command[2] = f"--grammar={tmp_path / 'none'}"
    assert cli.main(command) == 2
    assert "no such grammar" in capsys.readouterr().err
