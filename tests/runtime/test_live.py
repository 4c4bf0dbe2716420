"""Live streams: on a clock that a test winds, they are the simulation's."""

import numpy as np
import pytest

from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.runtime import live
from speechbrain_amnet.runtime.convert import pack
from speechbrain_amnet.runtime.recogniser import Recogniser


@pytest.mark.parametrize("slowdown", [1.0, 1.7, 6.0, 6.5])
def test_live_is_as_reckoned(model, clocks, slowdown, speech, takes):
    held = [slowdown * second for second in takes]
    waited = False
    for seed in range(4):
        samples = speech(1.0 + 0.3 * seed, seed)
        run = live.run_live(model, samples, slowdown, **clocks)
        assert len(run.frames) == -(-len(samples) // 640)
        for frame, took in zip(run.frames, run.took):
            assert took == pytest.approx(held[frame.branch], abs=1e-3)
        reckoned = live.simulate(model, samples, held)
        assert run.latency == pytest.approx(reckoned, abs=0.004)
        waited = waited or any(frame.backlog > 0.01 for frame in run.frames)
        text = "".join(frame.text for frame in run.frames)
        assert (run.first_word is None) == (not text)
    assert waited == (slowdown > 2)


@pytest.mark.parametrize("slowdown", [1.0, 6.5])
def test_what_is_around_the_encoder_is_told(model, clock, clocks, slowdown):
    """However far this is held back, and that is waited for."""
    frames = model.features.frames

    def slow(*samples):
        clock.now += 0.003
        return frames(*samples)

    model.features.frames = slow
    run = live.run_live(model, np.zeros(16000, "float32"), slowdown, **clocks)
    assert run.around == pytest.approx(25 * 0.003, abs=1e-6)


def test_words_of_the_end_are_words(asr, clocks, speech):
    """Held to a grammar, a stream may be sure of its words at the end only."""
    model = Recogniser(pack(asr))
    grammar = "#JSGF V1.0; grammar g; public <a> = STOP | GO | LEFT;"
    model.hold_to(Grammar(grammar, False, "here"))
    late = 0
    for seed in range(8):
        samples = speech(0.4, seed)
        run = live.run_live(model, samples, **clocks)
        if model.transcribe(samples):
            assert 0.04 <= run.first_word <= 0.401 + run.latency
            late += not any(frame.text for frame in run.frames)
    assert late


def test_the_arbitrator_is_told_the_load_of_the_clock(model, clocks, speech):
    told = set()
    choose = model.router.choose
    model.router.choose = lambda *a: told.add(a[-1]) or choose(*a)
    live.run_live(model, speech(0.2), 5.0, load=1.5, **clocks)
    assert told == {1.5}
    live.simulate(model, speech(0.2), [0.06, 0.01])
    assert sorted(told) == pytest.approx([1.5] * len(told))


@pytest.mark.parametrize("length", [100, 5000, 16000, 20000])
def test_a_device_that_throttles_is_as_reckoned(
    model, clocks, length, speech, takes
):
    told = []
    choose = model.router.choose
    model.router.choose = lambda *a: told.append(a[-1]) or choose(*a)
    samples, paces = speech(2.0)[:length], (2.0, 7.5)
    held = [[pace * second for second in takes] for pace in paces]
    run = live.run_live(model, samples, 2.0, (7.5, 2.25), load=0.6, **clocks)
    count = len(run.frames)
    assert count == -(-length // 640)
    for n, (frame, took) in enumerate(zip(run.frames, run.took)):
        later = n >= count // 2
        wanted = held[later][frame.branch]
        assert took == pytest.approx(wanted, abs=1e-3)
    assert told == count // 2 * [0.6] * 2 + (count - count // 2) * [2.25] * 7
    reckoned = live.simulate(model, samples, *held)
    assert told[-count:] == pytest.approx(
        count // 2 * [0.6] + (count - count // 2) * [2.25]
    )
    assert run.latency == pytest.approx(reckoned, abs=0.004)


@pytest.mark.parametrize("slowdown", [0.5, float("nan"), float("inf")])
def test_only_slower(model, slowdown, speech):
    said = f"slowdown must be 1 or more, got {slowdown}"
    with pytest.raises(ValueError, match=said):
        live.run_live(model, speech(0.1), slowdown)


def test_a_stall_of_the_source_is_no_backlog(model, clock, clocks, speech):
    """Frames wait for the device alone, however late they come."""
    stream = live.LiveStream(model, 3.0, **clocks)
    due = stream.start
    backlogs = []
    for n, chunk in enumerate(np.split(speech(0.8), 20)):
        due += 1.04 if n == 10 else 0.04
        stream.wait(due)
        late = clock.now - due
        (frame,) = stream.feed(chunk, arrived=due)
        assert frame.backlog == pytest.approx(late, abs=1e-9)
        assert stream.latency == pytest.approx(late + stream.took[-1])
        backlogs.append(frame.backlog)
    # With 36 ms for the slowest branch there is time for every frame.
    assert max(backlogs) < 0.001


def test_what_came_at_once_after_a_stall_waits_in_turn(
    model, clock, clocks, speech
):
    stream = live.LiveStream(model, 3.0, **clocks)
    clock.now += 1.0
    frames = stream.feed(speech(1.0))
    assert len(frames) == 25
    waited = np.cumsum([0.0, *stream.took])
    assert [frame.backlog for frame in frames] == pytest.approx(waited[:-1])
    assert stream.latency == pytest.approx(waited[-1])
    clock.now += 1.0
    (frame,) = stream.feed(speech(0.04))
    assert frame.backlog == 0.0


def test_a_reader_that_is_late_says_when_samples_came(
    model, clock, clocks, speech
):
    stream = live.LiveStream(model, **clocks)
    came = clock.now
    clock.now += 0.3
    (frame,) = stream.feed(speech(0.04), arrived=came)
    assert frame.backlog == pytest.approx(0.3)
    assert stream.latency == pytest.approx(0.3 + stream.took[0])


def test_frames_of_a_long_chunk_came_one_after_the_other(
    model, clock, clocks, speech
):
    """As of a microphone whose samples a late reader gets in one piece."""
    samples = speech(1.0)
    stream = live.LiveStream(model, **clocks)
    clock.now += 1.0
    frames = stream.feed(samples, arrived=clock.now)
    begun = stream.start + 1.0 + np.cumsum([0.0, *stream.took[:-1]])
    came = stream.start + 0.04 * np.arange(1, 26)
    assert [frame.backlog for frame in frames] == pytest.approx(begun - came)


def test_a_source_that_ends_within_a_frame(model, clock, clocks, speech):
    samples = speech(0.5)[: 5 * 640 + 100]
    stream = live.LiveStream(model, **clocks)
    frames = []
    for chunk in np.array_split(samples, 7):
        clock.now += len(chunk) / 16000
        frames += stream.feed(chunk)
    assert len(frames) == 5
    clock.now += 2.0  # the source says nothing for a while, then that it ends
    frames += stream.feed(samples[:0], final=True)
    assert len(frames) == 6
    assert frames == model.start(lambda index: 0.0).feed(samples, final=True)
    assert stream.latency == pytest.approx(stream.took[-1])


def test_clipped_samples_go_on(model, clocks, speech):
    clipped = np.clip(40 * speech(0.5), -1, 1)
    run = live.run_live(model, clipped, **clocks)
    assert np.mean(np.abs(clipped) == 1) > 0.5
    assert len(run.frames) == 13


def test_after_bad_samples_the_stream_goes_on(model, clocks, speech):
    parts = np.split(speech(0.8), 2)
    bad = np.where(np.arange(1000) == 700, np.nan, 0.1)
    found = []
    for breaks in (False, True):
        stream = live.LiveStream(model, **clocks)
        frames = stream.feed(parts[0])
        if breaks:
            with pytest.raises(ValueError) as refused:
                stream.feed(bad)
            assert str(refused.value) == "the audio has NaN or infinity"
        found.append(frames + stream.feed(parts[1], final=True))
    for whole, broken in zip(*found, strict=True):
        assert broken == whole._replace(backlog=broken.backlog)
        assert broken.backlog == pytest.approx(whole.backlog)


def test_no_samples(model, clocks):
    with pytest.raises(ValueError, match="needs a sample at least, got 0"):
        live.run_live(model, np.zeros(0, "float32"), **clocks)


@pytest.mark.parametrize("load", [0, -1.0, np.nan, np.inf])
def test_a_load_that_no_device_has(model, load):
    with pytest.raises(ValueError, match=f"load must be above 0, got {load}"):
        live.LiveStream(model, load=load)


@pytest.mark.parametrize("load", ["2", None, True])
def test_a_load_that_is_no_number(model, load):
    stream = model.start()
    before = stream.load
    with pytest.raises(ValueError, match=f"must be above 0, got {load!r}"):
        stream.load = load
    with pytest.raises(ValueError, match=f"must be a Device, got {load!r}"):
        stream.device = load
    assert stream.load == before
    stream.load = np.float32(3)
    assert stream.load == 3


def test_a_branch_that_takes_no_time(model, speech):
    with pytest.raises(ValueError, match="load must be above 0, got 0.0"):
        live.simulate(model, speech(0.1), [0.0, 0.0])
