"""The fixed draws keep their rate and depend on the frame's index alone."""

import numpy as np
import pytest

from speechbrain_amnet.draws import BLOCK, fixed_draws


@pytest.mark.parametrize("rate", [0.1, 0.29, 0.5, 0.9])
def test_the_rate_is_kept_from_the_beginning(rate):
    # 0.5 a block: a part of [0, 1) that the rate cuts in two.
    for frames in (2 * BLOCK, 70, 100, 150):
        drawn = fixed_draws(0, frames, seed=3) < rate
        assert abs(drawn.sum() - rate * frames) <= 0.06 * frames


def test_draws_are_uniform_and_independent_of_their_neighbours():
    drawn = fixed_draws(0, 200000)
    counts = np.histogram(drawn, bins=1000, range=(0, 1))[0]
    assert abs(counts - 200).max() < 80
    correlation = np.corrcoef(drawn[:-1], drawn[1:])[0, 1]
    assert abs(correlation) < 1 / BLOCK + 0.01
    # The same place of each block is no more likely to be high.
    places = drawn.reshape(-1, BLOCK).mean(0)
    assert abs(places - 0.5).max() < 0.02


def test_parts_of_the_sequence_are_the_sequence():
    whole = fixed_draws(0, 150, seed=5)
    parts = [fixed_draws(first, 25, seed=5) for first in range(0, 150, 25)]
    assert np.array_equal(whole, np.concatenate(parts))
    single = [fixed_draws(first, 1, seed=5) for first in range(150)]
    assert np.array_equal(whole, np.concatenate(single))
    assert not np.array_equal(whole, fixed_draws(0, 150, seed=6))


def test_the_sequence_is_the_same_everywhere():
    # What a deployed model chose must not change with a version.
    expected = [
        0.5368434906005859,
        0.009112167358398437,
        0.7063377380371094,
        0.521877670288086,
    ]
    assert fixed_draws(38, 4, seed=7).tolist() == expected
