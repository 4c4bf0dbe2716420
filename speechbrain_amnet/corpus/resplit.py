"""A corpus of real speech as a base and what later releases bring.

Either by speaker: the base knows half of the training speakers, each release
brings a tenth more. Or by what a slot says: the base has never heard five of
its values, nor any command with them, and each release brings one; who is
tested has spoken in no training, and who that is turns with the fold.

OUT/base has `train`, `dev` and `test`; OUT/1 to OUT/5 have these of new
material and `replay`, as many utterances as `train` of what was there before,
as much of each release: what `train_releases.py` reads.
"""

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechbrain_amnet.corpus.manifest import read_commands, read_manifest
from speechbrain_amnet.corpus.prepare import (
    PreparationError,
    prepare_librispeech,
)
from speechbrain_amnet.corpus.releases import in_turn
from speechbrain_amnet.files import unused, whole_folder

RELEASES = 5
HELD = 4  # of a new speaker's utterances every fourth is for testing
Row = dict[str, Any]


def resplit(
    data_folder: str | Path,
    out_folder: str | Path,
    by: str = "speaker",
    fold: tuple[int, int] = (1, 5),
    seed: int = 0,
) -> Path:
    """Write links to a corpus's recordings, as base and releases.

    Arguments
    ---------
    data_folder : str or Path
        With `train`, `dev` and `test` in LibriSpeech's layout; for a slot with
        `commands.jsonl` in each.
    out_folder : str or Path
        Of base and releases; must not exist.
    by : str
        "speaker", or the name of a slot.
    fold : tuple of int
        Which of how many, counted from 1; of a slot's releases alone.
    seed : int
        Says who and what is new.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    PreparationError
        If the data cannot be used, or are too few for it.
    FileExistsError
        If there is such a folder already.
    """
    out = unused(out_folder)
    rows = read_rows(data_folder)
    if by == "speaker":
        splits = by_speaker(rows, seed)
    else:
        splits = by_value(rows, by, fold, seed)
    for name, found in splits.items():
        if not found:
            raise PreparationError(
                f"{data_folder}: by {by}: there is nothing for {name}"
            )
    with whole_folder(out) as aside:
        for name, found in splits.items():
            write_split(aside / name, found)
    return out


def read_rows(data_folder: str | Path) -> list[Row]:
    """Every utterance of train, dev and test, checked; with its command."""
    with tempfile.TemporaryDirectory() as folder:
        manifests = prepare_librispeech(
            data_folder, folder, {"all": ["train", "dev", "test"]}
        )
        rows = read_manifest(manifests["all"])
    commands = read_commands(rows)
    return [
        {
            **row,
            "split": Path(row["wav"]).parents[2].name,
            "command": commands.get(row["ID"]),
        }
        for row in rows
    ]


def by_speaker(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """Splits in which every release has speakers of its own."""
    train = [row for row in rows if row["split"] == "train"]
    speakers = sorted({row["spk_id"] for row in train})
    if len(speakers) < 2 * RELEASES:
        raise PreparationError(
            f"by speaker: expected {2 * RELEASES} speakers or more in train, "
            f"got {len(speakers)}"
        )
    rng = random.Random(seed)
    rng.shuffle(speakers)
    half = len(speakers) // 2
    tenth = (len(speakers) - half) / RELEASES
    edges = [half + round(n * tenth) for n in range(RELEASES + 1)]
    groups = [set(speakers[a:b]) for a, b in zip([0, *edges], edges)]
    dev, test = (
        [row for row in rows if row["split"] == name]
        for name in ("dev", "test")
    )
    parts = [[r for r in train if r["spk_id"] in group] for group in groups]
    releases = [
        {
            "train": [r for n, r in enumerate(part) if n % HELD],
            "dev": dev,
            "test": part[::HELD],
        }
        for part in parts[1:]
    ]
    base = {"train": parts[0], "dev": dev, "test": test}
    return with_replay(base, releases, rng)


def by_value(
    rows: Sequence[Row], slot: str, fold: tuple[int, int], seed: int
) -> dict[str, list[Row]]:
    """Splits in which every release has a value of a slot of its own."""
    number, folds = fold
    if not 1 <= number <= folds or folds < 3:
        raise PreparationError(
            f"fold: expected 1 to N of N, with N at least 3, got {number} of "
            f"{folds}"
        )

    def value(row):
        found = ((row["command"] or {}).get("slots") or {}).get(slot)
        found = "" if found is None else str(found)
        return " ".join(found.upper().split()) or None

    values = sorted({value(row) for row in rows} - {None})
    if len(values) <= RELEASES:
        raise PreparationError(
            f"by {slot}: expected more than {RELEASES} values of this slot in "
            f"commands.jsonl, got {len(values)}"
        )
    rng = random.Random(seed)  # the same new values in every fold
    rng.shuffle(values)
    new = values[:RELEASES]
    # Speakers with most to say first, each to the fold that has least yet.
    said: dict[str, int] = {}
    for row in rows:
        said[row["spk_id"]] = said.get(row["spk_id"], 0) + 1
    voices: list[set[str]] = [set() for _ in range(folds)]
    for speaker in sorted(said, key=lambda one: (-said[one], one)):
        min(voices, key=lambda v: sum(said[s] for s in v)).add(speaker)
    heard = {"test": voices[number - 1], "dev": voices[number % folds]}
    heard["train"] = set(said) - heard["test"] - heard["dev"]
    parts = {
        name: [row for row in rows if row["spk_id"] in who]
        for name, who in heard.items()
    }
    base = {n: [r for r in p if value(r) not in new] for n, p in parts.items()}
    releases = [
        {n: [r for r in p if value(r) == one] for n, p in parts.items()}
        for one in new
    ]
    return with_replay(base, releases, rng)


def with_replay(base, releases, rng) -> dict[str, list[Row]]:
    """All splits by their path; replay is as much of each release before."""
    splits = {f"base/{name}": rows for name, rows in base.items()}
    earlier = [base["train"]]
    for number, release in enumerate(releases, 1):
        shuffled = [rng.sample(part, len(part)) for part in earlier]
        splits[f"{number}/replay"] = in_turn(shuffled)[: len(release["train"])]
        earlier.append(release["train"])
        splits.update({f"{number}/{n}": rows for n, rows in release.items()})
    return splits


def write_split(folder: Path, rows: Sequence[Row]) -> None:
    """A split in LibriSpeech's layout, of links to the recordings."""
    texts: dict[Path, list[str]] = {}
    commands = []
    for row in sorted(rows, key=lambda one: one["ID"]):
        wav = Path(row["wav"])
        place = folder / row["spk_id"] / wav.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / wav.name).symlink_to(wav)
        texts.setdefault(place, []).append(f"{row['ID']} {row['wrd']}\n")
        if row["command"]:
            commands.append(json.dumps(row["command"]) + "\n")
    for place, lines in texts.items():
        name = f"{place.parent.name}-{place.name}.trans.txt"
        (place / name).write_text("".join(lines), encoding="utf-8")
    if commands:
        text = "".join(commands)
        (folder / "commands.jsonl").write_text(text, encoding="utf-8")
