"""The weights that are chosen are worth their bytes most."""

import itertools

import numpy as np
import pytest

from speechbrain_amnet.diff.budget import size_of
from speechbrain_amnet.diff.changes import SparseChange, Values
from speechbrain_amnet.diff.coding import entropy_bits
from speechbrain_amnet.diff.file import make_diff, to_bytes
from speechbrain_amnet.diff.positions import best_positions, by_the_bit


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


def test_gains_for_bits_are_the_best_that_there_are():
    """Against every way to take some of the best of three matrices."""
    random = np.random.default_rng(1)
    gains = [random.gamma(0.3, size=size) for size in (8, 12, 20)]
    gains[0][:] = gains[0].mean()
    gains[2][5:] = 0

    def spent(k, size):
        counts = np.arange(k, size + 1)  # who sends all needs no positions
        bits = (400 + 3.5 * counts + entropy_bits(counts, size)).min()
        return bits if k else 0.0

    curves = [
        [
            (spent(k, len(own)), np.sort(own)[::-1][:k].sum())
            for k in range(np.count_nonzero(own) + 1)
        ]
        for own in gains
    ]
    ways = np.array([np.sum(way, 0) for way in itertools.product(*curves)])
    scores = [by_the_bit(own, 4) for own in gains]
    prices = np.unique(np.concatenate(scores))
    assert prices[0] == 0 and len(prices) > 20
    for price in (prices[1:-1] + prices[2:]) / 2:
        counts = [(own > price).sum() for own in scores]
        bits, gain = np.sum([c[k] for c, k in zip(curves, counts)], 0)
        # Between the parts of a hull, a way that costs no more gains no more.
        if min(abs(prices / price - 1)) > 1e-6:
            assert ways[ways[:, 0] <= bits + 1e-6, 1].max() <= gain + 1e-9
    for own, score in zip(gains, scores):
        order = np.argsort(-own, kind="stable")
        assert (np.diff(score[order]) <= 0).all()
        assert ((score == 0) == (own == 0)).all()


def test_a_tensor_costs_something_by_itself():
    alone, many = by_the_bit(np.array([1.2]), 4), by_the_bit(np.ones(100), 4)
    assert alone < many.min()


@pytest.fixture
def few_and_many():
    """A small matrix, and another of which one weight in 100 matters."""

    def make(low, high):
        random = np.random.default_rng(0)
        small = random.uniform(0.8, 1.2, (20, 40))
        large = np.full((200, 400), 1e-3)
        large.ravel()[::100] = random.uniform(low, high, 800)
        return {
            "small": small.astype(np.float32),
            "large": large.astype(np.float32),
        }

    return make


def test_the_loss_feels_the_square_of_a_change(few_and_many):
    deltas = few_and_many(2.2, 2.6)
    ones = {name: np.ones_like(delta) for name, delta in deltas.items()}
    found = best_positions(deltas, 700, 4, "bytes", importance=ones)
    assert list(found) == ["large"]


def test_a_whole_matrix_needs_no_positions(few_and_many):
    """Its weights are cheaper than a few of another that gain as much."""
    deltas = few_and_many(1.25, 1.6)
    ones = {name: np.ones_like(delta) for name, delta in deltas.items()}
    found = {
        score: best_positions(deltas, 700, 4, score, importance=ones)
        for score in ("fisher", "bytes")
    }
    assert list(found["fisher"]) == ["large"]
    assert len(found["bytes"]["small"]) == 800
    gains = {
        score: sum((deltas[n].ravel()[w] ** 2).sum() for n, w in where.items())
        for score, where in found.items()
    }
    assert gains["bytes"] > gains["fisher"]


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
