"""Frames of padded batches: which are real, and how long they waited."""

import math
from typing import Any, NamedTuple

import torch

from . import device


def check_frames(features: Any, encoder: Any) -> None:
    """Refuse an encoder for other frames than its features make.

    Every backlog and latency would be wrong, and nothing else would say so.

    Arguments
    ---------
    features : StreamingFeatures
        With `frame_duration`, in seconds, and `feature_size`.
    encoder : AmortizedEncoder
        With `frame_duration` and `input_size`.

    Raises
    ------
    ValueError
        If one of them differs.
    """
    makes, expects = features.frame_duration, encoder.frame_duration
    if not math.isclose(makes, expects, rel_tol=1e-6):
        raise ValueError(
            f"frame_duration: expected {makes:g} s, which the features' stack "
            f"makes, got {expects:g}"
        )
    if features.feature_size != encoder.input_size:
        raise ValueError(
            f"encoder: input_size: expected {features.feature_size}, the "
            f"features' stack times n_mels, got {encoder.input_size}"
        )


def check_lengths(
    lengths: torch.Tensor, batch: int, frames: int, what: str = "frames"
) -> None:
    """Refuse lengths that are not relative, or of another batch.

    Numbers of frames, as PyTorch has them, would count padding as speech.

    Arguments
    ---------
    lengths : torch.Tensor
        To be ``[batch]``, above 0 and at most 1.
    batch, frames : int
        Sizes of what they are of.
    what : str
        What is counted, for the error.

    Raises
    ------
    ValueError
        If they are something else.

    Example
    -------
    >>> check_lengths(torch.tensor([1.0, 0.4]), 2, 10)
    >>> check_lengths(torch.tensor([10, 4]), 2, 10)
    Traceback (most recent call last):
        ...
    ValueError: lengths must be [2], above 0 and at most 1, got [10, 4] of ...
    """
    if lengths.shape == (batch,):
        numbers = _numbers(lengths, frames)
        if ((numbers > 0) & (numbers.round() <= frames)).all():
            return
    raise ValueError(
        f"lengths must be [{batch}], above 0 and at most 1, got "
        f"{lengths.tolist()} of {frames} {what}"
    )


def _numbers(lengths: torch.Tensor, frames: int) -> torch.Tensor:
    """Relative lengths to numbers of frames, not yet whole."""
    # Half precision has too few digits for a long utterance; this one is right
    # for hours of frames, and not every accelerator has float64.
    return lengths.float() * frames


def frame_counts(lengths: torch.Tensor, frames: int) -> torch.Tensor:
    """Real frames of each utterance, from relative lengths; at least one."""
    return _numbers(lengths, frames).round().long().clamp(1, frames)


def absolute_lengths(
    lengths: torch.Tensor, padded: torch.Tensor, what: str = "frames"
) -> torch.Tensor:
    """As `frame_counts`, of a batch that has such lengths, where it lies.

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths, ``[batch]``, on any device.
    padded : torch.Tensor
        What they are of, ``[batch, time, ...]``.
    what : str
        What is counted along time, for the error.

    Returns
    -------
    torch.Tensor
        Numbers of 1 to time, ``[batch]``, on the device of ``padded``.

    Raises
    ------
    ValueError
        As `check_lengths`.

    Example
    -------
    >>> absolute_lengths(torch.tensor([0.5, 0.01]), torch.zeros(2, 10, 3))
    tensor([5, 1])
    """
    check_lengths(lengths, *padded.shape[:2], what)
    return frame_counts(lengths, padded.shape[1]).to(padded.device)


def frame_mask(lengths: torch.Tensor, frames: int) -> torch.Tensor:
    """True on real frames, ``[batch, frames]``."""
    steps = torch.arange(frames, device=lengths.device)
    return steps < frame_counts(lengths, frames)[:, None]


def frame_mean(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean over each utterance's real frames: ``[batch, frames] -> [batch]``.

    Example
    -------
    >>> frame_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([2 / 3]))
    tensor([2.])
    """
    mask = frame_mask(lengths.to(values.device), values.shape[1])
    return (values * mask).sum(1) / mask.sum(1)


def last_frame(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Value at each utterance's last frame: ``[batch, frames] -> [batch]``."""
    count = frame_counts(lengths.to(values.device), values.shape[1])
    return values.gather(1, count[:, None] - 1).squeeze(1)


class Timing(NamedTuple):
    """How long frames and utterances waited; all in seconds.

    wait : [batch, frames], from a frame's arrival until it was done.
    latency : [batch], the wait of the last frame.
    floor : [batch], the part of it that the last frame itself takes.
    """

    wait: torch.Tensor
    latency: torch.Tensor
    floor: torch.Tensor


def timing(
    time: torch.Tensor, lengths: torch.Tensor, backlog: torch.Tensor
) -> Timing:
    """Waits and latency of frames that take ``time``.

    Arguments
    ---------
    time : torch.Tensor
        Seconds that each frame takes to encode, ``[batch, frames]``.
    lengths : torch.Tensor
        Relative lengths, ``[batch]``.
    backlog : torch.Tensor
        Seconds that each frame finds, ``[batch, frames]``.

    Returns
    -------
    Timing

    Example
    -------
    >>> time = torch.tensor([[0.08, 0.08, 0.01]])
    >>> backlog = torch.tensor([[0.0, 0.04, 0.08]])
    >>> round(timing(time, torch.ones(1), backlog).latency.item(), 2)
    0.09
    """
    wait = device.wait(backlog, time)
    return Timing(wait, last_frame(wait, lengths), last_frame(time, lengths))
