"""The greedy search of one stream; the same tokens as `GreedySearch`."""

import numpy as np

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
        self.biases = [predictor[f"{n}.bias"] for n in layers]
        self.from_encoder = full(joint["encoder"], packed.int8)
        self.encoder_bias = joint["encoder_bias"]
        self.from_predictor = np.asfortranarray(joint["predictor"])
        self.output = full(joint["output"], packed.int8)
        self.output_bias = joint["output_bias"].copy()
        self.output_bias[self.blank] -= config["blank_penalty"]


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
            hidden = projected + self.predicted
            logits = search.output(np.tanh(hidden, out=hidden))
            logits += search.output_bias
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
