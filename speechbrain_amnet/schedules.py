"""Values that change from step to step of a training.

One class serves the temperature of the routing, the weight of the routing
loss and the learning rate: a curve over the share of the training that is
done, so that a longer training stretches it.
"""

import math
from bisect import bisect_right
from typing import Any

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)


@register_checkpoint_hooks
class Schedule:
    """A curve through points over the share of the training that is done.

    Flat before its first point and after its last. Its value is in the
    checkpoint.

    Arguments
    ---------
    points : list of pairs of float
        Share of the training (0 to 1, rising) and value.
    interpolation : str
        Between the points: "linear", "geometric" (for values above 0, such
        as a temperature), "cosine", or "cubic" (fast at first, slow at the
        end).

    Raises
    ------
    ValueError
        If a point is no pair of numbers, the shares do not rise, or a value
        does not suit the interpolation.

    Example
    -------
    >>> temperature = Schedule([[0.5, 1], [0.9, 100]], "geometric")
    >>> [round(temperature.update(x), 2) for x in (0.1, 0.5, 0.7, 0.9, 1)]
    [1.0, 1.0, 10.0, 100.0, 100.0]
    >>> temperature.value
    100.0
    """

    def __init__(
        self, points: list[list[float]], interpolation: str = "linear"
    ):
        pairs = [one for one in points if is_pair(one)]
        if len(pairs) < len(points):
            raise ValueError(
                "Schedule: points must be pairs of finite numbers, as "
                f"[[0.1, 1.0], [1.0, 0.01]], got {points}."
            )
        shares = [float(share) for share, _ in pairs]
        values = [float(value) for _, value in pairs]
        if not points or shares != sorted(set(shares)):
            raise ValueError(
                "Schedule: the points' shares of the training must rise, got "
                f"{shares}."
            )
        if not (0 <= shares[0] and shares[-1] <= 1):
            raise ValueError(
                f"Schedule: shares must be within 0 to 1, got {shares}."
            )
        if interpolation not in ("linear", "geometric", "cosine", "cubic"):
            raise ValueError(
                "Schedule: interpolation must be linear, geometric, cosine or "
                f"cubic, got {interpolation!r}."
            )
        if interpolation == "geometric" and min(values) <= 0:
            raise ValueError(
                "Schedule: geometric interpolation needs values above 0, got "
                f"{values}."
            )
        self.shares, self.values = shares, values
        self.interpolation = interpolation
        self.value = self(0.0)

    def __call__(self, done: float) -> float:
        """The value when this share of the training is done."""
        after = bisect_right(self.shares, done)
        if after == 0:
            return self.values[0]
        if after == len(self.shares):
            return self.values[-1]
        left, right = self.shares[after - 1], self.shares[after]
        a, b = self.values[after - 1], self.values[after]
        x = (done - left) / (right - left)
        if self.interpolation == "geometric":
            return a * (b / a) ** x
        if self.interpolation == "cosine":
            x = (1 - math.cos(math.pi * x)) / 2
        if self.interpolation == "cubic":
            x = 1 - (1 - x) ** 3
        return a + (b - a) * x

    def update(self, done: float) -> float:
        """Move to this share of the training and return the value."""
        self.value = self(done)
        return self.value

    @mark_as_saver
    def _save(self, path):
        torch.save({"value": self.value}, path)

    @mark_as_loader
    def _load(self, path, end_of_epoch):
        del end_of_epoch
        self.value = torch.load(path)["value"]


def is_pair(point: Any) -> bool:
    """Whether it is two finite numbers.

    Example
    -------
    >>> is_pair([0.1, 1]), is_pair([0.1]), is_pair([0.1, float("nan")])
    (True, False, False)
    """
    return (
        isinstance(point, list | tuple)
        and len(point) == 2
        and all(isinstance(x, int | float) and math.isfinite(x) for x in point)
    )
