"""A machine that is held back, as if it were a slower device.

It routes and encodes each frame several times, and its stream waits for what is
then missing. (Once, and then waiting for hundreds of times as long, made a
delay of 0.1 ms one of 50.)
"""

import copy

from speechbrain_amnet.runtime.recogniser import Recogniser


def slower(recogniser: Recogniser, slowdown: float) -> tuple[Recogniser, float]:
    """A recogniser that routes and encodes each frame several times.

    Arguments
    ---------
    recogniser : Recogniser
        The model.
    slowdown : float
        How many times as long a frame is to take.

    Returns
    -------
    recogniser : Recogniser
        Does the work as many whole times.
    rest : float
        How many times as long this is to take then, below 2.
    """
    times = max(1, int(slowdown))
    if times > 1:
        recogniser = copy.copy(recogniser)
        recogniser.router = _RouteAgain(recogniser.router, times)
        recogniser.encoder = _EncodeAgain(recogniser.encoder, times)
    return recogniser, slowdown / times


class _RouteAgain:
    def __init__(self, router, times: int):
        self.router, self.times = router, times

    def choose(self, *frame) -> int:
        for _ in range(self.times - 1):
            self.router.choose(*frame)
        return self.router.choose(*frame)


class _EncodeAgain:
    def __init__(self, encoder, times: int):
        self.encoder, self.times = encoder, times
        self.start, self.scratch = encoder.start, encoder.start()

    def step(self, x, branch, cells):
        for _ in range(self.times - 1):
            self.encoder.step(x, branch, self.scratch)
        return self.encoder.step(x, branch, cells)
