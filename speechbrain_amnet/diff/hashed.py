"""A weight's diff whose positions share the values of few buckets."""

import math
import operator
from collections.abc import Iterator

import torch
from torch import nn

from speechbrain_amnet.diff.changes import HashChange
from speechbrain_amnet.diff.hashing import BLOCK, bucket_and_sign, key_of
from speechbrain_amnet.diff.weights import WeightDiff


class _Hashed(torch.autograd.Function):
    """Buckets' values at all positions, those of half of them negated."""

    @staticmethod
    def forward(ctx, buckets, diff):
        ctx.diff, ctx.count = diff, len(buckets)
        both = torch.cat([buckets, -buckets])
        return torch.cat([both[part] for part in diff.slots()])

    @staticmethod
    def backward(ctx, gradient):
        return ctx.diff.sums(gradient), None


class HashDiff(WeightDiff):
    """A diff whose positions share the values of few buckets.

    `D[i, j] = sign(i, j) * value[bucket(i, j)]`; bucket and sign come from a
    hash of seed, name and position, so that only the values travel. They are
    computed anew whenever they are needed, and never stored, unless asked for.

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
    cache : bool
        Keep what the hash gives while training, 4 bytes for each weight:
        quicker, where batches are small for the model.

    Raises
    ------
    ValueError
        If the share is not above 0 and at most 1, or the seed no integer.

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
        cache: bool = False,
    ):
        super().__init__(weight, name, alpha, beta)
        if not 0 < share <= 1:
            raise ValueError(
                f"HashDiff: share must be above 0 and at most 1, got {share}."
            )
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise ValueError(f"HashDiff: seed must be an integer, got {seed!r}")
        # One that JSON has, which NumPy's are not.
        self.seed, self.cache = operator.index(seed), cache
        count = max(1, round(share * weight.numel()))
        self.buckets = nn.Parameter(weight.new_zeros(count))
        self.register_buffer("cached", None, persistent=False)
        self.cached_of = None

    def get_extra_state(self) -> torch.Tensor:
        """By what it hashes: values are those of its buckets alone."""
        return torch.tensor(key_of(self.seed, self.name)).double()

    def _load_from_state_dict(self, state, prefix, *others):
        """Refuse the values of other buckets."""
        own = self.get_extra_state()
        theirs = state.get(f"{prefix}_extra_state", own)
        if theirs.tolist() != own.tolist():
            others[-1].append(
                f"{self.name}: the state is of another seed or name than "
                f"{self.seed} and this; give HashDiff the seed that it was "
                "trained with"
            )
            return
        super()._load_from_state_dict(state, prefix, *others)

    @property
    def block(self) -> int:
        """Positions that are hashed at a time; a GPU wants more than a CPU."""
        return 16 * BLOCK if self.buckets.is_cuda else BLOCK

    def slots(self) -> Iterator[torch.Tensor]:
        """Each position's bucket, int32, in blocks, in order.

        Those with a minus come as if there were as many buckets more.
        """
        if not self.cache:
            yield from self._hashed()
            return
        if self.cached is None or self.cached_of != (self.seed, self.name):
            self.cached = torch.cat(list(self._hashed()))
            self.cached_of = self.seed, self.name
        yield from self.cached.split(self.block)

    def _hashed(self):
        count, device = len(self.buckets), self.buckets.device
        key, size = key_of(self.seed, self.name), math.prod(self.shape)
        for start in range(0, size, self.block):
            end = min(start + self.block, size)
            here = torch.arange(start, end, device=device)
            bucket, sign = bucket_and_sign(here, key, count)
            yield bucket.int().add_((sign < 0).int(), alpha=count)

    def sums(self, dense: torch.Tensor) -> torch.Tensor:
        """What a dense tensor adds up to in each bucket, signs considered."""
        both = dense.new_zeros(2 * len(self.buckets))
        parts = dense.reshape(-1).split(self.block)
        for part, slots in zip(parts, self.slots(), strict=True):
            both.index_add_(0, slots, part)
        plus, minus = both.chunk(2)
        return plus - minus

    def parts(self) -> list[tuple[torch.Tensor, float]]:
        """The buckets' values."""
        return [(self.buckets, self.beta)]

    def delta(self) -> torch.Tensor:
        """The diff, dense."""
        return _Hashed.apply(self.rounded(0), self).reshape(self.shape)

    @torch.no_grad()
    def start(self, delta: torch.Tensor) -> None:
        """Begin with the mean of each bucket, signs considered."""
        delta = delta.to(self.buckets)
        count = self.buckets.new_zeros(2 * len(self.buckets))
        for slots in self.slots():
            count += torch.bincount(slots, minlength=len(count))
        plus, minus = count.chunk(2)
        self.buckets.copy_(self.sums(delta) / (plus + minus).clamp(min=1))
        self.round_again()

    def change(self, bits: int = 4) -> HashChange | None:
        """How it travels; None if all buckets are zero."""
        if not self.buckets.any():
            return None
        return HashChange(
            self.shape, self.travelling(0, bits), self.seed, self.name
        )
