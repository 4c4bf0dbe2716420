"""Checkpoints that are whole or not there at all.

SpeechBrain's `Checkpointer` writes into the folder that a recovery looks at,
its metadata first: a training killed in between finds a checkpoint that cannot
be loaded. Here a checkpoint is written aside and renamed when it is complete.
"""

import os
import re
import shutil
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from .weights import OtherBranchesError

ASIDE = ".part+"
ZIP = b"PK\x03\x04"  # how torch.save's files begin

# PyTorch's writer has no error class of its own for a full disk.
DISK_FULL = re.compile(
    "unexpected pos|PytorchStreamWriter failed writing|No space left"
    "|File too large|quota exceeded",
    re.IGNORECASE,
)


class SafeCheckpointer(Checkpointer):
    """SpeechBrain's `Checkpointer`, safe against being killed.

    Arguments
    ---------
    checkpoints_dir : str or Path
        Where the checkpoints are.
    recoverables : dict, optional
        Objects to save and to recover, by name.
    custom_load_hooks : dict, optional
        As in SpeechBrain.
    custom_save_hooks : dict, optional
        As in SpeechBrain.
    allow_partial_load : bool
        As in SpeechBrain.

    Example
    -------
    >>> import tempfile, torch
    >>> folder = tempfile.TemporaryDirectory()
    >>> model = torch.nn.Linear(1, 1)
    >>> checkpointer = SafeCheckpointer(folder.name, {"model": model})
    >>> checkpoint = checkpointer.save_checkpoint()
    >>> checkpoint.path.name.startswith("CKPT+")
    True
    >>> checkpointer.recover_if_possible() is not None
    True
    """

    def save_checkpoint(self, *args, **kwargs):
        """Save aside, then rename; see `Checkpointer.save_checkpoint`."""
        if if_main_process():
            for left_over in Path(self.checkpoints_dir).glob(f"{ASIDE}*"):
                shutil.rmtree(left_over)
        try:
            checkpoint = super().save_checkpoint(*args, **kwargs)
        except (OSError, RuntimeError) as error:
            full = DISK_FULL.search(str(error))
            if isinstance(error, RuntimeError) and not full:
                raise  # it is not about the disk
            raise OSError(
                f"Cannot write a checkpoint to {self.checkpoints_dir} "
                f"({error})" + ("; is the disk full?" if full else "")
            ) from error
        if if_main_process():
            aside = Path(checkpoint.path)
            whole = aside.with_name(aside.name.removeprefix(ASIDE))
            if whole.exists():  # a name that is given again
                os.replace(whole, whole.with_name(f"{ASIDE}old"))
            os.replace(aside, whole)
            files = {
                name: whole / Path(file).name
                for name, file in checkpoint.paramfiles.items()
            }
            checkpoint = checkpoint._replace(path=whole, paramfiles=files)
        ddp_barrier()
        return checkpoint

    def load_checkpoint(self, checkpoint):
        """Load it, or say which one is broken."""
        try:
            super().load_checkpoint(checkpoint)
        except OtherBranchesError as error:  # it is whole
            raise ValueError(
                f"{checkpoint.path}: {error}; give the branches that it was "
                "trained with, or another folder for another training"
            ) from error
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what a broken file makes of its reader
            if _is_of_others(checkpoint, error):
                raise ValueError(
                    f"{checkpoint.path}: does not fit ("
                    f"{first_sentence(error)}); give the sizes and the "
                    "recoverables that it was saved with, or another folder "
                    "for another training"
                ) from error
            raise _unreadable(checkpoint.path, error) from error

    @staticmethod
    def _construct_checkpoint_objects(checkpoint_dirs):
        found = []
        for folder in checkpoint_dirs:
            try:
                found += Checkpointer._construct_checkpoint_objects([folder])
                found[-1].meta["end-of-epoch"]
            except Exception as error:
                raise _unreadable(folder, error) from error
        return found

    def _new_checkpoint_dirpath(self):
        path = super()._new_checkpoint_dirpath()
        return path.with_name(ASIDE + path.name)

    def _custom_checkpoint_dirpath(self, name):
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(ASIDE + path.name)


def load_state(
    path: str | Path, map_location: str | torch.device = "cpu"
) -> dict[str, Any]:
    """Read a module's state out of a checkpoint.

    Arguments
    ---------
    path : str or Path
        Such as `CKPT+.../encoder.ckpt`.
    map_location : str or torch.device
        Where the tensors go.

    Returns
    -------
    dict
        As `load_state_dict` takes it.

    Raises
    ------
    ValueError
        If the file is broken.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise _unreadable(Path(path).parent, error) from error


def first_sentence(error: BaseException) -> str:
    """What an error says first; PyTorch's go on with a page of advice.

    Example
    -------
    >>> first_sentence(RuntimeError("It is no\\narchive. You may try ..."))
    'It is no archive'
    >>> first_sentence(EOFError())
    'EOFError'
    """
    said = " ".join(str(error).split()) or type(error).__name__
    said = said.partition(". ")[0].rstrip(".")
    return textwrap.shorten(said, 200, placeholder=" ...")


def _is_of_others(checkpoint, error):
    """Whether it was whole, and what was to be loaded was something else."""
    if not isinstance(error, RuntimeError | KeyError):
        return False
    for file in map(Path, checkpoint.paramfiles.values()):
        with open(file, "rb") as opened:
            head = opened.read(len(ZIP))
        try:
            if not head or head == ZIP and zipfile.ZipFile(file).testzip():
                return False
        except zipfile.BadZipFile:
            return False
    return True


def _unreadable(folder, error):
    return ValueError(
        f"{folder}: a checkpoint that cannot be read "
        f"({first_sentence(error)}); remove it, and the same command goes on "
        "from the one before"
    )
