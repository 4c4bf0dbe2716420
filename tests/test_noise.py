"""Noise: ratios as the benchmark reckons them, cuts that are repeatable."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_amnet import BackgroundNoise
from speechbrain_amnet.noise import loudest, place_of

RATE = 16000


@pytest.fixture
def file(tmp_path):
    """Two seconds that rise, so that each place has its own values."""
    path = tmp_path / "noise.wav"
    rising = np.linspace(0.1, 0.9, 2 * RATE) * (-1) ** np.arange(2 * RATE)
    soundfile.write(path, rising, RATE, subtype="FLOAT")
    return path


@pytest.fixture
def speech():
    wav = torch.zeros(RATE)
    wav[6000:9000] = torch.sin(torch.arange(3000) / 5.0)
    return wav


@pytest.mark.parametrize("decibels", [0.0, 6.0, 24.0])
def test_the_ratio_is_of_loudest_to_loudest(file, speech, decibels):
    noise = BackgroundNoise(file)
    mixed = noise.mix(speech, decibels, 0.2)
    assert mixed.abs().max() == pytest.approx(0.5)
    # Where nothing is said the noise stands alone; it gives the scale.
    cut = noise.wav.repeat(2)[3200 : 3200 + RATE]
    scale = mixed[:5000].norm() / cut[:5000].norm()
    rest = mixed - scale * cut
    torch.testing.assert_close(
        rest / rest.max(), speech / speech.max(), rtol=1e-3, atol=1e-3
    )
    ratio = loudest(rest) / loudest(scale * cut)
    assert 10 * np.log10(ratio) == pytest.approx(decibels, abs=0.01)


def test_cuts_come_from_their_part_and_go_round(file):
    first, second = (
        BackgroundNoise(file, part=part) for part in ((0, 0.5), (0.5, 1))
    )
    assert first.wav.abs().max() < second.wav.abs().min()
    # Hardly any speech: what is left is the noise, scaled.
    quiet = torch.full((int(1.5 * RATE),), 1e-6)
    mixed = second.mix(quiet, -60.0, 0.75)
    expected = second.wav.repeat(3)[RATE * 3 // 4 :][: len(quiet)]
    torch.testing.assert_close(
        mixed / mixed.abs().max(),
        expected / expected.abs().max(),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_batch_keeps_its_padding_and_its_chance(file):
    wavs, lengths = torch.rand(200, 3000) / 4, torch.full((200,), 0.5)
    torch.manual_seed(0)
    mixed = BackgroundNoise(file, chance=0.25)(wavs, lengths)
    torch.testing.assert_close(mixed[:, 1500:], wavs[:, 1500:])
    changed = (mixed != wavs).any(1)
    assert 30 <= changed.sum() <= 70
    torch.manual_seed(0)
    again = BackgroundNoise(file, chance=0.25)(wavs, lengths)
    assert torch.equal(mixed, again)


def test_silence_and_short_utterances(file):
    noise = BackgroundNoise(file)
    assert noise.mix(torch.zeros(0), 6, 0.1).shape == (0,)
    assert noise.mix(torch.zeros(100), 6, 0.1).abs().max() == 0
    assert noise.mix(torch.ones(100), 6, 0.999).abs().max() == 0.5


def test_places_are_spread_and_stay():
    places = [place_of(f"7-1-{n:04}") for n in range(400)]
    assert 0 <= min(places) < 0.05 and 0.95 < max(places) < 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"part": (0.5, 0.5)}, "part: expected 0 <= start < end"),
        ({"decibels": (9, 6)}, "decibels: expected low <= high"),
        ({"part": [0.5]}, r"part: expected two numbers, got \[0.5\]"),
        ({"decibels": (float("nan"),) * 2}, "decibels: expected low <= high"),
        ({"chance": 1.5}, "chance: expected 0 to 1, got 1.5"),
        ({"sample_rate": 8000}, "expected 8000 Hz, got 16000 Hz"),
    ],
)
def test_values_that_cannot_be(file, values, said):
    with pytest.raises(ValueError, match=said):
        BackgroundNoise(file, **values)


def test_files_that_cannot_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such audio file"):
        BackgroundNoise(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match="unreadable audio"):
        BackgroundNoise(tmp_path / "text.wav")
    soundfile.write(tmp_path / "two.wav", np.ones((100, 2)), RATE)
    with pytest.raises(ValueError, match="expected mono, got 2 channels"):
        BackgroundNoise(tmp_path / "two.wav")
    noise = np.r_[np.ones(100), np.nan]
    soundfile.write(tmp_path / "nan.wav", noise, RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match="nan.wav: the audio has NaN"):
        BackgroundNoise(tmp_path / "nan.wav")
    soundfile.write(tmp_path / "zero.wav", np.zeros(100), RATE)
    with pytest.raises(ValueError, match="no sound in this part"):
        BackgroundNoise(tmp_path / "zero.wav")
