"""A beam search of one stream that is held to a grammar.

The likeliest sentence of those that a grammar has, not the likeliest letters:
time-synchronous, hypotheses of the same tokens are added up, and those that the
grammar does not have are never made. PyTorch's side and the device's runtime
have it from here; they bring what scores tokens.

Source: Graves, Sequence transduction with recurrent neural networks, 2012,
https://arxiv.org/abs/1211.3711 (the search); Saon et al., Alignment-length
synchronous decoding for RNN transducer, 2020 (a bound of symbols a frame).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from .grammar import Grammar, States


class Scorer(Protocol):
    """What knows the predictor and the joint network."""

    def start(self) -> Any:
        """The predictor's state before the first token."""

    def read(self, tokens: Sequence[int], states: Sequence[Any]) -> list[Any]:
        """The states after one more token each."""

    def scores(self, frame: Any, states: Sequence[Any]) -> np.ndarray:
        """Log probabilities ``[states, tokens]`` at a frame."""


class Hypothesis(NamedTuple):
    """What may have been said.

    tokens, frames : so far, and the frame of each.
    score : log probability.
    where : states of the grammar.
    state : the predictor's.
    """

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    score: float
    where: States
    state: Any


class Beam:
    """Where the search of a stream stands.

    Arguments
    ---------
    scorer : Scorer
        Of the model.
    grammar : Grammar
        What can be said.
    pieces : sequence of str
        Of each token; see `text.pieces_of`.
    blank : int
        Index of blank.
    width : int
        Hypotheses that are kept.
    max_symbols : int
        Most tokens that one frame may give.
    margin : float
        Hypotheses that are so much less likely than the best one (in nats) are
        not kept.
    """

    def __init__(
        self,
        scorer: Scorer,
        grammar: Grammar,
        pieces: Sequence[str],
        blank: int = 0,
        width: int = 8,
        max_symbols: int = 10,
        margin: float = 8.0,
    ):
        if width < 1:
            raise ValueError(f"width must be 1 or more, got {width}")
        self.scorer, self.grammar, self.pieces = scorer, grammar, pieces
        self.blank, self.width, self.margin = blank, width, margin
        self.max_symbols = max_symbols
        self.ways: dict[States, dict[int, States]] = {}
        first = Hypothesis((), (), 0.0, grammar.start, scorer.start())
        self.hypotheses = [first]
        self.count = self.given = 0
        self.token_frames: list[int] = []  # of the tokens that were given last

    def step(self, frame: Any) -> list[int]:
        """Read a frame.

        Arguments
        ---------
        frame : array
            What the encoder gave; as the scorer takes it.

        Returns
        -------
        list of int
            The tokens on which all hypotheses agree by now, without those
            that were given before.
        """
        done: dict[tuple[int, ...], Hypothesis] = {}
        open_ = self.hypotheses
        for symbols in range(self.max_symbols + 1):
            scores = self.scorer.scores(frame, [h.state for h in open_])
            if not np.isfinite(scores).all():
                raise ValueError(
                    "encoded frames have NaN or infinity: the encoder's "
                    "weights or its input are broken"
                )
            for one, row in zip(open_, scores, strict=True):
                stays = one._replace(score=one.score + float(row[self.blank]))
                _merge(done, stays)
            if symbols == self.max_symbols:
                break
            open_ = self._longer(open_, scores, done)
            if not open_:
                break
        self.hypotheses = self._best(done.values())
        self.count += 1
        return self._give(self.hypotheses)

    def finish(self) -> list[int]:
        """The rest of the tokens, when the stream has ended.

        Returns
        -------
        list of int
            Those of the likeliest whole sentence; none more if no hypothesis
            is one.
        """
        whole = [h for h in self.hypotheses if self.grammar.complete(h.where)]
        self.hypotheses = whole[:1] or self.hypotheses
        return self._give(self.hypotheses)

    def _longer(self, hypotheses, scores, done) -> list[Hypothesis]:
        """Those with a token more that are likely enough."""
        least = max(one.score for one in done.values()) - self.margin
        found = []
        for one, row in zip(hypotheses, scores, strict=True):
            for token, where in self._ways(one.where).items():
                score = one.score + float(row[token])
                if score > least:
                    found.append((score, token, where, one))
        found.sort(key=lambda way: -way[0])
        found = found[: self.width]
        if not found:
            return []
        states = self.scorer.read(
            [token for _, token, _, _ in found],
            [one.state for *_, one in found],
        )
        return [
            Hypothesis(
                (*one.tokens, token),
                (*one.frames, self.count),
                score,
                where,
                state,
            )
            for (score, token, where, one), state in zip(found, states)
        ]

    def _ways(self, where: States) -> dict[int, States]:
        """The tokens that the grammar has next, and where they lead."""
        if where not in self.ways:
            ways = {
                token: self.grammar.advance(where, piece)
                for token, piece in enumerate(self.pieces)
                if piece and token != self.blank
            }
            self.ways[where] = {t: w for t, w in ways.items() if w}
        return self.ways[where]

    def _best(self, hypotheses) -> list[Hypothesis]:
        """The likeliest, best first."""
        best = sorted(hypotheses, key=lambda one: -one.score)[: self.width]
        least = best[0].score - self.margin
        # Relative to the best: those of a long stream would lose digits.
        return [
            one._replace(score=one.score - best[0].score)
            for one in best
            if one.score >= least
        ]

    def _give(self, hypotheses) -> list[int]:
        """What all of them begin with and has not been given."""
        # In order, what the first and the last share all between them do.
        first, last = (f(one.tokens for one in hypotheses) for f in (min, max))
        sure = next(
            (n for n, (a, b) in enumerate(zip(first, last)) if a != b),
            min(len(first), len(last)),
        )
        new = hypotheses[0].tokens[self.given : sure]
        self.token_frames = list(hypotheses[0].frames[self.given : sure])
        self.given = max(sure, self.given)
        return list(new)


def _merge(done: dict, one: Hypothesis) -> None:
    """Add a hypothesis to what is known of the same tokens."""
    other = done.get(one.tokens)
    if other is not None:
        best = max(one, other, key=lambda h: h.score)
        one = best._replace(score=float(np.logaddexp(one.score, other.score)))
    done[one.tokens] = one
