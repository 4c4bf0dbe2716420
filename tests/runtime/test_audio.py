"""Recordings as samples: any rate and channels, bad ones refused."""

import io

import numpy as np
import pytest
import soundfile

from speechbrain_amnet.runtime.audio import read_audio, read_pipe


def test_any_rate_and_channels(tmp_path):
    path = tmp_path / "some.wav"
    time = np.arange(44100) / 44100
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(path, np.stack([tone, 0 * tone], 1), 44100)
    samples = read_audio(path, 16000)
    assert samples.dtype == np.float32 and samples.shape == (16000,)
    wanted = 0.15 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert samples[500:-500] == pytest.approx(wanted[500:-500], abs=2e-3)


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


class Pipe(io.BytesIO):
    """Gives a few bytes at a time, and perhaps Ctrl-C at the end."""

    def __init__(self, content, some, stopped=False):
        super().__init__(content)
        self.some, self.stopped = some, stopped

    def read1(self, most):
        found = super().read1(min(most, self.some))
        if not found and self.stopped:
            raise KeyboardInterrupt
        return found


@pytest.mark.parametrize("some", [1, 3, 4096])
@pytest.mark.parametrize("stopped", [False, True])
def test_samples_from_a_pipe(some, stopped):
    wanted = np.random.default_rng(0).integers(-32768, 32767, 500)
    content = wanted.astype("<i2").tobytes() + b"x"  # cut in mid-sample
    found = list(read_pipe(Pipe(content, some, stopped), 64))
    assert all(0 < len(chunk) <= 64 for chunk in found)
    found = np.concatenate(found)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found * 32768, wanted)
    assert not list(read_pipe(io.BytesIO(b""), 64))
