"""The weights that are chosen are worth their bytes most."""

import numpy as np
import pytest

from speechbrain_amnet.diff.budget import size_of
from speechbrain_amnet.diff.changes import SparseChange, Values
from speechbrain_amnet.diff.file import make_diff, to_bytes
from speechbrain_amnet.diff.positions import best_positions


@pytest.fixture
def deltas():
    """Two matrices, of which one changes a hundred times as much."""
    rng = np.random.default_rng(0)
    return {
        "large": rng.normal(size=(100, 50)).astype(np.float32),
        "small": 0.01 * rng.normal(size=(100, 50)).astype(np.float32),
    }


def changes(deltas, positions, bits):
    """As they would travel."""
    return {
        name: SparseChange(
            deltas[name].shape,
            where,
            Values.rounded(deltas[name].ravel()[where], bits),
        )
        for name, where in positions.items()
    }


@pytest.mark.parametrize("budget", [700, 1500, 4000])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_budget_is_kept_and_used(deltas, budget, bits):
    found = best_positions(deltas, budget, bits)
    size = size_of(changes(deltas, found, bits))
    assert 0.97 * budget <= size <= budget


def test_a_real_file_is_not_larger_than_was_reckoned(deltas):
    made = changes(deltas, best_positions(deltas, 1500, 4), 4)
    assert len(to_bytes(make_diff(made, deltas))) <= 1500


def test_the_largest_are_chosen(deltas):
    found = best_positions(deltas, 1000, 4, score="absolute")
    assert list(found) == ["large"]
    kept = np.abs(deltas["large"].ravel()[found["large"]])
    rest = np.delete(np.abs(deltas["large"].ravel()), found["large"])
    assert kept.min() >= rest.max()
    found = best_positions(deltas, 1000, 4)
    counts = [len(found[name]) for name in deltas]
    assert 0.8 < counts[0] / counts[1] < 1.25


def test_each_matrix_has_the_same_share(deltas):
    deltas["large"] = deltas["large"][:50]
    found = best_positions(deltas, 1000, 4, score="matrix")
    shares = [len(found[name]) / deltas[name].size for name in deltas]
    assert max(shares) < 1.02 * min(shares)
    for name, where in found.items():
        sizes = np.abs(deltas[name].ravel())
        assert sizes[where].min() >= np.delete(sizes, where).max()


def test_zeros_are_never_sent(deltas):
    deltas["large"][:, 1:] = 0
    found = best_positions({"large": deltas["large"]}, 100_000, 8)
    assert len(found["large"]) == 100


def test_mistakes(deltas):
    with pytest.raises(ValueError, match="too few for any diff"):
        best_positions(deltas, 50, 4)
    with pytest.raises(ValueError, match="score must be"):
        best_positions(deltas, 1000, 4, score="best")
    with pytest.raises(ValueError, match="needs the importance of weights"):
        best_positions(deltas, 1000, 4, score="fisher")
    with pytest.raises(ValueError, match="changes nothing"):
        best_positions({"w": np.zeros(3, dtype=np.float32)}, 1000, 4)
