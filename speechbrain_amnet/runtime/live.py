"""Streams on the clock: the real backlog drives the arbitrator.

Audio comes as a microphone gives it, a frame every frame duration; what a frame
finds waiting is what the clock says. A machine that is faster than the device
in question is held back (`slower.py`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from speechbrain_amnet.device import wait
from speechbrain_amnet.runtime.recogniser import Frame, Recogniser
from speechbrain_amnet.runtime.slower import slower


class Live(NamedTuple):
    """What a live stream was like; times in seconds.

    frames : what happened to each, with the backlog that it really found.
    took : [frames], what routing and encoding each took, held back.
    around : what features and search took in all, which is not held back.
    latency : from the arrival of the last audio until its words were there.
    first_word : from the start of the audio to the first text; None if there
        was none.
    """

    frames: list[Frame]
    took: list[float]
    around: float
    latency: float
    first_word: float | None


class LiveStream:
    """A stream that arrives in real time.

    Its frames find the backlog that really waits: the time since the samples
    that complete them came. A source that stalls keeps nobody busy, so it
    leaves no backlog behind.

    Arguments
    ---------
    recogniser : Recogniser
        The model.
    slowdown : float
        How many times as long a frame is to take.
    clock : callable
        Tells the time in seconds.
    sleep : callable
        Waits so many seconds.
    worked : callable
        Tells the seconds that this thread has computed, which are what is
        slowed down: what other programs take of this machine is not.
    load : float, optional
        Frame durations that the first branch takes, for an arbitrator that
        reads it; those of the model's device if not given.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        slowdown: float = 1.0,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
        worked: Callable[[], float] = time.thread_time,
        load: float | None = None,
    ):
        self.clock, self.worked, self.sleep = clock, worked, sleep
        self.recogniser = recogniser
        self.stream = recogniser.start(self.begin, self.end)
        self.hold_back(slowdown, load)
        self.took: list[float] = []
        self.around = 0.0
        self.first_word: float | None = None
        self.latency = 0.0
        self.came = 0  # samples so far
        self.start = self.arrived = clock()

    def hold_back(self, slowdown: float, load: float | None = None) -> None:
        """Changes the device, in mid-stream too; see `LiveStream`."""
        if not 1 <= slowdown < np.inf:
            raise ValueError(f"slowdown must be 1 or more, got {slowdown}")
        if load is not None:
            self.stream.load = load
        # What the stream carries on is the same for both.
        self.stream.recogniser, self.slowdown = slower(
            self.recogniser, slowdown
        )

    def feed(
        self,
        samples: np.ndarray,
        final: bool = False,
        arrived: float | None = None,
    ) -> list[Frame]:
        """Read the next samples; see `Stream.feed`.

        Afterwards `latency` is the time from their arrival until the words of
        the last frame were there, `took` what each of the frames took,
        `around` what features and search have taken since the stream's start,
        and `first_word` the time from there to the first text, if there was
        any.

        Arguments
        ---------
        samples : np.ndarray
            ``[samples]`` in -1 to 1, any number of them.
        final : bool
            Whether the stream ends with them.
        arrived : float, optional
            When the last of them came, on the stream's clock, and the others
            before it, as from a microphone; if not given, all came now. One
            who reads late must say it, or nothing has waited.
        """
        self.arrived = self.clock() if arrived is None else arrived
        self.came += len(samples)
        self.spread = arrived is not None
        self.took = []  # of all frames it would grow as long as people speak
        worked, self.encoding = self.worked(), 0.0
        frames = self.stream.feed(samples, final)
        self.around += self.worked() - worked - self.encoding
        if frames:
            self.latency = self.clock() - self.arrived
        # Words of which only the end made sure are in no frame.
        said = self.stream.rest or any(frame.text for frame in frames)
        if self.first_word is None and said:
            self.first_word = self.clock() - self.start
        return frames

    def begin(self, index: int) -> float:
        """A frame is about to be routed; the backlog that it finds."""
        self.begun, self.before = self.clock(), self.worked()
        waited = self.begun - self.arrived
        if self.spread:  # what is behind it in its chunk came later
            features = self.recogniser.features
            later = self.came - (index + 1) * features.frame_samples
            waited += max(0, later) / features.sample_rate
        return max(0.0, waited)

    def end(self) -> None:
        """The frame is encoded: wait until that has taken long enough."""
        work = self.worked() - self.before
        self.wait(self.begun + self.slowdown * work)
        self.took.append(self.clock() - self.begun)
        self.encoding += self.worked() - self.before

    def wait(self, until: float) -> None:
        """Wait for a moment; the last of it awake, as sleep is coarse."""
        while (left := until - self.clock()) > 0:
            self.sleep(max(0.0, left - 0.002))


