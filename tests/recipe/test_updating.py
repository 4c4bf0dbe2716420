"""What happens in a step of an update's training."""

import contextlib
import importlib
from types import SimpleNamespace

import torch


def test_an_arbitrator_does_what_the_deployed_one_will(train, monkeypatch):
    """One that moves with what it reads, or draws; all are set to training."""
    updating = importlib.import_module("updating")
    router = torch.nn.Linear(1, 1)
    modules = SimpleNamespace(
        encoder=SimpleNamespace(router=router),
        updated=SimpleNamespace(computed=contextlib.nullcontext),
    )
    seen = []
    monkeypatch.setattr(
        updating.Recogniser,
        "fit_batch",
        lambda self, batch: seen.append(router.training),
    )
    updater = object.__new__(updating.Updater)
    vars(updater).update(round_bits=None, modules=modules)
    updater.fit_batch(None)
    assert seen == [False]
