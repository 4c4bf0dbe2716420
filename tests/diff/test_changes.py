"""What a diff does to one tensor, beside it or where it lies."""

import numpy as np
import pytest

from speechbrain_amnet.diff import changes as module
from speechbrain_amnet.diff.changes import (
    HashChange,
    LowRankChange,
    NewValues,
    SparseChange,
    Values,
)

ROWS, COLUMNS = 30, 7


def values(count, bits=8, seed=1):
    rng = np.random.default_rng(seed)
    return Values.rounded(rng.standard_normal(count), bits)


def changes():
    shape, few = (ROWS, COLUMNS), np.arange(3, ROWS * COLUMNS, 11)
    return [
        SparseChange(shape, few, values(len(few))),
        SparseChange(shape, None, values(ROWS * COLUMNS)),
        NewValues(shape, few, values(len(few), 32)),
        HashChange(shape, values(5), 3, "w"),
        LowRankChange(shape, values(2 * ROWS), values(2 * COLUMNS, 8, 2), 2),
    ]


def old(dtype="float32"):
    rng = np.random.default_rng(0)
    return rng.standard_normal((ROWS, COLUMNS)).astype(dtype)


@pytest.mark.parametrize("block", [1, 16, 10_000])
@pytest.mark.parametrize("change", changes(), ids=lambda c: c.kind)
def test_in_place_is_the_same(change, block, monkeypatch):
    expected = change.apply(old())
    assert not np.array_equal(expected, old())
    monkeypatch.setattr(module, "BLOCK", block)
    tensor, seen = old(), []
    new = change.apply(tensor, lambda some: seen.append(some.copy()), True)
    assert np.shares_memory(new, tensor)
    assert np.array_equal(new, expected)
    assert np.array_equal(change.apply(old()), expected)
    # What is told before is what stood there.
    where = change.touched
    before = old().ravel() if where is None else old().ravel()[where]
    assert np.array_equal(np.concatenate(seen), before)


@pytest.mark.parametrize("change", changes(), ids=lambda c: c.kind)
def test_what_may_not_change_is_copied(change):
    locked, half, turned = old(), old("float16"), np.asfortranarray(old())
    locked.flags.writeable = False
    for tensor in (locked, half, turned):
        kept = tensor.copy()
        new = change.apply(tensor, in_place=True)
        assert np.array_equal(tensor, kept)
        expected = change.apply(kept.astype("float32"))
        assert np.array_equal(new, expected) and new.dtype == np.float32
    tensor = old()
    change.apply(tensor)
    assert np.array_equal(tensor, old())


def test_low_rank_is_added_one_rank_after_the_other():
    change = changes()[-1]
    left = change.left.floats().reshape(ROWS, 2)
    right = change.right.floats().reshape(2, COLUMNS)
    expected = old() + left[:, :1] * right[0]
    expected += left[:, 1:] * right[1]
    assert np.array_equal(change.apply(old()), expected)
