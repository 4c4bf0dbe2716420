"""Products of an LSTM layer's matrices with one vector, each form its own way.

A layer's gates are ``W x + U h + b``. Both vectors lie side by side, so that
two dense matrices are one product, and so are two thin left factors.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse

from speechbrain_amnet.runtime import blocks
from speechbrain_amnet.runtime.int8 import Int8, kernel

TRIALS = 9  # of each form
LAYERS = 4  # whose weights a stream reads between two products of one
CACHE = 2**26  # bytes; more than that no cache of a device holds
Factors = Sequence[np.ndarray]
Product = Callable[[np.ndarray], np.ndarray]


class Dense:
    """``[W U] z``. Column-major, which BLAS multiplies fastest.

    Arguments
    ---------
    matrix : np.ndarray
        ``[rows, columns]``
    out : np.ndarray, optional
        ``[rows]``, where the result goes.

    Example
    -------
    >>> Dense(np.eye(2, 3, dtype="float32"))(np.arange(3, dtype="float32"))
    array([0., 1.], dtype=float32)
    """

    def __init__(self, matrix: np.ndarray, out: np.ndarray | None = None):
        self.matrix = np.asfortranarray(matrix)
        self.out = np.empty(len(matrix), matrix.dtype) if out is None else out

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """``[columns] -> [rows]``; the next call overwrites the result."""
        return np.dot(self.matrix, z, out=self.out)


class Csr:
    """``[W U] z`` of a matrix with many zeros, row by row.

    Arguments
    ---------
    matrix : np.ndarray
        ``[rows, columns]``
    """

    def __init__(self, matrix: np.ndarray):
        self.matrix = scipy.sparse.csr_array(matrix)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """``[columns] -> [rows]``"""
        return self.matrix @ z


class LowRank:
    """``[L_x L_h] (R_x x, R_h h)``.

    Arguments
    ---------
    inputs, recurrent : sequence of np.ndarray
        The left and the right factor of each.
    int8 : bool
        Whether the weights are those of 8 bits.
    """

    def __init__(self, inputs: Factors, recurrent: Factors, int8: bool = False):
        (left_x, right_x), (left_h, right_h) = inputs, recurrent
        self.left = full(np.hstack([left_x, left_h]), int8)
        self.split = right_x.shape[1]
        self.middle = np.empty(len(right_x) + len(right_h), left_x.dtype)
        parts = np.split(self.middle, [len(right_x)])
        self.rights = [
            full(right, int8, part)
            for right, part in zip((right_x, right_h), parts)
        ]

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """``[columns] -> [rows]``; the next call overwrites the result."""
        self.rights[0](z[: self.split])
        self.rights[1](z[self.split :])
        return self.left(self.middle)


class Sum:
    """Input and recurrent matrix of different forms, one after the other.

    Arguments
    ---------
    inputs, recurrent : sequence of np.ndarray
        The factors of each.
    int8 : bool
        Whether the weights are those of 8 bits.
    """

    def __init__(self, inputs: Factors, recurrent: Factors, int8: bool = False):
        self.split = inputs[-1].shape[1]
        self.chains = [
            [full(factor, int8) for factor in reversed(factors)]
            for factors in (inputs, recurrent)
        ]

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """``[columns] -> [rows]``; the next call overwrites the result."""
        x, h = z[: self.split], z[self.split :]
        for product in self.chains[0]:
            x = product(x)
        for product in self.chains[1]:
            h = product(h)
        x += h
        return x


def product_of(
    inputs: Factors, recurrent: Factors, int8: bool = False
) -> Product:
    """The product of a layer's input and recurrent matrix with ``(x, h)``.

    Arguments
    ---------
    inputs, recurrent : sequence of np.ndarray
        One or two factors each, left to right.
    int8 : bool
        Whether the weights are those of 8 bits; see `full`.

    Example
    -------
    >>> w, u = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    >>> product_of([w], [u])(np.array([1, 2, 3], "float32"))
    array([6., 6., 6., 6.], dtype=float32)
    """
    counts = len(inputs), len(recurrent)
    if counts == (1, 1):
        matrix = np.hstack([inputs[0], recurrent[0]])
        product = full(matrix, int8)
        if np.count_nonzero(matrix) > matrix.size / 2:
            return product
        products = [product, Csr(matrix)]
        rows = blocks.rows_of(matrix)
        if rows > 1 and blocks.kernel():
            products.append(blocks.Blocks(matrix, rows))
        return fastest(products, matrix)
    if counts == (2, 2):
        return LowRank(inputs, recurrent, int8)
    return Sum(inputs, recurrent, int8)


def full(
    matrix: np.ndarray, int8: bool = False, out: np.ndarray | None = None
) -> Product:
    """The product of a matrix that is not sparse.

    Arguments
    ---------
    matrix : np.ndarray
        ``[rows, columns]``
    int8 : bool
        Whether the weights are those of 8 bits. They are multiplied as such
        where that is faster here (and numba is installed), else as float32.
    out : np.ndarray, optional
        ``[rows]``, where the result goes.
    """
    products: list[Product] = [Dense(matrix, out)]
    if int8 and kernel():
        products.append(Int8(matrix, out))
    return fastest(products, matrix)


def fastest(
    products: Sequence[Product],
    matrix: np.ndarray,
    clock: Callable[[], float] = time.perf_counter,
) -> Product:
    """The product that takes the least time on this machine.

    A processor multiplies a dense matrix so much faster, entry by entry, that
    scattered zeros pay only where they are nine in ten, and not on every
    machine; whole blocks of zeros pay at once. In a stream the other layers'
    weights are read between two products of one, so here some memory is, too:
    of weights that still lie in the cache the smaller ones would look too good.

    Arguments
    ---------
    products : sequence of callables
        That all give the same.
    matrix : np.ndarray
        What they multiply with, ``[rows, columns]``.
    clock : callable
        Tells the time in seconds.
    """
    if len(products) == 1:
        return products[0]
    z = np.ones(matrix.shape[1], "float32")
    others = np.ones(min(LAYERS * matrix.nbytes, CACHE) // 4, "float32")
    for product in products:
        product(z)  # the first call may compile
    spent: list[list[float]] = [[] for _ in products]
    for _ in range(TRIALS):
        for product, runs in zip(products, spent):
            others.sum()
            start = clock()
            product(z)
            runs.append(clock() - start)
    medians = [sorted(runs)[TRIALS // 2] for runs in spent]
    return products[medians.index(min(medians))]


def form_of(product: Product) -> str:
    """What a product is called.

    Arguments
    ---------
    product : callable
        Of this module, or of `blocks` or `int8`.

    Example
    -------
    >>> form_of(Dense(np.eye(2)))
    'dense'
    """
    if isinstance(product, Sum):
        return " + ".join(
            form_of(chain[0]) if len(chain) == 1 else low_rank(chain)
            for chain in product.chains
        )
    if isinstance(product, LowRank):
        return low_rank([product.left, *product.rights])
    names = {Dense: "dense", Csr: "CSR", blocks.Blocks: "blocks", Int8: "int8"}
    return names[type(product)]


def low_rank(factors: Sequence[Product]) -> str:
    """What thin factors are called; "zeros" if they are of rank 0."""
    last = factors[0]
    if not (last.steps if isinstance(last, Int8) else last.matrix).size:
        return "zeros"
    forms = sorted({form_of(factor) for factor in factors})
    return "low rank" if forms == ["dense"] else f"low rank {'/'.join(forms)}"
