"""What happens in a step of an update's training, and where it begins."""

import contextlib
import importlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from speechbrain_amnet.diff.model import as_array
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.export import export_model

HERE = {"device": "cpu"}


@pytest.fixture
def updating(train):
    """The module of the methods."""
    return importlib.import_module("updating")


@pytest.fixture
def hparams(tiny, tmp_path):
    """Those of an update of a tiny model."""
    base = tmp_path / "base"
    export_model(*tiny(base, ["GO", "STOP"]), base / "model")
    return {
        "base_model": base,
        "full_model": None,
        "include": ["*"],
        "exclude": [],
        "bits": 8,
        "seed": 1,
    }


def test_an_arbitrator_does_what_the_deployed_one_will(updating, monkeypatch):
    """One that moves with what it reads, or draws; all are set to training."""
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


@pytest.mark.parametrize("method", ["hash", "lora"])
def test_it_begins_as_near_to_a_full_update_as_it_can(
    method, updating, hparams, tmp_path, monkeypatch
):
    begun, random = {}, np.random.default_rng(0)

    def fit(updated, *_):
        for name, diff in updated.diffs.items():
            begun[name] = as_array(diff.delta())

    monkeypatch.setattr(updating, "fit", fit)
    shapes = updating.shapes_of(hparams, HERE)
    learnt = {n: 0.1 * random.normal(size=s) for n, s in shapes.items()}
    old = ModelFiles(hparams["base_model"])
    full = {n: (old[n] + d).astype("float32") for n, d in learnt.items()}
    updating.write_model(old, tmp_path / "full", full)
    for begins, full_model in ((False, None), (True, tmp_path / "full")):
        begun.clear()
        given = {**hparams, "full_model": full_model}
        updating.METHODS[method](given, HERE, {}, 40_000, {})
        assert begun
        for name, near in begun.items():
            assert near.any() == begins
            # The rest is at right angles: none of its kind is nearer.
            rest, whole = learnt[name] - near, (learnt[name] ** 2).sum()
            assert abs((rest * near).sum()) < 1e-4 * whole


@pytest.mark.parametrize("lacks", ["a row", "all of it"])
def test_another_model_is_no_full_update(lacks, updating, hparams, tmp_path):
    other = shutil.copytree(hparams["base_model"], tmp_path / "other")
    file = other / "model" / "joint.ckpt"
    weights = torch.load(file)
    rest = weights.pop("output.weight")[1:]
    if lacks == "a row":
        weights["output.weight"] = rest
    torch.save(weights, file)
    given = {**hparams, "full_model": other}
    with pytest.raises(ValueError, match="other is no update of .*base: joint"):
        updating.METHODS["hash"](given, HERE, {}, 40_000, {})
