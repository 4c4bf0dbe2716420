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

from speechbrain_amnet.diff.changes import Change


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

    def round(self, bits: int) -> None:
        """Train with values as the file has them; a `SparseDiff` can."""
        raise ValueError(
            f"{self.name}: a {type(self).__name__} is not trained with rounded "
            "values"
        )

    def _beta(self, values: torch.Tensor) -> np.ndarray:
        if self.alpha != 1:
            raise ValueError(
                f"{self.name}: a diff's file holds what is added to the base; "
                f"alpha must be 1 for it, got {self.alpha}"
            )
        return (self.beta * values).detach().float().cpu().numpy()

    def extra_repr(self) -> str:
        return f"{self.name}, shape={list(self.shape)}"
