"""The built-in corpus: sentences of the grammar, spoken by many voices.

Everything about an utterance follows from (seed, split, index), so it does
not depend on what was made before it; but of another grammar's sentences the
least spoken is taken, as a network learns by heart what comes often.
"""

import io
import json
import logging
import math
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from speechbrain_amnet import files
from speechbrain_amnet.corpus.grammar import (
    Sentence,
    as_jsgf,
    sample_sentence,
)
from speechbrain_amnet.corpus.kokoro import Kokoro, blends
from speechbrain_amnet.corpus.voices import (
    SAMPLE_RATE,
    Speaker,
    make_speakers,
    utter,
)
from speechbrain_amnet.grammar import Grammar

logger = logging.getLogger(__name__)

SPLITS = {"train": 0.85, "dev": 0.07, "test": 0.08}  # shares of the minutes
MARKER = "corpus.json"  # written last: the corpus is whole
GRAMMAR = "commands.gram"  # its sentences, in JSGF
SIGN = ".amnet-corpus"  # written first: the folder is ours
OWN = {*SPLITS, "replay"}  # folders of any such corpus
FILES = {SIGN, MARKER, MARKER + ".part", GRAMMAR}  # what lies beside them
SPEECH = ("commands.jsonl", "*.flac", "*.trans.txt")  # what lies in them
DRAWS = 10_000  # until a sentence of a split is found
CANDIDATES = 4  # for a sentence of a grammar
FORMAT = 4  # of the corpus: a new number makes all of them again
VERSIONS = "numpy", "onnxruntime", "scipy", "soundfile"  # beside the voice's


class CorpusError(ValueError):
    """The corpus cannot be made as asked; the message says why."""


def make_spoken_corpus(
    out_folder: str,
    minutes: float = 60,
    seed: int = 0,
    speakers: int = 96,
    grammar: Grammar | None = None,
    voices: str | Path | None = None,
) -> Path:
    """Speaks a corpus in LibriSpeech layout, unless it is already there.

    The splits are `train`, `dev` and `test`; no speaker and no sentence is
    in two of them. Beside the audio of each, `SPLIT/commands.jsonl` holds for
    each utterance id, text, intent, slots and speech_end: the end of the last
    word, in seconds. The same arguments, versions (and kind of processor)
    give the same bytes.

    Arguments
    ---------
    out_folder : str
        The corpus. A half-made one, or one made with other settings, is made
        again; a folder of somebody else is refused.
    minutes : float
        Minutes of audio, all splits together.
    seed : int
        Another seed gives other speakers and sentences.
    speakers : int
        Number of pseudo-speakers, at least 3: an eighth of them for each of
        `dev` and `test`.
    grammar : Grammar, optional
        Whose sentences are spoken, instead of the built-in ones.
    voices : str or Path, optional
        Folder of a synthesizer with many, see `kokoro.Kokoro`.

    Returns
    -------
    out_folder : Path
        The corpus, with `corpus.json` telling what it holds, and
        `commands.gram`, the grammar of what is said.

    Raises
    ------
    CorpusError
        If an argument makes no sense, `out_folder` is not ours to replace, or
        the synthesiser is not installed.
    """
    if not 0 < minutes < math.inf:
        raise CorpusError(f"minutes: expected more than 0, got {minutes}")
    if speakers < 3:
        raise CorpusError(f"speakers: expected at least 3, got {speakers}")
    people = split_speakers(make_speakers(seed, speakers))
    settings = {"minutes": minutes, "seed": seed, "speakers": speakers}
    voice = None
    if voices is not None:
        voice = _load_many(voices)
        people = blends(people, voice.names, seed)
        settings["voices"] = [
            [path.name, path.stat().st_size] for path in voice.files
        ]
    others = {}
    if grammar is not None:
        settings |= {"grammar": grammar.text, "candidates": CANDIDATES}
        settings["draws"] = 2  # by weights, and chapters by seed
        # So that its utterances are called otherwise than those of real speech
        # which they may be trained with.
        chapter = chapter_of(f"{seed} {grammar.text}")
        others = {"chapter": chapter, "candidates": CANDIDATES}
    draw = partial(drawn, grammar) if grammar else sample_sentence
    parts = [
        Part(split, 60 * minutes * share, people[split], draw, **others)
        for split, share in SPLITS.items()
    ]
    corpus = make_corpus(out_folder, parts, [seed], settings, voice=voice)
    files.write(corpus / GRAMMAR, grammar.text if grammar else as_jsgf())
    return corpus


