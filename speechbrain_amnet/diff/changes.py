"""What a diff does to one tensor: sparse, hashed, low-rank, or new values.

A change is made of few numbers, in whole steps of a scale. `apply` is plain
float32 arithmetic, element by element in one order, so that every machine gets
the same bits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from speechbrain_amnet.diff.coding import (
    Coded,
    encode_positions,
    scale_of,
    steps_of,
)
from speechbrain_amnet.diff.hashing import BLOCK, bucket_and_sign, key_of

Before = Callable[[np.ndarray], None]


def check_bits(bits: int) -> None:
    """Refuse what no value of a diff can have."""
    if bits not in (*range(2, 9), 16, 32):
        raise ValueError(f"bits must be 2 to 8, 16 or 32, got {bits!r}")


@dataclass
class Values:
    """Numbers as they travel.

    Arguments
    ---------
    stored : np.ndarray
        int8 steps, float16 or float32, flat.
    scale : float
        What a step is worth.
    """

    stored: np.ndarray
    scale: np.float32 = np.float32(1.0)

    @classmethod
    def rounded(cls, values: np.ndarray, bits: int) -> "Values":
        """Values in 2 to 8 bits, as half precision (16), or as they are (32).

        Example
        -------
        >>> Values.rounded(np.array([127.0, 0.4]), 8).floats().tolist()
        [127.0, 0.0]
        """
        check_bits(bits)
        values = np.asarray(values, dtype=np.float32).ravel()
        check_finite(values)
        if bits == 32:
            return cls(values)
        if bits == 16:
            return cls(values.astype(np.float16))
        scale = scale_of(values, bits)
        return cls(steps_of(values, scale, bits), scale)

    def floats(self) -> np.ndarray:
        """The numbers, float32."""
        return self.stored.astype(np.float32) * np.float32(self.scale)

    def part(self, start: int, end: int) -> np.ndarray:
        """Some of the numbers, float32."""
        return Values(self.stored[start:end], self.scale).floats()

    def keeping(self, mask: np.ndarray) -> "Values":
        """The same, with zeros where the mask is false."""
        return Values(np.where(mask, self.stored, 0), self.scale)


def check_finite(values: np.ndarray) -> None:
    """Refuse what no file can hold; a step of it would be any number."""
    if not np.isfinite(values).all():
        raise ValueError("a diff has NaN or infinity; lower the learning rate")


@dataclass
class Change:
    """What all changes have.

    Arguments
    ---------
    shape : tuple of int
        Of the tensor.
    """

    shape: tuple[int, ...]
    kind: ClassVar[str]

    @property
    def size(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)

    @property
    def values(self) -> list[Values]:
        """All numbers that travel."""
        raise NotImplementedError

    @property
    def touched(self) -> np.ndarray | None:
        """Flat positions that change; None if all may."""
        return None

    def places(self) -> Iterator[tuple[np.ndarray | slice, int]]:
        """Where a flat tensor changes, in blocks, and how many each has."""
        for start in range(0, self.size, BLOCK):
            end = min(start + BLOCK, self.size)
            yield slice(start, end), end - start

    @property
    def sparse(self) -> bool:
        """Whether it is made of positions, which may be all."""
        return isinstance(self, SparseChange)

    def apply(
        self,
        old: np.ndarray,
        before: Before = lambda values: None,
        in_place: bool = False,
    ) -> np.ndarray:
        """The new tensor, float32, from the old one.

        Arguments
        ---------
        old : np.ndarray
            Of the change's shape.
        before : callable
            Gets the values that are about to change, flat, some at a time and
            in the order of `places`; to keep them it must copy them.
        in_place : bool
            Whether the old tensor may become the new one, which takes no
            memory. It does if it is of float32, writable and in one piece.
        """
        same = (
            in_place
            and old.dtype == np.float32
            and old.flags.c_contiguous
            and old.flags.writeable
        )
        new = old if same else old.astype(np.float32, order="C")
        self.change(new.reshape(-1), before)
        return new.reshape(self.shape)

    def change(self, flat: np.ndarray, before: Before) -> None:
        """Change a flat tensor, block by block; see `apply`."""
        raise NotImplementedError

    def keeping(self, masks: Sequence[np.ndarray]) -> "Change | None":
        """The same with few of its values; None if there is none.

        Arguments
        ---------
        masks : sequence of np.ndarray
            For each of `values` which ones to keep; the others are zero.
        """
        named = [n for n, v in vars(self).items() if isinstance(v, Values)]
        kept = [v.keeping(mask) for v, mask in zip(self.values, masks)]
        if not all(values.stored.any() for values in kept):
            return None
        return replace(self, **dict(zip(named, kept)))

    def numbers(self) -> dict[str, Any]:
        """What the file's header says of it; JSON can hold it."""
        return {"kind": self.kind, "shape": list(self.shape)}


