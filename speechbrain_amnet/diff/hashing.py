"""Which bucket, and which sign, a position of a hashed diff has.

Integer arithmetic on 32 bits, so that every platform and version agrees; the
golden values are in the tests. Works on NumPy arrays and torch tensors alike.
"""

import hashlib
from typing import TypeVar

Integers = TypeVar("Integers")  # np.ndarray or torch.Tensor, of int64

LOW = 0xFFFFFFFF
BLOCK = 1 << 20  # positions that are hashed at a time


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
        int64, from 0 to 2**32 - 1.

    Returns
    -------
    np.ndarray or torch.Tensor
        The same type and range.
    """
    # What overflows int64 wraps; the low 32 bits are right all the same.
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & LOW
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & LOW
    return x ^ (x >> 16)


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
        int64, 1 or -1.

    Example
    -------
    >>> import numpy as np
    >>> bucket_and_sign(np.arange(4), key_of(1, "w"), 100)[0].tolist()
    [84, 69, 41, 25]
    """
    # Twice with the key: once would only permute the positions.
    bits = mix((mix(position ^ key) + key) & LOW)
    return ((bits >> 1) * buckets) >> 31, 1 - 2 * (bits & 1)
