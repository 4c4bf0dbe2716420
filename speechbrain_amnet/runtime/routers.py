"""Which branch encodes a frame; the same decisions as `arbitrator`'s."""

import math

import numpy as np

from speechbrain_amnet.draws import fixed_draws
from speechbrain_amnet.runtime.packed import Packed


class Arbitrator:
    """The learnt one: reads the frame and the backlog.

    Arguments
    ---------
    packed : Packed
        The model.
    """

    def __init__(self, packed: Packed):
        arrays = packed.part("router")
        self.frame = np.asfortranarray(arrays["frame"])
        self.bias = arrays["bias"]
        self.backlog, self.device = arrays.get("backlog"), arrays.get("device")
        self.out, self.out_bias = arrays["out"], arrays["out_bias"]
        self.loads = packed.config["router"].get("loads") or (0, math.inf)

    def choose(
        self, frame: np.ndarray, backlog: float, index: int, load: float
    ) -> int:
        """The branch of a frame.

        Arguments
        ---------
        frame : np.ndarray
            Features, ``[size]``.
        backlog : float
            In frame durations.
        index : int
            Of the frame in its stream.
        load : float
            Frame durations that the first branch takes on the device.
        """
        hidden = self.frame @ frame
        hidden += self.bias
        if self.backlog is not None:
            hidden += np.float32(math.log1p(backlog)) * self.backlog
        if self.device is not None:
            load = min(max(load, self.loads[0]), self.loads[1])
            hidden += np.float32(math.log(load)) * self.device
        np.tanh(hidden, out=hidden)
        return int((self.out @ hidden + self.out_bias).argmax())


class Fixed:
    """Always the same branch."""

    def __init__(self, packed: Packed):
        self.branch = packed.config["router"]["branch"]

    def choose(
        self, frame: np.ndarray, backlog: float, index: int, load: float
    ) -> int:
        """The branch of a frame; see `Arbitrator.choose`."""
        return self.branch


class Random:
    """A fixed sequence of draws over the frames of a stream."""

    def __init__(self, packed: Packed):
        config = packed.config["router"]
        self.edges, self.seed = config["edges"], config["seed"]

    def choose(
        self, frame: np.ndarray, backlog: float, index: int, load: float
    ) -> int:
        """The branch of a frame; see `Arbitrator.choose`."""
        drawn = fixed_draws(index, 1, self.seed)[0]
        return int(sum(drawn >= edge for edge in self.edges))


class Energy:
    """Loud frames to the first branch, the others to the last."""

    def __init__(self, packed: Packed):
        self.threshold = packed.config["router"]["threshold"]
        self.last = packed.config["encoder"]["branches"] - 1

    def choose(
        self, frame: np.ndarray, backlog: float, index: int, load: float
    ) -> int:
        """The branch of a frame; see `Arbitrator.choose`."""
        return 0 if frame.mean() > self.threshold else self.last


KINDS = {
    "arbitrator": Arbitrator,
    "fixed": Fixed,
    "random": Random,
    "energy": Energy,
}


def router_of(packed: Packed):
    """The router of a model."""
    return KINDS[packed.config["router"]["kind"]](packed)
