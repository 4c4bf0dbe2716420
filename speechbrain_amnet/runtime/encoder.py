"""The branched LSTM, one frame after the other, the chosen branch alone."""

import numpy as np

from speechbrain_amnet.runtime.packed import Packed
from speechbrain_amnet.runtime.products import Product, product_of


class Cell:
    """The state of one LSTM layer in a stream.

    Arguments
    ---------
    inputs : int
        Features of a frame.
    size : int
        Of the state.
    """

    def __init__(self, inputs: int, size: int):
        # Input and hidden state side by side: one vector for the products.
        self.z = np.zeros(inputs + size, "float32")
        self.x, self.h = self.z[:inputs], self.z[inputs:]
        self.c = np.zeros(size, "float32")

    def step(
        self, x: np.ndarray, product: Product, bias: np.ndarray
    ) -> np.ndarray:
        """Read a frame; gates in the order g, i, f, o.

        Arguments
        ---------
        x : np.ndarray
            ``[inputs]``
        product : callable
            The matrices' product with input and state, ``[4 * size]``.
        bias : np.ndarray
            ``[4 * size]``

        Returns
        -------
        np.ndarray
            The new hidden state ``[size]``, overwritten by the next call.
        """
        self.x[:] = x
        gates = product(self.z)
        gates += bias
        size = len(self.c)
        g, sigmoid = gates[:size], gates[size:]
        np.tanh(g, out=g)
        np.negative(sigmoid, out=sigmoid)
        np.exp(sigmoid, out=sigmoid)
        sigmoid += 1
        np.reciprocal(sigmoid, out=sigmoid)
        i, f, o = sigmoid[:size], sigmoid[size : 2 * size], sigmoid[2 * size :]
        self.c *= f
        g *= i
        self.c += g
        np.tanh(self.c, out=self.h)
        self.h *= o
        return self.h


class Encoder:
    """The weights of every branch.

    Arguments
    ---------
    packed : Packed
        The model.
    """

    def __init__(self, packed: Packed):
        config = packed.config["encoder"]
        self.size, self.layers = config["hidden_size"], config["layers"]
        self.inputs = [config["input_size"]] + (self.layers - 1) * [self.size]
        self.products: list[list[Product]] = []
        self.biases: list[list[np.ndarray]] = []
        for k in range(config["branches"]):
            parts = [
                packed.part(f"encoder.{n}.{k}") for n in range(self.layers)
            ]
            self.products.append([product(part, packed.int8) for part in parts])
            self.biases.append([part["bias"] for part in parts])

    def start(self) -> list[Cell]:
        """The state of a new stream."""
        return [Cell(inputs, self.size) for inputs in self.inputs]

    def step(self, x: np.ndarray, branch: int, cells: list[Cell]) -> np.ndarray:
        """Encode a frame on a branch.

        Arguments
        ---------
        x : np.ndarray
            Features, ``[input_size]``.
        branch : int
            The only one that is computed.
        cells : list of Cell
            Changed in place.

        Returns
        -------
        np.ndarray
            ``[hidden_size]``, overwritten by the next call.
        """
        for cell, product_, bias in zip(
            cells, self.products[branch], self.biases[branch]
        ):
            x = cell.step(x, product_, bias)
        return x


def product(part: dict[str, np.ndarray], int8: bool) -> Product:
    """The product of a layer's two matrices, from their packed factors."""
    inputs, recurrent = (
        [part[f"{name}.{i}"] for i in range(2) if f"{name}.{i}" in part]
        for name in ("input", "recurrent")
    )
    return product_of(inputs, recurrent, int8)
