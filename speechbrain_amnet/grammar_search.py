"""The search of a batch of streams that is held to a grammar."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .beam import WIDTH, Beam, HeldBeam, check_width
from .ctc_beam import CTC_WIDTH, CtcBeam, prior_of
from .frames import absolute_lengths
from .grammar import Grammar
from .search import GreedySearch


@dataclass
class GrammarContext:
    """Where the searches of a batch of streams stand.

    Arguments
    ---------
    beams : list of HeldBeam
        One a stream.
    token_frames : list
        For each row, of each token that the last call returned, the frame
        that made sure of it.
    """

    beams: list[HeldBeam]
    token_frames: list[list[int]] = field(default_factory=list)


class GrammarSearch:
    """The likeliest sentence of a grammar; to be used as `GreedySearch` is.

    Tokens are given when no hypothesis disagrees any more, and the rest of them
    by `finish`; where no sentence came to its end, the words so far. Runs
    without gradients, dropout and autocast.

    Arguments
    ---------
    search : GreedySearch
        Whose predictor and joint network are used.
    grammar : Grammar
        What can be said; with `tags=True` if the model writes tags.
    pieces : sequence of str
        Of each token; see `text.pieces_of`.
    width : int, optional
        Hypotheses that are kept; 64 with a head, else 8.
    head : torch.nn.Module, optional
        What makes CTC logits of encoded frames. With it the sentence is the
        likeliest by the encoder alone, else by the transducer.
    shares : sequence of float, optional
        Of the tokens, for a head's prior; see `ctc_beam.prior_of`.

    Example
    -------
    >>> from speechbrain_amnet import Joint, Predictor
    >>> from speechbrain_amnet.search import GreedySearch
    >>> greedy = GreedySearch(Predictor(vocabulary=5), Joint(16, 256, 32, 5))
    >>> grammar = Grammar("#JSGF V1.0; grammar g; public <g> = go | gone;")
    >>> pieces = ["", "▁GO", "▁", "N", "E"]
    >>> search = GrammarSearch(greedy, grammar, pieces)
    >>> tokens = search(torch.randn(2, 9, 16), torch.ones(2))
    >>> {"".join(pieces[t] for t in row) for row in tokens} <= {"▁GO", "▁GONE"}
    True
    """

    def __init__(
        self,
        search: GreedySearch,
        grammar: Grammar,
        pieces: Sequence[str],
        width: int | None = None,
        head: torch.nn.Module | None = None,
        shares: Sequence[float] | None = None,
    ):
        self.greedy, self.grammar, self.pieces = search, grammar, pieces
        self.head = head
        if width is None:
            width = WIDTH if head is None else CTC_WIDTH
        check_width(width)
        self.width = width
        self.prior = prior_of(shares, len(pieces))

    def __call__(
        self,
        encoded: torch.Tensor,
        lengths: torch.Tensor,
        with_frames: bool = False,
    ) -> list[list[int]] | tuple[list[list[int]], list[list[int]]]:
        """Searches whole utterances; see `GreedySearch`."""
        frames = absolute_lengths(lengths, encoded, "frames")
        context = self.make_streaming_context(len(encoded))
        tokens = self.forward_streaming(encoded, context, frames)
        places = context.token_frames
        rest = self.finish(context)
        tokens = [a + b for a, b in zip(tokens, rest, strict=True)]
        places = [a + b for a, b in zip(places, context.token_frames)]
        return (tokens, places) if with_frames else tokens

    def make_streaming_context(self, batch: int = 1) -> GrammarContext:
        """A fresh context for a batch of streams.

        One for a single stream takes as many as its first chunk has.
        """
        return GrammarContext([self._beam() for _ in range(batch)])

    def forward_streaming(
        self,
        encoded: torch.Tensor,
        context: GrammarContext,
        frames: torch.Tensor | None = None,
    ) -> list[list[int]]:
        """Searches the next frames of each stream.

        Arguments
        ---------
        encoded : torch.Tensor
            The chunk [batch, frames, features]; it may have no frames.
        context : GrammarContext
            From `make_streaming_context`; changed in place.
        frames : torch.Tensor
            How many of the chunk's frames are each row's own, [batch]; all
            of them when not given.

        Returns
        -------
        tokens : list
            The new tokens of each row.
        """
        beams, batch = context.beams, len(encoded)
        if len(beams) == 1 < batch and not beams[0].count:
            beams += [self._beam() for _ in range(batch - 1)]
        if len(beams) != batch:
            raise ValueError(
                f"encoded must have the batch size of its context, "
                f"{len(beams)}, got {list(encoded.shape)}"
            )
        counts = [encoded.shape[1]] * batch
        if frames is not None:
            counts = frames.tolist()
        tokens, context.token_frames = [], []
        for beam, row, count in zip(beams, encoded, counts, strict=True):
            mine, places = [], []
            with self.greedy.inference(encoded.device):
                row = self._prepared(row[:count])
            for frame in row:
                mine += beam.step(frame)
                places += beam.token_frames
            tokens.append(mine)
            context.token_frames.append(places)
        return tokens

    def finish(self, context: GrammarContext) -> list[list[int]]:
        """The rest of each row's tokens, when the streams have ended."""
        tokens = [beam.finish() for beam in context.beams]
        context.token_frames = [beam.token_frames for beam in context.beams]
        return tokens

    def _prepared(self, frames: torch.Tensor) -> Any:
        """What the beams read of encoded frames."""
        reader = self.greedy.joint if self.head is None else self.head
        frames = frames.to(next(reader.parameters()).dtype)
        if self.head is None:
            return self.greedy.joint.project_encoder(frames)
        logits = self.head(frames).float().cpu()
        return (logits - torch.as_tensor(self.prior)).log_softmax(-1).numpy()

    def _beam(self) -> HeldBeam:
        if self.head is not None:
            return CtcBeam(
                self.grammar, self.pieces, self.greedy.blank, self.width
            )
        return Beam(
            self,
            self.grammar,
            self.pieces,
            self.greedy.blank,
            self.width,
            self.greedy.max_symbols,
        )

    # What `Beam` asks for: states are the predictor's and its output.

    def start(self) -> Any:
        """The predictor's state before the first token."""
        predictor = self.greedy.predictor
        device = next(predictor.parameters()).device
        return self._read(
            [self.greedy.blank], predictor.initial_state(1, device)
        )[0]

    def read(self, tokens: Sequence[int], states: Sequence[Any]) -> list[Any]:
        """The states after one more token each."""
        parts = zip(*(state for state, _ in states), strict=True)
        return self._read(tokens, tuple(torch.cat(p, 1) for p in parts))

    def _read(self, tokens, state):
        predictor, joint = self.greedy.predictor, self.greedy.joint
        device = state[0].device
        with self.greedy.inference(device):
            predicted, state = predictor.step(
                torch.tensor(tokens, device=device), state
            )
            predicted = joint.project_predictor(predicted)
        rows = zip(*(part.split(1, 1) for part in state), strict=True)
        return list(zip(rows, predicted, strict=True))

    def scores(self, frame: torch.Tensor, states: Sequence[Any]) -> np.ndarray:
        """Log probabilities [states, tokens] at a frame."""
        with self.greedy.inference(frame.device):
            predicted = torch.stack([predicted for _, predicted in states])
            # Without the penalty of blank, which is chosen for the greedy
            # search and gains nothing here (docs/decisions.md).
            logits = self.greedy.joint.join(frame, predicted)
            # NumPy has no bfloat16.
            return logits.float().log_softmax(-1).cpu().numpy()