def drawn(grammar: Grammar, rng: np.random.Generator) -> Sentence:
    """A sentence of a grammar, spoken in one go."""
    words, intent, slots = grammar.draw(rng)
    return Sentence((words,), intent, slots)


@dataclass
class Part:
    """A split to be spoken.

    Arguments
    ---------
    split : str
        Its name, one of `SPLITS`: no sentence is in two of them.
    seconds : float
        Of audio.
    people : sequence of Speaker
        Who speaks, in turn.
    draw : callable
        Gives a `Sentence` for a source of chance.
    chapter : int
        The second part of the utterances' names.
    candidates : int
        Sentences that are drawn for each that is spoken: that which was
        spoken least.
    """

    split: str
    seconds: float
    people: Sequence[Speaker]
    draw: Callable[[np.random.Generator], Sentence]
    chapter: int = 1
    candidates: int = 1
    spoken: Counter = field(default_factory=Counter)


def make_corpus(
    out_folder: str | Path,
    parts: Sequence[Part],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    finish: Callable[[Path], None] | None = None,
    voice: Callable[..., np.ndarray] | None = None,
) -> Path:
    """Speaks a corpus, unless it is already there.

    Arguments
    ---------
    out_folder : str or Path
        See `make_spoken_corpus`.
    parts : sequence of Part
        What there is to speak.
    seeds : sequence of int
        Everything about an utterance follows from these, its part's number
        and its own.
    settings : mapping
        What makes this corpus another one; JSON can hold it.
    finish : callable, optional
        Adds to the finished parts, given their folder.
    voice : callable, optional
        Of a synthesizer, as `utter` wants it; Hibari's by default.

    Returns
    -------
    out_folder : Path
        The corpus.

    Raises
    ------
    CorpusError
        As `make_spoken_corpus`.
    """
    out_folder = Path(out_folder).resolve()
    if out_folder.exists() and not _is_ours(out_folder):
        raise CorpusError(
            f"{out_folder}: exists and is no corpus of ours; "
            "name another folder or remove it"
        )
    voice = voice or _load_voice()
    packages = getattr(voice, "package", "hibari-tts"), *VERSIONS
    settings = {
        "format": FORMAT,
        **settings,
        "versions": {name: metadata.version(name) for name in packages},
    }
    if _is_whole(out_folder, settings):
        logger.info("%s: already there, nothing to do", out_folder)
        return out_folder

    _check_replaced(out_folder)
    aside = out_folder.with_name(out_folder.name + ".part")
    old = out_folder.with_name(out_folder.name + ".old")
    try:
        _remove_ours(aside)
        _remove_ours(old)
        aside.mkdir(parents=True)
        (aside / SIGN).touch()
        counts = _speak(aside, voice, parts, seeds)
        if finish is not None:
            finish(aside)
        contents = {"settings": settings, "splits": counts, **_size(aside)}
        part = aside / (MARKER + ".part")
        part.write_text(json.dumps(contents, indent=2) + "\n")
        os.replace(part, aside / MARKER)
        if out_folder.exists():
            os.replace(out_folder, old)
        os.replace(aside, out_folder)
        _remove_ours(old)
    except OSError as error:
        raise CorpusError(f"{out_folder}: cannot be made ({error})") from error
    return out_folder


def _load_many(folder):
    """The synthesizer with many voices: an optional dependency."""
    try:
        return Kokoro(folder)
    except ValueError as error:
        raise CorpusError(str(error)) from error


def _load_voice():
    """The synthesiser: an optional dependency."""
    try:
        from hibari import Hibari
    except ImportError as error:
        raise CorpusError(
            "the built-in corpus needs hibari-tts: "
            "pip install speechbrain_amnet[demo]"
        ) from error
    return Hibari(threads=1)


# Folders ------------------------------------------------------------------


def _is_ours(folder):
    """Whether nothing of value is lost if the folder is replaced."""
    if not folder.is_dir():
        return False
    return (folder / SIGN).is_file() or not any(folder.iterdir())


def _check_replaced(folder):
    """Refuse where something else lies in what will be made anew."""
    if folder.is_dir():
        others = sorted(
            str(p.relative_to(folder))
            for p in folder.rglob("*")
            if not _is_made(p, p.relative_to(folder).parts)
        )
        if others:
            raise CorpusError(
                f"{folder}: has {', '.join(others[:5])}, not of this corpus, "
                "which would be lost; move it or name another folder"
            )


