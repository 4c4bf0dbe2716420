"""Checkpoints: whole or not there, and errors that say what is the matter."""

import errno
from functools import partial

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_amnet import (
    AmortizedEncoder,
    Arbitrator,
    Dense,
    LowRank,
    Skip,
    Sparse,
)
from speechbrain_amnet.checkpoints import (
    SafeCheckpointer,
    first_sentence,
    load_state,
)


@pytest.fixture
def checkpointer(tmp_path):
    """Of one module, with one checkpoint."""
    made = SafeCheckpointer(tmp_path, {"model": torch.nn.Linear(30, 30)})
    made.save_checkpoint()
    return made


@pytest.mark.parametrize(
    "error, full",
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("[enforce fail] . unexpected pos 768 vs 662"), True),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/0"),
            True,
        ),
        (RuntimeError("write(): fd 3 failed with File too large"), True),
    ],
)
def test_full_disk_is_named_as_such(checkpointer, monkeypatch, error, full):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(Checkpointer, "save_checkpoint", fail)
    with pytest.raises(OSError, match="Cannot write a checkpoint") as caught:
        checkpointer.save_checkpoint()
    assert ("is the disk full?" in str(caught.value)) == full


def test_a_name_may_be_given_again(checkpointer):
    module = checkpointer.recoverables["model"]
    for value in (1.0, 2.0):
        torch.nn.init.constant_(module.weight, value)
        checkpointer.save_checkpoint(name="best")
    torch.nn.init.zeros_(module.weight)
    checkpointer.recover_if_possible()
    assert (module.weight == 2).all()
    checkpointer.save_checkpoint()  # removes what was left aside
    found = [p.name for p in checkpointer.checkpoints_dir.iterdir()]
    assert sorted(n.split("+")[1] for n in found)[-1] == "best"
    assert len(found) == 3 and all(n.startswith("CKPT") for n in found)


def test_other_errors_are_not_the_disk(checkpointer, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("Don't know how to save")

    monkeypatch.setattr(Checkpointer, "save_checkpoint", fail)
    with pytest.raises(RuntimeError, match="Don't know how to save"):
        checkpointer.save_checkpoint()


def cut(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    "file, change",
    [
        ("model.ckpt", cut),
        ("model.ckpt", lambda content: b""),
        ("model.ckpt", lambda content: b"no archive"),
        ("CKPT.yaml", lambda content: b""),
        ("CKPT.yaml", lambda content: b"[1, 2"),
        ("CKPT.yaml", lambda content: b"\xff\xfe"),
    ],
)
def test_broken_checkpoint_is_named(checkpointer, file, change):
    folder = checkpointer.find_checkpoint().path
    path = folder / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError) as caught:
        checkpointer.recover_if_possible()
    said = str(caught.value)
    assert said.startswith(f"{folder}: a checkpoint that cannot be read")
    assert "\n" not in said and "weights_only=False" not in said
    if file == "model.ckpt":
        with pytest.raises(ValueError, match="cannot be read"):
            load_state(path)


def test_other_branches_are_no_broken_checkpoint(tmp_path):
    def encoder(*forms):
        router = Arbitrator(input_size=6, branches=len(forms))
        return AmortizedEncoder(6, 8, 1, forms, router=router)

    low = partial(LowRank, rank=2)
    SafeCheckpointer(
        tmp_path, {"encoder": encoder(Dense, low)}
    ).save_checkpoint()
    for forms, words in (
        ((Dense, partial(LowRank, rank=3)), "rank 3 in the hparams, LowRank, "),
        ((Dense, partial(Sparse, density=0.5)), r"branches\[1\] is Sparse"),
        ((Dense, low, Skip), "3 branches in the hparams, 2 in the weights"),
    ):
        other = SafeCheckpointer(tmp_path, {"encoder": encoder(*forms)})
        with pytest.raises(ValueError, match=words) as caught:
            other.recover_if_possible()
        said = str(caught.value)
        assert "another folder" in said and "remove" not in said


def test_a_whole_checkpoint_is_not_to_be_removed(tmp_path):
    """Of another size, or of fewer things than are to be loaded."""
    model = torch.nn.Linear(3, 3)
    SafeCheckpointer(tmp_path, {"model": model}).save_checkpoint()
    for recoverables in (
        {"model": torch.nn.Linear(3, 4)},
        {"model": model, "extra": torch.nn.Linear(1, 1)},
    ):
        other = SafeCheckpointer(tmp_path, recoverables)
        with pytest.raises(ValueError, match="CKPT.*does not fit") as caught:
            other.recover_if_possible()
        assert "remove" not in str(caught.value)


def test_state_is_the_modules(checkpointer):
    found = checkpointer.find_checkpoint()
    state = load_state(found.paramfiles["model"])
    module = checkpointer.recoverables["model"]
    for name, value in module.state_dict().items():
        assert torch.equal(state[name], value)


def test_advice_is_left_out():
    said = "Weights only load failed. In PyTorch 2.6, we changed\nthe default."
    assert first_sentence(RuntimeError(said)) == "Weights only load failed"
    assert first_sentence(EOFError()) == "EOFError"
