"""A diff applied to a model's tensors, one after the other, and checked."""

from collections.abc import Callable, Mapping, MutableMapping
from functools import partial

import numpy as np

from speechbrain_amnet.diff.changes import NewValues, Values
from speechbrain_amnet.diff.file import Diff, DiffError, fingerprint, model_of
from speechbrain_amnet.diff.hashing import BLOCK


class NotTheBase(DiffError):
    """A diff is for another model than the one that is there."""


def check_base(
    diff: Diff, tensors: Mapping[str, np.ndarray], what: str = "the model"
) -> None:
    """Refuse a model that a diff is not for.

    Arguments
    ---------
    diff : Diff
        From `read_diff`.
    tensors : mapping
        The model's tensors by name; there may be more than the diff changes.
    what : str
        What errors call the model.

    Raises
    ------
    NotTheBase
        If a tensor is missing or one is not as in the base; where the diff
        says so, also of those that it does not change.
    DiffError
        If the model has this diff already.
    """
    for name, change in diff.changes.items():
        if name not in tensors:
            raise NotTheBase(
                f"{what} is not the base of this diff: it has no {name}"
            )
        if tuple(tensors[name].shape) != change.shape:
            raise NotTheBase(
                f"{what} is not the base of this diff: {name} is "
                f"{list(tensors[name].shape)} and not {list(change.shape)}"
            )
    found = fingerprint({name: tensors[name] for name in diff.changes})
    if found == diff.result:
        raise DiffError(f"{what} has this diff already")
    if found != diff.base:
        raise NotTheBase(
            f"{what} is not the base of this diff: its fingerprint is "
            f"{found[:12]}, the base's is {diff.base[:12]}"
        )
    if diff.model is not None and model_of(tensors) != diff.model:
        raise NotTheBase(
            f"{what} is not the base of this diff: what it does not change is "
            "that of another model"
        )


def apply_diff(
    diff: Diff,
    tensors: MutableMapping[str, np.ndarray],
    what: str = "the model",
    finite: bool = False,
) -> Diff:
    """Change a model's tensors, and keep what undoes it.

    That may take as much memory as the model; `undo.Undo` writes it instead.

    Arguments
    ---------
    diff : Diff
        From `read_diff`.
    tensors : mapping
        Name to array; those that the diff changes are replaced.
    what : str
        What errors call the model.
    finite : bool
        Whether NaN and infinity are refused, as `change_each` does.

    Returns
    -------
    Diff
        What undoes it: the values that were replaced. (Floating-point sums do
        not run backwards.)

    Raises
    ------
    DiffError
        If the tensors are not those that the diff is for, or the result is
        not the one that it promises, or not finite. In the latter cases the
        tensors have changed.

    Example
    -------
    >>> from speechbrain_amnet.diff.file import make_diff
    >>> old = {"w": np.ones((2, 2), dtype=np.float32)}
    >>> change = NewValues((2, 2), np.array([1]), Values.rounded([0.5], 32))
    >>> tensors = dict(old)
    >>> undo = apply_diff(make_diff({"w": change}, old), tensors)
    >>> tensors["w"].tolist()
    [[1.0, 0.5], [1.0, 1.0]]
    >>> _ = apply_diff(undo, tensors)
    >>> bool((tensors["w"] == old["w"]).all())
    True
    """
    check_base(diff, tensors, what)
    old: dict[str, list[np.ndarray]] = {name: [] for name in diff.changes}
    change_each(
        diff,
        tensors,
        lambda name, values: old[name].append(values.copy()),
        finite,
    )
    replaced = {
        name: NewValues(
            change.shape,
            change.touched,
            Values(np.concatenate(old[name]).astype(np.float32)),
        )
        for name, change in diff.changes.items()
    }
    return Diff(replaced, diff.result, diff.base, {"method": "undo"})


def change_each(
    diff: Diff,
    tensors: MutableMapping[str, np.ndarray],
    before: Callable[[str, np.ndarray], None] = lambda name, values: None,
    finite: bool = False,
    in_place: bool = False,
) -> None:
    """Change one tensor after the other, of a base that was checked.

    Arguments
    ---------
    diff : Diff
        From `read_diff`.
    tensors : mapping
        Name to array; those that the diff changes are replaced.
    before : callable
        Gets the name of each and what is about to change; see `Change.apply`.
    finite : bool
        Whether NaN and infinity are refused: what undoes an update may bring
        some back, an update may not bring any.
    in_place : bool
        Whether the arrays themselves may be changed, which takes no memory
        beyond the model. Otherwise it takes that of one tensor.

    Raises
    ------
    DiffError
        If there are some, or, at the end, if the result is not the one that
        the diff promises.
    """
    for name, change in diff.changes.items():
        old = tensors[name]
        with np.errstate(over="ignore", invalid="ignore"):  # said below
            new = change.apply(old, partial(before, name), in_place)
            tensors[name] = new = new.astype(old.dtype, copy=False)
        if finite and not all(map(all_finite, blocks(new))):
            raise DiffError(f"the diff makes NaN or infinity of {name}")
        del old, new
    found = fingerprint({name: tensors[name] for name in diff.changes})
    if found != diff.result:
        raise DiffError("the result is not the one that the diff promises")


def blocks(tensor: np.ndarray) -> list[np.ndarray]:
    """Its numbers, some at a time."""
    return np.array_split(tensor.reshape(-1), 1 + tensor.size // BLOCK)


def all_finite(values: np.ndarray) -> bool:
    """Whether none is NaN or infinity."""
    return bool(np.isfinite(values).all())


def values_at(tensor: np.ndarray, positions: np.ndarray | None) -> NewValues:
    """A tensor's values at some positions, or at all, as a change to them."""
    values = tensor.ravel()
    if positions is not None:
        values = values[positions]
    return NewValues(tensor.shape, positions, Values(values.astype(np.float32)))
