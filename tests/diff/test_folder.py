"""Deployed folders: the old model or the new one, whatever happens."""

import os
import shutil
import signal
import sys
from collections import namedtuple

import numpy as np
import pytest

from speechbrain_amnet.diff.file import DiffError, fingerprint
from speechbrain_amnet.diff.folder import (
    ModelFiles,
    apply_update,
    find_model,
    history,
    undo_update,
)


def state(folder):
    """The fingerprint of all weights."""
    return fingerprint(ModelFiles(folder).tensors())


def leftovers(folder):
    """What an update must not leave behind."""
    return (
        sorted(
            path.name
            for path in folder.rglob("*")
            if path.name.endswith(".part")
        )
        + [path.name for path in (folder / "versions").iterdir()][1:]
    )


def test_two_updates_and_back(model, chain, tmp_path):
    new = tmp_path / "new"
    first = state(model)
    entry = apply_update(model, chain[0], new)
    assert state(model) == first  # the old folder is as it was
    assert entry["bytes"] == chain[0].stat().st_size
    second = state(new)
    apply_update(new, chain[1])
    third = state(new)
    assert len({first, second, third}) == 3
    assert [e["diff"] for e in history(new)] == ["1.diff", "2.diff"]
    assert (new / "model" / "hyperparams.yaml").read_text() == "a: 1\n"
    assert (new / "model" / "tokenizer.ckpt").read_bytes()[:3] == b"not"
    assert ModelFiles(new).states["joint"]["steps"] == 3
    undo_update(new)
    assert state(new) == second and len(history(new)) == 1
    apply_update(new, chain[1])
    assert state(new) == third
    undo_update(new)
    undo_update(new)
    assert state(new) == first and not history(new)
    assert not leftovers(new)
    with pytest.raises(DiffError, match="no update to undo"):
        undo_update(new)


def test_wrong_updates_change_nothing(model, chain, tmp_path):
    new = tmp_path / "new"
    with pytest.raises(DiffError, match="is not the base"):
        apply_update(model, chain[1], new)
    assert not new.exists()
    apply_update(model, chain[0], new)
    before = state(new)
    with pytest.raises(DiffError, match="has this diff already"):
        apply_update(new, chain[0])
    (tmp_path / "cut.diff").write_bytes(chain[1].read_bytes()[:-3])
    with pytest.raises(DiffError, match="cut.diff"):
        apply_update(new, tmp_path / "cut.diff")
    assert state(new) == before and not leftovers(new)


def test_where_it_goes_must_be_said_and_free(model, chain, tmp_path):
    with pytest.raises(ValueError, match="--out"):
        apply_update(model, chain[0])
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        apply_update(model, chain[0], tmp_path / "there")
    with pytest.raises(FileNotFoundError, match="no model"):
        apply_update(tmp_path / "there", chain[0], tmp_path / "new")


def test_full_disk_is_noticed_before_anything_is_written(
    model, chain, tmp_path, monkeypatch
):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000))
    with pytest.raises(OSError, match="needs .* MB of free space"):
        apply_update(model, chain[0], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.part").exists()


TO_DISK = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.symlink",
    "os.remove",
    "os.rmdir",
)


def killed_at(step, work):
    """Fork, kill the child at its n-th call of the system; was it killed?"""
    child = os.fork()
    if not child:
        seen = 0

        def count(event, arguments):
            nonlocal seen
            seen += event in TO_DISK
            if seen >= step and event in TO_DISK:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.mark.parametrize("action", ["new", "apply", "undo"])
def test_killed_anywhere_it_is_the_old_model_or_the_new(
    action, model, chain, tmp_path
):
    new = tmp_path / "new"
    states = [state(model)]
    for diff in chain:
        if new.exists():
            apply_update(new, diff)
        else:
            apply_update(model, diff, new)
        states.append(state(new))
    shutil.rmtree(new)
    seen, step = set(), 0
    while True:
        step += 1
        if action == "new":
            if new.exists():
                shutil.rmtree(new)
            work = lambda: apply_update(model, chain[0], new)  # noqa: E731
            good = {states[1]}
        else:
            # One folder for all kills: each finds what the last one left.
            if not new.exists():
                apply_update(model, chain[0], new)
            if action == "apply" and state(new) == states[2]:
                undo_update(new)
            if action == "undo" and state(new) == states[1]:
                apply_update(new, chain[1])
            work = {
                "apply": lambda: apply_update(new, chain[1]),
                "undo": lambda: undo_update(new),
            }[action]
            good = set(states[1:])
        killed = killed_at(step, work)
        if new.exists():
            now = state(new)
            assert now in good, f"killed at step {step}"
            assert len(history(new)) == states.index(now)
            seen.add(now)
        else:
            assert action == "new"
            seen.add(None)
        if not killed:
            break
    assert step > 10 and len(seen) == 2
    assert not leftovers(new)


def test_find_model_takes_both_folders(model):
    assert find_model(model) == find_model(model / "model")


def test_arrays_are_the_models_memory(model):
    files = ModelFiles(model)
    files.tensors()["joint.w"][0, 0] = 42
    assert files.states["joint"]["w"][0, 0] == 42
    files.replace("joint.w", np.zeros((5, 7), dtype=np.float32))
    assert not files.states["joint"]["w"].any()
