"""Loss and gradients of the first step of a training, written to a file.

Run by test_train.py on one process and on two: the same four utterances, two
on each of two processes.
"""

import os
import sys
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch

from speechbrain_amnet.cli import run_script


def main(argv):
    """One step on this process's share of the batch."""
    sys.path.insert(
        0, str(Path(__file__).parents[2] / "recipes" / "LibriSpeech")
    )
    import train

    rank = int(os.environ.get("RANK", 0))
    size = int(os.environ.get("WORLD_SIZE", 1))
    brain, hparams, sets = train.make_brain(argv)
    brain.train_sampler = range(1)
    brain.on_fit_start()
    hparams["encoder"].start_routing()
    hparams["routing_weight_schedule"].value = 1.0
    brain.modules.train()
    for module in brain.modules.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    hparams["predictor"].token_noise = 0.0
    stage = sb.Stage.TRAIN
    brain.on_stage_start(stage, 1)
    mine = range(4)[rank * 4 // size : (rank + 1) * 4 // size]
    batch = PaddedBatch([sets["train"][i] for i in mine])
    outputs = brain.compute_forward(batch, stage)
    loss = brain.compute_objectives(outputs, batch, stage)
    loss.backward()
    loss = loss.detach()
    if size > 1:
        torch.distributed.all_reduce(loss)
        loss /= size
    if rank == 0:
        gradients = {
            f"{name}.{key.removeprefix('module.')}": value.grad
            for name, module in brain.modules.items()
            for key, value in module.named_parameters()
            if value.grad is not None
        }
        torch.save(
            {"loss": loss.item(), "gradients": gradients},
            Path(hparams["output_folder"]) / "first_step.pt",
        )
    if size > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run_script("first_step.py", main)
