"""Positions and values as few bytes.

Positions are the gaps between them in Golomb's code, the best code of whole
bits for positions that are equally likely; its three parts (unary, remainders,
last bits) stand in streams of their own, so that NumPy reads them at once. If
more than half are taken, the others are coded. Values are whole steps of a
scale; their uneven distribution is left to the compressor of the whole file.

Source: Golomb, Run-length encodings, 1966; the choice of the divisor is
Gallager and van Voorhis's, 1975.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 1 << 13  # bytes of a code that are read at a time


def divisor_of(count: int, size: int) -> int:
    """Golomb's divisor for `count` positions out of `size`.

    Example
    -------
    >>> divisor_of(5, 100)
    14
    """
    if count in (0, size):
        return 1
    free = 1 - count / size  # chance that a position is not taken
    return max(1, math.ceil(-math.log2(1 + free) / math.log2(free)))


def encode_positions(positions: np.ndarray, size: int) -> np.ndarray:
    """Code increasing positions.

    Arguments
    ---------
    positions : np.ndarray
        Increasing integers from 0 to size - 1, ``[count]``.
    size : int
        How many positions there are.

    Returns
    -------
    np.ndarray
        uint8. `decode_positions` needs count and size beside it.

    Raises
    ------
    ValueError
        If the positions do not increase or lie outside.

    Example
    -------
    >>> coded = encode_positions(np.array([3, 5, 90]), 100)
    >>> decode_positions(coded, 3, 100).tolist()
    [3, 5, 90]
    """
    positions = np.asarray(positions, dtype=np.int64)
    gaps = np.diff(positions, prepend=-1) - 1
    if len(positions) and (gaps.min() < 0 or positions[-1] >= size):
        raise ValueError(f"positions must increase from 0 to below {size}")
    if 2 * len(positions) > size:
        positions = others(positions, size)
        gaps = np.diff(positions, prepend=-1) - 1
    m = divisor_of(len(positions), size)
    width, short = _widths(m)
    quotient, rest = np.divmod(gaps, m)
    # Unary: as many zeros, then a one.
    unary = np.zeros(int(quotient.sum()) + len(gaps), dtype=np.uint8)
    unary[np.cumsum(quotient + 1) - 1] = 1
    # Remainders below `short` have `width` bits, the others one more.
    long = rest >= short
    first = np.where(long, (rest + short) >> 1, rest)
    bits = (first[:, None] >> np.arange(width)) & 1
    last = ((rest + short) & 1)[long]
    return np.packbits(
        np.concatenate([unary, bits.ravel(), last]).astype(np.uint8)
    )


def decode_positions(coded: np.ndarray, count: int, size: int) -> np.ndarray:
    """Read what `encode_positions` wrote.

    Arguments
    ---------
    coded : np.ndarray
        uint8.
    count, size : int
        Positions that there are, and that there could be.

    Returns
    -------
    np.ndarray
        int64, ``[count]``, increasing.

    Raises
    ------
    ValueError
        If it is no such code.
    """
    return np.concatenate(
        [np.zeros(0, dtype=np.int64), *blocks_of(coded, count, size)]
    )


def blocks_of(coded: np.ndarray, count: int, size: int) -> Iterator[np.ndarray]:
    """What `decode_positions` gives, some at a time.

    That takes the memory of a block or, if more than half of the positions
    are taken, of a byte for each that there could be.

    Example
    -------
    >>> coded = encode_positions(np.array([3, 5, 90]), 100)
    >>> [block.tolist() for block in blocks_of(coded, 3, 100)]
    [[3, 5, 90]]
    """
    if 2 * count <= size:
        yield from _decoded(coded, count, size)
        return
    free = np.ones(size, dtype=bool)
    for block in _decoded(coded, size - count, size):
        free[block] = False
    for start in range(0, size, 8 * BLOCK):
        yield np.flatnonzero(free[start : start + 8 * BLOCK]) + start


def _decoded(coded, count, size):
    """The positions that are coded, not the others."""
    m = divisor_of(count, size)
    width, short = _widths(m)
    # Before it takes memory: gaps add up to no more than the size.
    most = (size - count) // m + count * (width + 2)
    if 8 * len(coded) >= most + 8:
        raise ValueError("the coded positions are longer than any are")
    # The count-th one ends the unary part.
    rests = behind = _behind_ones(coded, count)
    lasts = rests + width * count
    one, position, start, width_bits = -1, -1, 0, 1 << np.arange(width)
    while start < behind:
        unary = _bits(coded, start, min(8 * BLOCK, behind - start))
        ones = np.flatnonzero(unary) + start
        start += len(unary)
        quotient = np.diff(ones, prepend=one) - 1
        bits = _bits(coded, rests, width * len(ones))
        rests += len(bits)
        rest = bits.reshape(len(ones), width) @ width_bits
        long = rest >= short
        last = _bits(coded, lasts, int(long.sum()))
        lasts += len(last)
        rest[long] = 2 * rest[long] + last - short
        block = np.cumsum(quotient * m + rest + 1) + position
        if len(block):
            one, position = ones[-1], block[-1]
        if position >= size:
            raise ValueError("the coded positions are not those of this matrix")
        yield block
    if len(coded) != -(-lasts // 8):
        raise ValueError("there is more than the coded positions")


def _bits(coded, start, number):
    """So many bits of a code, from one of them on."""
    some = coded[start // 8 : -(-(start + number) // 8)]
    bits = np.unpackbits(some)[start % 8 :][:number]
    if len(bits) < number:
        raise ValueError("the coded positions are cut short")
    return bits


def _behind_ones(coded, count):
    """The place of the bit behind so many ones."""
    start = 0
    while count:
        some = coded[start : start + BLOCK]
        if not len(some):
            raise ValueError("the coded positions are cut short")
        ones = np.flatnonzero(np.unpackbits(some))
        if len(ones) >= count:
            return 8 * start + int(ones[count - 1]) + 1
        count -= len(ones)
        start += BLOCK
    return 0


@dataclass(frozen=True)
class Coded:
    """Positions as they travel, for NumPy like the array that they are.

    Arguments
    ---------
    code : np.ndarray
        From `encode_positions`.
    count, size : int
        Positions that there are, and that there could be.

    Raises
    ------
    ValueError
        If it is no such code.

    Example
    -------
    >>> where = Coded(encode_positions(np.array([3, 5, 90]), 100), 3, 100)
    >>> len(where), np.asarray(where).tolist()
    (3, [3, 5, 90])
    """

    code: np.ndarray
    count: int
    size: int

    def __post_init__(self):
        for _ in _decoded(self.code, self._coded, self.size):
            pass

    @property
    def _coded(self) -> int:
        """Those that the code has: the fewer ones, taken or not."""
        return min(self.count, self.size - self.count)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        """Some at a time."""
        return blocks_of(self.code, self.count, self.size)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All of them."""
        whole = decode_positions(self.code, self.count, self.size)
        return whole if dtype is None else whole.astype(dtype)


