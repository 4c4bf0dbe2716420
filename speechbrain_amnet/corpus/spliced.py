"""More commands of the same people: recordings cut into words, and joined.

A few hundred recordings say few sentences, and a network learns them by heart.
Their words in other orders are as many sentences as a grammar has, in the same
voices and rooms (limited domain synthesis: Black and Lenzo, 2000; in training:
Lam et al., On-the-fly aligned data augmentation, 2021).
"""

import itertools
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from speechbrain_amnet.corpus.align import RATE, Aligner, Word
from speechbrain_amnet.corpus.manifest import read_manifest
from speechbrain_amnet.corpus.prepare import (
    PreparationError,
    prepare_librispeech,
)
from speechbrain_amnet.corpus.spoken import (
    audio_path,
    chapter_of,
    flac,
    write_texts,
)
from speechbrain_amnet.files import unused, whole_folder
from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.slots import Command

logger = logging.getLogger(__name__)

DRAWS = 3000  # until a voice has the words of a sentence
CANDIDATES = 4  # of which the least said is taken
PIECES = 5  # of a sentence, at most
LEAD, TAIL = 0.5, 1.0  # seconds before the first word and after the last
SEEK = 0.03  # seconds to both sides, for the quietest place to cut
FADE = 0.01  # seconds in which one piece goes over into the next
EPS = 1e-6  # no loudness is less


@dataclass
class Recording:
    """What someone said, and where its words are.

    Arguments
    ---------
    path : str
        The audio file, 16 kHz.
    words : list of Word
        In their order.
    """

    path: str
    words: list[Word]

    def __post_init__(self) -> None:
        self.texts = tuple(word.text for word in self.words)

    def read(self) -> tuple[np.ndarray, float]:
        """Its audio, float32 ``[samples]``, and how loud it is.

        That is the root mean square from its first word to its last.
        """
        audio, _ = soundfile.read(self.path, dtype="float32")
        first, last = self.words[0], self.words[-1]
        spoken = audio[samples(first.start) : samples(last.end)]
        return audio, float(np.sqrt(np.mean(np.square(spoken))))


@dataclass
class Piece:
    """Words `first` to `last`, the latter not included, of a recording."""

    recording: Recording
    first: int
    last: int


def cover(
    words: Sequence[str],
    recordings: Sequence[Recording],
    rng: np.random.Generator,
) -> list[Piece]:
    """The fewest pieces of recordings that say a sentence.

    Always the longest that is there, which no other choice betters, as a piece
    of a piece is one, too. Of equally long ones one that followed the same
    word, if any did: the mouth came from there.

    Arguments
    ---------
    words : sequence of str
        The sentence.
    recordings : sequence of Recording
        Of one voice.
    rng : numpy.random.Generator
        Chooses among what is equally good.

    Returns
    -------
    list of Piece
        None if a word was never said.

    Example
    -------
    >>> said = ["A SMALL LATTE", "ONE LARGE MOCHA"]
    >>> recordings = [
    ...     Recording("", [Word(w, 0, 0) for w in one.split()]) for one in said
    ... ]
    >>> rng = np.random.default_rng(0)
    >>> pieces = cover("A SMALL MOCHA".split(), recordings, rng)
    >>> [(said.index(" ".join(p.recording.texts)), p.first, p.last)
    ...     for p in pieces]
    [(0, 0, 2), (1, 2, 3)]
    """
    pieces: list[Piece] = []
    at = 0
    while at < len(words):
        before = words[at - 1] if at else None
        ways: dict[tuple[int, bool], list[Piece]] = {}
        for one in recordings:
            for first, text in enumerate(one.texts):
                if text == words[at]:
                    last = first + shared(words[at:], one.texts[first:])
                    alike = before == (one.texts[first - 1] if first else None)
                    worth = last - first, alike
                    ways.setdefault(worth, []).append(Piece(one, first, last))
        if not ways:
            return []
        best = ways[max(ways)]
        pieces.append(best[rng.integers(len(best))])
        at += max(ways)[0]
    return pieces


def shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words both begin with."""
    alike = [a == b for a, b in zip(one, other)]
    return [*alike, False].index(False)


def join(pieces: Sequence[Piece]) -> tuple[np.ndarray, float]:
    """The audio of pieces, one after the other.

    Each is cut where it is quietest between two words, and made as loud as
    the first one's recording; around them is what is heard before and after
    the words of the first and the last one's.

    Arguments
    ---------
    pieces : sequence of Piece
        At least one.

    Returns
    -------
    audio : np.ndarray
        ``[samples]``, 16 kHz.
    end : float
        When the last word ends, in seconds.
    """
    first, last = pieces[0].recording, pieces[-1].recording
    heard = {one.recording.path: one.recording.read() for one in pieces}
    _, loud = heard[first.path]
    audio = {
        path: sound * (loud / max(own, EPS))
        for path, (sound, own) in heard.items()
    }
    begin, end = samples(first.words[0].start), samples(last.words[-1].end)
    spans = [(first, max(0, begin - samples(LEAD)), begin)]
    for piece in pieces:
        sound, words = audio[piece.recording.path], piece.recording.words
        start, stop = (cut(sound, words, n) for n in (piece.first, piece.last))
        spans.append((piece.recording, start, stop))
    length = sum(stop - start for _, start, stop in spans)
    spans.append((last, end, end + samples(TAIL)))
    # Neighbours in one recording give it back as it was.
    half = samples(FADE) // 2
    joined = np.zeros(0, np.float32)
    for recording, start, stop in spans:
        sound = audio[recording.path]
        part = sound[max(0, start - half) : stop + half]
        joined = overlapped(joined, part, 2 * half)
    return np.clip(joined, -1, 1), length / RATE


def overlapped(one: np.ndarray, other: np.ndarray, size: int) -> np.ndarray:
    """The end of one goes over into the beginning of the other."""
    size = min(size, len(one), len(other))
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    both = one[len(one) - size :] * (1 - ramp) + other[:size] * ramp
    return np.concatenate([one[: len(one) - size], both, other[size:]])


def cut(audio: np.ndarray, words: Sequence[Word], place: int) -> int:
    """The sample between word `place - 1` and `place` at which to cut."""
    if place == 0:
        return samples(words[0].start)
    if place == len(words):
        return samples(words[-1].end)
    # In a pause anywhere; between words that touch each other, near by.
    first = samples(words[place - 1].end - SEEK)
    last = samples(words[place].start + SEEK)
    size = samples(FADE)
    energy = np.convolve(np.square(audio[first:last]), np.ones(size), "valid")
    return first + int(energy.argmin()) + size // 2


def samples(seconds: float) -> int:
    """Their number."""
    return max(0, round(seconds * RATE))


def make_spliced(
    data_folder: str | Path,
    out_folder: str | Path,
    grammar: Grammar,
    minutes: float = 60,
    seed: int = 0,
) -> Path:
    """Say sentences of a grammar with words of recordings.

    Every voice of `train` in turn says one that none of its recordings is, of
    as few pieces as can be. Written are OUT/train, in LibriSpeech's layout, and
    its `commands.jsonl`, as for `make_spoken_corpus`. The same arguments and
    recordings give the same files.

    Arguments
    ---------
    data_folder : str or Path
        With `train` in LibriSpeech's layout, English, 16 kHz.
    out_folder : str or Path
        Must not exist.
    grammar : Grammar
        What there is to say.
    minutes : float
        Of audio, about.
    seed : int
        Another one gives other sentences.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    PreparationError
        If the data cannot be used, or no voice has the words of a sentence.
    ValueError
        If minutes are none, or PocketSphinx is not installed.
    FileExistsError
        If there is such a folder already.
    """
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes: expected more than 0, got {minutes}")
    out = unused(out_folder)
    voices = align_voices(data_folder)
    with whole_folder(out) as aside:
        say(aside / "train", voices, grammar, 60 * minutes, seed)
    return out


def align_voices(data_folder: str | Path) -> dict[str, list[Recording]]:
    """The recordings of each voice of train whose words are found."""
    aligner = Aligner()
    with tempfile.TemporaryDirectory() as folder:
        manifests = prepare_librispeech(
            data_folder, folder, {"train": ["train"]}
        )
        rows = read_manifest(manifests["train"])
    voices: dict[str, list[Recording]] = {}
    left_out, unknown = [], set()
    for row in tqdm(rows, desc="align", unit="file"):
        words = []
        missing = aligner.unknown(row["wrd"])
        unknown.update(missing)
        if not missing:
            # As int16 samples between -1 and 1 of a float file would be 0.
            audio, _ = soundfile.read(row["wav"], dtype="float32")
            audio = (32767 * audio.clip(-1, 1)).astype(np.int16)
            words = aligner.words(audio, row["wrd"])
        if words:
            found = voices.setdefault(row["spk_id"], [])
            found.append(Recording(row["wav"], words))
        else:
            left_out.append(row["ID"])
    text = (
        f"{len(left_out)} of {len(rows)} recordings are left out: their words "
        "were not found"
    )
    if unknown:
        text += f" (not in the dictionary: {', '.join(sorted(unknown))})"
    if not voices:
        raise PreparationError(f"{data_folder}: {text}")
    if left_out:
        logger.warning("%s", text)
    return voices


def say(
    folder: Path,
    voices: dict[str, list[Recording]],
    grammar: Grammar,
    seconds: float,
    seed: int,
) -> None:
    """Fill a split."""
    # Their names differ from those of what they are trained with.
    chapter = chapter_of(f"spliced {seed} {grammar.text}")
    said: Counter = Counter()
    spoken, commands = 0.0, []
    people = sorted(voices)
    with tqdm(total=round(seconds), desc="splice", unit="s") as bar:
        for index in itertools.count():
            if spoken >= seconds:
                break
            if not people:
                raise PreparationError(
                    "no voice of train has the words of a sentence of "
                    f"{grammar.name} that it did not say"
                )
            rng = np.random.default_rng([seed, index])
            voice = people[index % len(people)]
            found = choose(voices[voice], grammar, said, rng)
            if found is None:
                logger.warning("%s: has too few words", voice)
                people.remove(voice)
                continue
            command, pieces = found
            said[command.words] += 1
            audio, end = join(pieces)
            name = f"{voice}-{chapter}-{index:04d}"
            path = audio_path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(flac(audio))
            commands.append(
                {
                    "id": name,
                    "text": command.words,
                    "intent": command.intent,
                    "slots": command.slots,
                    "speech_end": round(end, 3),
                }
            )
            length = len(audio) / RATE
            spoken += length
            bar.update(min(round(length), bar.total - bar.n))
    write_texts(folder, commands)


def choose(
    recordings: Sequence[Recording],
    grammar: Grammar,
    said: Mapping[str, int],
    rng: np.random.Generator,
) -> tuple[Command, list[Piece]] | None:
    """Of some that a voice can say the least said sentence, or the longest.

    At equal chances forks end soon, people do not.
    """
    known = {word for one in recordings for word in one.texts}
    sentences = {one.texts for one in recordings}
    found: list[tuple[Command, list[Piece]]] = []
    for _ in range(DRAWS):
        command = grammar.draw(rng)
        words = tuple(command.words.split())
        if words in sentences or not known.issuperset(words):
            continue
        pieces = cover(words, recordings, rng)
        if len(pieces) <= PIECES:
            found.append((command, pieces))
        if len(found) == CANDIDATES:
            break
    if not found:
        return None
    return min(found, key=lambda one: (said[one[0].words], -len(one[0].words)))
