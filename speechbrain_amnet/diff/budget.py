"""A budget in bytes: what is stated, and what fits into it."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from speechbrain_amnet.diff.changes import Change, SparseChange, Values
from speechbrain_amnet.diff.file import Diff, to_bytes

UNITS = {"": 1, "B": 1, "kB": 1000, "MB": 1_000_000}
FINGERPRINT = "0" * 64  # as long as a real one
ROUNDS = 14  # of halving the interval: to a ten-thousandth


def parse_budget(text: str | int | float, weights: int) -> int:
    """Bytes of a budget.

    Arguments
    ---------
    text : str or number
        A share of the 32-bit model (`2%`), or bytes (`40kB`, `1.5MB`, `40000`).
    weights : int
        Numbers in the model.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is neither, or not above 0.

    Example
    -------
    >>> parse_budget("2%", 1_000_000), parse_budget("40kB", 1_000_000)
    (80000, 40000)
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*(%|B|kB|MB|)\s*", str(text))
    try:
        number = float(found[1]) if found else 0.0
    except ValueError:
        number = 0.0
    if not number > 0:
        raise ValueError(
            f"budget: expected a share of the model as 2%, or bytes as 40kB or "
            f"40000, got {text!r}"
        )
    if found[2] == "%":
        return int(number / 100 * 4 * weights)
    return int(number * UNITS[found[2]])


def size_of(changes: Mapping[str, Change], about: dict | None = None) -> int:
    """Bytes of a diff's file."""
    diff = Diff(dict(changes), FINGERPRINT, FINGERPRINT, about or {})
    return len(to_bytes(diff))


def largest_that_fits(
    make: Callable[[int], Mapping[str, Change]],
    most: int,
    budget: int,
    about: dict | None = None,
) -> int:
    """The largest count whose diff is not larger than the budget.

    Arguments
    ---------
    make : callable
        Gives the changes of a count; more of it are more bytes.
    most : int
        The largest count that there is.
    budget : int
        In bytes.
    about : dict, optional
        What else the file says.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If not even a count of 1 fits.
    """
    if size_of(make(1), about) > budget:
        raise ValueError(
            f"budget: {budget} bytes are too few for any diff; one of a single "
            f"number has {size_of(make(1), about)}"
        )
    low, high = 1, most + 1  # the first fits, the second does not or is none
    if size_of(make(most), about) <= budget:
        return most
    for _ in range(ROUNDS):
        if high - low < 2:
            break
        middle = (low + high) // 2
        if size_of(make(middle), about) <= budget:
            low = middle
        else:
            high = middle
    return low


def best_positions(
    deltas: Mapping[str, np.ndarray],
    budget: int,
    bits: int,
    score: str = "relative",
    about: dict | None = None,
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
        its numbers are small.
    about : dict, optional
        What else the file says.

    Returns
    -------
    dict
        Name to flat positions, increasing.

    Raises
    ------
    ValueError
        If the score is unknown, nothing changes, or the budget is too small.

    Example
    -------
    >>> deltas = {"w": np.array([0.0, 3.0, 1.0], dtype=np.float32)}
    >>> best_positions(deltas, 1000, 4)["w"].tolist()
    [1, 2]
    """
    if score not in ("relative", "absolute"):
        raise ValueError(
            f'score must be "relative" or "absolute", got "{score}"'
        )
    names, scores = list(deltas), []
    for name in names:
        own = np.abs(deltas[name].astype(np.float32).ravel())
        if score == "relative" and own.any():
            own = own / np.sqrt(np.mean(np.square(own)))
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