def arrivals(
    chunks: Iterable[np.ndarray],
    rate: int,
    has_come: Callable[[], bool],
    clock: Callable[[], float] = time.perf_counter,
    behind: Callable[[], int] = lambda: 0,
) -> Iterator[tuple[np.ndarray, float]]:
    """When the last sample of each chunk came, as far as its reader can tell.

    One that had to be waited for came just now. One that lay there came, from
    a microphone, as long after the chunk before it as its samples last, and at
    the latest now; an end that lay there came with the last samples. The first
    one came before all that lies there behind it, as while a model is loaded.

    Arguments
    ---------
    chunks : iterable of np.ndarray
        Samples, which are waited for as each is asked for.
    rate : int
        Samples a second.
    has_come : callable
        Tells, before a chunk is asked for, whether it lies there already. (How
        long reading took tells it less well: once in a while what lies there
        takes milliseconds, and a backlog would be forgotten.)
    clock : callable
        Tells the time in seconds.
    behind : callable
        Tells, of the first chunk, how many samples lie there behind it.

    Yields
    ------
    chunk : np.ndarray
        Without samples at the end.
    arrived : float
        On the clock.

    Example
    -------
    >>> now = iter([0.04, 0.07, 0.13, 0.14])
    >>> there = iter([False, True, True, True])
    >>> chunks = [np.zeros(320), np.zeros(160), np.zeros(160)]
    >>> came = arrivals(chunks, 8000, lambda: next(there), lambda: next(now))
    >>> [round(when, 2) for _, when in came]  # busy till 0.07, then till 0.13
    [0.04, 0.06, 0.08, 0.08]
    """
    came = None
    ended = np.empty(0, "float32")
    chunks = chain(chunks, [ended])
    while True:
        lay_there = has_come()
        chunk = next(chunks)
        now = clock()
        if came is None:
            came = now - behind() / rate
        elif lay_there:
            came = min(now, came + len(chunk) / rate)
        else:
            came = now
        yield chunk, came
        if chunk is ended:
            return


def run_live(
    recogniser: Recogniser,
    samples: np.ndarray,
    slowdown: float = 1.0,
    then: tuple[float, float] | None = None,
    **options,
) -> Live:
    """Play a recording to a recogniser, in real time.

    Arguments
    ---------
    recogniser : Recogniser
        The model.
    samples : np.ndarray
        ``[samples]`` in -1 to 1. Its last frame comes whole.
    slowdown : float
        How many times as long a frame is to take.
    then : tuple of float, optional
        Slowdown and load from the recording's middle on: a device that
        throttles.
    **options
        See `LiveStream`.

    Returns
    -------
    Live

    Raises
    ------
    ValueError
        If the slowdown is below 1, or there are no samples.
    """
    if not len(samples):
        raise ValueError("a live recording needs a sample at least, got 0")
    size = recogniser.features.frame_samples
    count = -(-len(samples) // size)
    live = LiveStream(recogniser, slowdown, **options)
    frames, took = [], []
    for n in range(count):
        if then and n == middle(count):
            live.hold_back(*then)
        arrival = live.start + (n + 1) * recogniser.frame_duration
        live.wait(arrival)
        chunk = samples[n * size : (n + 1) * size]
        frames += live.feed(chunk, n == count - 1, arrival)
        took += live.took
    return Live(frames, took, live.around, live.latency, live.first_word)


def middle(count: int) -> int:
    """The frame of so many that the second half of a recording begins with.

    Example
    -------
    >>> middle(6), middle(5)
    (3, 2)
    """
    return count // 2


def simulate(
    recogniser: Recogniser,
    samples: np.ndarray,
    seconds: Sequence[float],
    then: Sequence[float] | None = None,
) -> float:
    """The latency of a recording if each branch takes so many seconds.

    Arguments
    ---------
    recogniser : Recogniser
        The model.
    samples : np.ndarray
        ``[samples]``
    seconds : sequence of float
        Of a frame on each branch.
    then : sequence of float, optional
        The same from the recording's middle on.
    """
    size = recogniser.features.frame_samples
    cut = size * middle(-(-len(samples) // size))
    stream, frames = recogniser.start(), []
    for part, took in (
        (samples[:cut], seconds),
        (samples[cut:], then or seconds),
    ):
        stream.branch_seconds = list(took)
        stream.load = took[0] / recogniser.frame_duration
        frames += stream.feed(part)
    frames += stream.feed(samples[:0], final=True)
    last = frames[-1]
    return wait(last.backlog, stream.branch_seconds[last.branch])
