"""Which checkpoints of a training are averaged, and what of them."""

from typing import Any

import torch
from speechbrain.utils.checkpoints import (
    Checkpoint,
    Checkpointer,
    average_checkpoints,
)

from .checkpoints import load_state

FORM = ("mask", "kept", "routed", "temperature")  # buffers of an encoder


def last_epochs(checkpointer: Checkpointer, count: int) -> list[Checkpoint]:
    """The checkpoints of the ends of the last epochs.

    Arguments
    ---------
    checkpointer : Checkpointer
        Of the training.
    count : int
        At most so many.

    Returns
    -------
    list of Checkpoint
        The last one first.

    Raises
    ------
    ValueError
        If there is none.
    """
    checkpoints = checkpointer.find_checkpoints(
        max_num_checkpoints=count,
        ckpt_predicate=lambda c: "epoch" in c.meta,
        importance_key=lambda c: c.meta["epoch"],
    )
    if not checkpoints:
        raise ValueError(
            f"There is no checkpoint in {checkpointer.checkpoints_dir}; train "
            "at least one epoch."
        )
    return checkpoints


def settled(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Those whose branches and routing have the last one's form.

    Weights may be averaged, but not what is pruned, the rank of a branch, or
    branches that learnt while they were mixed more softly.

    Arguments
    ---------
    checkpoints : list of Checkpoint
        From `last_epochs`.
    """
    kept, last = [], None
    for checkpoint in checkpoints:
        state = load_state(checkpoint.paramfiles["encoder"])
        form = {
            name: value
            for name, value in state.items()
            if name.rpartition(".")[2] in FORM
        }
        last = last or form
        if all(torch.equal(form[name], last[name]) for name in last):
            kept.append(checkpoint)
    return kept


def mean_state(
    checkpoints: list[Checkpoint], name: str, module: torch.nn.Module
) -> dict[str, Any]:
    """The mean of a module's states, to load.

    Of a module that learns nothing, as the features, it is the last state: the
    mean of equal floats may differ from them in a last digit.

    Arguments
    ---------
    checkpoints : list of Checkpoint
        From `settled`, the last one first.
    name : str
        The module's in them.
    module : nn.Module
        What it is.
    """
    learns = any(True for _ in module.parameters())
    some = checkpoints if learns else checkpoints[:1]
    return average_checkpoints(some, name, load_state)
