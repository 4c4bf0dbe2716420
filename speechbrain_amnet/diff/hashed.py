"""A weight's diff whose positions share the values of few buckets."""

import math

import torch
from torch import nn

from speechbrain_amnet.diff.changes import HashChange, Values
from speechbrain_amnet.diff.hashing import BLOCK, bucket_and_sign, key_of
from speechbrain_amnet.diff.weights import WeightDiff


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
