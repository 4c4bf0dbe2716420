"""A deployed model's folder: updated and put back, whole or not at all.

    FOLDER/model              a link to the version in use
    FOLDER/versions/NAME/     the model's files, and in `updates/` how it came
                              to be: history.json and what undoes each update

A new version is written beside the old one, flushed to disk, and then the link
is replaced, which happens at once or not at all. What an interrupted update
left behind is cleared away by the next one.
"""

import contextlib
import fcntl
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from speechbrain_amnet import files
from speechbrain_amnet.diff.file import (
    Diff,
    DiffError,
    apply_diff,
    from_bytes,
    read_diff,
    to_bytes,
)

MODEL, VERSIONS, UPDATES = "model", "versions", "updates"
HISTORY = "history.json"
UNDO_LEVEL = 3  # of zstandard; may be as large as the model, and in a hurry
SPARE = 1 << 20  # bytes that must stay free


class ModelFiles:
    """The weights of a model's folder, by file.

    Every file `*.ckpt` that holds a state dict of PyTorch's counts, whatever
    SpeechBrain model it is. A tensor's name begins with its file's:
    `encoder.layers.0.bias.0`.

    Arguments
    ---------
    folder : str or Path
        The folder of a model, or one with a folder `model`.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    """

    def __init__(self, folder: str | Path):
        self.folder = find_model(folder)
        self.states = {}
        for path in sorted(self.folder.glob("*.ckpt")):
            state = read_state(path)
            if state is not None:
                self.states[path.stem] = state

    def tensors(self) -> dict[str, Any]:
        """Name to array; the memory is the model's own."""
        return {
            f"{stem}.{name}": tensor.detach().numpy()
            for stem, state in self.states.items()
            for name, tensor in state.items()
            if torch.is_tensor(tensor) and tensor.dtype in _NUMPY
        }

    def replace(self, name: str, array: Any) -> None:
        """Put in a new tensor."""
        stem, _, key = name.partition(".")
        self.states[stem][key] = torch.from_numpy(array)

    def write(self, folder: Path) -> None:
        """Write the model's files to another folder, flushed to disk.

        Raises
        ------
        OSError
            If that cannot be done.
        """
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if inside.parts[0] == UPDATES:
                continue
            target = folder / inside
            if path.is_dir():
                target.mkdir()
            elif len(inside.parts) == 1 and path.stem in self.states:
                write_state(self.states[path.stem], target)
            else:
                shutil.copyfile(path, target)
        for path in [*folder.rglob("*"), folder]:
            files.to_disk(path)


def read_state(path: Path) -> dict[str, Any] | None:
    """The state dict in a file; None if it holds something else.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    if not zipfile.is_zipfile(path):
        return None  # a tokenizer, for instance
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(
            f"{path}: unreadable weights ({type(error).__name__}); fetch the "
            "model anew"
        ) from None
    return state if isinstance(state, dict) else None


def write_state(state: dict[str, Any], path: Path) -> None:
    """Write a state dict, piece by piece; a full disk is an OSError."""
    try:
        with open(path, "wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise OSError(f"{path}: cannot be written ({why})") from None


_NUMPY = (torch.float32, torch.float16)


def find_model(folder: str | Path) -> Path:
    """The folder that holds a model's files.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    folder = Path(folder)
    for place in (folder / MODEL, folder):
        if any(place.glob("*.ckpt")):
            return place.resolve()
    raise FileNotFoundError(
        f"{folder}: no model; expected a folder with *.ckpt files, or with a "
        "folder `model` that has them"
    )


def history(folder: str | Path) -> list[dict[str, Any]]:
    """The updates that a model has had: the last one is at the end."""
    path = find_model(folder) / UPDATES / HISTORY
    return json.loads(path.read_text()) if path.exists() else []


