"""Forms that a weight matrix can take, and what a frame costs in each.

A branch of the encoder is told apart from the others by the *form* of its
matrices alone. A form is an ``nn.Module`` made as ``form(rows, columns)``; it
gives the matrix as a product of factors, and its cost in FLOPs (two for each
multiply-add), computed from the form itself because profilers count nothing
for recurrent layers.
"""

import math

import torch
from torch import nn


def _check_size(rows: int, columns: int) -> None:
    if rows < 1 or columns < 1:
        raise ValueError(
            f"A matrix needs at least one row and one column, got "
            f"{rows} x {columns}."
        )


def _uniform(rows: int, columns: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))


class WeightForm(nn.Module):
    """What every form of a ``[rows, columns]`` matrix offers.

    A new form has to give ``factors`` and ``flops``, and ``copy_from`` if it
    can start from a trained dense matrix.

    Arguments
    ---------
    rows : int
        Size of the output.
    columns : int
        Size of the input.
    """

    def __init__(self, rows: int, columns: int):
        super().__init__()
        _check_size(rows, columns)
        self.rows, self.columns = rows, columns

    def factors(self) -> tuple[torch.Tensor, ...]:
        """One or two matrices whose product is the matrix."""
        raise NotImplementedError

    @property
    def flops(self) -> int:
        """FLOPs of one product with a vector."""
        raise NotImplementedError

    def copy_from(self, matrix: torch.Tensor) -> None:
        """Take on the closest value to a dense ``[rows, columns]`` matrix."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: ``[..., columns] -> [..., rows]``."""
        for factor in reversed(self.factors()):
            x = nn.functional.linear(x, factor)
        return x

    def extra_repr(self) -> str:
        return f"rows={self.rows}, columns={self.columns}"


class Dense(WeightForm):
    """A full matrix, ``2 * rows * columns`` FLOPs.

    Arguments
    ---------
    rows : int
        Size of the output.
    columns : int
        Size of the input.

    Example
    -------
    >>> form = Dense(8, 4)
    >>> form(torch.ones(3, 4)).shape
    torch.Size([3, 8])
    >>> form.flops
    64
    """

    def __init__(self, rows: int, columns: int):
        super().__init__(rows, columns)
        self.weight = _uniform(rows, columns, 1 / math.sqrt(columns))

    def factors(self) -> tuple[torch.Tensor, ...]:
        """The matrix itself."""
        return (self.weight,)

    @property
    def flops(self) -> int:
        """FLOPs of one product with a vector."""
        return 2 * self.rows * self.columns

    @torch.no_grad()
    def copy_from(self, matrix: torch.Tensor) -> None:
        """Copy a dense ``[rows, columns]`` matrix."""
        self.weight.copy_(matrix)


class LowRank(WeightForm):
    """A product of two thin matrices, ``2 * rank * (rows + columns)`` FLOPs.

    Arguments
    ---------
    rows : int
        Size of the output.
    columns : int
        Size of the input.
    rank : int
        Columns of the left factor, rows of the right one.

    Raises
    ------
    ValueError
        If the rank is below 1, or above what the matrix can have.

    Example
    -------
    >>> form = LowRank(64, 32, rank=4)
    >>> form(torch.ones(3, 32)).shape
    torch.Size([3, 64])
    >>> form.flops
    768
    """

    def __init__(self, rows: int, columns: int, rank: int):
        super().__init__(rows, columns)
        if not 1 <= rank <= min(rows, columns):
            raise ValueError(
                f"rank: expected 1 to {min(rows, columns)} for a "
                f"{rows} x {columns} matrix, got {rank}."
            )
        self.rank = rank
        # The product's entries get the variance of a dense matrix's.
        bound = (9 / (columns * rank)) ** 0.25 / 3**0.25
        self.left = _uniform(rows, rank, bound)
        self.right = _uniform(rank, columns, bound)

    def factors(self) -> tuple[torch.Tensor, ...]:
        """The left and the right factor."""
        return self.left, self.right

    @property
    def flops(self) -> int:
        """FLOPs of one product with a vector."""
        return 2 * self.rank * (self.rows + self.columns)

    @torch.no_grad()
    def copy_from(self, matrix: torch.Tensor) -> None:
        """Take the truncated SVD of a ``[rows, columns]`` matrix.

        The singular values are shared evenly between the two factors.
        """
        u, s, v = torch.linalg.svd(matrix.float(), full_matrices=False)
        root = s[: self.rank].sqrt()
        self.left.copy_(u[:, : self.rank] * root)
        self.right.copy_(root[:, None] * v[: self.rank])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"
