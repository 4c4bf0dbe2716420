"""Weights in 8 bits: a quarter of the bytes, and of what a product reads.

A matrix times one vector is limited by how fast its weights come from memory.
Each row has a scale of its own, the vector stays in float32, so a product is
that of the rounded matrix, with or without the fast kernel.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from speechbrain_amnet.runtime.compiled import compiled


def scales_of(matrix: np.ndarray) -> np.ndarray:
    """What one step of 8 bits is worth in each row.

    Arguments
    ---------
    matrix : np.ndarray
        ``[rows, columns]``

    Returns
    -------
    np.ndarray
        ``[rows]``: the largest entry is 127 steps.
    """
    largest = np.abs(matrix).max(1, initial=0)  # rank 0 has no columns
    return np.where(largest > 0, largest / 127, 1).astype("float32")


def to_int8(matrix: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rounded to whole steps.

    Arguments
    ---------
    matrix : np.ndarray
        ``[rows, columns]``
    scales : np.ndarray
        ``[rows]``, from `scales_of`.

    Returns
    -------
    np.ndarray
        ``[rows, columns]``, int8.

    Example
    -------
    >>> matrix = np.array([[1.0, -0.5], [0.0, 0.0]], "float32")
    >>> to_int8(matrix, scales_of(matrix)).tolist()
    [[127, -64], [0, 0]]
    """
    return np.rint(matrix / scales[:, None]).astype("int8")


def from_int8(steps: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The rounded matrix in float32, from `to_int8`."""
    return steps.astype("float32") * scales[:, None]


@cache
def kernel() -> Callable | None:
    """The product in machine code; None if numba is not installed."""

    def multiply(steps, scales, z, out):
        for row in range(steps.shape[0]):
            total = np.float32(0)
            for column in range(steps.shape[1]):
                total += np.float32(steps[row, column]) * z[column]
            out[row] = total * scales[row]

    return compiled(multiply)


class Int8:
    """``[W U] z`` with weights of 8 bits. Needs numba.

    Arguments
    ---------
    matrix : np.ndarray
        ``[rows, columns]``, to be rounded; one that is already rounded keeps
        its values.
    out : np.ndarray, optional
        ``[rows]``, where the result goes.
    """

    def __init__(self, matrix: np.ndarray, out: np.ndarray | None = None):
        self.multiply = kernel()
        if self.multiply is None:
            raise ValueError("Int8: numba is not installed")
        self.scales = scales_of(matrix)
        self.steps = to_int8(matrix, self.scales)
        self.out = np.empty(len(matrix), "float32") if out is None else out

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """``[columns] -> [rows]``; the next call overwrites the result."""
        self.multiply(self.steps, self.scales, z, self.out)
        return self.out
