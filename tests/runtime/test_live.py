"""Live streams: on a clock that a test winds, they are the simulation's."""

import numpy as np
import pytest

from speechbrain_amnet.runtime import live
from speechbrain_amnet.runtime.convert import pack
from speechbrain_amnet.runtime.recogniser import Recogniser

SECONDS = [0.012, 0.002]  # that a frame of each branch computes


class Clock:
    """Time that passes when someone waits or works."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += max(seconds, 1e-4)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def model(asr, clock, monkeypatch):
    """A recogniser whose frames take the clock's time, by branch."""
    model = Recogniser(pack(asr))
    step = model.encoder.step

    def encode(x, branch, cells):
        clock.now += SECONDS[branch]
        return step(x, branch, cells)

    monkeypatch.setattr(model.encoder, "step", encode)
    return model


def speech(seconds, seed=0):
    random = np.random.default_rng(seed)
    samples = random.standard_normal(int(16000 * seconds))
    loud = np.abs(np.sin(np.arange(len(samples)) / 2000))
    return (0.3 * samples * loud).astype("float32")


@pytest.mark.parametrize("slowdown", [1.0, 1.7, 6.0, 6.5])
def test_live_is_as_reckoned(model, clock, slowdown):
    held = [slowdown * second for second in SECONDS]
    waited = False
    for seed in range(4):
        samples = speech(1.0 + 0.3 * seed, seed)
        run = live.run_live(
            model,
            samples,
            slowdown,
            clock=clock,
            sleep=clock.sleep,
            worked=clock,
        )
        assert len(run.frames) == -(-len(samples) // 640)
        for frame, took in zip(run.frames, run.took):
            assert took == pytest.approx(held[frame.branch], abs=1e-3)
        reckoned = live.simulate(model, samples, held)
        assert run.latency == pytest.approx(reckoned, abs=0.004)
        waited = waited or any(frame.backlog > 0.01 for frame in run.frames)
        text = "".join(frame.text for frame in run.frames)
        assert (run.first_word is None) == (not text)
    assert waited == (slowdown > 2)


def test_a_slower_device_computes_more_often(model):
    """Nothing but the time is different: same words, same decisions."""
    slow, rest = live.slower(model, 7.5)
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
    assert live.slower(model, 1.2) == (model, 1.2)


def test_the_arbitrator_is_told_the_load_of_the_clock(model, clock):
    told = set()
    choose = model.router.choose
    model.router.choose = lambda *a: told.add(a[-1]) or choose(*a)
    clocks = {"clock": clock, "sleep": clock.sleep, "worked": clock}
    live.run_live(model, speech(0.2), 5.0, load=1.5, **clocks)
    assert told == {1.5}
    live.simulate(model, speech(0.2), [0.06, 0.01])
    assert sorted(told) == pytest.approx([1.5] * len(told))


def test_seconds_of_each_branch(model, clock):
    router = model.router
    found = live.branch_seconds(
        model, [speech(0.5)], clock=clock, sleep=clock.sleep, worked=clock
    )
    assert found == pytest.approx(SECONDS)
    assert model.router is router


def test_only_slower(model):
    with pytest.raises(ValueError, match="slowdown must be 1 or more, got 0.5"):
        live.run_live(model, speech(0.1), 0.5)
    with pytest.raises(ValueError, match="load must be above 0, got 0"):
        live.run_live(model, speech(0.1), load=0)
    with pytest.raises(ValueError, match="the recording is empty"):
        live.run_live(model, speech(0.0))


@pytest.fixture
def stream(model, clock):
    return live.LiveStream(model, clock=clock, sleep=clock.sleep, worked=clock)


def test_a_source_that_stalls_leaves_no_backlog(stream, clock):
    samples = speech(2.0)
    frames = []
    for n, chunk in enumerate(np.split(samples, range(640, 32000, 640))):
        clock.now = max(clock.now + 1.0 * (n == 20), stream.arrival(n))
        frames += stream.feed(chunk, final=n == 49, arrived=clock.now)
    assert len(frames) == 50
    assert max(frame.backlog for frame in frames) < 0.005
    assert clock.now - stream.arrival(49) < 0.02
    # Read late although it came in time, it has waited.
    assert stream.start == pytest.approx(101.0, abs=0.05)


def test_what_is_read_late_has_waited(stream, clock):
    samples = speech(1.0)
    clock.now += 1.0
    frames = stream.feed(samples, final=True)
    assert frames[0].backlog == pytest.approx(0.96)


def test_an_early_end_in_mid_frame(stream, clock):
    clock.now += 0.06
    frames = stream.feed(speech(0.06), arrived=clock.now)
    frames += stream.feed(np.zeros(0, "f"), final=True, arrived=clock.now)
    assert len(frames) == 2
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.feed(speech(0.1))


@pytest.mark.parametrize(
    "bad, said",
    [(np.nan, "NaN or infinity"), (1e25, "samples of 1e.25, expected -1 to 1")],
)
def test_bad_samples_are_named_and_the_stream_goes_on(
    model, stream, clock, recwarn, bad, said
):
    samples = speech(1.0)
    clock.now += 0.5
    frames = stream.feed(samples[:8000], arrived=clock.now)
    clock.now += 0.5
    with pytest.raises(ValueError, match=said):
        stream.feed(np.full(8000, bad, "float32"), arrived=clock.now)
    for chunk in np.split(samples[8000:], range(640, 8000, 640)):
        clock.now += len(chunk) / 16000
        frames += stream.feed(chunk, arrived=clock.now)
    assert frames[-1].backlog < 0.06  # of the first twelve, read at once
    frames += stream.feed(samples[:0], final=True)
    assert [f.tokens for f in frames] and not recwarn.list
    loud = np.clip(9 * samples, -1, 1)  # clipped
    assert len(model.start().feed(loud, final=True)) == len(frames)
    assert len(frames) == 25
