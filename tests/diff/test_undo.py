"""What undoes a diff, as written tensor by tensor and as kept in memory."""

import tracemalloc

import numpy as np
import pytest

from speechbrain_amnet.diff.applying import apply_diff
from speechbrain_amnet.diff.changes import HashChange, SparseChange, Values
from speechbrain_amnet.diff.file import (
    DiffError,
    make_diff,
    read_diff,
    write_diff,
)
from speechbrain_amnet.diff.undo import Undo


@pytest.mark.parametrize("kind", ["sparse", "new", "hash", "lowrank"])
@pytest.mark.parametrize("type_", [np.float32, np.float16])
def test_written_is_what_is_kept(make, kind, type_, tensors, tmp_path):
    tensors = {name: array.astype(type_) for name, array in tensors.items()}
    diff = make.diff_of(kind, tensors)
    kept = apply_diff(diff, dict(tensors))
    now, undo = dict(tensors), Undo(diff)
    size = undo.write(now, tmp_path / "a.undo")
    assert size == (tmp_path / "a.undo").stat().st_size <= undo.most
    found = read_diff(tmp_path / "a.undo")
    assert (found.base, found.result) == (kept.base, kept.result)
    assert found.about == kept.about == {"method": "undo"}
    for name, change in kept.changes.items():
        other = found.changes[name]
        for one, two in (
            (change.touched, other.touched),
            (change.deltas.floats(), other.deltas.floats()),
        ):
            assert (one is None) == (two is None)
            assert one is None or np.array_equal(one, two)
    apply_diff(found, now)
    assert all(now[name].tobytes() == tensors[name].tobytes() for name in now)


def test_nothing_is_written_where_nothing_is_kept(make, tensors):
    diff = make.diff_of("sparse", tensors)
    now, other = dict(tensors), dict(tensors)
    assert Undo(diff).write(now, None) == 0
    apply_diff(diff, other)
    assert all(np.array_equal(now[name], other[name]) for name in now)


def test_a_result_that_was_not_promised(make, tensors, tmp_path):
    diff = make.diff_of("hash", tensors)
    diff.result = "0" * 64
    with pytest.raises(DiffError, match="not the one that the diff promises"):
        Undo(diff).write(dict(tensors), tmp_path / "a.undo")


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", ["sparse", "most", "all", "hash"])
def test_memory_is_that_of_two_tensors(kind, in_place, tmp_path):
    """Of four that change, whose undo may be as large as all of them.

    Where they are changed as they lie, it is that of one.
    """
    shape, count = (1024, 1024), 1024 * 1024
    rng = np.random.default_rng(0)

    def change(name):
        if kind == "hash":
            buckets = Values.rounded(rng.normal(size=count // 50), 8)
            return HashChange(shape, buckets, 0, name)
        some = {"sparse": 0.02, "most": 0.6, "all": 1}[kind]
        some = round(some * count)
        where = np.sort(rng.choice(count, some, replace=False))
        values = Values.rounded(rng.normal(size=some), 4)
        return SparseChange(shape, None if kind == "all" else where, values)

    names = [f"w{n}" for n in range(4)]
    tensors = {name: np.zeros(shape, dtype=np.float32) for name in names}
    made = make_diff({name: change(name) for name in names}, tensors)
    write_diff(made, tmp_path / "a.diff")
    del made
    tracemalloc.start()
    diff = read_diff(tmp_path / "a.diff")
    sent, most = tracemalloc.get_traced_memory()
    assert most < sent + 4 * count  # where it lies, and no copy of it
    undo = Undo(diff)
    before, _ = tracemalloc.get_traced_memory()
    undo.write(tensors, tmp_path / "a.undo", in_place)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Four new ones are there now; the old ones were not counted.
    new, more = (0, 1) if in_place else (4, 2)
    assert peak - before < (new + more) * 4 * count
    assert after - before < (new + 0.1) * 4 * count
