"""Speech in, words out, frame by frame: the device's runtime."""

import math
import threading
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_amnet.audio import as_samples
from speechbrain_amnet.beam import WIDTH
from speechbrain_amnet.ctc_beam import CTC_WIDTH
from speechbrain_amnet.device import Device, next_backlog
from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.runtime.encoder import Encoder
from speechbrain_amnet.runtime.features import Features
from speechbrain_amnet.runtime.packed import Packed
from speechbrain_amnet.runtime.routers import router_of
from speechbrain_amnet.runtime.search import GrammarState, Search, SearchState
from speechbrain_amnet.slots import Command, is_tag
from speechbrain_amnet.text import TextStream, command_of

AT_ONCE = 100  # frames whose windows are in memory at the same time


class Frame(NamedTuple):
    """What happened to a frame.

    index : of the frame in its stream.
    branch : that encoded it.
    backlog : seconds that it found.
    tokens : that the search found at it.
    text : that these add.
    """

    index: int
    branch: int
    backlog: float
    tokens: list[int]
    text: str


class Recogniser:
    """A packed model, ready to stream.

    Its streams may be fed from several threads, which wait for each other:
    products write into memory that the model has once. So it is not sent to
    another process, but made there.

    Arguments
    ---------
    packed : Packed
        From `read_packed` or `convert.pack`.
    device : Device, optional
        That backlogs are reckoned for; the model's own if not given.
    """

    def __init__(self, packed: Packed, device: Device | None = None):
        config = packed.config["encoder"]
        self.features, self.encoder = Features(packed), Encoder(packed)
        self.router, self.search = router_of(packed), Search(packed)
        self.pieces = packed.config["search"]["pieces"]
        width = CTC_WIDTH if self.search.ctc else WIDTH
        self.width = packed.config["search"].get("width", width)
        self.grammar: Grammar | None = None
        held = packed.config["search"].get("grammar")
        if held is not None:
            self.hold_to(Grammar(held, self.tagged, "the model's grammar"))
        self.branches = config["branches"]
        self.frame_duration = config["frame_duration"]
        self.branch_flops = config["branch_flops"]
        self.dense_flops = config["dense_flops"]
        self.device = device or Device(**packed.config["device"])
        self.lock = threading.RLock()

    def branch_seconds(self, device: Device) -> list[float]:
        """Seconds of a frame on each branch, as a device reckons them."""
        return [
            device.seconds(flops, self.dense_flops, self.frame_duration)
            for flops in self.branch_flops
        ]

    def start(
        self,
        clock: Callable[[int], float] | None = None,
        encoded: Callable[[], None] | None = None,
    ) -> "Stream":
        """A new stream.

        Arguments
        ---------
        clock : callable, optional
            What tells the backlog in seconds that the frame of an index finds
            when it is about to be encoded; reckoned for the device if not
            given.
        encoded : callable, optional
            Called when a frame has been encoded, before it is searched.
        """
        return Stream(self, clock, encoded)

    def hold_to(self, grammar: str | Path | Grammar | None) -> None:
        """Search only the sentences of a grammar, from now on.

        Arguments
        ---------
        grammar : str, Path, Grammar or None
            A file in JSGF, or what was read from one; None lets go of it. A
            stream is one sentence of it: what was said is known at its end.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no grammar, or the model cannot write its words or tags.
        """
        if isinstance(grammar, str | Path):
            grammar = Grammar.read(grammar, self.tagged)
        elif grammar is not None and grammar.tags != self.tagged:
            grammar = Grammar(grammar.text, self.tagged, grammar.name)
        if grammar is not None:
            grammar.check(self.pieces)
        self.grammar = grammar

    @property
    def tagged(self) -> bool:
        """Whether the model writes slots and intents itself."""
        return any(map(is_tag, self.pieces))

    @property
    def understands(self) -> bool:
        """Whether slots and intents are known; see `Stream.command`."""
        return self.tagged or self.grammar is not None

    def transcribe(self, samples: np.ndarray) -> str:
        """The words of a whole recording.

        Arguments
        ---------
        samples : np.ndarray
            ``[samples]`` in -1 to 1, at the model's sample rate.
        """
        stream = self.start()
        frames = stream.feed(samples, final=True)
        return "".join(frame.text for frame in frames) + stream.rest


