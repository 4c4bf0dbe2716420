"""The runtime's frames are those of PyTorch."""

import numpy as np
import pytest
import torch

from speechbrain_amnet import StreamingFeatures
from speechbrain_amnet.runtime.convert import as_array, features_of
from speechbrain_amnet.runtime.features import Features
from speechbrain_amnet.runtime.packed import Packed


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mean_seconds": 0.2, "floor": 1e-3},
        {"sample_rate": 8000, "n_mels": 23, "stack": 3, "window_ms": 20},
    ],
)
@pytest.mark.parametrize("loudness", [0.0, 1e-4, 1.0])
def test_frames(options, loudness):
    features = StreamingFeatures(**options)
    features.fit_statistics([0.1 * torch.randn(16000)])
    wav = (loudness * torch.randn(1, 4900)).clamp(-1, 1)
    expected, _ = features(wav)
    numbers, arrays = features_of(features)
    arrays = {f"features.{k}": as_array(v) for k, v in arrays.items()}
    ours = Features(Packed({"features": numbers}, arrays))
    assert ours.frame_samples == features.frame_samples
    missing = -wav.shape[1] % ours.frame_samples
    samples = np.pad(wav[0].numpy(), (ours.overlap, missing))
    found = ours.frames(samples, ours.start())
    assert found == pytest.approx(expected[0].numpy(), abs=2e-4)


def test_a_stream_keeps_its_running_mean():
    features = StreamingFeatures(mean_seconds=0.2)
    features.fit_statistics([0.1 * torch.randn(16000)])
    numbers, arrays = features_of(features)
    arrays = {f"features.{k}": as_array(v) for k, v in arrays.items()}
    ours = Features(Packed({"features": numbers}, arrays))
    samples = np.random.default_rng(0).normal(0, 0.1, 240 + 20 * 640)
    samples = samples.astype("float32")
    mean, other = ours.start(), ours.start()
    whole = ours.frames(samples, other)
    parts = [
        ours.frames(samples[640 * i : 640 * (i + 1) + 240], mean)
        for i in range(20)
    ]
    assert np.vstack(parts) == pytest.approx(whole, abs=1e-5)
    assert mean == pytest.approx(other, abs=1e-6) and mean.any()
