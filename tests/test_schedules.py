"""Schedules: the curve, and that it survives a checkpoint."""

import math

import pytest
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_amnet import Schedule


@pytest.mark.parametrize(
    "interpolation, half, quarter",
    [
        ("linear", 50.5, 25.75),
        ("geometric", 10.0, 100**0.25),
        ("cosine", 50.5, 1 + 99 * (1 - math.cos(math.pi / 4)) / 2),
        ("cubic", 1 + 99 * 7 / 8, 1 + 99 * 37 / 64),
    ],
)
def test_interpolation_between_two_points(interpolation, half, quarter):
    schedule = Schedule([[0.2, 1], [0.6, 100]], interpolation)
    assert schedule(0.4) == pytest.approx(half)
    assert schedule(0.3) == pytest.approx(quarter)
    # Flat outside, exact at the points.
    assert [schedule(x) for x in (0.0, 0.2, 0.6, 1.0)] == [1, 1, 100, 100]


@pytest.mark.parametrize(
    "interpolation", ["linear", "geometric", "cosine", "cubic"]
)
def test_every_point_is_met(interpolation):
    points = [[0.0, 0.5], [0.3, 4], [0.31, 2], [1.0, 8]]
    schedule = Schedule(points, interpolation)
    assert [schedule(x) for x, _ in points] == [y for _, y in points]
    assert 2 < schedule(0.7) < 8


def test_one_point_is_a_constant():
    assert {Schedule([[0.5, 3.0]])(x) for x in (0.0, 0.5, 1.0)} == {3.0}


def test_linear_and_cosine_reach_zero():
    for interpolation in ("linear", "cosine"):
        assert Schedule([[0, 1], [1, 0]], interpolation)(1.0) == 0


def test_update_moves_and_a_call_does_not():
    schedule = Schedule([[0.0, 0], [1.0, 10]])
    assert schedule.value == 0
    assert schedule.update(0.5) == schedule.value == 5
    assert schedule(0.9) == 9
    assert schedule.value == 5


def test_the_value_is_in_the_checkpoint(tmp_path):
    points = [[0.0, 1.0], [1.0, 100.0]]
    schedule = Schedule(points, "geometric")
    schedule.update(0.5)
    Checkpointer(tmp_path, {"temperature": schedule}).save_checkpoint()
    fresh = Schedule(points, "geometric")
    assert fresh.value == 1.0
    Checkpointer(tmp_path, {"temperature": fresh}).recover_if_possible()
    assert fresh.value == schedule.value == pytest.approx(10.0)


@pytest.mark.parametrize(
    "points, interpolation, message",
    [
        ([], "linear", r"must rise, got \[\]"),
        ([[0.5, 1], [0.5, 2]], "linear", r"must rise, got \[0.5, 0.5\]"),
        ([[0.6, 1], [0.5, 2]], "linear", r"must rise, got \[0.6, 0.5\]"),
        ([[-0.1, 1]], "linear", r"0 to 1, got \[-0.1\]"),
        ([[0.1, 1], [2, 1]], "linear", r"0 to 1, got \[0.1, 2.0\]"),
        ([[0.1, 1]], "quintic", "got 'quintic'"),
        ([[0.0, math.nan]], "linear", "pairs of finite .* nan"),
        ([[0.0, 1.0, 2]], "linear", r"pairs of .* got \[\[0.0, 1.0, 2\]\]"),
        ([0.0, 1.0], "linear", r"pairs of finite numbers.* got \[0.0, 1.0\]"),
        ([[0.1, 0], [1, 1]], "geometric", r"above 0, got \[0.0, 1.0\]"),
    ],
)
def test_what_cannot_be_is_named(points, interpolation, message):
    with pytest.raises(ValueError, match=message):
        Schedule(points, interpolation)
