"""Which checkpoints are averaged."""

from types import SimpleNamespace

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_amnet.averaging import last_epochs, settled


def test_the_ends_of_the_last_epochs(tmp_path):
    checkpointer = Checkpointer(tmp_path, {"weight": torch.nn.Linear(1, 1)})
    with pytest.raises(ValueError, match="no checkpoint"):
        last_epochs(checkpointer, 2)
    metas = ({"epoch": 1}, {"epoch": 2}, {"intra": True}, {"epoch": 3})
    for n, meta in enumerate(metas):
        checkpointer.save_checkpoint(meta=meta, name=f"checkpoint-{n}")
    found = last_epochs(checkpointer, 2)
    assert [c.meta["epoch"] for c in found] == [3, 2]


@pytest.mark.parametrize("name", ["form.mask", "router.temperature"])
def test_only_branches_of_one_form_are_averaged(tmp_path, name):
    checkpoints = []
    for n, form in enumerate(([1.0, 0.0], [1.0, 0.0], [1.0, 1.0])):
        file = tmp_path / f"{n}.ckpt"
        state = {"weight": torch.rand(2), name: torch.tensor(form)}
        torch.save(state, file)
        checkpoints.append(SimpleNamespace(paramfiles={"encoder": file}))
    assert settled(checkpoints) == checkpoints[:2]
    assert settled(checkpoints[2:]) == checkpoints[2:]
