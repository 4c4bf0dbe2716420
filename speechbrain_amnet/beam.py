"""Beam searches of one stream that are held to a grammar.

The likeliest sentence of those that a grammar has, not the likeliest letters:
time-synchronous, hypotheses of the same tokens are added up, and those that the
grammar does not have are never made. `Beam` asks the transducer, whose
predictor knows the sentences of its training by heart and, where these were
few, prefers them to what was said (docs/decisions.md); `ctc_beam.CtcBeam` asks
what the encoder alone says. PyTorch's side and the device's runtime have both
from here; they bring what scores tokens.

Source: Graves, Sequence transduction with recurrent neural networks, 2012,
https://arxiv.org/abs/1211.3711; Saon et al., Alignment-length synchronous
decoding for RNN transducer, 2020 (a bound of symbols a frame).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from .grammar import Grammar, States, symbols_of
from .slots import is_tag

WIDTH = 8
"""Hypotheses of a search by the transducer."""

LONG = 256
"""Tokens that were given and that hypotheses still carry, about."""

LATE = 512
"""Tokens that the best hypothesis may carry and that were not given. Where a
grammar has no end, two readings of a word may differ by the same score for
ever, and nothing behind it would be sure. Commands are far shorter."""


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

    tokens : so far.
    score : log probability.
    where : states of the grammar.
    state : the predictor's.
    """

    tokens: tuple[int, ...]
    score: float
    where: States
    state: Any


@lru_cache(maxsize=8)
def by_symbol(pieces: tuple[str, ...]) -> dict[str, list[int]]:
    """Tokens by what their pieces have a grammar read first.

    Example
    -------
    >>> by_symbol(("", "▁GO", "N", "▁A"))
    {'▁': [1, 3], 'N': [2]}
    """
    found: dict[str, list[int]] = {}
    for token, piece in enumerate(pieces):
        for symbol in symbols_of(piece)[:1]:
            found.setdefault(symbol, []).append(token)
    return found


class HeldBeam:
    """What is common: where hypotheses may go, and what is sure of them."""

    def __init__(self, grammar: Grammar, pieces: Sequence[str], blank: int):
        self.grammar, self.blank = grammar, blank
        # Blank is no text, whatever it is called.
        self.pieces = (*pieces[:blank], "", *pieces[blank + 1 :])
        self.ways = grammar.ways.setdefault(self.pieces, {})
        self.count = self.given = 0
        self.token_frames: list[int] = []  # with which the last were given

    def step(self, frame: Any) -> list[int]:
        """Read a frame; gives the tokens that it makes sure."""
        raise NotImplementedError

    def finish(self) -> list[int]:
        """The rest of the tokens, when the stream has ended.

        Returns
        -------
        list of int
            Those of the likeliest whole sentence. Where no hypothesis is one,
            as when a speaker stops in the midst of a sentence, those of the
            likeliest beginning, without a word of which a part is missing
            (but for letters that were given before).
        """
        raise NotImplementedError

    def _ways(self, where: States) -> dict[int, States]:
        """The tokens that the grammar has next, and where they lead."""
        if where not in self.ways:
            # Most tokens are no way from anywhere.
            known, begin = by_symbol(self.pieces), self.grammar.after(where)
            tokens = [t for s in begin for t in known.get(s, ())]
            ways = {
                token: self.grammar.advance(where, self.pieces[token])
                for token in sorted(tokens)
            }
            self.ways[where] = {token: to for token, to in ways.items() if to}
        return self.ways[where]

    def _give(self, hypotheses: Sequence[Any]) -> list[int]:
        """What all of them begin with and has not been given."""
        # In order, what the first and the last share all between them do.
        first, last = (f(one.tokens for one in hypotheses) for f in (min, max))
        sure = next(
            (n for n, (a, b) in enumerate(zip(first, last)) if a != b),
            min(len(first), len(last)),
        )
        new = hypotheses[0].tokens[self.given : sure]
        self.token_frames = [self.count - 1] * len(new)
        self.given = max(sure, self.given)
        return list(new)

    def _agreeing(self, hypotheses: Sequence[Any], best: Any) -> list[int]:
        """Which of them begin as the best one does, but for its last `LATE`.

        Those that do not are to be dropped: the words of a stream are given in
        the end, and its hypotheses stay short.
        """
        late = slice(self.given, max(self.given, len(best.tokens) - LATE))
        begin = best.tokens[late]
        places = enumerate(hypotheses)
        return [i for i, one in places if one.tokens[late] == begin]

    def _shorter(self, hypotheses: list[Any]) -> list[Any]:
        """The same without what was given long ago, but for its last token.

        All have it in common, and a stream may go on for hours.
        """
        if self.given <= LONG:
            return hypotheses
        cut, self.given = self.given - 1, 1
        return [one._replace(tokens=one.tokens[cut:]) for one in hypotheses]

    def _last(self, best_first: Sequence[Any]) -> list[int]:
        """What `finish` gives of the hypotheses that there are."""
        for one in best_first:
            if self.grammar.complete(one.where):
                return self._give([one])
        best = best_first[0]
        ways = [self.pieces[token] for token in self._ways(best.where)]
        count = len(best.tokens)
        # A word is whole where another may follow it, or its tag.
        inside = not any(way.startswith("▁") or is_tag(way) for way in ways)
        while inside and count > self.given:  # a word: to where it began
            count -= 1
            inside = not self.pieces[best.tokens[count]].startswith("▁")
        return self._give([best._replace(tokens=best.tokens[:count])])


class Beam(HeldBeam):
    """Where the search of a stream stands, by the transducer.

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
        width: int = WIDTH,
        max_symbols: int = 10,
        margin: float = 8.0,
    ):
        super().__init__(grammar, pieces, blank)
        check_width(width)
        self.scorer, self.width, self.margin = scorer, width, margin
        self.max_symbols = max_symbols
        first = Hypothesis((), 0.0, grammar.start, scorer.start())
        self.hypotheses = [first]

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
            that were given before; see `LATE`.
        """
        done: dict[tuple[int, ...], Hypothesis] = {}
        open_ = self.hypotheses
        for symbols in range(self.max_symbols + 1):
            scores = self.scorer.scores(frame, [h.state for h in open_])
            check_finite(scores)
            for one, row in zip(open_, scores, strict=True):
                stays = one._replace(score=one.score + float(row[self.blank]))
                _merge(done, stays)
            if symbols == self.max_symbols:
                break
            open_ = self._longer(open_, scores, done)
            if not open_:
                break
        best = self._best(done.values())
        self.hypotheses = [best[i] for i in self._agreeing(best, best[0])]
        self.count += 1
        given = self._give(self.hypotheses)
        self.hypotheses = self._shorter(self.hypotheses)
        return given

    def finish(self) -> list[int]:
        """The rest of the tokens, when the stream has ended; see `HeldBeam`."""
        return self._last(self.hypotheses)

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
                score,
                where,
                state,
            )
            for (score, token, where, one), state in zip(found, states)
        ]

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


def _merge(done: dict, one: Hypothesis) -> None:
    """Add a hypothesis to what is known of the same tokens."""
    other = done.get(one.tokens)
    if other is not None:
        best = max(one, other, key=lambda h: h.score)
        one = best._replace(score=float(np.logaddexp(one.score, other.score)))
    done[one.tokens] = one


def check_width(width: int) -> None:
    """Refuse to keep no hypothesis."""
    if width < 1:
        raise ValueError(f"width must be 1 or more, got {width}")


def check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise ValueError(
            "encoded frames have NaN or infinity: the encoder's weights or "
            "its input are broken"
        )
