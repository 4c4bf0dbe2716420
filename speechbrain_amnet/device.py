"""The device: what a frame costs in time, the backlog, and the wait at the end.

The one definition for training, simulation and the live run. Frame ``t``
arrives every ``d`` seconds and takes ``tau[t]`` seconds to encode:

    b[t+1]  = max(0, b[t] + tau[t] - d)     backlog when the next frame arrives
    wait[t] = b[t] + tau[t]                 from its arrival until it is done
    latency = wait[T]                       what a person waits

A frame can be encoded only after it was spoken, so ``latency >= tau[T]``, its
*floor*; the excess is ``b[T]``, the backlog that the last frame finds.
"""

from typing import NamedTuple

import torch


class Device:
    """How fast the device computes.

    Arguments
    ---------
    load : float, optional
        The time that the dense encoder takes for one frame, in frame
        durations. At 2 the dense encoder alone is twice too slow to keep up.
    flops_per_second : float, optional
        The same said directly. Give exactly one of the two.

    Raises
    ------
    ValueError
        If not exactly one is given, or it is not above 0.

    Example
    -------
    >>> Device(load=2.0).seconds(3e6, dense_flops=3e6, frame_duration=0.04)
    0.08
    >>> Device(flops_per_second=650e6).seconds(6.5e6, 3e6, 0.04)
    0.01
    """

    def __init__(
        self,
        load: float | None = None,
        flops_per_second: float | None = None,
    ):
        if (load is None) == (flops_per_second is None):
            raise ValueError(
                "Device: give exactly one of load and flops_per_second, got "
                f"load={load}, flops_per_second={flops_per_second}."
            )
        for name, value in (
            ("load", load),
            ("flops_per_second", flops_per_second),
        ):
            if value is not None and not value > 0:
                raise ValueError(
                    f"Device: {name} must be above 0, got {value}."
                )
        self.load, self.flops_per_second = load, flops_per_second

    def speed(self, dense_flops: float, frame_duration: float) -> float:
        """FLOPs per second, for an encoder with this dense cost a frame."""
        if self.flops_per_second is not None:
            return self.flops_per_second
        return dense_flops / (self.load * frame_duration)

    def seconds(
        self, flops: float, dense_flops: float, frame_duration: float
    ) -> float:
        """Seconds that ``flops`` take on this device.

        Arguments
        ---------
        flops : float or torch.Tensor
            What is to be computed.
        dense_flops : float
            Cost of a frame on the dense encoder, which `load` refers to.
        frame_duration : float
            Seconds.
        """
        return flops / self.speed(dense_flops, frame_duration)


def next_backlog(
    backlog: torch.Tensor, time: torch.Tensor, frame_duration: float
) -> torch.Tensor:
    """Backlog that the next frame finds, in seconds.

    Arguments
    ---------
    backlog : torch.Tensor
        What this frame found, in seconds.
    time : torch.Tensor
        What this frame takes, in seconds.
    frame_duration : float
        Seconds.

    Example
    -------
    >>> next_backlog(torch.tensor(0.0), torch.tensor(0.08), 0.04)
    tensor(0.0400)
    """
    return (backlog + time - frame_duration).clamp(min=0)


class Timing(NamedTuple):
    """What frames and utterances waited; all in seconds.

    backlog : [batch, frames], what each frame found on its arrival.
    wait : [batch, frames], from its arrival until it was done.
    latency : [batch], the wait of the last frame.
    floor : [batch], the part of it that the last frame itself takes.
    end_backlog : [batch], the rest.
    """

    backlog: torch.Tensor
    wait: torch.Tensor
    latency: torch.Tensor
    floor: torch.Tensor
    end_backlog: torch.Tensor


def last_frame(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Value at each utterance's last frame: ``[batch, frames] -> [batch]``."""
    count = frame_counts(lengths, values.shape[1])
    return values.gather(1, count[:, None] - 1).squeeze(1)


def frame_counts(lengths: torch.Tensor, frames: int) -> torch.Tensor:
    """Real frames of each utterance, from relative lengths; at least one."""
    return (lengths * frames).round().long().clamp(1, frames)


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
    mask = frame_mask(lengths, values.shape[1])
    return (values * mask).sum(1) / mask.sum(1)


def timing(
    time: torch.Tensor,
    lengths: torch.Tensor,
    frame_duration: float,
    backlog: torch.Tensor | None = None,
) -> Timing:
    """Backlog, waits and latency of frames that take ``time``.

    Arguments
    ---------
    time : torch.Tensor
        Seconds that each frame takes to encode, ``[batch, frames]``.
    lengths : torch.Tensor
        Relative lengths, ``[batch]``.
    frame_duration : float
        Seconds.
    backlog : torch.Tensor, optional
        What each frame finds, if it is known already, ``[batch, frames]``.

    Returns
    -------
    Timing

    Example
    -------
    >>> time = torch.tensor([[0.08, 0.08, 0.01]])
    >>> waits = timing(time, torch.ones(1), frame_duration=0.04)
    >>> [round(x, 2) for x in waits.backlog[0].tolist()]
    [0.0, 0.04, 0.08]
    >>> round(waits.latency.item(), 2)
    0.09
    """
    if backlog is None:
        now, found = torch.zeros_like(time[:, 0]), []
        for t in range(time.shape[1]):
            found.append(now)
            now = next_backlog(now, time[:, t], frame_duration)
        backlog = torch.stack(found, 1)
    wait = backlog + time
    return Timing(
        backlog,
        wait,
        last_frame(wait, lengths),
        last_frame(time, lengths),
        last_frame(backlog, lengths),
    )
