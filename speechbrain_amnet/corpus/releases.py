"""What is new, release by release: words, intents, and a voice each.

Beside a base corpus five more folders, each with what a deployed model has
never heard: sentences with at least one new word, two new intents among them,
said by the base's voices and one that was not there. The first is the occasion
that neural diffs were made for: the Olympics.
"""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile

from speechbrain_amnet import files
from speechbrain_amnet.corpus.grammar import (
    CHOICES,
    TEMPLATES,
    Sentence,
    as_jsgf,
    sample_sentence,
    vocabulary,
)
from speechbrain_amnet.corpus.spoken import (
    GRAMMAR,
    SIGN,
    CorpusError,
    Part,
    audio_path,
    make_corpus,
    make_spoken_corpus,
    split_speakers,
    write_texts,
)
from speechbrain_amnet.corpus.voices import Speaker, make_speakers

T = TypeVar("T")


@dataclass(frozen=True)
class Release:
    """What one release brings.

    Arguments
    ---------
    templates : mapping
        Its two intents, see `grammar.TEMPLATES`.
    choices : mapping
        Its words; those under a name of `grammar.CHOICES` are said in the old
        sentences, too.
    """

    templates: Mapping[str, Sequence[str]]
    choices: Mapping[str, Sequence[str]]

    @property
    def words(self) -> set[str]:
        """The words that were not there before."""
        return vocabulary(self.templates, self.choices) - vocabulary()


RELEASES = (
    Release(
        {
            "ask_result": [
                "DID {athlete} WIN / {day}",
                "WHO WON THE {sport} / IN {city}",
                "HOW DID {athlete} DO / IN THE {sport}",
            ],
            "follow_athlete": [
                "<please> FOLLOW {athlete}",
                "<please> FOLLOW {athlete} / IN THE {sport}",
            ],
        },
        {
            "athlete": ["LEDECKY", "KALISZ", "BILES", "DRESSEL", "MARCHAND"],
            "sport": ["SWIMMING", "GYMNASTICS", "ROWING", "FENCING"],
            "city": ["SYDNEY", "ATHENS"],
        },
    ),
    Release(
        {
            "book_ride": [
                "<please> BOOK A {vehicle} / TO {city}",
                "<please> BOOK A {vehicle} / TO {city} / {day}",
            ],
            "ask_departure": [
                "WHEN DOES THE {vehicle} / LEAVE FOR {city}",
                "DOES THE {vehicle} LEAVE / AT {time}",
            ],
        },
        {
            "vehicle": ["TAXI", "TRAIN", "FERRY"],
            "city": ["LISBON", "MADRID", "WARSAW", "OSLO"],
        },
    ),
    Release(
        {
            "start_machine": [
                "<please> START THE {machine}",
                "<please> START THE {machine} / IN THE {room}",
                "<please> START THE {machine} / AT {time}",
            ],
            "ask_machine": [
                "IS THE {machine} STILL RUNNING",
                "IS THE {machine} STILL RUNNING / IN THE {room}",
            ],
        },
        {
            "machine": ["HEATING", "OVEN", "DISHWASHER", "VACUUM"],
            "room": ["ATTIC", "CELLAR", "BALCONY"],
        },
    ),
    Release(
        {
            "watch_film": [
                "<please> WATCH {film} / IN THE {room}",
                "I WANT TO WATCH {film} / {day}",
            ],
            "rate_film": ["<please> GIVE {film} / {count=few} STARS"],
        },
        {
            "film": ["HAMLET", "CASABLANCA", "TITANIC", "VERTIGO"],
            "genre": ["OPERA", "BLUES", "TECHNO"],
        },
    ),
    Release(
        {
            "log_training": [
                "<please> LOG A {training} / OF {duration}",
                "<please> LOG A {training} / WITH {name}",
            ],
            "ask_body": [
                "WHAT WAS MY {measure} / {day}",
                "WHAT WAS MY {measure} / {day=on_day}",
            ],
        },
        {
            "training": ["WORKOUT", "MARATHON", "HIKE"],
            "measure": ["PULSE", "WEIGHT"],
            "on_day": ["ON <weekday>"],
            "name": ["VALENTINA", "OPHELIA"],
            "food": ["AVOCADO", "SPINACH", "YOGURT"],
        },
    ),
)


def sample_new(rng: np.random.Generator, release: Release) -> Sentence:
    """Draws a sentence with a word that a release has brought.

    Arguments
    ---------
    rng : numpy.random.Generator
        The source of chance.
    release : Release
        One of `RELEASES`.

    Returns
    -------
    Sentence
        Every other one of a new intent.

    Example
    -------
    >>> sentence = sample_new(np.random.default_rng(0), RELEASES[0])
    >>> bool(RELEASES[0].words & set(sentence.text.split()))
    True
    """
    templates, choices = TEMPLATES, dict(CHOICES)
    if rng.integers(2):
        # A new intent may name anything; an old one names what is new.
        templates = release.templates
        for name, new in release.choices.items():
            choices[name] = [*CHOICES.get(name, []), *new]
    else:
        choices.update(release.choices)
    while True:
        sentence = sample_sentence(rng, templates, choices)
        if release.words & set(sentence.text.split()):
            return sentence


def make_releases(
    out_folder: str | Path,
    minutes: float = 60,
    release_minutes: Mapping[str, float] | None = None,
    seed: int = 0,
    speakers: int = 96,
) -> Path:
    """Speaks a base corpus and what five releases bring.

    `OUT/base` is `make_spoken_corpus`'s, `OUT/1` to `OUT/5` have splits
    `train`, `dev` and `test` of new material and `replay`: as many minutes as
    `train` has of what was there before, as much of each release, copied.
    `commands.gram` of each is the grammar of what can be said by then.

    Arguments
    ---------
    out_folder : str or Path
        The folder of all.
    minutes : float
        Of the base.
    release_minutes : mapping, optional
        Of each split of a release; 4 for train, 2 for dev, 10 for test.
    seed : int
        Another seed gives other speakers and sentences.
    speakers : int
        Of the base; every release brings one more.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CorpusError
        As `make_spoken_corpus`, or if a number of minutes makes no sense.
    """
    out = Path(out_folder).resolve()
    lengths = {"train": 4, "dev": 2, "test": 10, **(release_minutes or {})}
    for split, length in lengths.items():
        if not 0 < length < math.inf:
            raise CorpusError(
                f"{split}: expected minutes above 0, got {length}"
            )
    if (out / SIGN).exists():
        raise CorpusError(
            f"{out}: is a corpus of its own, without releases; name another "
            "folder"
        )
    make_spoken_corpus(out / "base", minutes, seed, speakers)
    people = split_speakers(make_speakers(seed, speakers))
    newcomers = make_speakers(seed + 1000, len(RELEASES))
    earlier = [out / "base" / "train"]
    for number, release in enumerate(RELEASES, 1):
        newcomer = dataclasses.replace(
            newcomers[number - 1], number=900 + number
        )
        parts = [
            Part(
                split,
                60 * length,
                alternating(people[split], newcomer),
                lambda rng, release=release: sample_new(rng, release),
                chapter=1 + number,
            )
            for split, length in lengths.items()
        ]
        settings = {
            "release": number,
            "minutes": lengths,
            "base_minutes": minutes,
            "seed": seed,
            "speakers": speakers,
        }
        sources = list(earlier)
        make_corpus(
            out / str(number),
            parts,
            [seed, number],
            settings,
            lambda folder, sources=sources, number=number: add_replay(
                folder, sources, 60 * lengths["train"], [seed, number]
            ),
        )
        files.write(out / str(number) / GRAMMAR, grammar_after(number))
        earlier.append(out / str(number) / "train")
    return out


def grammar_after(number: int) -> str:
    """All that can be said once a release is there, in JSGF.

    Arguments
    ---------
    number : int
        Of the release, from 1 on.

    Returns
    -------
    str

    Example
    -------
    >>> "LEDECKY" in grammar_after(1), "CASABLANCA" in grammar_after(1)
    (True, False)
    """
    templates, choices = dict(TEMPLATES), dict(CHOICES)
    for release in RELEASES[:number]:
        templates |= release.templates
        for name, new in release.choices.items():
            choices[name] = [*choices.get(name, []), *new]
    return as_jsgf(templates, choices)


def alternating(people: Sequence[Speaker], newcomer: Speaker) -> list[Speaker]:
    """The old speakers, and after every third one the new one.

    Example
    -------
    >>> old, new = make_speakers(0, 4), make_speakers(1, 1)[0]
    >>> [p == new for p in alternating(old, new)]
    [False, False, False, True, False]
    """
    mixed = []
    for place, person in enumerate(people, 1):
        mixed.append(person)
        if place % 3 == 0:
            mixed.append(newcomer)
    return mixed if newcomer in mixed else [*mixed, newcomer]


def in_turn(parts: Iterable[Sequence[T]]) -> list[T]:
    """One of each part after the other, so that no part is drowned by a long.

    What one release brought is a tenth of what the base was: drawn evenly from
    all, it would hardly come again and be forgotten.

    Arguments
    ---------
    parts : iterable of sequences
        What there was before, release by release.

    Returns
    -------
    list

    Example
    -------
    >>> in_turn([["a", "b", "c"], ["d"], ["e", "f"]])
    ['a', 'd', 'e', 'b', 'f', 'c']
    """
    turns = zip_longest(*[[(one,) for one in part] for part in parts])
    return [one[0] for turn in turns for one in turn if one]


def add_replay(
    folder: Path, sources: Sequence[Path], seconds: float, seeds: Sequence[int]
) -> None:
    """Copies utterances of earlier train splits, as many of each of them.

    Arguments
    ---------
    folder : Path
        Of the release; `replay` is made in it.
    sources : sequence of Path
        Earlier train splits.
    seconds : float
        Of audio, about.
    seeds : sequence of int
        Say which ones.
    """
    rng = np.random.default_rng([*seeds, 99])
    parts, taken, commands = [], 0.0, []
    for source in sources:
        lines = (source / "commands.jsonl").read_text().splitlines()
        part = [(source, json.loads(line)) for line in lines]
        parts.append([part[place] for place in rng.permutation(len(part))])
    for source, command in in_turn(parts):
        if taken >= seconds:
            break
        target = audio_path(folder / "replay", command["id"])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(audio_path(source, command["id"]), target)
        taken += soundfile.info(target).duration
        commands.append(command)
    write_texts(folder / "replay", commands)