def apply_update(
    folder: str | Path, diff: str | Path, out: str | Path | None = None
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

    Returns
    -------
    dict
        The history's new entry: names, fingerprints, bytes.

    Raises
    ------
    FileExistsError
        If `out` exists.
    DiffError
        If the diff is damaged or not for this model; nothing has changed.
    OSError
        If the disk is too full; nothing has changed.
    """
    folder, update = Path(folder).resolve(), read_diff(diff)
    find_model(folder)
    with locked(folder, None if out is None else Path(out).resolve().parent):
        target = check_target(folder, out)
        model, past = ModelFiles(folder), history(folder)
        undo = change(model, update, str(folder))
        entry = {
            "diff": Path(diff).name,
            "bytes": Path(diff).stat().st_size,
            "base": update.base,
            "result": update.result,
            "undo": f"{len(past) + 1}.undo",
        }
        content = to_bytes(undo, UNDO_LEVEL)
        entry["undo_bytes"] = len(content)
        install(model, target, [*past, entry], {entry["undo"]: content})
    return entry


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
    folder = Path(folder).resolve()
    find_model(folder)
    with locked(folder):
        past = history(folder)
        if not past:
            raise DiffError(f"{folder}: there is no update to undo")
        target, model = check_target(folder, None), ModelFiles(folder)
        path = model.folder / UPDATES / past[-1]["undo"]
        if not path.exists():
            raise FileNotFoundError(f"no such file: {path}")
        change(model, from_bytes(path.read_bytes(), str(path)), str(folder))
        install(model, target, past[:-1], {})
    return past[-1]


def change(model: ModelFiles, diff: Diff, what: str) -> Diff:
    """Apply a diff to a model in memory; gives what undoes it."""
    tensors = model.tensors()
    undo = apply_diff(diff, tensors, what)
    for name in diff.changes:
        model.replace(name, tensors[name])
    return undo


def check_target(folder: Path, out: str | Path | None) -> Path:
    """Where the new version goes."""
    if out is None:
        if not (folder / MODEL).is_symlink():
            raise ValueError(
                f"{folder} is not the folder of an updated model; give the "
                "new model's folder as --out"
            )
        return folder
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists already; give another folder")
    return Path(out).resolve()


@contextlib.contextmanager
def locked(*folders: Path | None) -> Iterator[None]:
    """One update of these folders at a time; a killed one leaves no lock."""
    with contextlib.ExitStack() as held:
        for folder in sorted({f for f in folders if f is not None}):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def install(
    model: ModelFiles,
    target: Path,
    entries: list[dict[str, Any]],
    new: dict[str, bytes],
) -> None:
    """Make a version of a model and let it take the old one's place.

    Arguments
    ---------
    model : ModelFiles
        The new weights.
    target : Path
        The deployed folder; made if it is not there.
    entries : list of dict
        The new history.
    new : dict
        Files that undo, by name, which the old version does not have.
    """
    fresh = not target.exists()
    place = target.with_name(target.name + ".part") if fresh else target
    # What an interrupted update left takes space.
    if fresh:
        shutil.rmtree(place, ignore_errors=True)
    else:
        clear(place)
    check_space(model.folder, place, sum(map(len, new.values())))
    name = entries[-1]["result"][:12] if entries else "first"
    version = place / VERSIONS / f"{len(entries)}-{name}"
    try:
        write_version(model, version, entries, new)
        link = place / f"{MODEL}.part"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(VERSIONS, version.name))
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
    new: dict[str, bytes],
) -> None:
    """Write all files of a version, flushed to disk."""
    version.mkdir(parents=True)
    model.write(version)
    updates = version / UPDATES
    updates.mkdir()
    for entry in entries:
        undo = entry["undo"]
        content = new.get(undo)
        if content is None:
            content = (model.folder / UPDATES / undo).read_bytes()
        (updates / undo).write_bytes(content)
    (updates / HISTORY).write_text(json.dumps(entries, indent=1))
    for path in [*updates.iterdir(), updates, version, version.parent]:
        files.to_disk(path)


def clear(place: Path) -> None:
    """Remove every version but the one in use."""
    used = (place / MODEL).resolve()
    for version in (place / VERSIONS).iterdir():
        if version.resolve() != used:
            shutil.rmtree(version)


def existing(path: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def check_space(model: Path, place: Path, extra: int) -> None:
    """Refuse before anything is written.

    Raises
    ------
    OSError
        If a copy of the model does not fit beside the old one.
    """
    needed = extra + SPARE
    needed += sum(f.stat().st_size for f in model.rglob("*") if f.is_file())
    free = shutil.disk_usage(existing(place)).free
    if free < needed:
        raise OSError(
            f"{place}: an update needs {needed / 1e6:.1f} MB of free space, "
            f"there are {free / 1e6:.1f} MB"
        )