class Stream:
    """One person's speech, as it comes.

    Arguments
    ---------
    recogniser : Recogniser
        The model.
    clock, encoded : callable, optional
        See `Recogniser.start`.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        clock: Callable[[int], float] | None = None,
        encoded: Callable[[], None] | None = None,
    ):
        self.recogniser = recogniser
        self.clock, self.encoded = clock, encoded
        self.cells = recogniser.encoder.start()
        self.search: SearchState | GrammarState
        self.grammar = recogniser.grammar  # the next stream may have another
        with recogniser.lock:
            if self.grammar is None:
                self.search = SearchState(recogniser.search)
            else:
                self.search = GrammarState(
                    recogniser.search,
                    self.grammar,
                    recogniser.pieces,
                    recogniser.width,
                )
        self.text = TextStream(recogniser.pieces)
        self.tokens: list[int] = []
        self.rest = ""  # text of which only the stream's end made sure
        self.samples = np.zeros(recogniser.features.overlap, "float32")
        self.mean = recogniser.features.start()
        self.device = recogniser.device
        self.backlog = 0.0
        self.index = 0
        self.ended = False

    @property
    def command(self) -> Command:
        """What has been understood so far: words, intent and slots."""
        model = self.recogniser
        if model.tagged or self.grammar is None:
            return command_of(model.pieces, self.tokens)
        return self.grammar.command(TextStream(model.pieces).add(self.tokens))

    @property
    def device(self) -> Device:
        """What backlogs are reckoned for; may change in mid-stream."""
        return self._device

    @device.setter
    def device(self, device: Device) -> None:
        if not isinstance(device, Device):
            raise ValueError(f"device must be a Device, got {device!r}")
        self._device = device
        self.branch_seconds = self.recogniser.branch_seconds(device)
        self.load = self.branch_seconds[0] / self.recogniser.frame_duration

    @property
    def load(self) -> float:
        """Frame durations that the first branch takes: arbitrators read it."""
        return self._load

    @load.setter
    def load(self, load: float) -> None:
        number = isinstance(load, Real) and not isinstance(load, bool)
        if not (number and 0 < load < math.inf):
            raise ValueError(
                f"load must be above 0, got {load!r}: the frame "
                "durations that the first branch takes"
            )
        self._load = load

    def feed(self, samples: np.ndarray, final: bool = False) -> list[Frame]:
        """Read the next samples and encode the frames that they complete.

        Arguments
        ---------
        samples : np.ndarray
            ``[samples]`` in -1 to 1, any number of them.
        final : bool
            Whether the stream ends with them; zeros complete its last frame.

        Returns
        -------
        list of Frame
            The frames; there may be none.

        Raises
        ------
        ValueError
            If the stream has ended, or samples have what cannot be in -1
            to 1, as NaN; the stream is then as it was.
        """
        with self.recogniser.lock:
            return self._feed(samples, final)

    def _feed(self, samples: np.ndarray, final: bool) -> list[Frame]:
        """The same, where nobody else does it."""
        features = self.recogniser.features
        if self.ended:
            raise ValueError("the stream has ended (final=True): start another")
        samples = np.concatenate([self.samples, as_samples(samples)])
        if final:
            missing = (features.overlap - len(samples)) % features.frame_samples
            samples = np.pad(samples, (0, missing))
        count = (len(samples) - features.overlap) // features.frame_samples
        if final and not self.index + count:
            raise ValueError("the stream has ended without any audio")
        used = count * features.frame_samples
        self.samples = samples[used:].copy()
        self.ended = final
        found = []
        # exp overflows where a gate is closed for good.
        with np.errstate(over="ignore"):
            for first in range(0, count, AT_ONCE):
                last = min(count, first + AT_ONCE)
                some = samples[
                    first * features.frame_samples : features.overlap
                    + last * features.frame_samples
                ]
                frames = features.frames(some, self.mean)
                found += [self._frame(frame) for frame in frames]
        if final:
            tokens = self.search.finish()
            self.tokens += tokens
            self.rest = self.text.add(tokens)
        return found

    def _frame(self, features: np.ndarray) -> Frame:
        """Route, encode and search a frame."""
        model, backlog = self.recogniser, self.backlog
        if self.clock is not None:
            backlog = max(0.0, float(self.clock(self.index)))
        branch = model.router.choose(
            features, backlog / model.frame_duration, self.index, self.load
        )
        encoded = model.encoder.step(features, branch, self.cells)
        if self.encoded is not None:
            self.encoded()
        tokens = self.search.step(encoded)
        self.tokens += tokens
        self.backlog = next_backlog(
            backlog, self.branch_seconds[branch], model.frame_duration
        )
        frame = Frame(
            self.index, branch, backlog, tokens, self.text.add(tokens)
        )
        self.index += 1
        return frame
