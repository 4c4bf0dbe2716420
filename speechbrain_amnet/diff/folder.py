"""A deployed model's folder: updated and put back, whole or not at all.

    FOLDER/model              a link to the version in use
    FOLDER/versions/NAME/     the model's files, and in `updates/` how it came
                              to be: history.json and what undoes each update

A new version is written beside the old one, flushed to disk, and then the link
is replaced, which happens at once or not at all. What an interrupted update
left behind is cleared away by the next one.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain_amnet import files
from speechbrain_amnet.diff.applying import (
    NotTheBase,
    change_each,
    check_base,
)
from speechbrain_amnet.diff.file import Diff, DiffError, plain, read_diff
from speechbrain_amnet.diff.model_files import (
    MODEL,
    UPDATES,
    ModelFiles,
    copy_owner,
    everything_in,
    find_model,
)
from speechbrain_amnet.diff.undo import Undo

VERSIONS = "versions"
HISTORY, LINK = "history.json", "model.part"
OWN_NAME = re.compile(r"\d+-([0-9a-f]{12}|first)")  # of a version
ENTRY = {  # of a history, all of which a stranger may have written
    "diff": r"[^\x00-\x1f/]+",
    "base": "[0-9a-f]{64}",
    "result": "[0-9a-f]{64}",
    "undo": r"\d+\.undo",
}


def history(folder: str | Path) -> list[dict[str, Any]]:
    """The updates that a model has had: the last one is at the end.

    Raises
    ------
    DiffError
        If they cannot be read, or a name leads elsewhere.
    ValueError
        If the model has a folder of this name that is something else.
    """
    path = find_model(folder) / UPDATES / HISTORY
    if not path.exists():
        if os.path.lexists(path.parent):
            raise ValueError(
                f"{path.parent} is not what updates have left, and is in "
                "their place; give it another name"
            )
        return []
    try:
        entries = json.loads(path.read_text())
        sound = isinstance(entries, list) and all(map(is_entry, entries))
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise DiffError(f"{path}: damaged; fetch the model anew")
    return entries


def is_entry(entry: Any) -> bool:
    """Whether it is what `apply_update` writes into a history."""
    if not isinstance(entry, dict):
        return False
    said = {key: entry.get(key) for key in ENTRY}
    if said["undo"] is None and "undo" in entry:
        del said["undo"]  # it was not kept
    return all(
        isinstance(value, str) and re.fullmatch(ENTRY[key], value)
        for key, value in said.items()
    )


def apply_update(
    folder: str | Path,
    diff: str | Path,
    out: str | Path | None = None,
    keep: int | None = None,
) -> dict[str, Any]:
    """Update a model.

    Arguments
    ---------
    folder : str or Path
        The model.
    diff : str or Path
        The file of the update.
    out : str or Path, optional
        The new model's folder. Left out, `folder` is updated itself, which
        must then be one that this function made.
    keep : int, optional
        Updates that can be undone, the last ones; all of them by default. What
        undoes one takes as much as the diff or, where that changes all
        weights, as the model.

    Returns
    -------
    dict
        The history's new entry: names, fingerprints, bytes.

    Raises
    ------
    FileExistsError
        If `out` exists.
    ValueError
        If there is no `out` and `folder` is not a deployed one, `out` is in
        the model, or `keep` is below 0.
    DiffError
        If the diff is damaged or not for this model; nothing has changed.
    OSError
        If the disk is too full; nothing has changed.
    """
    if keep is not None and keep < 0:
        raise ValueError(f"keep: expected 0 updates or more, got {keep}")
    folder = deployed(folder)
    with locked(folder, None if out is None else Path(out).resolve().parent):
        target = check_target(folder, out)
        model, past = ModelFiles(folder), history(folder)
        update = read_diff(diff, model.weights)
        try:
            check_base(update, model, str(folder))
        except NotTheBase as error:
            raise NotTheBase(f"{error}; {way_on(update, past)}") from None
        entry = {
            "diff": plain(Path(diff).name),
            "bytes": Path(diff).stat().st_size,
            "base": update.base,
            "result": update.result,
            "undo": f"{len(past) + 1}.undo",
        }
        entries = [*past, entry]
        if keep is not None:
            for old in entries[: max(0, len(entries) - keep)]:
                old |= {"undo": None, "undo_bytes": 0}
        install(model, target, entries, Undo(update))
    return entry


def way_on(update: Diff, past: list[dict[str, Any]]) -> str:
    """What to do about an update that a model's history does not lead to."""
    for number, entry in enumerate(past, 1):
        if (entry["base"], entry["result"]) == (update.base, update.result):
            return (
                f"it is its update {number} of {len(past)}, {entry['diff']}, "
                "which others have followed"
            )
    return (
        "if it is for a later state of this model, apply the updates before it "
        "first, or one file of them all (amnet diff squash)"
    )


