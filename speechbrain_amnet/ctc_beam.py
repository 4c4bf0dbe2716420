"""The beam search held to a grammar that asks the encoder's CTC head.

See `beam`, which has what it shares with the one that asks the transducer.

Source: Graves et al., Connectionist temporal classification, 2006, and Hannun
et al., First-pass large vocabulary continuous speech recognition using
bi-directional recurrent DNNs, 2014, https://arxiv.org/abs/1408.2873 (prefixes
of CTC).
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from .beam import HeldBeam, check_finite, check_width
from .grammar import Grammar, States

CTC_WIDTH = 64
"""Hypotheses of a search by the encoder alone."""

PRIOR = 0.5
"""How much of the logarithm of the tokens' shares is taken from what a CTC head
says: it prefers what is frequent (docs/decisions.md)."""


def prior_of(shares: Sequence[float] | None, size: int) -> np.ndarray | float:
    """What is subtracted from a CTC head's logits.

    Source: Sak et al., Learning acoustic frame labeling for speech recognition
    with recurrent neural networks, ICASSP 2015 (priors of CTC labels).

    Arguments
    ---------
    shares : sequence of float or None
        See `tokens.token_shares`; None of a model that does not know them.
    size : int
        Tokens of the model.

    Returns
    -------
    np.ndarray or float
        ``[tokens]``, in nats, or 0.

    Raises
    ------
    ValueError
        If there is not a share above 0 of each.
    """
    if shares is None:
        return 0.0
    if len(shares) != size or not min(shares) > 0:
        raise ValueError(
            f"token_shares: expected {size} numbers above 0, one of each "
            f"token, got {len(shares)}, the least {min(shares, default=None)}"
        )
    return PRIOR * np.log(shares)


class CtcHypothesis(NamedTuple):
    """What may have been said, by the encoder alone.

    tokens : so far.
    blank, token : log probabilities of the alignments that end with a blank,
        and with the last token.
    where : states of the grammar.
    """

    tokens: tuple[int, ...]
    blank: float
    token: float
    where: States

    @property
    def score(self) -> float:
        """Log probability."""
        return _either(self.blank, self.token)


class Prefix(NamedTuple):
    """What a hypothesis of `CtcBeam` begins with.

    tokens : so far.
    where : states of the grammar.
    """

    tokens: tuple[int, ...]
    where: States


class CtcBeam(HeldBeam):
    """Where the search of a stream stands, by the encoder's CTC head.

    A frame takes a few operations on arrays of all hypotheses, and not some on
    each: it is searched in a third of the time (docs/decisions.md).

    Arguments
    ---------
    grammar : Grammar
        What can be said.
    pieces : sequence of str
        Of each token; see `text.pieces_of`.
    blank : int
        Index of blank.
    width : int
        Hypotheses that are kept.
    margin : float
        Hypotheses that are so much less likely than the best one (in nats) are
        not kept: a head that learnt from few sentences is sure of much.

    Example
    -------
    >>> grammar = Grammar("#JSGF V1.0; grammar g; public <g> = go | gone;")
    >>> beam = CtcBeam(grammar, ["", "▁GO", "N", "E"])
    >>> heard = np.log([[0.1, 0.7, 0.1, 0.1], [0.4, 0.2, 0.3, 0.1]])
    >>> [beam.step(row) for row in heard], beam.finish()
    ([[], []], [1])
    """

    def __init__(
        self,
        grammar: Grammar,
        pieces: Sequence[str],
        blank: int = 0,
        width: int = CTC_WIDTH,
        margin: float = 40.0,
    ):
        super().__init__(grammar, pieces, blank)
        check_width(width)
        self.width, self.margin = width, margin
        self.follow: dict[States, tuple[np.ndarray, dict[int, int]]] = {}
        self._lay_out([Prefix((), grammar.start)])
        # Log probabilities of the alignments of each prefix that end with a
        # blank, and with its last token.
        self.blank_ends, self.token_ends = np.zeros(1), np.full(1, -math.inf)

    @property
    def hypotheses(self) -> list[CtcHypothesis]:
        """All of them, best first."""
        parts = zip(
            self.prefixes, self.blank_ends.tolist(), self.token_ends.tolist()
        )
        found = [
            CtcHypothesis(one.tokens, blank, token, one.where)
            for one, blank, token in parts
        ]
        return sorted(found, key=lambda one: -one.score)

    def step(self, scores: np.ndarray) -> list[int]:
        """Read a frame.

        Arguments
        ---------
        scores : np.ndarray
            Log probability of each token, ``[tokens]``.

        Returns
        -------
        list of int
            The tokens on which all hypotheses agree by now, without those
            that were given before; see `beam.LATE`.
        """
        check_finite(scores)
        row = np.asarray(scores, dtype=np.float64)
        before, whose = self.blank_ends, self.whose
        total = np.logaddexp(before, self.token_ends)
        blanks = total + row[self.blank]
        tokens = self.token_ends + row[self.last]
        # Of each prefix and token that may follow it. The same token again
        # needs a blank between.
        heard = row[self.next]
        comes = np.where(self.same, before[whose], total[whose]) + heard
        comes[heard < row.max() - self.margin] = -math.inf
        # Those that are among the prefixes are added up, the others are new.
        tokens[self.there] = np.logaddexp(
            tokens[self.there], comes[self.arrives]
        )
        comes[self.arrives] = -math.inf
        every = np.concatenate([np.logaddexp(blanks, tokens), comes])
        top = every.max()
        near = every >= max(top - self.margin, np.finfo(float).min)
        best = np.flatnonzero(near)
        if len(best) > self.width:
            order = np.argsort(-every[best], kind="stable")
            best = np.sort(best[order[: self.width]])
        count = int(np.searchsorted(best, len(total)))
        old, new = best[:count], best[count:] - len(total)
        # Relative to the best: those of a long stream would lose digits.
        none = np.full(len(new), -math.inf)
        self.blank_ends = np.concatenate([blanks[old], none]) - top
        self.token_ends = np.concatenate([tokens[old], comes[new]]) - top
        self.count += 1
        self.token_frames = []
        if len(old) == len(total) and not len(new):
            return []
        prefixes = [self.prefixes[i] for i in old.tolist()]
        prefixes += [self._longer(way) for way in new.tolist()]
        first = prefixes[int(every[best].argmax())]
        agreeing = self._agreeing(prefixes, first)
        self.blank_ends = self.blank_ends[agreeing]
        self.token_ends = self.token_ends[agreeing]
        self._lay_out([prefixes[i] for i in agreeing])
        given = self._give(self.prefixes)
        self.prefixes = self._shorter(self.prefixes)
        return given

    def _longer(self, way: int) -> Prefix:
        """A prefix and the token that follows it."""
        i = self.whose[way]
        one, token = self.prefixes[i], int(self.next[way])
        return Prefix((*one.tokens, token), self.ways[one.where][token])

    def _lay_out(self, prefixes: list[Prefix]) -> None:
        """Note what may follow some prefixes, and what of it is among them."""
        self.prefixes = prefixes
        follow = [self._following(one.where) for one in prefixes]
        counts = [len(places) for _, places in follow]
        self.whose = np.repeat(np.arange(len(prefixes)), counts)
        self.next = np.concatenate([tokens for tokens, _ in follow])
        # Without a token there is no score of it, whatever is added to that.
        last = [one.tokens[-1] if one.tokens else 0 for one in prefixes]
        self.last = np.array(last)
        first = np.array([not one.tokens for one in prefixes])
        self.same = (self.next == self.last[self.whose]) & ~first[self.whose]
        place = {one.tokens: i for i, one in enumerate(prefixes)}
        starts = list(accumulate(counts, initial=0))
        there, arrives = [], []
        for i, one in enumerate(prefixes):
            parent = place.get(one.tokens[:-1]) if one.tokens else None
            if parent is not None:
                there.append(i)
                way = follow[parent][1][one.tokens[-1]]
                arrives.append(starts[parent] + way)
        self.there = np.array(there, dtype=np.int64)
        self.arrives = np.array(arrives, dtype=np.int64)

    def _following(self, where: States) -> tuple[np.ndarray, dict[int, int]]:
        """The tokens that the grammar has next, and their places."""
        if where not in self.follow:
            ways = list(self._ways(where))
            tokens = np.array(ways, dtype=np.int64)
            self.follow[where] = tokens, {t: i for i, t in enumerate(ways)}
        return self.follow[where]

    def finish(self) -> list[int]:
        """The rest of the tokens, when the stream has ended; see `HeldBeam`."""
        return self._last(self.hypotheses)


def _either(one: float, other: float) -> float:
    """Log of the sum of two probabilities."""
    low, high = sorted((one, other))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
