"""Several diffs of a chain as one, for a device that missed some."""

from collections.abc import Mapping, Sequence

import numpy as np

from speechbrain_amnet.diff.applying import apply_diff, values_at
from speechbrain_amnet.diff.file import Diff, fingerprint, model_of


def squash(diffs: Sequence[Diff], tensors: Mapping[str, np.ndarray]) -> Diff:
    """One diff that does what a chain of them does.

    It holds the final values wherever one of them changed something, so it is
    exact. With a hashed or a low-rank diff among them that is everywhere: it is
    then about as large as the model.

    Arguments
    ---------
    diffs : sequence of Diff
        In their order.
    tensors : mapping
        Of the model that the first one is for.

    Returns
    -------
    Diff

    Raises
    ------
    ValueError
        If there is no diff, or they take back what they change.
    DiffError
        If they do not follow each other, the model is not their base, or they
        make NaN or infinity.

    Example
    -------
    >>> from speechbrain_amnet.diff.changes import SparseChange, Values
    >>> from speechbrain_amnet.diff.file import make_diff
    >>> old = {"w": np.zeros(3, dtype=np.float32)}
    >>> half = Values.rounded([0.5], 32)
    >>> chain, now = [], dict(old)
    >>> for place in (0, 2):
    ...     change = SparseChange((3,), np.array([place]), half)
    ...     chain.append(make_diff({"w": change}, now))
    ...     _ = apply_diff(chain[-1], now)
    >>> _ = apply_diff(squash(chain, old), old)
    >>> old["w"].tolist()
    [0.5, 0.0, 0.5]
    """
    if not diffs:
        raise ValueError("squash: there is no diff")
    now = dict(tensors)
    touched: dict[str, np.ndarray | None] = {}
    for number, diff in enumerate(diffs, 1):
        what = "the model" if number == 1 else "the chain"
        apply_diff(diff, now, what, finite=True)
        for name, change in diff.changes.items():
            here, before = change.touched, touched.get(name)
            if here is None or (name in touched and before is None):
                touched[name] = None
            elif name in touched:
                touched[name] = np.union1d(before, here)
            else:
                touched[name] = here
    before, after = (
        fingerprint({name: model[name] for name in touched})
        for model in (tensors, now)
    )
    if before == after:
        raise ValueError("squash: in the end these diffs change nothing")
    return Diff(
        {name: values_at(now[name], where) for name, where in touched.items()},
        before,
        after,
        {"method": "squashed", "of": [diff.about for diff in diffs]},
        model=model_of(tensors) if any(diff.model for diff in diffs) else None,
    )
