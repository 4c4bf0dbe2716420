"""How fast this machine is, on a clock that a test winds."""

import numpy as np
import pytest

from speechbrain_amnet.runtime import speed


def test_seconds_of_each_branch(model, clocks, speech, takes):
    router = model.router
    for branch, seconds in enumerate(takes):
        for slowdown in (1.0, 2.5):
            found = speed.frame_seconds(
                model, branch, speech(0.5), slowdown, **clocks
            )
            assert found == pytest.approx(slowdown * seconds)
    assert model.router is router


def test_what_this_machine_takes_is_measured_where_it_is_read(
    model, clocks, takes
):
    assert speed.load_here(model, **clocks) is None
    model.router.device = np.zeros(len(model.router.bias), "float32")
    here = speed.load_here(model, **clocks)
    assert here == pytest.approx(takes[0] / 0.04)
