"""A small model, and diffs of every kind for it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from speechbrain_amnet.diff.changes import (
    HashChange,
    LowRankChange,
    NewValues,
    SparseChange,
    Values,
)
from speechbrain_amnet.diff.file import make_diff, write_diff
from speechbrain_amnet.diff.model_files import ModelFiles

SHAPES = {"encoder.weight": (24, 16), "encoder.bias": (24,), "joint.w": (5, 7)}


def random(size, seed=0):
    """Normal numbers, float32."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=size).astype(np.float32)


def sparse(shape, count=9, bits=4, seed=0, kind=SparseChange):
    """Some positions change."""
    size = int(np.prod(shape))
    rng = np.random.default_rng(seed)
    positions = np.sort(rng.choice(size, min(count, size), replace=False))
    values = random(len(positions), seed + 1)
    return kind(shape, positions, Values.rounded(values, bits))


def change_of(kind, shape, name, seed=0):
    """A change of each kind."""
    if kind == "sparse":
        return sparse(shape, seed=seed)
    if kind == "new":
        return sparse(shape, bits=32, seed=seed, kind=NewValues)
    if kind == "hash":
        return HashChange(shape, Values.rounded(random(6, seed), 8), seed, name)
    rows, columns = shape[0], int(np.prod(shape[1:]))
    rank = min(2, rows, columns)
    return LowRankChange(
        shape,
        Values.rounded(random(rows * rank, seed), 8),
        Values.rounded(random(columns * rank, seed + 1), 8),
        rank,
    )


@pytest.fixture
def make():
    """What makes random numbers, changes and diffs."""
    return SimpleNamespace(random=random, sparse=sparse, diff_of=diff_of)


@pytest.fixture
def tensors():
    """The base's tensors."""
    return {name: random(shape, 7) for name, shape in SHAPES.items()}


def diff_of(kind, tensors, seed=0):
    """A diff of one kind for all tensors."""
    changes = {
        name: change_of(kind, array.shape, name, seed)
        for name, array in tensors.items()
    }
    return make_diff(changes, tensors, {"method": kind, "budget": 0.02})


@pytest.fixture
def model(tmp_path, tensors):
    """A trained folder, as SpeechBrain's `from_hparams` reads one."""
    folder = tmp_path / "trained" / "model"
    folder.mkdir(parents=True)
    for stem in ("encoder", "joint"):
        state = {
            name.partition(".")[2]: torch.from_numpy(array.copy())
            for name, array in tensors.items()
            if name.startswith(f"{stem}.")
        }
        torch.save({**state, "steps": torch.tensor(3)}, folder / f"{stem}.ckpt")
    (folder / "tokenizer.ckpt").write_bytes(b"not of PyTorch's")
    (folder / "hyperparams.yaml").write_text("a: 1\n")
    return folder.parent


@pytest.fixture
def chain(model, tmp_path):
    """The files of two updates, the second on the first."""
    now = {k: v.copy() for k, v in ModelFiles(model).items()}
    now = {name: now[name] for name in SHAPES}
    paths = []
    for number in (1, 2):
        diff = diff_of("sparse", now, seed=number)
        paths.append(tmp_path / f"{number}.diff")
        write_diff(diff, paths[-1])
        now = {n: diff.changes[n].apply(now[n]) for n in now}
    return paths
