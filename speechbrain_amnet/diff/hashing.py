"""Which bucket, and which sign, a position of a hashed diff has.

Integer arithmetic on 32 bits, so that every platform and version agrees; the
golden values are in the tests. Works on NumPy arrays and torch tensors alike.
"""

import hashlib
from typing import TypeVar

import numpy as np

Integers = TypeVar("Integers")  # np.ndarray or torch.Tensor

BLOCK = 1 << 16  # positions that are hashed at a time: they stay in the cache


def key_of(seed: int, name: str) -> int:
    """32 bits from an update's seed and a matrix's name.

    Arguments
    ---------
    seed : int
        A new one for each update.
    name : str
        The tensor's.

    Returns
    -------
    int

    Example
    -------
    >>> key_of(1, "encoder.weight") != key_of(2, "encoder.weight")
    True
    """
    text = f"{seed}:{name}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "little")


def mix(x: Integers) -> Integers:
    """Scramble 32 bits, one to one.

    Source: the function found best by Wellons' search for 32-bit integers
    (lowbias32, https://nullprogram.com/blog/2018/07/31/).

    Arguments
    ---------
    x : np.ndarray or torch.Tensor
        int32, of which all bits count.

    Returns
    -------
    np.ndarray or torch.Tensor
        The same type.
    """
    # What overflows wraps; a shift to the right brings ones in, where it is
    # negative, that the mask takes away.
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * _signed(0x846CA68B)
    return x ^ ((x >> 16) & 0xFFFF)


def _signed(x: int) -> int:
    """The int32 of the same 32 bits."""
    return x - ((x >> 31) << 32)


def bucket_and_sign(
    position: Integers, key: int, buckets: int
) -> tuple[Integers, Integers]:
    """Where a position takes its value from.

    Arguments
    ---------
    position : np.ndarray or torch.Tensor
        Flat positions in the matrix, int64, below 2**32.
    key : int
        See `key_of`.
    buckets : int
        How many there are, below 2**31.

    Returns
    -------
    bucket : np.ndarray or torch.Tensor
        int64, from 0 to buckets - 1.
    sign : np.ndarray or torch.Tensor
        int32, 1 or -1.

    Example
    -------
    >>> bucket_and_sign(np.arange(4), key_of(1, "w"), 100)[0].tolist()
    [84, 69, 41, 25]
    """
    tensor = hasattr(position, "int")
    x = position.int() if tensor else position.astype(np.int32)
    # Twice with the key: once would only permute the positions.
    key = _signed(key)
    bits = mix(mix(x ^ key) + key)
    high = (bits >> 1) & 0x7FFFFFFF
    high = high.long() if tensor else high.astype(np.int64)
    return (high * buckets) >> 31, 1 - 2 * (bits & 1)
