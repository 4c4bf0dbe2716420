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
        self.states = {
            path.stem: torch.load(path, map_location="cpu", weights_only=True)
            for path in sorted(self.folder.glob("*.ckpt"))
            if zipfile.is_zipfile(path)
        }

    def tensors(self) -> dict[str, Any]:
        """Name to array; the memory is the model's own."""
        return {
            f"{stem}.{name}": tensor.numpy()
            for stem, state in self.states.items()
            for name, tensor in state.items()
            if torch.is_tensor(tensor) and tensor.dtype in _NUMPY
        }

    def replace(self, name: str, array: Any) -> None:
        """Put in a new tensor."""
        stem, _, key = name.partition(".")
        self.states[stem][key] = torch.from_numpy(array)

    def write(self, folder: Path) -> None:
        """Write the model's files to another folder, flushed to disk."""
        for path in sorted(self.folder.iterdir()):
            if not path.is_file():
                continue
            target = folder / path.name
            if path.suffix == ".ckpt" and path.stem in self.states:
                torch.save(self.states[path.stem], target)
            else:
                shutil.copyfile(path, target)
            files.to_disk(target)


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
    folder = Path(folder)
    target = check_target(folder, out)
    update = read_diff(diff)
    with locked(target):
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
    folder = Path(folder)
    past = history(folder)
    if not past:
        raise DiffError(f"{folder}: there is no update to undo")
    target = check_target(folder, None)
    with locked(target):
        model = ModelFiles(folder)
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
    out = Path(out)
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists already; give another folder")
    return out


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """One update of a folder at a time; a killed one leaves no lock."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
    check_space(model.folder, target, sum(map(len, new.values())))
    fresh = not target.exists()
    place = target.with_name(target.name + ".part") if fresh else target
    if fresh:
        shutil.rmtree(place, ignore_errors=True)
    versions = place / VERSIONS
    versions.mkdir(parents=True, exist_ok=True)
    if not fresh:
        clear(place)
    name = entries[-1]["result"][:12] if entries else "first"
    name = f"{len(entries)}-{name}"
    version = versions / name
    (version / UPDATES).mkdir(parents=True)
    model.write(version)
    for entry in entries:
        undo = entry["undo"]
        path = version / UPDATES / undo
        path.write_bytes(
            new[undo]
            if undo in new
            else (model.folder / UPDATES / undo).read_bytes()
        )
        files.to_disk(path)
    path = version / UPDATES / HISTORY
    path.write_text(json.dumps(entries, indent=1))
    for done in (path, version / UPDATES, version, versions):
        files.to_disk(done)
    link = place / f"{MODEL}.part"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(VERSIONS, name))
    os.replace(link, place / MODEL)
    files.to_disk(place)
    if fresh:
        os.rename(place, target)
        files.to_disk(target.parent)
    clear(target)


def clear(place: Path) -> None:
    """Remove every version but the one in use."""
    used = (place / MODEL).resolve()
    for version in (place / VERSIONS).iterdir():
        if version.resolve() != used:
            shutil.rmtree(version)


def check_space(model: Path, target: Path, extra: int) -> None:
    """Refuse before anything is written.

    Raises
    ------
    OSError
        If a copy of the model does not fit beside the old one.
    """
    needed = extra + SPARE
    needed += sum(f.stat().st_size for f in model.rglob("*") if f.is_file())
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise OSError(
            f"{target}: an update needs {needed / 1e6:.1f} MB of free space, "
            f"there are {free / 1e6:.1f} MB"
        )
