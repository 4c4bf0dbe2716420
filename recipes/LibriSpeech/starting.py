"""Where a training begins: anew, where it was stopped, from another's end."""

import logging
from pathlib import Path

import torch

from speechbrain_amnet import files
from speechbrain_amnet.averaging import last_epochs, mean_state, settled
from speechbrain_amnet.checkpoints import SafeCheckpointer
from speechbrain_amnet.hparams import load_hparams
from speechbrain_amnet.layer import branch_forms

logger = logging.getLogger("train")

OF_TOKENS = {  # weights with a row for each
    "predictor.embedding.weight",
    "joint.output.weight",
    "joint.output.bias",
    "ctc_head.weight",
    "ctc_head.bias",
}


def is_begun(folder, save_folder):
    """Whether something was trained here that other hparams would spoil."""
    return any(save_folder.glob("CKPT*")) or (folder / "model").exists()


def record(file, text, save_folder):
    """Write the hparams of a training that begins."""
    # One that never came to a checkpoint may have left it, of other words.
    (save_folder / "tokenizer.model").unlink(missing_ok=True)
    files.write(file, text)


def start_from(hparams):
    """Load the weights that another training ended with.

    An encoder of other branches, or with another router, takes its matrices
    from the other's first branch.
    """
    folder = Path(hparams["start_from"])
    checkpointer = SafeCheckpointer(folder / "save")
    checkpoints = settled(last_epochs(checkpointer, 1000))
    if not (folder / "model").exists():
        epoch = checkpoints[0].meta["epoch"]
        words = "start_from: %s has not ended, its last epoch is %d."
        logger.warning(words, folder, epoch)
    for name, module in hparams["modules"].items():
        state = mean_state(checkpoints, name, module)
        if name == "encoder" and not alike(state, module.state_dict()):
            values = {"output_folder": str(folder), "data_folder": "unused"}
            values["seed"] = hparams["seed"]  # loading sets it
            other = load_hparams(folder / "hyperparams.yaml", values)[name]
            other.load_state_dict(state)
            module.start_from(other)
            logger.info("Every branch starts from the first of %s.", folder)
        else:
            fresh = module.state_dict()
            module.load_state_dict(with_new_rows(name, state, fresh))


def with_new_rows(module, state, fresh):
    """A state dict for more tokens than it has: their rows are fresh ones."""
    for name in state.keys() | fresh.keys():
        sizes = [
            list(weights[name].shape) if name in weights else "none"
            for weights in (state, fresh)
        ]
        if sizes[0] == sizes[1]:
            continue
        grows = f"{module}.{name}" in OF_TOKENS and sizes[0] < sizes[1]
        if not grows or sizes[0][1:] != sizes[1][1:]:
            raise ValueError(
                f"start_from: there {module}.{name} has the shape {sizes[0]}, "
                f"here {sizes[1]}; give it the sizes that it was trained with"
            )
        state[name] = torch.cat([state[name], fresh[name][sizes[0][0] :]])
    return state


def alike(one, other):
    """Whether two encoders' state dicts are of the same sizes and branches."""
    shapes = [{n: v.shape for n, v in s.items()} for s in (one, other)]
    return shapes[0] == shapes[1] and branch_forms(one) == branch_forms(other)
