"""A weight's diff while it is trained: what all kinds have.

Each kind is a parametrization of one tensor as PyTorch has them: it gets the
frozen weight `W` and gives

    alpha * W + beta * D

and only what `D` is made of learns. `change` gives it as it will travel.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from speechbrain_amnet.diff.changes import (
    Change,
    Values,
    check_bits,
    check_finite,
)
from speechbrain_amnet.diff.coding import steps_of


class WeightDiff(nn.Module):
    """What all kinds have.

    Arguments
    ---------
    weight : torch.Tensor
        The tensor of the base model.
    name : str
        Its name.
    alpha : float
        What the base's weight is multiplied by. A file holds diffs of 1 only.
    beta : float
        What the diff is multiplied by.
    """

    kind: ClassVar[str]  # as files name it

    def __init__(
        self,
        weight: torch.Tensor,
        name: str = "",
        alpha: float = 1.0,
        beta: float = 1.0,
    ):
        super().__init__()
        self.name, self.shape = name, tuple(weight.shape)
        self.alpha, self.beta = alpha, beta
        self.bits = 32
        # Of each part that travels; found anew when a training goes on.
        self.steps: list[float] | None = None

    def parts(self) -> list[tuple[torch.Tensor, float]]:
        """What travels: each with a scale of its own, and its factor."""
        raise NotImplementedError

    def _load_from_state_dict(self, state, prefix, *others):
        """Round what is loaded by a step of its own."""
        # Older states have none of this; what they leave out stays as it is.
        state.setdefault(f"{prefix}_extra_state", self.get_extra_state())
        super()._load_from_state_dict(state, prefix, *others)
        self.round_again()

    def get_extra_state(self) -> torch.Tensor:
        """What a checkpoint has besides: float64, which averaging leaves."""
        return torch.zeros(0, dtype=torch.double)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take what a checkpoint has besides."""

    def round_again(self) -> None:
        """Round replaced values by a step of their own, if they are rounded."""
        if self.steps is not None:
            self.round(self.bits)

    def delta(self) -> torch.Tensor:
        """The diff `D`, of the weight's shape."""
        raise NotImplementedError

    def start(self, delta: torch.Tensor) -> None:
        """Begin with this diff, or as near to it as this kind comes.

        Arguments
        ---------
        delta : torch.Tensor
            Of the weight's shape.
        """
        raise NotImplementedError

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The updated weight, from the base's."""
        if self.alpha != 1:
            weight = self.alpha * weight
        return weight + self.beta * self.delta()

    def change(self, bits: int = 4) -> Change | None:
        """How it travels, its values in so many bits; None if it is zero."""
        raise NotImplementedError

    def keep(
        self, positions: torch.Tensor, start: torch.Tensor | None = None
    ) -> None:
        """Keep these positions alone; a `SparseDiff` can."""
        raise ValueError(
            f"{self.name}: a {type(self).__name__} has no positions to keep"
        )

    @torch.no_grad()
    def round(self, bits: int) -> None:
        """From now on use the values as so many bits will hold them.

        Gradients pass as if they were not rounded. The step is that of the
        values as they are: call it again when they have grown, as each step of
        the recipe's training does. What is zero everywhere is not rounded.

        Arguments
        ---------
        bits : int
            As for `changes.Values.rounded`; 32 takes it back.
        """
        check_bits(bits)
        parts = self.parts()
        self.bits, self.steps = bits, None
        if bits <= 8:
            arrays = [self._array(*one) for one in parts]
            self.steps = [
                float(Values.rounded(array, bits).scale) if array.any() else 0.0
                for array in arrays
            ]

    def rounded(self, part: int) -> torch.Tensor:
        """One of the `parts`, rounded if that was asked for."""
        values, factor = self.parts()[part]
        if self.steps is None or not self.steps[part]:
            return values
        most = 2 ** (self.bits - 1) - 1
        step = torch.tensor(self.steps[part] / factor, device=values.device)
        steps = (values / step).round().clamp(-most, most)
        return values + (steps * step - values).detach()

    def travelling(self, part: int, bits: int) -> Values:
        """One of the `parts` as the file has it."""
        values = self._array(*self.parts()[part])
        if self.steps is None or bits != self.bits or not self.steps[part]:
            return Values.rounded(values, bits)
        # The very steps that it was trained with.
        scale = np.float32(self.steps[part])
        check_finite(np.append(values, scale))
        return Values(steps_of(values, scale, bits), scale)

    def _array(self, values: torch.Tensor, factor: float) -> np.ndarray:
        if self.alpha != 1:
            raise ValueError(
                f"{self.name}: a diff's file holds what is added to the base; "
                f"alpha must be 1 for it, got {self.alpha}"
            )
        return (factor * values).detach().float().cpu().numpy().ravel()

    def extra_repr(self) -> str:
        return f"{self.name}, shape={list(self.shape)}"
