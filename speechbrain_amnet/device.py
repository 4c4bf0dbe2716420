"""The device: what a frame costs in time, the backlog, and the wait at the end.

The one definition for training, simulation and the live run. Frame ``t``
arrives every ``d`` seconds and takes ``tau[t]`` seconds to encode:

    b[t+1]  = max(0, b[t] + tau[t] - d)     backlog when the next frame arrives
    wait[t] = b[t] + tau[t]                 from its arrival until it is done
    latency = wait[T]                       what a person waits

A frame can be encoded only after it was spoken, so ``latency >= tau[T]``, its
*floor*; the excess is ``b[T]``, the backlog that the last frame finds.

Nothing here imports PyTorch: the runtime reckons with the same functions.
"""

import math


class Device:
    """How fast the device computes.

    Arguments
    ---------
    load : float, optional
        The time that the dense encoder takes for one frame, in frame
        durations. At 2 the dense encoder alone is twice too slow to keep up.
    flops_per_second : float, optional
        The same said directly. Give exactly one of the two.
    train_loads : list of float, optional
        Lowest and highest load that utterances of a training meet, each one
        of its own, evenly spread over the logarithm; `load` if not given.
    train_ends : float, optional
        Share of these utterances that meet the lowest or the highest load
        itself, half of them each: there every branch learns to do nearly
        all alone, as the widest and the narrowest of slimmable networks do
        in each step (the sandwich rule, arXiv 1903.05134).

    Raises
    ------
    ValueError
        If not exactly one of the first two is given, or a figure is not above
        0, or the highest load below the lowest, or `train_ends` no share below
        1.

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
        train_loads: list[float] | None = None,
        train_ends: float = 0.0,
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
            number = isinstance(value, int | float)
            number = number and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < math.inf):
                raise ValueError(
                    f"Device: {name} must be above 0, got {value}."
                )
        if train_loads is not None:
            numbers = isinstance(train_loads, list | tuple) and all(
                isinstance(load, int | float) and not isinstance(load, bool)
                for load in train_loads
            )
            if not (
                numbers
                and len(train_loads) == 2
                and 0 < train_loads[0] <= train_loads[1] < math.inf
            ):
                raise ValueError(
                    "Device: train_loads must be two loads above 0, the "
                    f"lowest first, got {train_loads}."
                )
        self.load, self.flops_per_second = load, flops_per_second
        number = isinstance(train_ends, int | float)
        number = number and not isinstance(train_ends, bool)
        if not (number and 0 <= train_ends < 1):
            raise ValueError(
                "Device: train_ends must be a share, from 0 to below 1, got "
                f"{train_ends}."
            )
        if train_ends and train_loads is None:
            raise ValueError(
                "Device: train_ends is a share of the utterances that "
                "train_loads are drawn for; give these, too."
            )
        self.train_loads, self.train_ends = train_loads, train_ends

    def speed(self, dense_flops: float, frame_duration: float) -> float:
        """FLOPs per second, for an encoder with this dense cost a frame."""
        if self.flops_per_second is not None:
            return self.flops_per_second
        return dense_flops / (self.load * frame_duration)

    def seconds(
        self,
        flops: float,
        dense_flops: float,
        frame_duration: float,
        load: float | None = None,
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
        load : float or torch.Tensor, optional
            Of another device than this one.
        """
        if load is not None:
            return load * frame_duration * flops / dense_flops
        return flops / self.speed(dense_flops, frame_duration)


def wait(backlog, time):
    """From a frame's arrival until it is encoded; the last's is the latency.

    Arguments
    ---------
    backlog : float, np.ndarray or torch.Tensor
        What the frame found, in seconds.
    time : float, np.ndarray or torch.Tensor
        What it takes, in seconds.

    Example
    -------
    >>> wait(0.25, 0.125)
    0.375
    """
    return backlog + time


def next_backlog(backlog, time, frame_duration: float):
    """Backlog that the next frame finds, in seconds.

    Arguments
    ---------
    backlog : float or torch.Tensor
        What this frame found, in seconds.
    time : float or torch.Tensor
        What this frame takes, in seconds.
    frame_duration : float
        Seconds.

    Example
    -------
    >>> next_backlog(0.0, 0.08, 0.04)
    0.04
    """
    waiting = wait(backlog, time) - frame_duration
    if isinstance(waiting, float):
        return max(0.0, waiting)
    return waiting.clamp(min=0)
