"""The weights of a diff while it is trained: sparse, hashed, or low-rank.

Each is a parametrization of one tensor as PyTorch has them: it gets the frozen
weight `W` and gives

    alpha * W + beta * D

and only what `D` is made of learns. `change` gives it as it will travel.
"""

import math
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from speechbrain_amnet.diff.changes import (
    Change,
    HashChange,
    LowRankChange,
    SparseChange,
    Values,
    check_bits,
)
from speechbrain_amnet.diff.coding import steps_of
from speechbrain_amnet.diff.hashing import BLOCK, bucket_and_sign, key_of


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


class _AddAt(torch.autograd.Function):
    """A tensor with values added at flat positions."""

    @staticmethod
    def forward(ctx, weight, values, positions):
        ctx.save_for_backward(positions)
        new = weight.clone(memory_format=torch.contiguous_format)
        new.view(-1)[positions] += values
        return new

    @staticmethod
    def backward(ctx, gradient):
        (positions,) = ctx.saved_tensors
        mine = None
        if ctx.needs_input_grad[1]:
            mine = gradient.reshape(-1)[positions]
        whole = gradient if ctx.needs_input_grad[0] else None
        return whole, mine, None


class SparseDiff(WeightDiff):
    """A diff that is zero but at few positions.

    It begins dense, at zero, and learns all of `D`. While it is pruned, a gate
    opens for the entries above a threshold, the sharper the higher its
    temperature (`gate`); or the best positions are found after that alone
    (`keep`). From then on nothing dense is left: `D` is its values at the
    kept positions.

    Source: Learning a Neural Diff for Speech Models, Interspeech 2021,
    https://arxiv.org/abs/2108.01561

    Arguments
    ---------
    weight : torch.Tensor
        The tensor of the base model.
    name : str
        Its name.
    alpha : float
        What the base's weight is multiplied by.
    beta : float
        What the diff is multiplied by.

    Example
    -------
    >>> diff = SparseDiff(torch.ones(2, 2))
    >>> diff.dense.data = torch.tensor([[0.1, -3.0], [0.2, 0.0]])
    >>> diff.keep(torch.tensor([1]))
    >>> diff(torch.ones(2, 2)).tolist()
    [[1.0, -2.0], [1.0, 1.0]]
    >>> diff.change(bits=4).positions.tolist()
    [1]
    """

    kind = "sparse"

    def __init__(
        self,
        weight: torch.Tensor,
        name: str = "",
        alpha: float = 1.0,
        beta: float = 1.0,
    ):
        super().__init__(weight, name, alpha, beta)
        self.dense = nn.Parameter(torch.zeros_like(weight))
        self.values: nn.Parameter | None = None
        self.importance: torch.Tensor | None = None
        self.register_buffer("positions", None)
        # Found anew when a training goes on.
        self.register_buffer("step", None, persistent=False)
        self.bits = 32
        self.threshold = self.temperature = 0.0

    def note_gradient(self) -> None:
        """Add the dense diff's squared gradient to `importance`, and clear it.

        Raises
        ------
        ValueError
            If it is not dense any more, or has no gradient.
        """
        if self.dense is None or self.dense.grad is None:
            raise ValueError(
                f"{self.name}: no gradient of a dense diff; run backward() "
                "before, and keep() after it"
            )
        square = self.dense.grad.square()
        if self.importance is not None:
            square += self.importance
        self.importance, self.dense.grad = square, None

    def gate(self, threshold: float, temperature: float) -> None:
        """Let through what is above a threshold.

        Arguments
        ---------
        threshold : float
            Of the absolute values; 0 lets everything through.
        temperature : float
            How sharp: a value of twice the threshold is let through by
            `sigmoid(temperature)`.
        """
        self.threshold, self.temperature = threshold, temperature

    def gated(self) -> torch.Tensor:
        """The dense diff behind its gate."""
        if not self.threshold:
            return self.dense
        size = self.dense.abs() / self.threshold - 1
        return self.dense * torch.sigmoid(self.temperature * size)

    def keep(
        self, positions: torch.Tensor, start: torch.Tensor | None = None
    ) -> None:
        """Keep these positions alone; the dense diff is gone after it.

        Arguments
        ---------
        positions : torch.Tensor
            Flat, int64.
        start : torch.Tensor, optional
            Their values to begin with; those that they have by default.
        """
        with torch.no_grad():
            positions, order = positions.sort()
            if start is None:
                start = self.delta().reshape(-1)[positions]
            else:
                start = start[order]
            start = start.detach().clone()
        self.positions = positions
        self.values = nn.Parameter(start)
        self.dense = self.importance = None

    @torch.no_grad()
    def start(self, delta: torch.Tensor) -> None:
        """Begin with this diff."""
        if self.dense is None:
            self.values.copy_(delta.reshape(-1)[self.positions])
        else:
            self.dense.copy_(delta)

    def round(self, bits: int) -> None:
        """From now on use the values as so many bits will hold them.

        Gradients pass as if they were not rounded.

        Arguments
        ---------
        bits : int
            As for `changes.Values.rounded`; 32 takes it back.
        """
        if self.values is None:
            raise ValueError(
                f"{self.name}: the diff is dense still; keep() comes first"
            )
        check_bits(bits)
        self.bits = bits
        self.step = None
        if bits <= 8:
            values = self._beta(self.values)
            scale = Values.rounded(values, bits).scale
            self.step = self.values.new_tensor(float(scale))

    def kept(self) -> torch.Tensor:
        """The values at the kept positions, rounded if that was asked for."""
        if self.step is None:
            return self.values
        most, step = 2 ** (self.bits - 1) - 1, self.step / self.beta
        steps = (self.values / step).round().clamp(-most, most)
        return self.values + (steps * step - self.values).detach()

    def delta(self) -> torch.Tensor:
        """The diff, dense."""
        if self.values is None:
            return self.gated()
        zeros = self.values.new_zeros(self.shape)
        return _AddAt.apply(zeros, self.kept(), self.positions)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The updated weight."""
        if self.values is None:
            return super().forward(weight)
        if self.alpha != 1:
            weight = self.alpha * weight
        return _AddAt.apply(weight, self.beta * self.kept(), self.positions)

    def change(self, bits: int = 4) -> SparseChange | None:
        """How it travels; None if nothing is kept."""
        if self.values is None:
            raise ValueError(
                f"{self.name}: the diff is dense still; keep() comes first"
            )
        if not len(self.positions):
            return None
        values = self._beta(self.values)
        if self.step is not None and bits == self.bits:
            # The very steps that it was trained with.
            scale = np.float32(float(self.step))
            rounded = Values(steps_of(values, scale, bits), scale)
        else:
            rounded = Values.rounded(values, bits)
        return SparseChange(self.shape, self.positions.cpu().numpy(), rounded)


class _Hashed(torch.autograd.Function):
    """Buckets' values at all positions; hashed again on the way back."""

    @staticmethod
    def forward(ctx, buckets, size, key):
        ctx.size, ctx.key, ctx.count = size, key, len(buckets)
        return torch.cat(
            [
                buckets[bucket] * sign
                for bucket, sign in _blocks(buckets, size, key)
            ]
        )

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.new_zeros(ctx.count)
        parts = gradient.split(BLOCK)
        blocks = _blocks(total, ctx.size, ctx.key)
        for part, (bucket, sign) in zip(parts, blocks, strict=True):
            total.index_add_(0, bucket, part * sign)
        return total, None, None


