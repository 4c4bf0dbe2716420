"""Many voices: Kokoro has 54, and any two of them make another.

Kokoro-82M (Apache-2.0) speaks as a style vector tells it to, and what lies
between two people's vectors is a third. Its voices of other languages speak
English with their accents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from speechbrain_amnet.corpus.voices import Speaker

LANGUAGES = {"a": "en-us", "b": "en-gb"}  # the first letter of an English voice
SECOND = 0.5  # most that the other voice has of a speaker
PACES = 0.5, 2.0  # that it can speak at
FILES = "kokoro-*.onnx", "voices-*"


class Kokoro:
    """The synthesizer.

    Arguments
    ---------
    folder : str or Path
        With the model, `kokoro-v1.0.onnx` (or `.int8.onnx`, `.fp16.onnx`), and
        the voices, `voices-v1.0.bin`, as kokoro-onnx's releases have them.

    Raises
    ------
    ValueError
        If they are not there, or kokoro-onnx is not installed.
    """

    package = "kokoro-onnx"  # its version is one of the corpus's settings

    def __init__(self, folder: str | Path) -> None:
        try:
            import onnxruntime
            from kokoro_onnx import Kokoro
        except ImportError as error:
            raise ValueError(
                "many voices need kokoro-onnx: "
                "pip install speechbrain_amnet[voices]"
            ) from error
        self.files = [only(Path(folder), name) for name in FILES]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model, voices = map(str, self.files)
        session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.kokoro = Kokoro.from_session(session, voices)
        self.names = self.kokoro.get_voices()

    def __call__(
        self,
        text: str,
        speed: float,
        seed: int,
        blend: Mapping[str, float],
    ) -> np.ndarray:
        """What a voice says, 24 kHz, float32 ``[samples]``.

        Arguments
        ---------
        text : str
            To say.
        speed : float
            Ratio of the speaking rates.
        seed : int
            Not used: it always says the same in the same way.
        blend : mapping
            Name of a voice -> its share, in the order of `blends`.
        """
        style = sum(
            share * self.kokoro.get_voice_style(name)
            for name, share in blend.items()
        )
        first = next(iter(blend))
        audio, _ = self.kokoro.create(
            text,
            voice=np.asarray(style, np.float32),
            speed=float(np.clip(speed, *PACES)),
            lang=LANGUAGES[first[0]],
        )
        return audio


def only(folder: Path, pattern: str) -> Path:
    """The one file of this kind."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ValueError(
            f"{folder}: expected one file {pattern}, found {len(found)}; "
            "kokoro-onnx's releases have kokoro-v1.0.onnx and voices-v1.0.bin"
        )
    return found[0]


def blends(
    people: Mapping[str, Sequence[Speaker]], names: Sequence[str], seed: int
) -> dict[str, list[Speaker]]:
    """Give speakers voices of their own.

    Each is between an English voice and any other one, which has at most half
    of it. No voice is in the speakers of two splits.

    Arguments
    ---------
    people : mapping
        Split -> its speakers.
    names : sequence of str
        The voices there are.
    seed : int
        Another one gives other blends.

    Returns
    -------
    dict
        The same speakers, with their blends.

    Raises
    ------
    ValueError
        If there are too few English voices.

    Example
    -------
    >>> people = {"train": [Speaker(100, 1, 1, 1)]}
    >>> blends(people, ["af_sky"], 0)["train"][0].blend
    {'af_sky': 1.0}
    """
    rng = np.random.default_rng([seed, len(names)])
    english = sorted(name for name in names if name[0] in LANGUAGES)
    others = sorted(set(names) - set(english))
    places = np.cumsum([len(speakers) for speakers in people.values()])
    shares = places[:-1] / places[-1]
    firsts, seconds = (
        np.split(
            rng.permutation(some), np.round(shares * len(some)).astype(int)
        )
        for some in (english, others)
    )
    if not all(map(len, firsts)):
        raise ValueError(
            f"expected English voices (af_..., bm_...) for each of "
            f"{', '.join(people)}, found {len(english)} in all"
        )
    return {
        split: [
            replace(one, blend=blend_of(own[k % len(own)], [*own, *more], rng))
            for k, one in enumerate(people[split])
        ]
        for split, own, more in zip(people, firsts, seconds)
    }


def blend_of(
    name: str, among: Sequence[str], rng: np.random.Generator
) -> dict[str, float]:
    """Between a voice and another one, which has at most half of it."""
    other = among[rng.integers(len(among))]
    if other == name:
        return {str(name): 1.0}
    share = float(rng.uniform(0, SECOND))
    return {str(name): 1 - share, str(other): share}
