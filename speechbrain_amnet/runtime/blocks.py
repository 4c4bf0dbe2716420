"""Matrices that are zero but for blocks of rows, column by column.

Single entries that are left of a pruned matrix lie anywhere, and a processor
that takes eight or sixteen numbers at once finds one of them. A block of
`rows` (`Sparse(block=16)`) is multiplied as a dense column is.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from speechbrain_amnet.runtime.compiled import compiled

SIZES = (32, 16, 8, 4)
"""Rows of a block that are looked for, the quickest first."""
STREAMS = 8
"""Groups of rows that are multiplied by turns. Weights then come from as many
places of the memory at once: a fifth to a third less time where they do not lie
in the cache (16 and 32 rows, 4096 x 2048, a tenth of it kept)."""


@cache
def kernel() -> Callable | None:
    """The product in machine code; None if numba is not installed."""

    def multiply(ends, columns, values, z, out):
        rows, part = values.shape[1], (len(ends) - 1) // STREAMS
        out[:] = 0
        for first in range(part):
            shared = ends[-1]  # entries that all groups of this turn have
            for stream in range(STREAMS):
                group = stream * part + first
                shared = min(shared, ends[group + 1] - ends[group])
            for entry in range(shared):
                for stream in range(STREAMS):
                    group = stream * part + first
                    place = ends[group] + entry
                    factor = z[columns[place]]
                    for i in range(rows):
                        out[group * rows + i] += values[place, i] * factor
            for stream in range(STREAMS):
                group = stream * part + first
                for place in range(ends[group] + shared, ends[group + 1]):
                    factor = z[columns[place]]
                    for i in range(rows):
                        out[group * rows + i] += values[place, i] * factor

    return compiled(multiply)


def rows_of(matrix: np.ndarray) -> int:
    """How many rows a matrix keeps or leaves out together.

    Arguments
    ---------
    matrix : np.ndarray
        ``[rows, columns]``

    Returns
    -------
    int
        The largest of `SIZES` in whose blocks hardly a zero is kept; 1 if
        there is none.

    Example
    -------
    >>> rows_of(np.repeat(np.eye(3), 8, axis=0))
    8
    """
    kept = np.count_nonzero(matrix)
    for rows in SIZES:
        if len(matrix) % rows:
            continue
        blocks = (matrix != 0).reshape(-1, rows, matrix.shape[1]).any(1)
        if rows * np.count_nonzero(blocks) <= 1.05 * kept:
            return rows
    return 1


class Blocks:
    """``[W U] z`` of a matrix of few blocks. Needs numba.

    Arguments
    ---------
    matrix : np.ndarray
        ``[rows, columns]``
    rows : int
        Of a block; see `rows_of`.
    """

    def __init__(self, matrix: np.ndarray, rows: int):
        self.multiply = kernel()
        if self.multiply is None:
            raise ValueError("Blocks: numba is not installed")
        blocks = matrix.reshape(-1, rows, matrix.shape[1])
        group, columns = blocks.any(1).nonzero()
        self.columns = columns.astype("int32")
        self.values = np.ascontiguousarray(blocks[group, :, columns])
        groups = -(-len(blocks) // STREAMS) * STREAMS
        self.ends = np.zeros(groups + 1, int)
        np.bincount(group, minlength=groups).cumsum(out=self.ends[1:])
        self.rows = len(matrix)
        self.out = np.empty(groups * rows, matrix.dtype)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """``[columns] -> [rows]``; the next call overwrites the result."""
        self.multiply(self.ends, self.columns, self.values, z, self.out)
        return self.out[: self.rows]
