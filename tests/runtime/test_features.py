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
    [{}, {"sample_rate": 8000, "n_mels": 23, "stack": 3, "window_ms": 20}],
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
    found = ours.frames(samples)
    assert found == pytest.approx(expected[0].numpy(), abs=2e-4)
