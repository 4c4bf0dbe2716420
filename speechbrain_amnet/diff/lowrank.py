"""A weight's diff that is a product of two thin matrices."""

import math

import numpy as np
import torch
from torch import nn

from speechbrain_amnet.diff.changes import (
    Change,
    LowRankChange,
    SparseChange,
)
from speechbrain_amnet.diff.weights import WeightDiff


class LowRankDiff(WeightDiff):
    """A diff that is a product of two thin matrices, as LoRA's.

    For comparison, with the same quantiser and the same file; it reaches
    recurrent weights, too. The further dimensions of a tensor count as columns;
    vectors learn whole.

    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021,
    https://arxiv.org/abs/2106.09685.

    Arguments
    ---------
    weight : torch.Tensor
        The tensor of the base model.
    name : str
        Its name.
    rank : int
        Columns of the left factor, at most.
    alpha : float
        What the base's weight is multiplied by.
    beta : float
        What the diff is multiplied by.

    Raises
    ------
    ValueError
        If `rank` is below 1.

    Example
    -------
    >>> diff = LowRankDiff(torch.ones(8, 6), rank=2)
    >>> diff.left.shape, diff.right.shape
    (torch.Size([8, 2]), torch.Size([2, 6]))
    """

    kind = "lowrank"

    def __init__(
        self,
        weight: torch.Tensor,
        name: str = "",
        rank: int = 4,
        alpha: float = 1.0,
        beta: float = 1.0,
    ):
        super().__init__(weight, name, alpha, beta)
        rows = self.shape[0] if self.shape else 1
        columns = max(1, weight.numel() // max(1, rows))
        if rank < 1:
            raise ValueError(
                f"LowRankDiff: rank must be 1 or more, got {rank}."
            )
        rank = min(rank, rows, columns)
        self.left = nn.Parameter(weight.new_zeros(rows, rank))
        right = torch.ones(rank, columns)
        if columns > 1:
            right = torch.randn(rank, columns) / math.sqrt(columns)
        self.right = nn.Parameter(right.to(weight), columns > 1)

    def parts(self) -> list[tuple[torch.Tensor, float]]:
        """Both factors; of a vector the left one, which is all of it."""
        if self.right.shape[1] == 1:
            return [(self.left, self.beta)]
        return [(self.left, self.beta), (self.right, 1.0)]

    def delta(self) -> torch.Tensor:
        """The diff, dense."""
        if self.right.shape[1] == 1:
            return self.rounded(0).reshape(self.shape)
        return (self.rounded(0) @ self.rounded(1)).reshape(self.shape)

    @torch.no_grad()
    def start(self, delta: torch.Tensor) -> None:
        """Begin with the nearest product, by singular values."""
        rank, columns = self.right.shape
        matrix = delta.to(self.left).reshape(-1, columns)
        if columns == 1 or not matrix.any():
            # With a right factor of zeros, too, nothing would ever learn.
            self.left.copy_(matrix[:, : self.left.shape[1]])
            self.round_again()
            return
        left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
        root = sizes[:rank].sqrt()
        self.left.copy_(left[:, :rank] * root)
        self.right.copy_(root[:, None] * right[:rank])
        self.round_again()

    def change(self, bits: int = 8) -> Change | None:
        """How it travels; None if it is zero."""
        if not self.left.any():
            return None
        left = self.travelling(0, bits)
        if self.right.shape[1] == 1:
            every = np.arange(left.stored.size)
            return SparseChange(self.shape, every, left)
        rank = self.left.shape[1]
        right = self.travelling(1, bits)
        return LowRankChange(self.shape, left, right, rank)