@dataclass
class SparseChange(Change):
    """`old + scale * steps` at some positions.

    Arguments
    ---------
    shape : tuple of int
        Of the tensor.
    positions : np.ndarray, Coded or None
        Flat, increasing; None for all.
    deltas : Values
        What is added there.

    Example
    -------
    >>> change = SparseChange((2, 2), np.array([3]), Values.rounded([0.5], 4))
    >>> change.apply(np.ones((2, 2), dtype=np.float32)).tolist()
    [[1.0, 1.0], [1.0, 1.5]]
    """

    positions: np.ndarray | Coded | None
    deltas: Values
    kind: ClassVar[str] = "sparse"

    @property
    def values(self) -> list[Values]:
        """What is added."""
        return [self.deltas]

    @property
    def touched(self) -> np.ndarray | None:
        """Flat positions that change; None if all do."""
        if self.positions is None:
            return None
        return np.asarray(self.positions)

    def places(self) -> Iterator[tuple[np.ndarray | slice, int]]:
        """Where a flat tensor changes, in blocks, and how many each has."""
        if self.positions is None:
            yield from super().places()
        elif isinstance(self.positions, Coded):
            yield from ((block, len(block)) for block in self.positions)
        else:
            yield self.positions, len(self.positions)

    def keeping(self, masks: Sequence[np.ndarray]) -> "SparseChange | None":
        """Those positions alone."""
        (mask,) = masks
        if not mask.any():
            return None
        deltas = Values(self.deltas.stored[mask], self.deltas.scale)
        where = self.touched
        where = np.flatnonzero(mask) if where is None else where[mask]
        return replace(self, positions=where, deltas=deltas)

    def change(self, flat: np.ndarray, before: Before) -> None:
        """Change a flat tensor, block by block; see `apply`."""
        done = 0
        for where, count in self.places():
            old = flat[where]
            before(old)
            values = self.deltas.part(done, done + count)
            flat[where] = self.new(old, values)
            done += count

    def new(self, old: np.ndarray, values: np.ndarray) -> np.ndarray:
        """What some values become."""
        return old + values


@dataclass
class NewValues(SparseChange):
    """New values at some positions, whatever stood there."""

    kind: ClassVar[str] = "new"

    def new(self, old: np.ndarray, values: np.ndarray) -> np.ndarray:
        """What some values become."""
        return values


@dataclass
class HashChange(Change):
    """`old + sign * buckets[hash]` everywhere.

    Arguments
    ---------
    shape : tuple of int
        Of the tensor.
    buckets : Values
        Their values.
    seed : int
        Of the update.
    name : str
        The tensor's; part of the hash.
    """

    buckets: Values
    seed: int
    name: str = field(repr=False)
    kind: ClassVar[str] = "hash"

    @property
    def values(self) -> list[Values]:
        """The buckets' values."""
        return [self.buckets]

    def change(self, flat: np.ndarray, before: Before) -> None:
        """Change a flat tensor, block by block; see `apply`."""
        values = self.buckets.floats()
        key = key_of(self.seed, self.name)
        for where, _ in self.places():
            before(flat[where])
            here = np.arange(where.start, where.stop)
            bucket, sign = bucket_and_sign(here, key, len(values))
            flat[where] += values[bucket] * sign.astype("f4")

    def numbers(self) -> dict[str, Any]:
        """What the file's header says of it."""
        return {**super().numbers(), "seed": self.seed}


