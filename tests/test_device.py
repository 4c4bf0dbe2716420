"""The device's clock: seconds of a frame, and what is left of them."""

import pytest
import torch

from speechbrain_amnet import Device
from speechbrain_amnet.device import next_backlog

FRAME = 0.04  # seconds


def test_a_backlog_never_goes_below_zero_and_has_a_gradient_above():
    time = torch.tensor([0.01, 0.09], requires_grad=True)
    backlog = next_backlog(torch.zeros(2), time, FRAME)
    assert backlog.tolist() == pytest.approx([0.0, 0.05])
    backlog.sum().backward()
    assert time.grad.tolist() == [0.0, 1.0]


def test_numbers_are_reckoned_as_tensors_are():
    for backlog, time in ((0.0, 0.01), (0.0, 0.09), (0.5, 0.03)):
        now = next_backlog(torch.tensor(backlog), torch.tensor(time), FRAME)
        assert next_backlog(backlog, time, FRAME) == pytest.approx(now.item())


@pytest.mark.parametrize(
    "device, seconds",
    [
        (Device(load=2.0), 0.02),
        (Device(load=0.5), 0.005),
        (Device(flops_per_second=500.0), 0.5),
    ],
)
def test_seconds_of_a_frame(device, seconds):
    flops = torch.tensor([250.0, 1000.0])
    got = device.seconds(flops, dense_flops=1000.0, frame_duration=FRAME)
    assert got.tolist() == pytest.approx([seconds, 4 * seconds])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"load": True}, "load must be above 0, got True"),
        ({}, "exactly one .* load=None"),
        ({"load": 2, "flops_per_second": 3}, "exactly one .* load=2"),
        ({"load": 0}, "load must be above 0, got 0"),
        ({"load": float("inf")}, "load must be above 0, got inf"),
        ({"load": 2, "train_loads": 4}, "train_loads .* got 4"),
        ({"load": 2, "train_loads": ["a", "b"]}, "train_loads .* got"),
        ({"load": float("nan")}, "load must be above 0, got nan"),
        ({"flops_per_second": -1.0}, "flops_per_second .* got -1.0"),
        ({"load": 2, "train_loads": [3, 1]}, r"train_loads .* got \[3, 1\]"),
        (
            {"load": 2, "train_loads": [1, 2], "train_ends": 1},
            "train_ends must be .* got 1",
        ),
        (
            {"load": 2, "train_loads": [1, 2], "train_ends": "a"},
            "train_ends must be .* got a",
        ),
        ({"load": 2, "train_ends": 0.5}, "train_ends is .* give these"),
        ({"load": 2, "train_loads": [True, 4]}, "train_loads .* got"),
        ({"load": 2, "train_loads": [0, 1]}, r"train_loads .* got \[0, 1\]"),
    ],
)
def test_a_device_that_cannot_be_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Device(**arguments)