def _blocks(buckets, size, key):
    for start in range(0, size, BLOCK):
        here = torch.arange(
            start, min(start + BLOCK, size), device=buckets.device
        )
        bucket, sign = bucket_and_sign(here, key, len(buckets))
        yield bucket, sign.to(buckets.dtype)


class HashDiff(WeightDiff):
    """A diff whose positions share the values of few buckets.

    `D[i, j] = sign(i, j) * value[bucket(i, j)]`; bucket and sign come from a
    hash of seed, name and position, so that only the values travel. They are
    computed anew whenever they are needed, and never stored.

    Source: Learning a Neural Diff for Speech Models, Interspeech 2021,
    https://arxiv.org/abs/2108.01561; Chen et al., Compressing Neural Networks
    with the Hashing Trick, 2015, https://arxiv.org/abs/1504.04788.

    Arguments
    ---------
    weight : torch.Tensor
        The tensor of the base model.
    name : str
        Its name.
    share : float
        Buckets, as a share of the weights.
    seed : int
        Of the hash; a new one for each update.
    alpha : float
        What the base's weight is multiplied by.
    beta : float
        What the diff is multiplied by.

    Raises
    ------
    ValueError
        If the share is not above 0 and at most 1.

    Example
    -------
    >>> diff = HashDiff(torch.ones(8, 8), "w", share=0.1, seed=1)
    >>> diff.buckets.shape
    torch.Size([6])
    >>> torch.equal(diff(torch.ones(8, 8)), torch.ones(8, 8))
    True
    """

    kind = "hash"

    def __init__(
        self,
        weight: torch.Tensor,
        name: str = "",
        share: float = 0.02,
        seed: int = 0,
        alpha: float = 1.0,
        beta: float = 1.0,
    ):
        super().__init__(weight, name, alpha, beta)
        if not 0 < share <= 1:
            raise ValueError(
                f"HashDiff: share must be above 0 and at most 1, got {share}."
            )
        self.seed = seed
        count = max(1, round(share * weight.numel()))
        self.buckets = nn.Parameter(weight.new_zeros(count))

    def delta(self) -> torch.Tensor:
        """The diff, dense."""
        key, size = key_of(self.seed, self.name), math.prod(self.shape)
        return _Hashed.apply(self.buckets, size, key).reshape(self.shape)

    @torch.no_grad()
    def start(self, delta: torch.Tensor) -> None:
        """Begin with the mean of each bucket, signs considered."""
        flat, total = delta.to(self.buckets).reshape(-1), self.buckets * 0
        count = total.clone()
        key = key_of(self.seed, self.name)
        blocks = _blocks(self.buckets, len(flat), key)
        for part, (bucket, sign) in zip(flat.split(BLOCK), blocks, strict=True):
            total.index_add_(0, bucket, part * sign)
            count.index_add_(0, bucket, sign.abs())
        self.buckets.copy_(total / count.clamp(min=1))

    def change(self, bits: int = 8) -> HashChange | None:
        """How it travels; None if all buckets are zero."""
        if not self.buckets.any():
            return None
        values = Values.rounded(self._beta(self.buckets), bits)
        return HashChange(self.shape, values, self.seed, self.name)


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

    def delta(self) -> torch.Tensor:
        """The diff, dense."""
        return (self.left @ self.right).reshape(self.shape)

    @torch.no_grad()
    def start(self, delta: torch.Tensor) -> None:
        """Begin with the nearest product, by singular values."""
        rank, columns = self.right.shape
        matrix = delta.to(self.left).reshape(-1, columns)
        if columns == 1 or not matrix.any():
            # With a right factor of zeros, too, nothing would ever learn.
            self.left.copy_(matrix[:, : self.left.shape[1]])
            return
        left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
        root = sizes[:rank].sqrt()
        self.left.copy_(left[:, :rank] * root)
        self.right.copy_(root[:, None] * right[:rank])

    def change(self, bits: int = 8) -> Change | None:
        """How it travels; None if it is zero."""
        if not self.left.any():
            return None
        left = self._beta(self.left)
        if self.right.shape[1] == 1:
            every = np.arange(left.size)
            return SparseChange(self.shape, every, Values.rounded(left, bits))
        return LowRankChange(
            self.shape,
            Values.rounded(left, bits),
            Values.rounded(self.right.detach().cpu().numpy(), bits),
            self.left.shape[1],
        )
