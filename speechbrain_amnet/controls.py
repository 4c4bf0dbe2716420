"""Routers that learn nothing: one branch, drawn branches, loud frames.

A single branch is routed by the first; beside the others an `Arbitrator` shows
that it has learnt something.
"""

import math

import torch
from torch import nn

from .arbitrator import Router
from .draws import fixed_draws

# Thresholds of none and all: a batch's loudest frame is not the next one's.
ENDS = {0: math.inf, 1: -math.inf}


class FixedRouting(Router):
    """Always the same branch.

    Arguments
    ---------
    branches : int
        How many there are.
    branch : int
        The one that encodes every frame.

    Raises
    ------
    ValueError
        If there is no such branch.

    Example
    -------
    >>> FixedRouting(branches=2, branch=1).prepare(torch.zeros(1, 1, 4))
    tensor([[[0., 1.]]])
    """

    def __init__(self, branches: int, branch: int = 0):
        super().__init__(branches)
        if not 0 <= branch < branches:
            raise ValueError(
                f"FixedRouting: branch must be 0 to {branches - 1}, got "
                f"{branch}."
            )
        self.branch = branch

    def prepare(
        self,
        features: torch.Tensor,
        first: int = 0,
        load: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The shares themselves, ``[batch, frames, K]``."""
        shares = features.new_zeros(*features.shape[:2], self.branches)
        shares[..., self.branch] = 1
        return shares


class RandomRouting(Router):
    """A branch drawn for each frame, whatever it holds.

    New draws at every step of training. After training the draws are a fixed
    sequence over the frames of an utterance, so that an utterance's words
    depend neither on its batch nor on being streamed.

    Arguments
    ---------
    shares : list of float
        How often each branch is drawn; they sum to 1.
    seed : int
        Of the fixed sequence.

    Raises
    ------
    ValueError
        If `shares` are below 0 or do not sum to 1, or the seed is none.

    Example
    -------
    >>> router = RandomRouting([0.25, 0.75]).eval()
    >>> shares = router.prepare(torch.zeros(1, 10000, 8)).mean(1)
    >>> (shares - torch.tensor([[0.25, 0.75]])).abs().max().item() < 0.01
    True
    """

    def __init__(self, shares: list[float], seed: int = 0):
        super().__init__(len(shares))
        if not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):
            raise ValueError(
                "RandomRouting: shares must be 0 or more and sum to 1, got "
                f"{list(shares)}."
            )
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError(
                "RandomRouting: seed must be a whole number from 0 to "
                f"{2**32 - 1}, got {seed}."
            )
        self.register_buffer(
            "edges",
            torch.tensor(shares[:-1], dtype=torch.float64).cumsum(0),
            persistent=False,
        )
        self.seed = seed

    def prepare(
        self,
        features: torch.Tensor,
        first: int = 0,
        load: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The shares themselves, one-hot, ``[batch, frames, K]``."""
        batch, frames = features.shape[:2]
        if self.training:
            drawn = torch.rand(
                batch, frames, device=features.device, dtype=torch.float64
            )
        else:
            drawn = torch.from_numpy(fixed_draws(first, frames, self.seed))
            drawn = drawn.to(features.device).expand(batch, frames)
        branch = torch.bucketize(drawn.contiguous(), self.edges, right=True)
        return nn.functional.one_hot(branch, self.branches).to(features)


class EnergyRouting(Router):
    """Loud frames to the first branch, the others to the last.

    A rule of voice activity. Its threshold follows the given quantile of the
    frames that it sees in training.

    Arguments
    ---------
    share : float
        How many of the frames go to the first branch.
    branches : int
        How many there are.
    momentum : float
        How slowly the threshold follows.

    Raises
    ------
    ValueError
        If `share` is not from 0 to 1, `momentum` not from 0 to below 1, or
        there is a single branch.

    Example
    -------
    >>> router = EnergyRouting(share=0.25)
    >>> loud = torch.arange(8.0).reshape(1, 8, 1).expand(1, 8, 4)
    >>> router.prepare(loud)[0, :, 0]
    tensor([0., 0., 0., 0., 0., 0., 1., 1.])
    """

    def __init__(self, share: float, branches: int = 2, momentum: float = 0.99):
        super().__init__(branches)
        if not 0 <= share <= 1:
            raise ValueError(
                f"EnergyRouting: share must be 0 to 1, got {share}."
            )
        if not 0 <= momentum < 1:
            raise ValueError(
                "EnergyRouting: momentum must be 0 or more and below 1, got "
                f"{momentum}."
            )
        if branches < 2:
            raise ValueError(
                f"EnergyRouting: branches must be 2 or more, got {branches}."
            )
        self.share, self.momentum = share, momentum
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self._end()

    def _load_from_state_dict(self, *args):
        """Older ones had the threshold of some batch for none and all, too."""
        super()._load_from_state_dict(*args)
        self._end()

    def _end(self):
        if self.share in ENDS:
            self.threshold.fill_(ENDS[self.share])

    def prepare(
        self,
        features: torch.Tensor,
        first: int = 0,
        load: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The shares themselves, one-hot, ``[batch, frames, K]``."""
        energy = features.float().mean(-1)
        # The encoder hands padding over as zeros.
        real = energy.detach()[(features != 0).any(-1)]
        if self.training and len(real):
            now = torch.quantile(real, 1 - self.share)
            keep = self.momentum if self.seen else 0.0
            self.threshold.mul_(keep).add_(now, alpha=1 - keep)
            self._end()
            self.seen.add_(1)
        loud = energy > self.threshold
        shares = features.new_zeros(*features.shape[:2], self.branches)
        shares[..., 0] = loud.to(shares)
        shares[..., -1] = 1 - shares[..., 0]
        return shares
