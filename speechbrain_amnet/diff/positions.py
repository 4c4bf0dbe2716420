"""Which weights of an update are worth their bytes most."""

from collections.abc import Mapping

import numpy as np

from speechbrain_amnet.diff.budget import largest_that_fits
from speechbrain_amnet.diff.changes import SparseChange, Values

SCORES = "relative", "absolute", "matrix", "fisher"


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
        "fisher" weighs each by its importance.
    about : dict, optional
        What else the file says.
    importance : mapping, optional
        Name to mean squared gradients, for "fisher": leaving a change `d` out
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
    if score == "fisher" and importance is None:
        raise ValueError(
            f'score "{score}" needs the importance of weights; see '
            "DiffModel.note_gradients"
        )
    names, scores = list(deltas), []
    for name in names:
        own = np.abs(deltas[name].astype(np.float32).ravel())
        if score == "relative" and own.any():
            own = own / np.sqrt(np.mean(np.square(own)))
        if score == "fisher":
            own = own * np.sqrt(importance[name].ravel())
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


def rank_of(values: np.ndarray) -> np.ndarray:
    """How many others each one is above, among equals in their order."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks
