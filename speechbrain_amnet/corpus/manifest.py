"""Reading what was prepared: manifests, and the commands beside the audio."""

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

COMMANDS = "commands.jsonl"  # in a split's folder, if there is one


def read_manifest(path: str | Path) -> list[dict[str, str]]:
    """The rows of a manifest."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such manifest: {path}")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = {"ID", "duration", "wav", "wrd"} - set(rows[0] if rows else ())
    if missing:
        raise ValueError(
            f"{path}: no utterances, or no column {', '.join(sorted(missing))}"
        )
    return rows


def words_of(rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """What is said in the recordings of a manifest, by id.

    As `prepare.read_transcripts` gives it, whenever it was prepared.

    Example
    -------
    >>> words_of([{"ID": "1-1-1", "wrd": "GO"}])
    {'1-1-1': 'GO'}
    """
    return {
        normalize("NFC", row["ID"]): normalize("NFC", row["wrd"])
        for row in rows
    }


def digest_of(words: dict[str, str]) -> str:
    """What tells recordings from others, by their ids and what is said.

    Arguments
    ---------
    words : dict
        From `words_of` or `prepare.read_transcripts`.

    Returns
    -------
    str
        The beginning of a SHA-256.

    Example
    -------
    >>> digest_of({"1": "GO", "2": "ON"}) == digest_of({"2": "ON", "1": "GO"})
    True
    """
    text = json.dumps(sorted(words.items()), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_lines(path: Path) -> list[str]:
    """The lines of a text in UTF-8, each of which ends with a line feed.

    Python's `splitlines` also ends one where a text has a form feed or
    U+2028, which stand within transcripts and JSON.

    Arguments
    ---------
    path : Path
        The file.

    Returns
    -------
    list of str
        Without their ends; a carriage return before one is part of it.

    Raises
    ------
    ValueError
        If it is not UTF-8.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: expected UTF-8, got the byte "
            f"{content[error.start]:#04x}; convert it: iconv -f LATIN1 -t "
            "UTF-8 OLD > NEW, with its own encoding for LATIN1"
        ) from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def read_commands(
    rows: Sequence[dict[str, str]],
) -> dict[str, dict[str, Any]]:
    """What `commands.jsonl` says of the recordings of a manifest.

    It lies in the split's folder and has a line for each utterance: ``id``
    and, where they are known, ``slots`` (the words of each by its name) and
    ``speech_end`` (when the last word ends, in seconds).

    Arguments
    ---------
    rows : sequence of dict
        Rows of a manifest.

    Returns
    -------
    dict
        The records by id; none where there is no such file.

    Raises
    ------
    ValueError
        If the file is not UTF-8, a line of it is no such record, or none is
        of a recording.
    """
    ids = [row["ID"] for row in rows]
    splits = {Path(os.path.abspath(row["wav"])).parents[2] for row in rows}
    return read_labels([split / COMMANDS for split in sorted(splits)], ids)


def read_labels(
    files: Iterable[Path], ids: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The records of some files, where they are there; see `read_commands`."""
    records = {}
    for file in filter(Path.is_file, files):
        own: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(read_lines(file), 1):
            try:
                record = checked(composed(json.loads(line)))
            except (
                AttributeError,
                LookupError,
                RecursionError,
                TypeError,
                ValueError,
            ):
                raise ValueError(
                    f"{file}, line {number}: expected a JSON object with an "
                    "id and, where they are known, slots (words by name), "
                    "intent (a name) and speech_end (seconds), got "
                    f"{line[:60]!r}"
                ) from None
            if record["id"] in own:
                raise ValueError(
                    f"{file}, line {number}: {record['id']} is there already"
                )
            own[record["id"]] = record
        if own and not own.keys() & set(ids):
            known = ids[0] if ids else "in the transcripts"
            raise ValueError(
                f"{file}: expected ids of recordings, as {known}, got "
                f"{next(iter(own))} and no other that is one"
            )
        records |= own
    return records


def composed(record: Any) -> Any:
    """The same with letters that look alike alike, as transcripts have them.

    Example
    -------
    >>> composed({"slots": {"drink": "cafe\u0301"}})["slots"]["drink"]
    'caf\xe9'
    """
    text = json.dumps(record, ensure_ascii=False)
    return json.loads(normalize("NFC", text))


def checked(record: Any) -> dict[str, Any]:
    """A line of `commands.jsonl`; what it says is null is not known.

    Nor is a slot said whose words are null or blank.

    Raises
    ------
    AttributeError, LookupError, TypeError, ValueError
        If it is something else.

    Example
    -------
    >>> checked({"id": "1-1-1", "slots": None, "intent": "stop"})
    {'id': '1-1-1', 'intent': 'stop'}
    """
    known = {key: value for key, value in record.items() if value is not None}
    slots = {
        name: value
        for name, value in known.get("slots", {}).items()
        if value is not None and str(value).strip()
    }
    if "slots" in known:
        known["slots"] = slots
    end = known.get("speech_end", 0.0)
    if isinstance(end, bool) or not 0 <= end < math.inf:
        raise ValueError
    named = (known["id"], known.get("intent", ""), *slots)
    words = (str, int, float)
    if not (
        all(isinstance(name, str) for name in named)
        and all(isinstance(value, words) for value in slots.values())
    ):
        raise ValueError
    return known


def has_slots(words: str, slots: dict[str, str]) -> bool:
    """Whether the phrase of every slot is found, as whole words.

    Example
    -------
    >>> has_slots("A LARGE LATTE PLEASE", {"size": "large", "drink": "latte"})
    True
    >>> has_slots("A LARGER LATTE", {"size": "large"})
    False
    """
    spaced = f" {' '.join(words.upper().split())} "
    phrases = (" ".join(str(v).upper().split()) for v in slots.values())
    return all(f" {phrase} " in spaced for phrase in phrases)