def undo_update(folder: str | Path) -> dict[str, Any]:
    """Put the weights back that the last update replaced, bit for bit.

    Arguments
    ---------
    folder : str or Path
        A folder that `apply_update` made.

    Returns
    -------
    dict
        The history's entry that is no more.

    Raises
    ------
    DiffError
        If there is no update to undo, or the model is not what it left.
    """
    folder = deployed(folder)
    with locked(folder):
        past = history(folder)
        if not past:
            raise DiffError(f"{folder}: there is no update to undo")
        if not is_deployed(folder):
            raise ValueError(
                f"{folder} is a copy of an updated model's files; give the "
                f"folder that has them in {VERSIONS}"
            )
        model = ModelFiles(folder)
        if past[-1]["undo"] is None:
            raise DiffError(
                f"{folder}: what undoes {past[-1]['diff']} was not kept"
            )
        path = model.folder / UPDATES / past[-1]["undo"]
        undo = read_diff(path, model.weights)
        check_base(undo, model, str(folder))
        change_each(undo, model, in_place=True)
        install(model, folder, past[:-1])
    return past[-1]


def is_deployed(folder: Path) -> bool:
    """Whether it is a folder that `apply_update` made."""
    model, version = folder / MODEL, (folder / MODEL).resolve()
    return (
        model.is_symlink()
        and version.parent == folder.resolve() / VERSIONS
        and OWN_NAME.fullmatch(version.name) is not None
        and (version / UPDATES / HISTORY).is_file()
    )


def deployed(folder: str | Path) -> Path:
    """A model's folder; where it is a version in use, the one around it.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    """
    folder = Path(folder).resolve()
    find_model(folder)
    around = folder.parent.parent
    if is_deployed(around) and (around / MODEL).resolve() == folder:
        return around
    return folder


def check_target(folder: Path, out: str | Path | None) -> Path:
    """Where the new version goes."""
    if out is None:
        if not is_deployed(folder):
            raise ValueError(
                f"{folder} is not the folder of an updated model; give the "
                "new model's folder as --out"
            )
        return folder
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists already; give another folder")
    out = Path(out).resolve()
    for inside in (find_model(folder), folder / VERSIONS):
        if out.is_relative_to(inside):
            raise ValueError(f"{out} is in the model; give a folder outside")
    part = part_of(out)
    if folder.is_relative_to(part):
        raise ValueError(
            f"{folder} is where the new model would be written first; rename "
            "it, or give another folder"
        )
    if os.path.lexists(part) and not is_interrupted(part):
        raise FileExistsError(
            f"{part} exists, where the new model is written first, and is not "
            "what an interrupted update left; move it, or give another folder"
        )
    return out


def part_of(target: Path) -> Path:
    """Where a new folder is made before it gets its name."""
    return target.with_name(f"{target.name}.part")


def is_interrupted(part: Path) -> bool:
    """Whether it is what `install` makes, and nothing else."""
    if part.is_symlink() or not part.is_dir():
        return False
    links = [path for path in part.iterdir() if path.name != VERSIONS]
    versions = part / VERSIONS
    return all(
        path.is_symlink() and path.name in (MODEL, LINK) for path in links
    ) and all(
        OWN_NAME.fullmatch(path.name)
        for path in (versions.iterdir() if versions.is_dir() else ())
    )


