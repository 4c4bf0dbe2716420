"""The search of one stream; the same tokens as on PyTorch's side.

Greedy as `GreedySearch`, or held to a grammar as `GrammarSearch`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from speechbrain_amnet.beam import WIDTH, Beam, HeldBeam
from speechbrain_amnet.ctc_beam import CtcBeam, prior_of
from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.runtime.encoder import Cell
from speechbrain_amnet.runtime.packed import Packed
from speechbrain_amnet.runtime.products import full


class Search:
    """The weights of predictor and joint.

    Arguments
    ---------
    packed : Packed
        The model.
    """

    def __init__(self, packed: Packed):
        config, joint = packed.config["search"], packed.part("joint")
        predictor = packed.part("predictor")
        self.blank, self.max_symbols = config["blank"], config["max_symbols"]
        self.embedding = predictor["embedding"]
        layers = range(config["layers"])
        weights = [predictor[f"{n}.weight"] for n in layers]
        self.sizes = [weight.shape[1] for weight in weights]
        self.products = [full(weight, packed.int8) for weight in weights]
        self.biases = [
            # Apart, so that an update finds them; older files have the sum.
            predictor[f"{n}.bias"] + predictor.get(f"{n}.recurrent_bias", 0)
            for n in layers
        ]
        self.from_encoder = full(joint["encoder"], packed.int8)
        self.encoder_bias = joint["encoder_bias"]
        self.from_predictor = np.asfortranarray(joint["predictor"])
        self.output = full(joint["output"], packed.int8)
        self.from_hidden = joint["output"].T  # of many at once
        self.output_bias = joint["output_bias"].copy()
        self.penalty = config["blank_penalty"]
        self.output_bias[self.blank] -= self.penalty
        self.ctc = packed.part("ctc")  # may be empty
        if self.ctc:
            prior = prior_of(config.get("shares"), len(self.output_bias))
            self.ctc_bias = np.float32(self.ctc["bias"] - prior)

    def logits(
        self, projected: np.ndarray, predicted: np.ndarray
    ) -> np.ndarray:
        """Of each token, with the penalty of blank."""
        hidden = projected + predicted
        logits = self.output(np.tanh(hidden, out=hidden))
        logits += self.output_bias
        return logits


class SearchState:
    """Where the search of a stream stands.

    Arguments
    ---------
    search : Search
        Its weights.
    """

    def __init__(self, search: Search):
        self.search = search
        size = len(search.biases[0]) // 4
        self.cells = [Cell(columns - size, size) for columns in search.sizes]
        self.read(search.blank)

    def read(self, token: int) -> None:
        """The predictor reads a token."""
        search = self.search
        x = search.embedding[token]
        for cell, product, bias in zip(
            self.cells, search.products, search.biases
        ):
            x = cell.step(x, product, bias)
        self.predicted = search.from_predictor @ x

    def step(self, encoded: np.ndarray) -> list[int]:
        """The tokens of a frame.

        Arguments
        ---------
        encoded : np.ndarray
            ``[hidden_size]``

        Returns
        -------
        list of int
            Without blanks.

        Raises
        ------
        ValueError
            If the frame is not finite.
        """
        search, tokens = self.search, []
        projected = search.from_encoder(encoded)
        projected += search.encoder_bias
        while len(tokens) < search.max_symbols:
            logits = search.logits(projected, self.predicted)
            token = int(logits.argmax())
            if logits[token] != logits[token]:  # argmax finds NaN first
                raise ValueError(
                    "encoded frames have NaN or infinity: the encoder's "
                    "weights or its input are broken"
                )
            if token == search.blank:
                break
            tokens.append(token)
            self.read(token)
        return tokens

    def finish(self) -> list[int]:
        """What is left when the stream has ended: nothing."""
        return []


class GrammarState:
    """Where the search of a stream stands that is held to a grammar.

    Arguments
    ---------
    search : Search
        Its weights.
    grammar : Grammar
        What can be said.
    pieces : sequence of str
        Of each token.
    width : int
        Hypotheses that are kept.
    """

    def __init__(
        self,
        search: Search,
        grammar: Grammar,
        pieces: Sequence[str],
        width: int = WIDTH,
    ):
        self.search, self.greedy = search, SearchState(search)
        self.first = self._state()  # its cells are used for every hypothesis
        self.beam: HeldBeam
        if search.ctc:
            self.beam = CtcBeam(grammar, pieces, search.blank, width)
        else:
            self.beam = Beam(
                self, grammar, pieces, search.blank, width, search.max_symbols
            )

    def step(self, encoded: np.ndarray) -> list[int]:
        """The tokens that a frame makes sure; see `beam`."""
        search, ctc = self.search, self.search.ctc
        if ctc:
            logits = ctc["weight"] @ encoded + search.ctc_bias
            return self.beam.step(log_softmax(logits))
        projected = search.from_encoder(encoded) + search.encoder_bias
        return self.beam.step(projected)

    def finish(self) -> list[int]:
        """The rest, when the stream has ended."""
        return self.beam.finish()

    # What `Beam` asks for: states are the predictor's and its output.

    def start(self) -> Any:
        """The predictor's state before the first token."""
        return self.first

    def read(self, tokens: Sequence[int], states: Sequence[Any]) -> list[Any]:
        """The states after one more token each."""
        found = []
        for token, (cells, _) in zip(tokens, states, strict=True):
            for cell, (z, c) in zip(self.greedy.cells, cells, strict=True):
                cell.z[:], cell.c[:] = z, c
            self.greedy.read(token)
            found.append(self._state())
        return found

    def _state(self) -> Any:
        cells = [(cell.z.copy(), cell.c.copy()) for cell in self.greedy.cells]
        return cells, self.greedy.predicted.copy()

    def scores(self, frame: np.ndarray, states: Sequence[Any]) -> np.ndarray:
        """Log probabilities ``[states, tokens]`` at a frame."""
        hidden = frame + np.stack([predicted for _, predicted in states])
        logits = np.tanh(hidden, out=hidden) @ self.search.from_hidden
        logits += self.search.output_bias
        # The penalty is the greedy search's alone, as in `GrammarSearch`.
        logits[:, self.search.blank] += self.search.penalty
        return log_softmax(logits)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities of the last axis."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
