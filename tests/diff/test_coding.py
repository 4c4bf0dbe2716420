"""Positions and values survive their code, close to the least there can be."""

import tracemalloc

import numpy as np
import pytest

from speechbrain_amnet.diff.coding import (
    Coded,
    decode_positions,
    encode_positions,
    entropy_bits,
    scale_of,
    steps_of,
)


def drawn(count, size, seed=0):
    """So many positions, increasing."""
    chosen = np.random.default_rng(seed).choice(size, count, replace=False)
    return np.sort(chosen)


@pytest.mark.parametrize(
    "count, size",
    [(0, 9), (9, 9), (1, 1), (1, 1000), (999, 1000), (500, 1000), (501, 1000)]
    + [(round(1000 * share), 1000) for share in (0.01, 0.07, 0.3, 0.62, 0.9)],
)
def test_positions_come_back(count, size):
    positions = drawn(count, size)
    coded = encode_positions(positions, size)
    assert decode_positions(coded, count, size).tolist() == positions.tolist()


@pytest.mark.parametrize("share", [0.0003, 0.02, 0.5, 0.7, 1])
@pytest.mark.parametrize("block", [1, 3, 1 << 13])
def test_blocks_are_the_whole(share, block, monkeypatch):
    """Also where a block of the code has no end of a gap in it."""
    monkeypatch.setattr("speechbrain_amnet.diff.coding.BLOCK", block)
    positions = drawn(round(share * 10_000), 10_000)
    code = encode_positions(positions, 10_000)
    coded = Coded(code, len(positions), 10_000)
    assert np.concatenate(list(coded)).tolist() == positions.tolist()
    assert np.array_equal(coded, positions) and len(coded) == len(positions)
    if 0 < share < 1:
        with pytest.raises(ValueError, match="cut short"):
            Coded(code[:-2], len(positions), 10_000)


def test_reading_some_at_a_time_takes_little_memory():
    size = 1 << 22
    code = encode_positions(np.arange(0, size, 3), size)
    tracemalloc.start()
    coded = Coded(code, len(range(0, size, 3)), size)
    last = [block[-1] for block in coded][-1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert last == size - 1
    assert peak < 4 * size / 2  # half of a matrix in 32 bits


@pytest.mark.parametrize("share", [0.001, 0.005, 0.02, 0.045, 0.1, 0.3, 0.8])
def test_positions_take_what_their_entropy_says(share):
    size = 262_144
    count = round(share * size)
    coded = encode_positions(drawn(count, size), size)
    assert len(coded) <= 1.05 * entropy_bits(count, size) / 8 + 1


def test_runs_and_ends_come_back():
    positions = np.r_[0:5, 40, 95:100]
    coded = encode_positions(positions, 100)
    assert decode_positions(coded, 11, 100).tolist() == positions.tolist()


@pytest.mark.parametrize("positions", [[3, 2], [1, 1], [-1], [100]])
def test_wrong_positions_are_refused(positions):
    with pytest.raises(ValueError, match="must increase from 0"):
        encode_positions(np.array(positions), 100)


def test_code_that_is_cut_short_is_refused():
    coded = encode_positions(drawn(50, 1000), 1000)
    for length in range(len(coded) - 1):
        with pytest.raises(ValueError, match="cut short"):
            decode_positions(coded[:length], 50, 1000)


@pytest.mark.parametrize("count", [0, 50, 950, 1000])
def test_code_that_is_longer_is_refused(count):
    coded = encode_positions(drawn(count, 1000), 1000)
    for more in (1, 2, 100_000):
        longer = np.append(coded, np.full(more, 255, dtype=np.uint8))
        with pytest.raises(ValueError, match="more than|longer than"):
            decode_positions(longer, count, 1000)


def test_steps_are_the_nearest():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    for bits in (2, 4, 8):
        scale = scale_of(values, bits)
        steps = steps_of(values, scale, bits)
        most = 2 ** (bits - 1) - 1
        assert np.abs(steps).max() <= most
        inside = np.abs(values) <= most * scale
        wrong = np.abs(steps * scale - values)[inside]
        assert wrong.max() <= scale / 2 + 1e-6


def test_few_bits_clip_the_largest():
    values = np.array([10.0] + [1.0] * 100, dtype=np.float32)
    scale = scale_of(values, 4)
    whole = np.abs(steps_of(values, np.float32(10 / 7), 4) * 10 / 7 - values)
    found = np.abs(steps_of(values, scale, 4) * scale - values)
    assert np.square(found).sum() < np.square(whole).sum()


def test_zeros_have_a_scale():
    assert scale_of(np.zeros(3, dtype=np.float32), 4) == 1
