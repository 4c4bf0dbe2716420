"""A machine that is held back does the same, more often."""

import pytest

from speechbrain_amnet.runtime.slower import slower


def test_a_slower_device_computes_more_often(model, speech):
    """Nothing but the time is different: same words, same decisions."""
    slow, rest = slower(model, 7.5)
    assert rest == pytest.approx(7.5 / 7)
    routed, encoded = [], []
    choose, step = model.router.choose, model.encoder.step
    model.router.choose = lambda *a: routed.append(1) or choose(*a)
    model.encoder.step = lambda *a: encoded.append(1) or step(*a)
    samples = speech(0.5)
    frames = slow.start().feed(samples, final=True)
    assert len(routed) == len(encoded) == 7 * len(frames)
    model.router.choose, model.encoder.step = choose, step
    assert frames == model.start().feed(samples, final=True)
    assert slower(model, 1.2) == (model, 1.2)
