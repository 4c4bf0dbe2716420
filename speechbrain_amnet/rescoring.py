"""The transducer's opinion of the likeliest sentences, when a stream has ended.

A grammar is searched by what the encoder alone says (`beam.CtcBeam`). The
transducer, which knows what words follow each other, is then asked about the
few sentences that are left, and both log probabilities are added up. It costs
its time after the last frame.

Source: Sainath et al., Two-Pass End-to-End Speech Recognition, Interspeech
2019, https://arxiv.org/abs/1908.10992.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

MOST = 1500
"""Frames of a stream, of 40 ms a minute: after more the encoder decides."""


class Scorer(Protocol):
    """What knows the predictor and the joint network."""

    def start(self) -> Any:
        """The predictor's state before the first token."""

    def read(self, tokens: Sequence[int], states: Sequence[Any]) -> list[Any]:
        """The states after one more token each."""

    def scores(self, frame: Any, states: Sequence[Any]) -> np.ndarray:
        """Log probabilities ``[states, tokens]`` at a frame."""


def check_rescore(rescore: int, grammar: Any, head: bool = True) -> None:
    """Refuse to ask the transducer where there is nothing to ask it.

    Arguments
    ---------
    rescore : int
        Sentences that it is to be asked about.
    grammar : object
        That the search is held to, or None.
    head : bool
        Whether the model has a CTC head.

    Raises
    ------
    ValueError
        If it is below 0, or 1, or above that without a grammar or a head.
    """
    if rescore < 0 or rescore == 1:
        raise ValueError(
            f"rescore: expected a number of sentences, 2 or more, or 0 for no "
            f"second opinion, got {rescore}"
        )
    if rescore and grammar is None:
        raise ValueError(
            f"rescore: expected a grammar, too, for {rescore} of its sentences"
        )
    if rescore and not head:
        raise ValueError(
            f"rescore: expected 0 for a model without a CTC head, got "
            f"{rescore}: its transducer searches, and is not asked again"
        )


class Rescorer:
    """Keeps a stream's frames, and what the transducer says of sentences.

    Arguments
    ---------
    scorer : Scorer
        Of the model.
    count : int
        Sentences that it is asked about, at most; no more than hypotheses are
        kept.
    blank : int
        Index of blank.
    """

    def __init__(self, scorer: Scorer, count: int, blank: int = 0):
        self.scorer, self.count, self.blank = scorer, count, blank
        self.frames: list[Any] = []

    def hear(self, frame: Any) -> None:
        """Keep a frame, as the scorer takes it."""
        if len(self.frames) <= MOST:
            self.frames.append(frame)

    def scores(self, sentences: Sequence[Sequence[int]]) -> np.ndarray:
        """What to add to what is known of some sentences.

        Arguments
        ---------
        sentences : sequence of sequence of int
            Their tokens.

        Returns
        -------
        np.ndarray
            Log probability of each, over all alignments; zeros after a stream
            that was too long to be kept.

        Raises
        ------
        ValueError
            If one is not finite.
        """
        if not self.frames or len(self.frames) > MOST:
            return np.zeros(len(sentences))
        with np.errstate(invalid="ignore"):
            found = likelihoods(self.scorer, self.frames, sentences, self.blank)
        if not np.isfinite(found).all():
            raise ValueError(
                "the transducer's scores have NaN or infinity: the weights of "
                "the predictor or the joint network are broken"
            )
        return found


def likelihoods(
    scorer: Scorer,
    frames: Sequence[Any],
    sentences: Sequence[Sequence[int]],
    blank: int = 0,
) -> np.ndarray:
    """Log probability of each sentence by the transducer.

    As its loss has it, but what sentences begin with alike is computed once.

    Arguments
    ---------
    scorer : Scorer
        Of the model.
    frames : sequence
        What the encoder gave, as the scorer takes it.
    sentences : sequence of sequence of int
        Their tokens.
    blank : int
        Index of blank.

    Returns
    -------
    np.ndarray
        ``[sentences]``, in nats.
    """
    places: dict[tuple[int, ...], int] = {(): 0}
    parents, tokens, states = [0], [blank], [scorer.start()]
    levels = []  # places of the beginnings of each length
    for length in range(1, 1 + max(map(len, sentences), default=0)):
        new = dict.fromkeys(
            tuple(one[:length]) for one in sentences if len(one) >= length
        )
        before = [places[one[:-1]] for one in new]
        last = [one[-1] for one in new]
        states += scorer.read(last, [states[place] for place in before])
        levels.append(slice(len(places), len(places) + len(new)))
        places |= {one: len(places) + i for i, one in enumerate(new)}
        parents, tokens = parents + before, tokens + last
    stays = np.empty((len(frames), len(states)))
    comes = np.empty_like(stays)  # to a beginning, from one that is shorter
    for t, frame in enumerate(frames):
        scores = scorer.scores(frame, states)
        stays[t] = scores[:, blank]
        comes[t] = scores[parents, tokens]
    # Of blanks before each frame: what is there at a frame came at one of
    # those up to it, and there was nothing but blanks since.
    since = np.concatenate([np.zeros((1, len(states))), stays]).cumsum(0)
    there = np.empty_like(stays)
    there[:, 0] = since[:-1, 0]
    for own in levels:
        came = there[:, parents[own]] + comes[:, own] - since[:-1, own]
        there[:, own] = since[:-1, own] + np.logaddexp.accumulate(came, 0)
    ends = [places[tuple(one)] for one in sentences]
    return (there[-1] + stays[-1])[ends]
