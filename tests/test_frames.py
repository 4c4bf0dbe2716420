"""Frames of padded batches, and waits that are those of a real queue."""

import math

import pytest
import torch

from speechbrain_amnet import AmortizedEncoder, Dense, Device
from speechbrain_amnet.device import next_backlog
from speechbrain_amnet.features import StreamingFeatures
from speechbrain_amnet.frames import (
    absolute_lengths,
    check_frames,
    check_lengths,
    frame_counts,
    frame_mask,
    frame_mean,
    last_frame,
    timing,
)

FRAME = 0.04  # seconds


def queue(times):
    """finish[t] = max(finish[t-1], t*d) + tau[t]: waits of one utterance."""
    finish, waits = 0.0, []
    for t, time in enumerate(times, 1):
        finish = max(finish, t * FRAME) + time
        waits.append(finish - t * FRAME)
    return waits


def backlogs(time):
    """What each frame finds, ``[batch, frames]``."""
    found = [torch.zeros_like(time[:, 0])]
    for one in time.unbind(1)[:-1]:
        found.append(next_backlog(found[-1], one, FRAME))
    return torch.stack(found, 1)


@pytest.mark.parametrize("load", [0.3, 1.0, 2.0])
def test_timing_equals_the_queue(load):
    time = 2 * load * FRAME * torch.rand(6, 50, dtype=torch.double)
    frames = [50, 1, 49, 2, 33, 10]
    waits = timing(time, torch.tensor(frames) / 50, backlogs(time))
    for n, count in enumerate(frames):
        expected = queue(time[n].tolist())
        assert waits.wait[n].tolist() == pytest.approx(expected)
        assert waits.latency[n].item() == pytest.approx(expected[count - 1])
        assert waits.floor[n] == time[n, count - 1]
    assert (waits.latency >= waits.floor).all()


@pytest.mark.parametrize("load", [1.5, 2.0, 3.0])
def test_one_branch_too_slow_waits_longer_with_every_frame(load):
    encoder = AmortizedEncoder(
        4, 3, layers=1, branches=[Dense], target_device=Device(load=load)
    )
    _, routing = encoder.eval()(torch.zeros(1, 101, 4))
    for frames in (1, 11, 101):
        latency = timing(
            routing.time, torch.tensor([frames / 101]), routing.backlog
        ).latency.item()
        expected = load * FRAME + (frames - 1) * (load - 1) * FRAME
        assert latency == pytest.approx(expected, rel=1e-4)


def test_one_branch_fast_enough_waits_its_own_time_only():
    time = torch.full((1, 100), 0.9 * FRAME)
    waits = timing(time, torch.ones(1), backlogs(time))
    assert waits.latency == waits.floor == time[0, 0]


# The last ones are an hour of frames of 40 and of 10 ms, and about.
HOUR = [89_999, 90_000, 262_145, 359_999, 360_000]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("frames", [1, 2, 7, 50, 333, 1999, *HOUR])
def test_relative_lengths_give_back_every_number_of_frames(frames, kind):
    counts = torch.arange(1, frames + 1)
    lengths = counts.to(kind) / frames
    check_lengths(lengths, frames, frames)
    assert torch.equal(frame_counts(lengths, frames), counts)
    assert torch.equal((lengths.double() * frames).round().long(), counts)


def test_masks_have_as_many_frames():
    counts = torch.arange(1, 51)
    assert torch.equal(frame_mask(counts / 50, 50).sum(1), counts)


def test_an_utterance_has_a_frame_at_least():
    assert frame_counts(torch.tensor([0.0, 1.2]), 4).tolist() == [1, 4]
    half = torch.tensor([0.3333]).half()  # 999.42 frames, in halves 999.5
    assert frame_counts(half, 2999).tolist() == [999]
    check_lengths(torch.ones(1).half(), 1, 2999)  # not 3000, as in halves


class Elsewhere(torch.Tensor):
    """As on another device: of use only when it was moved."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        assert function is torch.Tensor.to, f"{function} on two devices"
        with torch._C.DisableTorchFunctionSubclass():
            return args[0].as_subclass(torch.Tensor).to(*args[1:])


def test_lengths_go_where_that_is_which_they_are_of():
    lengths, values = torch.tensor([0.3, 1.0]), torch.arange(20.0).view(2, 10)
    assert absolute_lengths(lengths, values).tolist() == [3, 10]
    there = absolute_lengths(lengths, values.to("meta"))
    assert (there.device.type, there.shape) == ("meta", (2,))
    lengths = lengths.as_subclass(Elsewhere)
    assert frame_mean(values, lengths).tolist() == [1.0, 14.5]
    assert last_frame(values, lengths).tolist() == [2.0, 19.0]


@pytest.mark.parametrize("length", [0.0, 1.06, -0.1, math.nan])
def test_lengths_that_are_none(length):
    lengths = torch.tensor([1.0, length])
    with pytest.raises(ValueError, match=r"must be \[2\], .* of 10 letters"):
        absolute_lengths(lengths, torch.zeros(2, 10), "letters")
    with pytest.raises(ValueError, match=r"must be \[3\], .* of 10 frames"):
        absolute_lengths(lengths, torch.zeros(3, 10))


def test_means_and_last_frames_are_of_real_frames():
    values = torch.tensor([[1.0, 3.0, 99.0], [1.0, 3.0, 5.0]])
    lengths = torch.tensor([2 / 3, 1.0])
    assert frame_mean(values, lengths).tolist() == [2.0, 3.0]
    assert last_frame(values, lengths).tolist() == [3.0, 5.0]


def test_encoders_for_other_frames_are_refused():
    features = StreamingFeatures()
    sizes = {"hidden_size": 8, "layers": 1, "branches": [Dense]}
    check_frames(features, AmortizedEncoder(320, **sizes))
    with pytest.raises(ValueError, match="input_size: expected 320, .* 160"):
        check_frames(features, AmortizedEncoder(160, **sizes))
    other = AmortizedEncoder(320, **sizes, frame_duration=0.03)
    with pytest.raises(ValueError, match="expected 0.04 s, .* got 0.03"):
        check_frames(features, other)
    with pytest.raises(ValueError, match="frame_duration must be above 0"):
        AmortizedEncoder(320, **sizes, frame_duration=0)