@contextlib.contextmanager
def locked(folder: Path, around: Path | None = None) -> Iterator[None]:
    """One update of a folder at a time; a killed one leaves no lock.

    Arguments
    ---------
    folder : Path
        Of the model.
    around : Path, optional
        Another to lock, which the new model's folder will be in. It is made if
        it is not there, and goes again if all was for nothing.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(
            "a folder is updated on Linux or macOS, where it can be locked"
        ) from None
    with contextlib.ExitStack() as held:
        for one in (*reversed(around.parents), around) if around else ():
            if not one.exists():
                files.make_folder(one, durable=True)
                held.push(partial(remove_if_failed, one))
        for one in sorted({folder, around or folder}):
            try:
                handle = os.open(one, os.O_RDONLY)
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"{one} was there a moment ago; another update has put a "
                    "version in its place: give the folder around it"
                ) from None
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def remove_if_failed(folder: Path, kind: type | None, *_: Any) -> None:
    """Take an empty folder away at the end of a `with` that an error left."""
    if kind is not None:
        with contextlib.suppress(OSError):
            folder.rmdir()


def install(
    model: ModelFiles,
    target: Path,
    entries: list[dict[str, Any]],
    undo: Undo | None = None,
) -> None:
    """Make a version of a model and let it take the old one's place.

    Arguments
    ---------
    model : ModelFiles
        The new weights, or those that the update is still to change.
    target : Path
        The deployed folder; made if it is not there.
    entries : list of dict
        The new history.
    undo : Undo, optional
        Of the last entry's update, which is still to be applied.
    """
    fresh = not target.exists()
    place = part_of(target) if fresh else target
    # What an interrupted update left takes space.
    if fresh:
        shutil.rmtree(place, ignore_errors=True)
    else:
        clear(place)
    kept = undo is not None and entries[-1]["undo"] is not None
    needed = sum(
        file.stat().st_size
        for file in everything_in(model.folder)
        if file.is_file()
    )
    files.check_space(place, needed + (undo.most if kept else 0), "an update")
    name = entries[-1]["result"][:12] if entries else "first"
    version = place / VERSIONS / f"{len(entries)}-{name}"
    if version.exists():
        raise FileExistsError(
            f"{version} is left from an earlier update, and could not be "
            "removed; remove it"
        )
    try:
        write_version(model, version, entries, undo)
        link = place / LINK
        link.unlink(missing_ok=True)
        link.symlink_to(Path(VERSIONS, version.name))
        if fresh:
            for path in (place, place / VERSIONS, link):
                copy_owner(model.folder, path)
        os.replace(link, place / MODEL)
        files.to_disk(place)
    except BaseException:
        # Not the version in use: that is another one until the very end.
        if (place / MODEL).resolve() != version:
            shutil.rmtree(place if fresh else version, ignore_errors=True)
        raise
    if fresh:
        os.rename(place, target)
        files.to_disk(target.parent)
    clear(target)


def write_version(
    model: ModelFiles,
    version: Path,
    entries: list[dict[str, Any]],
    undo: Undo | None,
) -> None:
    """Write all files of a version, flushed to disk."""
    updates = version / UPDATES
    updates.mkdir(parents=True)
    old = entries
    if undo is None:
        # One that is gone must not keep the last update from being undone.
        for entry in entries:
            if entry["undo"] and not (
                (model.folder / UPDATES / entry["undo"]).is_file()
            ):
                entry |= {"undo": None, "undo_bytes": 0}
    else:
        *old, last = entries
        path = last["undo"] and updates / last["undo"]
        last["undo_bytes"] = undo.write(model, path, in_place=True)
    model.write(version)
    for n, entry in enumerate(old, start=1):
        if entry["undo"] is None:
            continue
        path = model.folder / UPDATES / entry["undo"]
        if not path.is_file():
            raise DiffError(
                f"{path}: missing, it undoes update {n} of {len(entries)}; "
                "put it back, or let go of it with `amnet diff apply "
                f"--keep={len(entries) - n}`"
            )
        shutil.copyfile(path, updates / entry["undo"])
    (updates / HISTORY).write_text(json.dumps(entries, indent=1))
    for path in (updates, *updates.iterdir()):
        copy_owner(model.folder, path)
    for path in [*updates.iterdir(), updates, version, version.parent]:
        files.to_disk(path)


def clear(place: Path) -> None:
    """Remove every version of ours but the one in use.

    One that cannot be removed only takes space, and what is done is done.
    """
    used = (place / MODEL).resolve()
    for version in (place / VERSIONS).iterdir():
        ours = OWN_NAME.fullmatch(version.name) and not version.is_symlink()
        if ours and version.is_dir() and version.resolve() != used:
            shutil.rmtree(version, ignore_errors=True)
