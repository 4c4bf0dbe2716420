"""Checkpoints that are whole or not there at all.

SpeechBrain's `Checkpointer` writes into the folder that a recovery looks at,
its metadata first: a training killed in between finds a checkpoint that cannot
be loaded. Here a checkpoint is written aside and renamed when it is complete.
"""

import os
import shutil
from pathlib import Path

from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process

ASIDE = ".part+"


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

    def __init__(
        self,
        checkpoints_dir,
        recoverables=None,
        custom_load_hooks=None,
        custom_save_hooks=None,
        allow_partial_load=False,
    ):
        super().__init__(
            checkpoints_dir,
            recoverables,
            custom_load_hooks,
            custom_save_hooks,
            allow_partial_load,
        )

    def save_checkpoint(self, *args, **kwargs):
        """Save aside, then rename; see `Checkpointer.save_checkpoint`."""
        if if_main_process():
            for left_over in Path(self.checkpoints_dir).glob(f"{ASIDE}*"):
                shutil.rmtree(left_over)
        try:
            checkpoint = super().save_checkpoint(*args, **kwargs)
        # PyTorch's writer has no error class of its own for a full disk.
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"Cannot write a checkpoint to {self.checkpoints_dir} "
                f"({error}); is the disk full?"
            ) from error
        if if_main_process():
            aside = Path(checkpoint.path)
            whole = aside.with_name(aside.name.removeprefix(ASIDE))
            os.replace(aside, whole)
            files = {
                name: whole / Path(file).name
                for name, file in checkpoint.paramfiles.items()
            }
            checkpoint = checkpoint._replace(path=whole, paramfiles=files)
        ddp_barrier()
        return checkpoint

    def _new_checkpoint_dirpath(self):
        path = super()._new_checkpoint_dirpath()
        return path.with_name(ASIDE + path.name)

    def _custom_checkpoint_dirpath(self, name):
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(ASIDE + path.name)
