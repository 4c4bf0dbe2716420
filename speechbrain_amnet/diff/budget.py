"""A budget in bytes: what is stated, and what fits into it."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from speechbrain_amnet.diff.changes import (
    Change,
    HashChange,
    LowRankChange,
    SparseChange,
    Values,
)
from speechbrain_amnet.diff.file import (
    MODEL_DIGITS,
    Diff,
    make_diff,
    to_bytes,
)

UNITS = {"": 1, "B": 1, "kB": 1000, "MB": 1_000_000}
# Of the size of real ones, which no compressor makes smaller.
BASE, RESULT, WHOLE = (
    hashlib.sha256(x).hexdigest() for x in (b"base", b"result", b"model")
)
SPARE = 16  # bytes by which other digits may compress worse
CLOSE = 1000  # a count is found to a thousandth


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
    if not 0 < number < math.inf:
        raise ValueError(
            f"budget: expected a share of the model as 2%, or bytes as 40kB or "
            f"40000, got {text!r}"
        )
    if found[2] == "%":
        return int(number / 100 * 4 * weights)
    return int(number * UNITS[found[2]])


def size_of(changes: Mapping[str, Change], about: dict | None = None) -> int:
    """About the bytes of a diff's file, whatever its fingerprints are."""
    model = WHOLE[:MODEL_DIGITS]
    diff = Diff(dict(changes), BASE, RESULT, about or {}, model=model)
    return len(to_bytes(diff)) + SPARE


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
            f"budget: {budget} bytes are too few for any diff; the smallest "
            f"has {size_of(make(1), about)}"
        )
    low, high = 1, most + 1  # the first fits, the second does not or is none
    if size_of(make(most), about) <= budget:
        return most
    while high - low > max(1, low // CLOSE):
        middle = (low + high) // 2
        if size_of(make(middle), about) <= budget:
            low = middle
        else:
            high = middle
    return low


def check_budget(
    shapes: Mapping[str, tuple[int, ...]],
    budget: int,
    bits: int,
    about: dict | None = None,
) -> None:
    """Refuse, before a long training, a budget for no sparse diff at all.

    Arguments
    ---------
    shapes : mapping
        Name to shape of the tensors that may change.
    budget : int
        Bytes of the file.
    bits : int
        Of a value.
    about : dict, optional
        What else the file says.

    Raises
    ------
    ValueError
        If a single number does not fit.
    """
    name = min(shapes, key=len)
    one = SparseChange(
        shapes[name], np.zeros(1, int), Values.rounded([1], bits)
    )
    largest_that_fits(lambda count: {name: one}, 1, budget, about)


def share_that_fits(
    shapes: Mapping[str, tuple[int, ...]],
    budget: int,
    bits: int,
    about: dict | None = None,
) -> float:
    """Buckets of hashed diffs, as a share of the weights.

    Arguments
    ---------
    shapes : mapping
        Name to shape of the tensors that may change.
    budget : int
        Bytes of the file.
    bits : int
        Of a value.
    about : dict, optional
        What else the file says.

    Returns
    -------
    float

    Example
    -------
    >>> round(share_that_fits({"w": (100, 100)}, 1000, 8), 2)
    0.06
    """
    parts = 1_000_000

    def changes(count):
        random = np.random.default_rng(0)
        return {
            name: HashChange(
                shape,
                _noise(
                    random,
                    max(1, round(count / parts * math.prod(shape))),
                    bits,
                ),
                0,
                name,
            )
            for name, shape in shapes.items()
        }

    return largest_that_fits(changes, parts, budget, about) / parts


def ranks_that_fit(
    shapes: Mapping[str, tuple[int, ...]],
    budget: int,
    bits: int,
    about: dict | None = None,
) -> dict[str, int]:
    """The ranks of low-rank diffs; vectors are sent whole.

    The same for all, and one more for the first ones: one for all would leave
    up to a half of a small budget unused.

    Arguments
    ---------
    shapes : mapping
        Name to shape of the tensors that may change.
    budget : int
        Bytes of the file.
    bits : int
        Of a value.
    about : dict, optional
        What else the file says.

    Returns
    -------
    dict
        Name to rank, of those that get one; vectors have 1.

    Example
    -------
    >>> ranks_that_fit({"v": (100, 100), "w": (100, 100), "b": (9,)}, 1500, 8)
    {'v': 3, 'w': 2, 'b': 1}
    """
    columns = {n: math.prod(shape[1:]) for n, shape in shapes.items()}
    matrices = [name for name, count in columns.items() if count > 1]
    most = {name: min(shapes[name][0], columns[name]) for name in matrices}

    def ranks(count):
        every, first = divmod(count - 1, max(1, len(matrices)))
        found = {name: 1 for name in shapes if columns[name] <= 1}
        for i, name in enumerate(matrices):
            found[name] = min(every + (i < first), most[name])
        return {name: found[name] for name in shapes if found[name]}

    def changes(count):
        random, found = np.random.default_rng(0), {}
        for name, rank in ranks(count).items():
            shape = shapes[name]
            rows = shape[0] if shape else 1
            if name not in most:
                every = np.arange(rows)
                values = _noise(random, rows, bits)
                found[name] = SparseChange(shape, every, values)
            else:
                left = _noise(random, rows * rank, bits)
                right = _noise(random, rank * columns[name], bits)
                found[name] = LowRankChange(shape, left, right, rank)
        return found

    # Without a vector the first count has to have a matrix.
    least = 1 if len(most) < len(shapes) else 2
    largest = 1 + len(matrices) * max(most.values(), default=0)
    count = largest_that_fits(
        lambda count: changes(count + least - 1),
        largest - least + 1,
        budget,
        about,
    )
    return ranks(count + least - 1)


def _noise(random, count, bits):
    """Values that compress as trained ones do, or worse."""
    normal = random.normal(size=count)
    return Values.rounded(normal.astype(np.float32), bits)


def fitted(
    changes: Mapping[str, Change], budget: int, about: dict | None = None
) -> dict[str, Change]:
    """The changes, without the smallest if they are too large by a little.

    Training moves values, and a compressor sees it. Sparse changes lose their
    smallest positions; in others the smallest values become zero.

    Arguments
    ---------
    changes : mapping
        Name to change.
    budget : int
        Bytes of the file.
    about : dict, optional
        What else the file says.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If nothing is left that fits.

    Example
    -------
    >>> values = Values.rounded(np.array([1.0, -2.0]), 4)
    >>> change = SparseChange((2, 2), np.array([0, 3]), values)
    >>> len(fitted({"w": change}, 1000)["w"].positions)
    2
    """
    if size_of(changes, about) <= budget:
        return dict(changes)
    sizes = [
        np.abs(values.floats())
        for one in changes.values()
        for values in one.values
    ]
    order = np.argsort(-np.concatenate(sizes), kind="stable")

    def largest(count):
        mask = np.zeros(len(order), dtype=bool)
        mask[order[:count]] = True
        masks = np.split(mask, np.cumsum([len(size) for size in sizes])[:-1])
        kept = {}
        for name, one in changes.items():
            own, masks = masks[: len(one.values)], masks[len(one.values) :]
            kept[name] = one.keeping(own)
        return {name: one for name, one in kept.items() if one is not None}

    return largest(largest_that_fits(largest, len(order), budget, about))


def fitted_diff(
    changes: Mapping[str, Change],
    old: Mapping[str, np.ndarray],
    budget: int,
    about: dict | None = None,
    model: str | None = None,
) -> Diff:
    """The diff of changes, not a byte above the budget; see `fitted`.

    Arguments
    ---------
    changes : mapping
        Name to change.
    old : mapping
        Name to the base's tensor.
    budget : int
        Bytes of the file.
    about : dict, optional
        What else the file says.
    model : str, optional
        As for `make_diff`.

    Returns
    -------
    Diff

    Raises
    ------
    ValueError
        If nothing is left that fits, or changes something.
    """
    room = budget
    while True:
        diff = make_diff(fitted(changes, room, about), old, about, model)
        # The real fingerprints may compress worse than those of `size_of`.
        above = len(to_bytes(diff)) - budget
        if above <= 0:
            return diff
        room -= above
