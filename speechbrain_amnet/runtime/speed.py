"""How fast this machine is: what a frame really takes on each branch."""

import copy

import numpy as np

from speechbrain_amnet.runtime import live
from speechbrain_amnet.runtime.recogniser import Recogniser

MEASURED = 0.5  # seconds of frames that tell how fast this machine is


def frame_seconds(
    recogniser: Recogniser,
    branch: int,
    samples: np.ndarray,
    slowdown: float = 1.0,
    **clocks,
) -> float:
    """What routing and encoding a frame really take on a branch.

    The median over frames that come in real time: between them a processor's
    caches go cold, and a frame takes up to three times as long as in a row.

    Arguments
    ---------
    recogniser : Recogniser
        The model.
    branch : int
        That is to encode all frames.
    samples : np.ndarray
        ``[samples]`` of a recording.
    slowdown : float
        How many times as long a frame is to take.
    **clocks
        See `LiveStream`.
    """
    recogniser = copy.copy(recogniser)
    recogniser.router = _Always(recogniser.router, branch)
    return float(
        np.median(live.run_live(recogniser, samples, slowdown, **clocks).took)
    )


def load_here(recogniser: Recogniser, **clocks) -> float | None:
    """Frame durations that the first branch takes on this machine.

    Measured in half a second, on noise.

    Arguments
    ---------
    recogniser : Recogniser
        The model.
    **clocks
        See `LiveStream`.

    Returns
    -------
    float or None
        None if the model's arbitrator does not read it.
    """
    if getattr(recogniser.router, "device", None) is None:
        return None
    count = round(MEASURED / recogniser.frame_duration)
    size = count * recogniser.features.frame_samples
    noise = np.random.default_rng(0).normal(0, 0.01, size).astype("float32")
    seconds = frame_seconds(recogniser, 0, noise, **clocks)
    return seconds / recogniser.frame_duration


class _Always:
    """A router that does its work, and is not listened to."""

    def __init__(self, router, branch: int):
        self.router, self.branch = router, branch

    def choose(self, *frame) -> int:
        """The branch; see `routers.Arbitrator.choose`."""
        self.router.choose(*frame)
        return self.branch