def others(positions: np.ndarray, size: int) -> np.ndarray:
    """The positions that are not among these.

    Example
    -------
    >>> others(np.array([0, 2]), 4).tolist()
    [1, 3]
    """
    free = np.ones(size, dtype=bool)
    free[positions] = False
    return np.flatnonzero(free)


def _widths(m: int) -> tuple[int, int]:
    """Bits of a short remainder, and how many remainders are short."""
    width = (m - 1).bit_length()
    short = 2**width - m
    return (width - 1, short) if short else (width, m)


def entropy_bits(count: int, size: int) -> float:
    """Bits that equally likely positions need at least.

    Example
    -------
    >>> entropy_bits(50, 100)
    100.0
    """
    if count in (0, size):
        return 0.0
    p = count / size
    return -size * (p * math.log2(p) + (1 - p) * math.log2(1 - p))


def scale_of(values: np.ndarray, bits: int) -> np.float32:
    """The step of `bits` bits with which values are met best.

    Arguments
    ---------
    values : np.ndarray
        float32.
    bits : int
        2 to 8.

    Returns
    -------
    np.float32
        Of 20 candidates the one of least squared error: with few bits it is
        worth to clip the largest.

    Example
    -------
    >>> float(scale_of(np.array([-127.0, 64.0, 1.0], dtype=np.float32), 8))
    1.0
    """
    most = 2 ** (bits - 1) - 1
    largest = np.float32(np.abs(values).max(initial=0.0))
    if not largest:
        return np.float32(1.0)
    best = np.float32(largest / most)
    candidates = best * np.linspace(1.0, 0.3, 20, dtype=np.float32)
    errors = [
        np.square(steps_of(values, s, bits) * s - values).sum(dtype=np.float64)
        for s in candidates
    ]
    return candidates[int(np.argmin(errors))]


def steps_of(values: np.ndarray, scale: np.float32, bits: int) -> np.ndarray:
    """Values as whole steps, int8.

    Example
    -------
    >>> steps_of(np.array([0.26, -9.0]), np.float32(0.5), 4).tolist()
    [1, -7]
    """
    most = 2 ** (bits - 1) - 1
    return np.clip(np.rint(values / scale), -most, most).astype(np.int8)