def _is_made(path, parts):
    """Whether a corpus has such a file or folder, at this place in it."""
    if len(parts) == 1:
        return parts[0] in (OWN if path.is_dir() else FILES)
    return parts[0] in OWN and (
        path.is_dir() or any(path.match(name) for name in SPEECH)
    )


def _remove_ours(folder):
    """Removes what an interrupted run left aside."""
    if not folder.exists():
        return
    if not _is_ours(folder):
        raise CorpusError(f"{folder}: in the way and not ours; remove it")
    shutil.rmtree(folder)


def _is_whole(folder, settings):
    """Whether the corpus is finished, as asked for, and still complete."""
    try:
        contents = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return False
    if contents.get("settings") != settings:
        return False
    return {**contents, **_size(folder)} == contents


def _size(folder):
    """Number and bytes of the files in the folders below this one."""
    found = [p for p in folder.glob("*/**/*") if p.is_file()]
    return {"files": len(found), "bytes": sum(p.stat().st_size for p in found)}


# Speech -------------------------------------------------------------------


def _speak(folder, voice, parts, seeds):
    """Fills the folder; gives counts for each split."""
    counts = {}
    with tqdm(
        total=round(sum(part.seconds for part in parts)),
        desc="corpus",
        bar_format="{l_bar}{bar}| {n:.0f}/{total} s [{elapsed}<{remaining}]",
    ) as bar:
        for number, part in enumerate(parts):
            spoken, index, commands = 0.0, 0, []
            while spoken < part.seconds:
                rng = np.random.default_rng([*seeds, number, index])
                speaker = part.people[index % len(part.people)]
                sentence = _sentence_of(part, rng)
                audio, end = utter(voice, sentence.phrases, speaker, rng)
                name = f"{speaker.number}-{part.chapter}-{index:04d}"
                path = audio_path(folder / part.split, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(flac(audio))
                commands.append(
                    {
                        "id": name,
                        "text": sentence.text,
                        "intent": sentence.intent,
                        "slots": sentence.slots,
                        "speech_end": round(end, 3),
                    }
                )
                spoken += len(audio) / SAMPLE_RATE
                index += 1
                bar.update(min(len(audio) / SAMPLE_RATE, bar.total - bar.n))
            write_texts(folder / part.split, commands)
            counts[part.split] = {
                "utterances": index,
                "minutes": round(spoken / 60, 2),
                "speakers": min(index, len(part.people)),
            }
    return counts


def write_texts(folder, commands):
    """A split's transcripts, and the commands themselves."""
    transcripts = {}
    for command in commands:
        chapter = audio_path(folder, command["id"]).parent
        path = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
        line = f"{command['id']} {command['text']}\n"
        transcripts[path] = transcripts.get(path, "") + line
    for path, text in transcripts.items():
        path.write_text(text)
    lines = "".join(json.dumps(command) + "\n" for command in commands)
    (folder / "commands.jsonl").write_text(lines)


def chapter_of(text: str) -> int:
    """A number from 1000 on that others hardly have."""
    return 1000 + zlib.crc32(text.encode()) % 9000


def audio_path(folder, name):
    """Where the utterance SPEAKER-CHAPTER-NUMBER of a split is."""
    person, chapter, _ = name.rsplit("-", 2)
    return folder / person / chapter / f"{name}.flac"


def flac(audio):
    """The bytes of a file; written by Python, a full disk is an error."""
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLE_RATE, "PCM_16", format="FLAC")
    return file.getvalue()


def split_speakers(speakers):
    """Split -> its speakers: an eighth for each of dev and test."""
    held_out = max(1, len(speakers) // 8)
    return {
        "test": speakers[:held_out],
        "dev": speakers[held_out : 2 * held_out],
        "train": speakers[2 * held_out :],
    }


def _sentence_of(part, rng):
    """Of some sentences of the split, as their hash says, the least spoken."""
    found = []
    for _ in range(DRAWS):
        sentence = part.draw(rng)
        if _split_of(sentence.text) == part.split:
            found.append(sentence)
        if len(found) == part.candidates:
            break
    if found:
        sentence = min(found, key=lambda one: part.spoken[one.text])
        part.spoken[sentence.text] += 1
        return sentence
    raise CorpusError(
        f"no sentence for {part.split} was found by chance: no sentence is in "
        "two splits, and the grammar has too few of them"
    )


def _split_of(text):
    """The one split that may hold a sentence."""
    place = zlib.crc32(text.encode()) % 1000 / 1000
    for split, share in SPLITS.items():
        if place < share:
            return split
        place -= share
    return split
