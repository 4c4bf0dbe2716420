"""Which weights of an update are worth their bytes most."""

import math
from collections.abc import Mapping

import numpy as np

from speechbrain_amnet.diff.budget import largest_that_fits
from speechbrain_amnet.diff.changes import SparseChange, Values
from speechbrain_amnet.diff.coding import entropy_bits

SCORES = "relative", "absolute", "matrix", "fisher", "bytes"
GRADIENTS = "fisher", "bytes"  # scores that need them
TENSOR = 400  # bits that a tensor in a file needs whatever it holds, about
COUNTS = 500  # of the weights of a matrix that are tried


def best_positions(
    deltas: Mapping[str, np.ndarray],
    budget: int,
    bits: int,
    score: str = "relative",
    about: dict | None = None,
    importance: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The positions of all matrices that are worth their bytes most.

    Arguments
    ---------
    deltas : mapping
        Name to what a dense update changes.
    budget : int
        Bytes of the file.
    bits : int
        Of a value.
    score : str
        "absolute" compares changes as they are, "relative" divides them by
        their own matrix's root mean square, so that none is left out because
        its numbers are small; "matrix" gives each matrix the same share;
        "fisher" weighs each by its importance; "bytes" asks what that gains
        for its bits, see `by_the_bit`.
    about : dict, optional
        What else the file says.
    importance : mapping, optional
        Name to mean squared gradients, for these two: leaving a change `d` out
        costs about `d**2` times that, where the gradient itself is near zero
        (LeCun et al., Optimal Brain Damage, 1989, with the empirical Fisher
        information for the curvature).

    Returns
    -------
    dict
        Name to flat positions, increasing.

    Raises
    ------
    ValueError
        If the score is unknown or lacks its importance, nothing changes, or
        the budget is too small.

    Example
    -------
    >>> deltas = {"w": np.array([0.0, 3.0, 1.0], dtype=np.float32)}
    >>> best_positions(deltas, 1000, 4)["w"].tolist()
    [1, 2]
    """
    if score not in SCORES:
        raise ValueError(
            f"score must be {', '.join(SCORES[:-1])} or {SCORES[-1]}, got "
            f'"{score}"'
        )
    if score in GRADIENTS and importance is None:
        raise ValueError(
            f'score "{score}" needs the importance of weights; see '
            "DiffModel.note_gradients"
        )
    names, scores = list(deltas), []
    for name in names:
        own = np.abs(deltas[name].astype(np.float32).ravel())
        if score == "relative" and own.any():
            own = own / np.sqrt(np.mean(np.square(own)))
        if score in GRADIENTS:
            own = own * np.sqrt(importance[name].ravel())
        if score == "bytes":
            own = by_the_bit(np.square(own, dtype=np.float64), bits)
        if score == "matrix":
            own = np.where(own > 0, (rank_of(own) + 1) / own.size, 0)
        scores.append(own)
    everything = np.concatenate(scores)
    starts = np.cumsum([0, *map(len, scores)])
    order = np.argsort(-everything, kind="stable")
    order = order[: np.count_nonzero(everything)]
    if not len(order):
        raise ValueError("the update changes nothing: there is no diff to make")

    def chosen(count):
        flat = np.sort(order[:count])
        edges = np.searchsorted(flat, starts)
        return {
            name: flat[edges[n] : edges[n + 1]] - starts[n]
            for n, name in enumerate(names)
            if edges[n + 1] > edges[n]
        }

    def changes(count):
        return {
            name: SparseChange(
                deltas[name].shape,
                where,
                Values.rounded(deltas[name].ravel()[where], bits),
            )
            for name, where in chosen(count).items()
        }

    return chosen(largest_that_fits(changes, len(order), budget, about))


def by_the_bit(gains: np.ndarray, bits: int) -> np.ndarray:
    """What each weight of a matrix gains for its bits.

    A position costs the less the more of its matrix are sent, and nothing where
    all are, so a weight is not priced alone: of the counts of the best weights
    the convex hull of gain over bits is taken, and each weight has the slope
    of its part. Taken in this order, weights of all matrices gain the most for
    any number of bits (Shoham and Gersho, Efficient bit allocation for an
    arbitrary set of quantizers, 1988).

    Arguments
    ---------
    gains : np.ndarray
        ``[weights]``, not negative.
    bits : int
        Of a value.

    Returns
    -------
    np.ndarray
        ``[weights]``; 0 where there is nothing to gain.

    Example
    -------
    >>> by_the_bit(np.array([0.0, 1.0, 4.0]), 4).round(4).tolist()
    [0.0, 0.0122, 0.0122]
    """
    order = np.argsort(-gains, kind="stable")
    order = order[: np.count_nonzero(gains)]
    found = np.zeros(len(gains))
    if not len(order):
        return found
    counts = np.unique(np.geomspace(1, len(order), COUNTS).astype(np.int64))
    value = bits - 0.5 if bits <= 8 else bits  # what zstandard makes of it
    spent = TENSOR + counts * value + entropy_bits(counts, len(gains))
    # Where more of them need fewer bits, nobody sends less.
    spent = np.minimum.accumulate(spent[::-1])[::-1]
    gained = np.cumsum(gains[order])[counts - 1]
    hull = [(0, 0.0, 0.0)]
    for point in zip(counts, spent, gained):
        while len(hull) > 1 and slope(hull[-2], hull[-1]) <= slope(
            hull[-1], point
        ):
            hull.pop()
        hull.append(point)
    for last, point in zip(hull, hull[1:]):
        found[order[last[0] : point[0]]] = slope(last, point)
    # Equal ones in the order of what they gain.
    smaller = 1 - 1e-9 * np.arange(len(order)) / len(order)
    found[order] *= smaller
    return found


def slope(
    one: tuple[int, float, float], other: tuple[int, float, float]
) -> float:
    """Gain for a bit from one point (count, bits, gain) to another."""
    bits = other[1] - one[1]
    return (other[2] - one[2]) / bits if bits else math.inf


def rank_of(values: np.ndarray) -> np.ndarray:
    """How many others each one is above, among equals in their order."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks
