"""Which weights each update touched: a map a matrix, and how much is shared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from speechbrain_amnet.diff.file import read_diff
from speechbrain_amnet.report.style import PLAIN, STYLE, WIDTH, save

CELLS = 48  # of a map, in either direction at most
Touched = dict[str, tuple[tuple[int, ...], np.ndarray]]


def read_touched(files: Sequence[str | Path]) -> list[Touched]:
    """What each sparse update of a chain touches.

    Arguments
    ---------
    files : sequence of str or Path
        The updates' files, in their order.

    Returns
    -------
    list of dict
        For each update, name of a tensor to its shape and the flat positions
        that change.

    Raises
    ------
    ValueError
        If one changes everything, as a hashed one does, or they are of
        different models.
    """
    updates: list[Touched] = []
    for file in files:
        update: Touched = {}
        for name, change in read_diff(file).changes.items():
            if not change.sparse:
                raise ValueError(
                    f"{file}: {name} changes everywhere ({change.kind}); a map "
                    "shows sparse updates"
                )
            for other, before in zip(files, updates):
                if name in before and before[name][0] != change.shape:
                    raise ValueError(
                        f"{file}: {name} is of shape {change.shape}, and of "
                        f"{before[name][0]} in {other}; give updates of one "
                        "model"
                    )
            where = change.touched
            if where is None:
                where = np.arange(change.size)
            update[name] = change.shape, where
        updates.append(update)
    return updates


def overlaps(updates: Sequence[Touched]) -> list[dict[str, Any]]:
    """How much of what an update touches the one before had touched.

    Arguments
    ---------
    updates : sequence of dict
        As `read_touched` gives them.

    Returns
    -------
    list of dict
        For each update `share`, of the tensors' weights that it touches;
        `again`, of these the share that the one before had touched, and
        `chance`, what that would be if both had drawn at random in each
        tensor; these two None for the first.

    Example
    -------
    >>> one = {"w": ((2, 4), np.array([0, 1]))}
    >>> two = {"w": ((2, 4), np.array([1, 2]))}
    >>> overlaps([one, two])[1]
    {'share': 0.25, 'again': 0.5, 'chance': 0.25}
    """
    found = []
    sizes = {
        name: int(np.prod(s)) for u in updates for name, (s, _) in u.items()
    }
    for n, update in enumerate(updates):
        count = sum(len(positions) for _, positions in update.values())
        row = {"share": count / sum(sizes.values()), "again": None}
        row["chance"] = None
        if n:
            again = chance = 0.0
            for name, (_, positions) in update.items():
                _, before = updates[n - 1].get(name, (None, np.array([], int)))
                again += len(np.intersect1d(positions, before))
                chance += len(positions) * len(before) / sizes[name]
            row.update(again=again / count, chance=chance / count)
        found.append(row)
    return found


def density(shape: tuple[int, ...], positions: np.ndarray) -> np.ndarray:
    """Share of the weights that are touched, in cells of a matrix.

    Example
    -------
    >>> density((2, 3), np.array([0, 5])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rows = shape[0]
    columns = int(np.prod(shape[1:], dtype=int))
    row, column = np.divmod(positions, columns)
    high, wide = min(rows, CELLS), min(columns, CELLS)
    row, column = row * high // rows, column * wide // columns
    counts = np.zeros((high, wide))
    np.add.at(counts, (row, column), 1)
    # Cells of uneven size, where the matrix is no multiple of them.
    tall = np.diff(-(-np.arange(high + 1) * rows // high))
    broad = np.diff(-(-np.arange(wide + 1) * columns // wide))
    return counts / np.outer(tall, broad)


def plot_touched(
    updates: Sequence[Touched],
    names: Sequence[str],
    out: str | Path,
    most: int = 6,
) -> Path:
    """Draw where each update of a chain changes a model.

    Arguments
    ---------
    updates : sequence of dict
        As `overlaps` takes them.
    names : sequence of str
        Of the updates.
    out : str or Path
        The picture.
    most : int
        Matrices that are drawn, those in which most is touched.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    ValueError
        If no update touches a matrix.
    """
    shapes = {n: shape for u in updates for n, (shape, _) in u.items()}
    nothing = np.array([], int)
    counts = {
        name: sum(len(u[name][1]) for u in updates if name in u)
        for name, shape in shapes.items()
        if len(shape) > 1
    }
    chosen = sorted(counts, key=lambda name: (-counts[name], name))[:most]
    if not chosen:
        raise ValueError("no matrix is touched by these updates")
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(WIDTH, 0.8 + 1.7 * len(chosen)), layout="constrained"
        )
        grid = figure.subplots(len(chosen), len(updates), squeeze=False)
        for row, name in zip(grid, chosen):
            maps = [
                density(shapes[name], u.get(name, (None, nothing))[1])
                for u in updates
            ]
            top = max(one.max() for one in maps)
            for axes, one, update in zip(row, maps, updates):
                axes.imshow(one, cmap="Blues", vmin=0, vmax=top, aspect="auto")
                axes.set_xticks([])
                axes.set_yticks([])
                touched = len(update.get(name, (None, nothing))[1])
                share = touched / np.prod(shapes[name])
                axes.set_xlabel(f"{100 * share:.1f} % touched")
            size = "x".join(map(str, shapes[name]))
            row[0].set_ylabel(f"{name}\n{size}", fontsize=7, **PLAIN)
        for axes, title, row in zip(grid[0], names, overlaps(updates)):
            if row["again"] is not None:
                title += (
                    f"\n{100 * row['again']:.0f} % as before,"
                    f"\n{100 * row['chance']:.0f} % by chance"
                )
            axes.set_title(title, fontsize=9, **PLAIN)
        return save(figure, out)
