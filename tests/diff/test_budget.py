"""Budgets: as people write them, and kept to the byte."""

import numpy as np
import pytest

from speechbrain_amnet.diff.budget import (
    fitted,
    largest_that_fits,
    parse_budget,
    ranks_that_fit,
    share_that_fits,
    size_of,
)
from speechbrain_amnet.diff.changes import (
    HashChange,
    LowRankChange,
    SparseChange,
    Values,
)


@pytest.mark.parametrize(
    "text, found",
    [
        ("2%", 8000),
        ("0.5 %", 2000),
        ("40kB", 40_000),
        ("1.5MB", 1_500_000),
        ("123", 123),
        (123, 123),
        ("77B", 77),
    ],
)
def test_what_people_write(text, found):
    assert parse_budget(text, 100_000) == found


@pytest.mark.parametrize("text", ["", "0", "-3", "2 percent", "1.2.3kB", "0%"])
def test_what_is_no_budget(text):
    with pytest.raises(ValueError, match="budget: expected a share"):
        parse_budget(text, 100)


@pytest.mark.parametrize("budget", [900, 2000, 6000])
def test_share_and_rank_use_the_budget(budget):
    shapes = {"w": (100, 60), "v": (60, 60), "bias": (60,)}
    random = np.random.default_rng(5)

    def values(count, bits=8):
        return Values.rounded(random.normal(size=count), bits)

    share = share_that_fits(shapes, budget, 8)
    hashed = {
        name: HashChange(
            shape, values(max(1, round(share * np.prod(shape)))), 1, name
        )
        for name, shape in shapes.items()
    }
    assert 0.9 * budget < size_of(hashed) < 1.1 * budget
    ranks = ranks_that_fit(shapes, budget, 8)
    assert ranks["w"] - ranks["v"] in (0, 1)
    behind = "v" if ranks["w"] > ranks["v"] else "w"
    for more, fits in ((0, True), (1, False)):
        own = {**ranks, behind: ranks[behind] + more}
        factors = {
            name: LowRankChange(
                shape,
                values(shape[0] * own[name]),
                values(shape[1] * own[name]),
                own[name],
            )
            for name, shape in shapes.items()
            if len(shape) > 1
        }
        factors["bias"] = SparseChange((60,), np.arange(60), values(60))
        assert (size_of(factors) < 1.01 * budget) == fits


def test_ranks_below_one_for_all():
    shapes = {"w": (100, 60), "bias": (60,), "v": (100, 60)}
    assert ranks_that_fit(shapes, 750, 8) == {"w": 1, "bias": 1}
    assert ranks_that_fit({"bias": (60,)}, 1000, 8) == {"bias": 1}
    assert ranks_that_fit({"w": (9, 3)}, 9000, 8) == {"w": 3}
    with pytest.raises(ValueError, match="too few for any diff"):
        ranks_that_fit({"w": (100, 60)}, 300, 8)


@pytest.mark.parametrize("kind", ["sparse", "hash", "lowrank"])
def test_what_is_too_large_loses_its_smallest(kind, make):
    tensors = {"w": make.random((80, 60)), "v": make.random((60, 60))}
    diff = make.diff_of(kind, tensors)
    if kind == "sparse":
        diff.changes["w"] = make.sparse((80, 60), count=2000)
    if kind == "hash":
        diff.changes["w"].buckets = Values.rounded(make.random(2000), 8)
    whole = size_of(diff.changes)
    assert fitted(diff.changes, whole) == diff.changes
    less = fitted(diff.changes, whole - 40)
    assert whole - 100 < size_of(less) <= whole - 40
    for name, one in less.items():
        for now, before in zip(one.values, diff.changes[name].values):
            kept = np.abs(now.floats())
            assert kept.max() == np.abs(before.floats()).max()
    # Those that are left are the largest of all, whichever matrix they are of.
    before, left = (
        np.sort(np.abs(np.concatenate([v.floats() for v in values])))[::-1]
        for values in (
            [v for one in changes.values() for v in one.values]
            for changes in (diff.changes, less)
        )
    )
    left = left[left > 0]
    np.testing.assert_array_equal(left, before[: len(left)])


@pytest.mark.parametrize("room", [5, 600, 40_000, 9_999_999])
def test_large_counts_are_found_closely(room, monkeypatch):
    monkeypatch.setattr(
        "speechbrain_amnet.diff.budget.size_of", lambda count, about: count
    )
    found = largest_that_fits(lambda count: count, 10_000_000, room)
    assert 0.998 * room <= found <= room
