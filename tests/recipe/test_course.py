"""The course of a training, as the experiments' files say it."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from speechbrain_amnet import Arbitrator
from speechbrain_amnet.hparams import load_hparams

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    file
    for file in (ROOT / "hparams").glob("*.yaml")
    if not file.stem.startswith("diff_")  # an update routes as its base does
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_averaged_was_trained_with_its_routing(file, tmp_path):
    folders = {"data_folder": "none", "output_folder": str(tmp_path)}
    hparams = load_hparams(file, folders)
    temperature = hparams["temperature_schedule"]
    router = hparams["router_lr_schedule"]
    frozen = min(n / 1000 for n in range(1001) if router(n / 1000) == 0)
    assert temperature(frozen) < 100, "the jump is after the freezing"
    first = 1 - hparams["average_checkpoints"] / hparams["epochs"]
    assert first > frozen and temperature(first) == temperature(1.0)


def test_a_group_of_batches_is_never_cut_by_a_checkpoint(train):
    brain = object.__new__(train.Recogniser)
    brain.checkpointer, brain.grad_accumulation_factor = object(), 3
    brain.ckpt_interval_minutes, brain.ckpt_interval_steps = 0, 2
    saved = []
    for brain.step in range(1, 10):
        if brain._should_save_intra_epoch_ckpt(time.time(), brain.step):
            saved.append(brain.step)
    assert saved == [3, 6, 9]


def test_an_epoch_has_a_step_at_least(train):
    brain = object.__new__(train.Recogniser)
    brain.train_sampler, brain.grad_accumulation_factor = range(9), 2
    assert brain.steps_of_an_epoch() == 4
    brain.grad_accumulation_factor = 10
    with pytest.raises(ValueError, match="at most the 9 batches .* got 10"):
        brain.steps_of_an_epoch()


@pytest.mark.parametrize(
    "file, changed, learns",
    [
        ("amnet.yaml", {}, True),
        ("amnet.yaml", {"dense_warmup": 0.7}, False),
        ("amnet.yaml", {"starts_at": 0.7}, False),
        ("full.yaml", {"starts_at": 0.7}, True),
        ("random.yaml", {"starts_at": 0.7}, True),
    ],
)
def test_a_router_learns_before_it_is_frozen(
    train, tmp_path, file, changed, learns
):
    folders = {"data_folder": "none", "output_folder": str(tmp_path)}
    hparams = load_hparams(ROOT / "hparams" / file, {**folders, **changed})
    if learns:
        train.check_router_learns(hparams)
        return
    with pytest.raises(ValueError, match="dense_warmup .* learn, got 0.7"):
        train.check_router_learns(hparams)
    hparams["encoder"].routed.fill_(1)  # as one that another training routed
    train.check_router_learns(hparams)


def test_a_router_without_learning_rate_stays(train):
    router, other = Arbitrator(4), torch.nn.Linear(4, 1)
    brain = object.__new__(train.Recogniser)
    brain.optimizer_step, brain.total_steps = 7, 10
    brain.hparams = SimpleNamespace(
        learning_rate=0.1,
        dense_warmup=0.0,
        encoder=SimpleNamespace(
            router=router, routed=torch.ones(()), prune=lambda *_: None
        ),
        pruning_scope="matrix",
        **{
            f"{name}_schedule": SimpleNamespace(update=lambda _, v=value: v)
            for name, value in (
                ("lr", 0.5),
                ("routing_weight", 1.0),
                ("temperature", 20.0),
                ("router_lr", 0.0),
                ("pruning", 0.0),
            )
        },
    )
    brain.optimizer = torch.optim.AdamW(
        [
            {"params": list(other.parameters()), "router": False},
            {"params": list(router.parameters()), "router": True},
        ]
    )
    before = [p.clone() for p in (*other.parameters(), *router.parameters())]
    brain.on_fit_batch_start(None, True)
    assert [g["lr"] for g in brain.optimizer.param_groups] == [0.05, 0.0]
    assert router.temperature == 20
    for p in (*other.parameters(), *router.parameters()):
        p.grad = torch.ones_like(p)
    brain.optimizer.step()
    after = (*other.parameters(), *router.parameters())
    same = [torch.equal(a, b) for a, b in zip(before, after)]
    assert same == [False] * 2 + [True] * len(list(router.parameters()))