@dataclass
class LowRankChange(Change):
    """`old + left right`, the products added one rank after the other.

    Arguments
    ---------
    shape : tuple of int
        Rows and columns; further dimensions count as columns.
    left, right : Values
        ``[rows, rank]`` and ``[rank, columns]``, flat.
    rank : int
        Columns of `left`.
    """

    left: Values
    right: Values
    rank: int
    kind: ClassVar[str] = "lowrank"

    @property
    def values(self) -> list[Values]:
        """Both factors."""
        return [self.left, self.right]

    def places(self) -> Iterator[tuple[slice, int]]:
        """Where a flat tensor changes: in blocks of whole rows."""
        columns = self.size // self.shape[0]
        step = columns * max(1, BLOCK // columns)
        for start in range(0, self.size, step):
            end = min(start + step, self.size)
            yield slice(start, end), end - start

    def change(self, flat: np.ndarray, before: Before) -> None:
        """Change a flat tensor, block by block; see `apply`."""
        left = self.left.floats().reshape(self.shape[0], self.rank)
        right = self.right.floats().reshape(self.rank, -1)
        done = 0
        for where, count in self.places():
            before(flat[where])
            rows = slice(done, done + count // right.shape[1])
            # Not `left @ right`: a library adds in an order of its own.
            for i in range(self.rank):
                product = left[rows, i : i + 1] * right[i]
                flat[where] += product.reshape(-1)
            done = rows.stop

    def numbers(self) -> dict[str, Any]:
        """What the file's header says of it."""
        return {**super().numbers(), "rank": self.rank}


KINDS = {
    kind.kind: kind
    for kind in (SparseChange, NewValues, HashChange, LowRankChange)
}


def to_arrays(change: Change) -> tuple[dict[str, Any], np.ndarray]:
    """The header's entry of a change, and its coded positions.

    The numbers of values by their type are in the entry; the values
    themselves are `change.values`.
    """
    entry = change.numbers()
    entry["values"] = [
        [v.stored.dtype.name, v.stored.size] for v in change.values
    ]
    where = change.positions if change.sparse else None
    if where is None:
        coded = np.zeros(0, dtype=np.uint8)
    elif isinstance(where, Coded):
        coded = where.code
    else:
        coded = encode_positions(where, change.size)
    if change.sparse:
        entry["position_bytes"] = len(coded)
    return entry, coded


def from_arrays(
    name: str, entry: dict[str, Any], coded: np.ndarray, values: list[Values]
) -> Change:
    """The change that `to_arrays` described.

    Raises
    ------
    ValueError
        If its kind is unknown or the parts do not fit each other.
    """
    kind = KINDS.get(entry["kind"])
    if kind is None:
        raise ValueError(f"{name}: unknown kind of change '{entry['kind']}'")
    shape = tuple(entry["shape"])
    if issubclass(kind, SparseChange):
        (deltas,) = values
        count, size = deltas.stored.size, math.prod(shape)
        if not 0 < count <= size:
            raise ValueError(f"{name}: {count} values for {size} positions")
        where = Coded(coded, count, size)
        return kind(shape, None if count == size else where, deltas)
    if kind is HashChange:
        (buckets,) = values
        count, seed = buckets.stored.size, entry["seed"]
        # They are unpacked to floats: no more than a block's, or the tensor's.
        if not 0 < count <= max(BLOCK, math.prod(shape)):
            raise ValueError(f"{name}: {count} buckets for {shape}")
        if type(seed) is not int:
            raise ValueError(f"{name}: the seed is {seed!r}")
        return HashChange(shape, buckets, seed, name)
    rank, rows = entry["rank"], shape[0]
    left, right = values
    if (
        type(rank) is not int
        or not 0 < rank <= min(rows, math.prod(shape) // rows)
        or left.stored.size != rows * rank
        or right.stored.size * rows != rank * math.prod(shape)
    ):
        raise ValueError(f"{name}: factors that do not fit {shape}")
    return LowRankChange(shape, left, right, rank)
