"""The files of a model's folder, whatever SpeechBrain model it is."""

import contextlib
import os
import pickle
import shutil
import stat
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechbrain_amnet import files

MODEL, UPDATES = "model", "updates"  # folders: around the files, and in it
WEIGHTS = ".ckpt"
# How the files of torch.save begin, now and before PyTorch 1.6.
ZIP, BEFORE_ZIP = b"PK\x03\x04", bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
UNREADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


class ModelFiles(MutableMapping):
    """The weights of a model's folder: name to array, the model's own memory.

    Every file `*.ckpt` that holds a state dict of PyTorch's counts, whatever
    SpeechBrain model it is. A tensor's name begins with its file's:
    `encoder.layers.0.bias.0`. What is put in takes the old one's place, and
    its memory is free. Arrays of tensors that share their memory (tied weights)
    are not writable: who changes one would change the other.

    Arguments
    ---------
    folder : str or Path
        The folder of a model, or one with a folder `model`.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If a file is damaged, or two weights have one name.
    """

    def __init__(self, folder: str | Path):
        self.folder = find_model(folder)
        self.states, self.places = {}, {}
        self.uses: Counter[int] = Counter()  # of each piece of memory
        for path in sorted(self.folder.glob(f"*{WEIGHTS}")):
            state = read_state(path)
            if state is not None:
                self.states[path.stem] = state
        for stem, state in self.states.items():
            for key, tensor in state.items():
                if not torch.is_tensor(tensor):
                    continue
                if tensor.layout is not torch.strided:
                    continue  # sparse ones have no memory of their own
                self.uses[memory_of(tensor)] += 1
                if tensor.dtype not in _NUMPY:
                    continue
                name = f"{stem}.{key}"
                if name in self.places:
                    raise ValueError(
                        f"{self.folder}: two weights would be called {name}; "
                        f"rename {self.places[name][0]}.ckpt or {stem}.ckpt"
                    )
                self.places[name] = stem, key

    def __getitem__(self, name: str) -> np.ndarray:
        stem, key = self.places[name]
        tensor = self.states[stem][key].detach()
        array = tensor.numpy()
        if self.uses[memory_of(tensor)] > 1:
            array.flags.writeable = False
        return array

    def __setitem__(self, name: str, array: np.ndarray) -> None:
        stem, key = self.places[name]
        self.states[stem][key] = torch.from_numpy(array)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name} is a part of the model, and stays")

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def weights(self) -> int:
        """Numbers in all tensors."""
        return sum(self.states[s][k].numel() for s, k in self.places.values())

    def part_with_old(self) -> None:
        """Let go of memory of which nothing but parts is used any more.

        A state dict may hold many parts of one buffer. When some were replaced
        the others would bring all of it into the file.
        """
        users = defaultdict(list)
        for state in self.states.values():
            for key, tensor in state.items():
                if torch.is_tensor(tensor) and tensor.layout is torch.strided:
                    users[memory_of(tensor)].append((state, key))
        for places in users.values():
            tensors = [state[key] for state, key in places]
            memory = tensors[0].untyped_storage().nbytes()
            if all(t.numel() * t.element_size() < memory for t in tensors):
                for (state, key), tensor in zip(places, tensors):
                    state[key] = tensor.clone()

    def write(self, folder: Path) -> None:
        """Write the model's files to another folder, flushed to disk.

        Raises
        ------
        OSError
            If that cannot be done.
        """
        self.part_with_old()
        for path in everything_in(self.folder):
            inside = path.relative_to(self.folder)
            if inside.parts[0] == UPDATES:
                continue
            target = folder / inside
            own = len(inside.parts) == 1 and path.suffix == WEIGHTS
            if path.is_dir():
                target.mkdir()
            elif own and path.stem in self.states:
                write_state(self.states[path.stem], target)
            else:
                shutil.copyfile(path, target)
            copy_mode(path, target)
        copy_mode(self.folder, folder)
        for path in [*folder.rglob("*"), folder]:
            files.to_disk(path)


def memory_of(tensor: torch.Tensor) -> int:
    """Where its memory begins, or that of which it is a part."""
    return tensor.untyped_storage().data_ptr()


def copy_mode(source: Path, target: Path) -> None:
    """Who may read it still may; a folder of ours stays open to ourselves."""
    copy_owner(source, target)
    mode = stat.S_IMODE(source.stat().st_mode)
    target.chmod(mode | stat.S_IRWXU if target.is_dir() else mode)


def copy_owner(source: Path, target: Path) -> None:
    """It is whose the other is, group too, where we may give files away."""
    status = source.stat()
    with contextlib.suppress(OSError):
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)


def everything_in(folder: Path) -> list[Path]:
    """All files and folders, each behind the one that it is in; links too."""
    return [
        Path(place, name)
        for place, folders, names in os.walk(folder, followlinks=True)
        for name in sorted([*folders, *names])
    ]


def read_state(path: Path) -> dict[str, Any] | None:
    """The state dict in a file; None if it holds something else.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    with open(path, "rb") as file:
        if not file.read(len(BEFORE_ZIP)).startswith((ZIP, BEFORE_ZIP)):
            return None  # a tokenizer, for instance
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: unreadable weights: more than tensors, or damaged; save "
            "a state dict there, move it out of the folder, or fetch the model "
            "anew"
        ) from None
    except UNREADABLE as error:
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
        if any(place.glob(f"*{WEIGHTS}")):
            return place.resolve()
    raise FileNotFoundError(
        f"{folder}: no model; expected a folder with *.ckpt files, or with a "
        "folder `model` that has them"
    )
