"""Recordings as samples: any rate and channels, bad ones refused."""

import io
import os
import threading

import numpy as np
import pytest
import soundfile

from speechbrain_amnet.audio import as_samples, read_audio, read_pcm


def test_any_rate_and_channels(tmp_path):
    path = tmp_path / "some.wav"
    time = np.arange(44100) / 44100
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(path, np.stack([tone, 0 * tone], 1), 44100)
    samples = read_audio(path, 16000)
    assert samples.dtype == np.float32 and samples.shape == (16000,)
    wanted = 0.15 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert samples[500:-500] == pytest.approx(wanted[500:-500], abs=2e-3)


@pytest.mark.parametrize("rate", [999, 1_000_003, 2**31 - 1])
def test_a_rate_that_no_audio_has(rate, tmp_path):
    """As of a damaged header; resampling would take all memory there is."""
    path = tmp_path / "some.wav"
    soundfile.write(path, np.zeros(100), 16000)
    header = bytearray(path.read_bytes())
    header[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(header)
    with pytest.raises(ValueError, match=f"sample rate of 1000 to .* {rate}"):
        read_audio(path, 16000)


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path):
    """The upper bits of a FLAC file's total samples: 64 billion more."""
    path = tmp_path / "some.flac"
    soundfile.write(path, np.zeros(16000), 16000)
    damaged = bytearray(path.read_bytes())
    damaged[21] |= 0x0F
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="some.flac: unreadable|cut off"):
        read_audio(path, 16000)


def test_16_khz_is_read_as_it_is(tmp_path):
    path = tmp_path / "some.flac"
    wanted = np.linspace(-0.5, 0.5, 1000, dtype="float32")
    soundfile.write(path, wanted, 16000)
    assert read_audio(path, 16000) == pytest.approx(wanted, abs=1e-4)


def test_bad_audio_is_refused(tmp_path):
    path = tmp_path / "some.wav"
    with pytest.raises(FileNotFoundError, match="no such audio file"):
        read_audio(path, 16000)
    path.write_text("these are words")
    with pytest.raises(ValueError, match="some.wav: unreadable audio"):
        read_audio(path, 16000)
    with pytest.raises(ValueError, match="some.raw: unreadable audio"):
        read_audio(path.rename(tmp_path / "some.raw"), 16000)
    soundfile.write(path, np.zeros(0), 16000)
    with pytest.raises(ValueError, match="empty audio"):
        read_audio(path, 16000)
    soundfile.write(path, np.array([0, np.nan]), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="NaN or infinity"):
        read_audio(path, 16000)
    soundfile.write(path, np.array([0, 1e25]), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="some.wav: .* sample of 1e[+]25"):
        read_audio(path, 16000)


@pytest.mark.parametrize("name", ["some.wav", "some.flac"])
def test_what_was_cut_off_is_no_recording(name, tmp_path):
    """libsndfile gives what there is, and only notes it."""
    path = tmp_path / name
    hiss = np.random.default_rng(0).normal(scale=0.1, size=16000)
    soundfile.write(path, hiss, 16000)
    assert len(read_audio(path, 16000)) == 16000
    whole = path.read_bytes()
    for part in (0.5, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ValueError, match="cut off|unreadable audio"):
            read_audio(path, 16000)


class Pieces:
    """A pipe that gives what it has: so many bytes each time."""

    def __init__(self, data, *sizes):
        self.file, self.sizes = io.BytesIO(data), list(sizes)

    def read1(self, most):
        return self.file.read(min(most, self.sizes.pop(0)))


@pytest.mark.parametrize("sizes", [[99] * 9, [1] * 99, [3, 2, 1, 4, 9, 7, 99]])
@pytest.mark.parametrize("more", [b"", b"x"])
def test_raw_samples_in_any_pieces(sizes, more):
    """Half a sample waits for its other half; at the end it is left out."""
    wanted = np.arange(-32768, 32768, 5000, dtype="<i2")
    data = wanted.tobytes() + more
    parts = list(read_pcm(Pieces(data, *sizes, 0), 4))
    assert all(part.dtype == np.float32 and 1 <= len(part) for part in parts)
    assert max(map(len, parts)) <= 5
    assert (np.concatenate(parts) * 32768 == wanted).all()


def test_a_pipe_that_does_not_block_stalls_and_does_not_end():
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    with open(ours, "rb") as file:
        later = threading.Timer(0.2, lambda: os.write(theirs, bytes(20)))
        later.start()
        assert len(next(read_pcm(file, 640))) == 10
        os.close(theirs)


def test_raw_samples_are_not_kept_waiting():
    ours, theirs = os.pipe()
    with open(ours, "rb") as file:
        parts = read_pcm(file, 640)
        for count in (100, 1, 300):  # the pipe stays open, and stalls
            os.write(theirs, bytes(2 * count))
            assert len(next(parts)) == count
        os.close(theirs)
        assert list(parts) == []


def test_a_pipe_that_stalls_for_long_ends():
    ours, theirs = os.pipe()
    with open(ours, "rb") as file:
        os.write(theirs, bytes(20))
        # What never ends brings another sample, and does not hang.
        guard = threading.Timer(30, lambda: os.write(theirs, bytes(2)))
        guard.start()
        parts = read_pcm(file, 640, 0.05)
        assert [len(next(parts, [])) for _ in range(2)] == [10, 0]
        guard.cancel()
        os.write(theirs, bytes(2))
        assert len(next(read_pcm(file, 640, 1e20))) == 1
        os.close(theirs)


@pytest.mark.parametrize("sizes", [[640], [1, 2, 2], [2] * 9])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "AIFF", "MP3"])
def test_a_file_of_audio_is_no_raw_samples(tmp_path, kind, sizes):
    path = tmp_path / "some"
    soundfile.write(path, np.zeros(1000), 44100, format=kind)
    data = path.read_bytes()
    if kind == "MP3" and not data.startswith(b"ID3"):
        data = b"ID3\x04" + data  # as most programs write them
    with pytest.raises(ValueError, match=f"(?i)an? {kind} file.*`arecord -t"):
        list(read_pcm(Pieces(data, *sizes, 0), 640))


@pytest.mark.parametrize(
    "samples, says",
    [
        (np.zeros((50, 2)), r"one channel, .* shape \[50, 2\]"),
        (np.zeros(50, "int16"), "whole numbers .int16.; divide 16-bit"),
        (np.full(50, 1e9), "sample of 1e.09: expected -1 to 1; divide"),
        (np.full(50, 1e300), "NaN or infinity"),
        ([0.0, np.nan], "NaN or infinity"),
    ],
)
def test_what_is_no_audio_is_refused(samples, says):
    with pytest.raises(ValueError, match=says):
        as_samples(samples)


def test_audio_is_taken_as_it_comes():
    assert as_samples(np.ones((3, 1)) / 2).tolist() == [0.5, 0.5, 0.5]
    assert as_samples(()).shape == as_samples(np.zeros(0, "int16")).shape
