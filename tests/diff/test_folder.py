"""Deployed folders: the old model or the new one, whatever happens."""

import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from speechbrain_amnet import files
from speechbrain_amnet.diff.changes import SparseChange, Values
from speechbrain_amnet.diff.file import (
    DiffError,
    fingerprint,
    make_diff,
    read_diff,
    write_diff,
)
from speechbrain_amnet.diff.folder import (
    apply_update,
    history,
    locked,
    undo_update,
)
from speechbrain_amnet.diff.model_files import ModelFiles, find_model
from speechbrain_amnet.diff.undo import Undo


def state(folder):
    """The fingerprint of all weights."""
    return fingerprint(ModelFiles(folder))


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
    with pytest.raises(DiffError, match="is not the base.*updates before it"):
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
    apply_update(new, chain[1])
    with pytest.raises(DiffError, match="is its update 1 of 2, 1.diff, which"):
        apply_update(new, chain[0])


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


@pytest.mark.parametrize("action", ["new", "apply", "undo"])
def test_killed_anywhere_it_is_the_old_model_or_the_new(
    action, model, chain, tmp_path, killed_at
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
    files["joint.w"][0, 0] = 42
    assert files.states["joint"]["w"][0, 0] == 42
    files["joint.w"] = np.zeros((5, 7), dtype=np.float32)
    assert not files.states["joint"]["w"].any()


def test_everything_is_on_disk_before_it_takes_its_place(
    model, chain, tmp_path, monkeypatch
):
    events = []

    def noted(kind, function):
        def call(*paths):
            events.append((kind, Path(paths[-1])))
            return function(*paths)

        return call

    monkeypatch.setattr(files, "to_disk", noted("flush", files.to_disk))
    monkeypatch.setattr(os, "replace", noted("replace", os.replace))
    monkeypatch.setattr(os, "rename", noted("rename", os.rename))
    new = (tmp_path / "new").resolve()
    for folder, diff, out in ((model, chain[0], new), (new, chain[1], None)):
        events.clear()
        apply_update(folder, diff, out)
        place = new.with_name("new.part") if out else new
        replaced = events.index(("replace", place / "model"))
        flushed = {path for kind, path in events[:replaced]}
        version = (new / "model").resolve()
        wanted = {version.parent, version, *version.rglob("*")}
        assert flushed >= {place / path.relative_to(new) for path in wanted}
        assert events[replaced + 1] == ("flush", place)
        if out:
            assert events[replaced + 2] == ("rename", new)
            assert events[replaced + 3] == ("flush", new.parent)


def test_folders_that_are_made_are_on_disk(model, chain, tmp_path, monkeypatch):
    flushed, flush = [], files.to_disk

    def noted(path):
        flushed.append(Path(path).resolve())
        flush(path)

    monkeypatch.setattr(files, "to_disk", noted)
    place = tmp_path.resolve()
    apply_update(model, chain[0], place / "a" / "b" / "new")
    assert flushed[:2] == [place, place / "a"] and place / "a/b" in flushed
    flushed.clear()
    monkeypatch.chdir(place)
    files.write("c/d/e.diff", "x", durable=True)
    assert {place, place / "c", place / "c" / "d"} <= set(flushed)
    flushed.clear()
    files.write("f/g.txt", "x")
    assert not flushed


def test_leftovers_do_not_take_the_space_of_the_next_update(
    model, chain, tmp_path, monkeypatch
):
    new = tmp_path / "new"
    apply_update(model, chain[0], new)
    left = new / "versions" / "2-0123456789ab"
    left.mkdir()
    (left / "encoder.ckpt").write_bytes(bytes(1000))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage(0 if left.exists() else 1e9)
    )
    undo_update(new)
    assert not leftovers(new)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError])
def test_full_disk_in_the_middle_leaves_the_old_model(
    error, model, chain, tmp_path, monkeypatch
):
    new, fresh = tmp_path / "new", tmp_path / "fresh"
    apply_update(model, chain[0], new)
    before = state(new)

    def full(state, file):
        file.write(b"some")
        raise error

    monkeypatch.setattr(torch, "save", full)
    for folder, diff, out in ((new, chain[1], None), (model, chain[0], fresh)):
        with pytest.raises(OSError, match="No space left|cannot be written"):
            apply_update(folder, diff, out)
    monkeypatch.undo()
    assert state(new) == before and not leftovers(new)
    assert not fresh.exists() and not (tmp_path / "fresh.part").exists()


def test_full_disk_while_the_undo_is_written(
    model, chain, tmp_path, monkeypatch
):
    new, fresh = tmp_path / "new", tmp_path / "fresh"
    apply_update(model, chain[0], new)
    before = state(new)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("speechbrain_amnet.diff.undo.change_each", full)
    for folder, diff, out in ((new, chain[1], None), (model, chain[0], fresh)):
        with pytest.raises(OSError, match="No space left"):
            apply_update(folder, diff, out)
    assert state(new) == before and not leftovers(new)
    assert not fresh.exists() and not (tmp_path / "fresh.part").exists()


UPDATE = """
import sys
from speechbrain_amnet.diff import folder

install = folder.install

def when_told(*parts):
    print("in the middle", flush=True)
    if sys.stdin.readline():
        install(*parts)

folder.install = when_told
folder.apply_update(*sys.argv[1:])
"""


def test_one_update_at_a_time(model, chain, tmp_path, monkeypatch):
    """One waits until another of the same folder is done, and sees it."""
    new, link = tmp_path / "new", tmp_path / "link"
    apply_update(model, chain[0], new)
    link.symlink_to(new)
    flock, waited = fcntl.flock, []

    def lock(handle, kind):
        with pytest.raises(BlockingIOError):
            flock(handle, kind | fcntl.LOCK_NB)
        waited.append(len(history(new)))
        first.stdin.write(b"go on\n")
        first.stdin.close()
        flock(handle, kind)

    command = [sys.executable, "-c", UPDATE, str(new), str(chain[1])]
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as first:
        # An update that never ends ends the test, and does not hang it.
        guard = threading.Timer(120, first.kill)
        guard.start()
        try:
            assert first.stdout.readline() == b"in the middle\n"
            monkeypatch.setattr(fcntl, "flock", lock)
            with pytest.raises(DiffError, match="has this diff already"):
                apply_update(link, chain[1])
            assert first.wait() == 0
        finally:
            guard.cancel()
            first.kill()
    assert waited == [1] and len(history(new)) == 2


def test_folders_in_a_model_come_along(model, chain, tmp_path):
    sub = model / "model" / "vocabulary" / "en"
    sub.mkdir(parents=True)
    (sub / "words.txt").write_text("GO")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "words.txt").write_text("LOS")
    (sub.parent / "de").symlink_to(elsewhere)
    apply_update(model, chain[0], tmp_path / "new")
    apply_update(tmp_path / "new", chain[1])
    words = tmp_path / "new" / "model" / "vocabulary"
    assert (words / "en" / "words.txt").read_text() == "GO"
    assert (words / "de" / "words.txt").read_text() == "LOS"
    assert not (words / "de").is_symlink()


def test_damaged_weights_are_named(model, chain, tmp_path):
    path = model / "model" / "encoder.ckpt"
    content = bytearray(path.read_bytes())
    where = content.index(b"data.pkl") + 60
    content[where : where + 30] = bytes(30)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="encoder.ckpt: unreadable weights"):
        apply_update(model, chain[0], tmp_path / "new")
    torch.save([1, 2], path)
    with pytest.raises(DiffError, match="has no encoder"):
        apply_update(model, chain[0], tmp_path / "new")


def test_saved_parameters_count_as_weights(model, chain, tmp_path):
    path = model / "model" / "joint.ckpt"
    kept = torch.load(path)
    torch.save({"w": torch.nn.Parameter(kept["w"])}, path)
    apply_update(model, chain[0], tmp_path / "new")


def test_only_what_an_update_made_is_taken_for_its_own(model, chain, tmp_path):
    """A user's own link and folder `versions`, and folders beside."""
    mine = tmp_path / "mine"
    (mine / "versions").mkdir(parents=True)
    shutil.copytree(model / "model", mine / "versions" / "1-first")
    (mine / "versions" / "notes").mkdir()
    (mine / "model").symlink_to("versions/1-first")
    with pytest.raises(ValueError, match="not the folder of an updated model"):
        apply_update(mine, chain[0])
    assert len(list((mine / "versions").iterdir())) == 2
    new = tmp_path / "new"
    apply_update(model, chain[0], new)
    kept = new / "versions" / "notes"
    kept.mkdir()
    apply_update(new, chain[1])
    assert kept.exists()
    part = tmp_path / "other.part"
    part.mkdir()
    (part / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="other.part exists"):
        apply_update(model, chain[0], tmp_path / "other")
    assert (part / "thesis.txt").exists()


def test_no_model_in_a_model(model, chain, tmp_path):
    new = tmp_path / "new"
    apply_update(model, chain[0], new)
    for folder, diff, out in (
        (model, chain[0], model / "model" / "next"),
        (model / "model", chain[0], model / "model" / "next"),
        (new, chain[1], new / "versions" / "next"),
    ):
        with pytest.raises(ValueError, match="next is in the model"):
            apply_update(folder, diff, out)
        assert not out.exists()
    apply_update(model, chain[0], model / "next")


def test_refused_updates_leave_no_folders(model, chain, tmp_path):
    with pytest.raises(DiffError, match="is not the base"):
        apply_update(model, chain[1], tmp_path / "a" / "b" / "new")
    assert not (tmp_path / "a").exists()
    apply_update(model, chain[0], tmp_path / "a" / "b" / "new")
    assert state(tmp_path / "a" / "b" / "new") != state(model)


def test_the_version_in_use_stands_for_its_folder(model, chain, tmp_path):
    new = tmp_path / "new"
    apply_update(model, chain[0], new)
    first = state(new)
    apply_update(new / "model", chain[1])
    assert len(history(new)) == 2
    undo_update((new / "model").resolve())
    assert state(new) == first and not leftovers(new)
    shutil.copytree(new / "model", tmp_path / "copy")
    with pytest.raises(ValueError, match="a copy of an updated model's files"):
        undo_update(tmp_path / "copy")


def test_a_dot_in_a_files_name(model, tmp_path):
    one = model / "model"
    (one / "joint.ckpt").rename(one / "joint.v2.ckpt")
    files = ModelFiles(model)
    files["joint.v2.w"] = np.ones((5, 7), dtype=np.float32)
    (tmp_path / "out").mkdir()
    files.write(tmp_path / "out")
    assert ModelFiles(tmp_path / "out")["joint.v2.w"].all()
    torch.save({"v2.w": torch.ones(1)}, one / "joint.ckpt")
    with pytest.raises(ValueError, match="two weights would be called joint"):
        ModelFiles(model)


def test_a_model_that_is_only_read_can_be_updated(model, chain, tmp_path):
    """Of a read-only system; what is made of it is our own."""
    folder = model / "model"
    (folder / "words").mkdir()
    for path in (folder / "joint.ckpt", folder / "words", folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    apply_update(model, chain[0], tmp_path / "new")
    made = (tmp_path / "new" / "model").resolve()
    modes = [
        stat.S_IMODE(path.stat().st_mode)
        for path in (made, made / "words", made / "joint.ckpt")
    ]
    assert modes == [0o755, 0o755, 0o444]


def test_other_objects_than_tensors_are_named(model):
    stats = model / "model" / "stats.ckpt"
    torch.save({"mean": np.float64(1.0)}, stats)
    with pytest.raises(ValueError, match="stats.ckpt: .* more than tensors"):
        ModelFiles(model)


def test_weights_from_before_pytorch_1_6(model, chain, tmp_path):
    path = model / "model" / "joint.ckpt"
    kept = torch.load(path)
    torch.save(kept, path, _use_new_zipfile_serialization=False)
    apply_update(model, chain[0], tmp_path / "new")


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_cut_short_are_unreadable(zipped, model):
    path = model / "model" / "joint.ckpt"
    kept = torch.load(path)
    torch.save(kept, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(20, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="joint.ckpt: unreadable"):
            ModelFiles(model)


def test_a_damaged_history_is_named(model, chain, tmp_path):
    apply_update(model, chain[0], tmp_path / "new")
    file = tmp_path / "new" / "model" / "updates" / "history.json"
    file.write_text("[{")
    with pytest.raises(DiffError, match="history.json: damaged"):
        undo_update(tmp_path / "new")


@pytest.mark.parametrize(
    "key, value",
    [
        ("undo", "../../../../rc"),
        ("undo", 7),
        ("result", "../../elsewhere"),
        ("base", None),
        ("diff", "a\nb"),
    ],
)
def test_a_history_that_leads_elsewhere_is_damaged(
    key, value, model, chain, tmp_path
):
    apply_update(model, chain[0], tmp_path / "new")
    file = tmp_path / "new" / "model" / "updates" / "history.json"
    (entry,) = json.loads(file.read_text())
    file.write_text(json.dumps([entry | {key: value}]))
    for action in (
        lambda: undo_update(tmp_path / "new"),
        lambda: apply_update(tmp_path / "new", chain[1]),
        lambda: apply_update(tmp_path / "new", chain[1], tmp_path / "other"),
    ):
        with pytest.raises(DiffError, match="history.json: damaged"):
            action()
    assert not (tmp_path / "other").exists()


def test_what_is_not_weights_stays_as_it_is(model, chain, tmp_path):
    """Also beside weights of the same name; and who may read it."""
    inside, new = model / "model", tmp_path / "new"
    (inside / "encoder.yaml").write_text("b: 2\n")
    (inside / "encoder.safetensors").write_bytes(b"abc")
    (inside / "encoder.ckpt").chmod(0o640)
    inside.chmod(0o750)
    apply_update(model, chain[0], new)
    for _ in range(2):
        made = new / "model"
        assert (made / "encoder.yaml").read_text() == "b: 2\n"
        assert (made / "encoder.safetensors").read_bytes() == b"abc"
        modes = [(made / name).stat().st_mode for name in ("", "encoder.ckpt")]
        assert [mode & 0o777 for mode in modes] == [0o750, 0o640]
        if history(new):
            undo_update(new)


def test_a_folder_in_the_place_of_ours_is_refused(model, chain, tmp_path):
    (model / "model" / "updates").mkdir()
    (model / "model" / "updates" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="updates is not what updates have"):
        apply_update(model, chain[0], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_the_last_updates_may_be_kept(model, chain, tmp_path):
    new, first = tmp_path / "new", state(model)
    apply_update(model, chain[0], new, keep=1)
    second = state(new)
    apply_update(new, chain[1], keep=1)
    kept = [path.name for path in (new / "model" / "updates").iterdir()]
    assert sorted(kept) == ["2.undo", "history.json"]
    undo_update(new)
    assert state(new) == second != first
    with pytest.raises(DiffError, match="what undoes 1.diff was not kept"):
        undo_update(new)
    # More than there are: all of them.
    other = tmp_path / "all"
    apply_update(model, chain[0], other, keep=3)
    apply_update(other, chain[1], keep=3)
    assert [e["undo"] for e in history(other)] == ["1.undo", "2.undo"]
    entry = apply_update(new, chain[1], keep=0)
    assert entry["undo"] is None and entry["undo_bytes"] == 0
    assert [e["diff"] for e in history(new)] == ["1.diff", "2.diff"]
    with pytest.raises(ValueError, match="expected 0 updates or more"):
        apply_update(model, chain[0], tmp_path / "other", keep=-1)


def test_an_older_undo_that_is_gone_is_named(model, chain, tmp_path):
    new = tmp_path / "new"
    apply_update(model, chain[0], new)
    (new / "model" / "updates" / "1.undo").unlink()
    before = state(new)
    with pytest.raises(DiffError, match="1.undo: missing, .* --keep=1`"):
        apply_update(new, chain[1])
    assert state(new) == before
    apply_update(new, chain[1], keep=1)
    undo_update(new)
    assert state(new) == before


def test_the_last_update_is_undone_without_an_older_undo(
    model, chain, tmp_path
):
    new = tmp_path / "new"
    apply_update(model, chain[0], new)
    before = state(new)
    apply_update(new, chain[1])
    (new / "model" / "updates" / "1.undo").unlink()
    undo_update(new)
    assert state(new) == before
    with pytest.raises(DiffError, match="undoes 1.diff was not kept"):
        undo_update(new)


def test_what_is_done_is_done_where_the_old_version_stays(
    model, chain, tmp_path, monkeypatch
):
    """Somebody else's files, which may not be removed."""
    new = tmp_path / "new"
    apply_update(model, chain[0], new)
    remove = shutil.rmtree

    def refuse(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(path)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    before = state(new)
    apply_update(new, chain[1])
    assert len(history(new)) == 2 and len(list(new.glob("versions/*"))) == 2
    monkeypatch.setattr(shutil, "rmtree", remove)
    undo_update(new)
    assert state(new) == before and not leftovers(new)


def test_a_model_is_not_written_over_by_its_update(model, chain, tmp_path):
    part = tmp_path / "new.part"
    apply_update(model, chain[0], part)
    before = state(part)
    for source in (part, part / "model"):
        with pytest.raises(ValueError, match="would be written first; rename"):
            apply_update(source, chain[1], tmp_path / "new")
    assert state(part) == before and not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_stay_whose_they_were(model, chain, tmp_path):
    for path in [model, *model.rglob("*")]:
        os.chown(path, 1234, 4321)
    (find_model(model) / "encoder.ckpt").chmod(0o600)
    new = tmp_path / "new"
    apply_update(model, chain[0], new)
    for path in (new, *new.rglob("*"), *(new / "model").rglob("*")):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (1234, 4321), path
    mode = (new / "model" / "encoder.ckpt").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_an_update_that_makes_infinity_changes_nothing(model, chain, tmp_path):
    """Of values and a scale that are finite, and with the promised result."""
    new = tmp_path / "new"
    diff = read_diff(chain[0])
    (name, change), *_ = diff.changes.items()
    change.values[0].scale = np.float32(3e38)
    old = ModelFiles(model)
    with np.errstate(over="ignore"):
        after = {n: c.apply(old[n]) for n, c in diff.changes.items()}
    assert np.isinf(after[name]).any()
    write_diff(replace(diff, result=fingerprint(after)), tmp_path / "x.diff")
    with pytest.raises(DiffError, match="makes NaN or infinity of "):
        apply_update(model, tmp_path / "x.diff", new)
    assert not new.exists()


def test_a_version_that_another_update_removed_is_not_made(tmp_path):
    gone = tmp_path / "versions" / "1-first"
    with pytest.raises(FileNotFoundError, match="was there a moment ago"):
        with locked(gone):
            pass
    assert not gone.parent.exists()


def test_any_name_of_a_file_can_be_undone(model, chain, tmp_path):
    odd = chain[0].rename(tmp_path / "a\n\x1b[1m.diff")
    entry = apply_update(model, odd, tmp_path / "new")
    assert entry["diff"].isprintable()
    assert undo_update(tmp_path / "new") == entry


def test_of_tied_weights_one_changes_alone(tmp_path):
    folder, out = tmp_path / "tied", tmp_path / "new"
    folder.mkdir()
    weight = torch.randn(3, 4)
    state = {"a": weight, "b": weight, "c": weight[1:], "d": torch.ones(2)}
    torch.save(state, folder / "joint.ckpt")
    before = {name: array.copy() for name, array in ModelFiles(folder).items()}
    change = SparseChange((3, 4), np.array([5]), Values.rounded([0.5], 4))
    diff = make_diff({"joint.a": change}, before)
    write_diff(diff, tmp_path / "1.diff")
    apply_update(folder, tmp_path / "1.diff", out)
    after = ModelFiles(out)
    assert np.array_equal(after["joint.a"], change.apply(before["joint.a"]))
    for name in ("joint.b", "joint.c", "joint.d"):
        assert np.array_equal(after[name], before[name])
    undo_update(out)
    assert all(np.array_equal(ModelFiles(out)[n], a) for n, a in before.items())


def test_a_model_is_changed_where_it_lies(model, chain):
    found = ModelFiles(model)
    diff = read_diff(chain[0])
    places = {name: found[name].ctypes.data for name in diff.changes}
    Undo(diff).write(found, None, in_place=True)
    assert fingerprint({name: found[name] for name in places}) == diff.result
    halves = [n for n in places if found[n].dtype == np.float16]
    for name, place in places.items():
        assert (found[name].ctypes.data == place) == (name not in halves)


def test_the_rest_of_a_buffer_does_not_bring_all_of_it(tmp_path):
    """Ten parts of one memory, of which nine are replaced."""
    folder, out = tmp_path / "flat", tmp_path / "new"
    folder.mkdir()
    flat = torch.arange(10_000.0)
    state = {f"w{n}": part for n, part in enumerate(flat.split(1000))}
    torch.save(state, folder / "net.ckpt")
    before = {name: array.copy() for name, array in ModelFiles(folder).items()}
    change = SparseChange((1000,), np.array([5]), Values.rounded([0.5], 4))
    changes = {f"net.w{n}": change for n in range(9)}
    write_diff(make_diff(changes, before), tmp_path / "1.diff")
    apply_update(folder, tmp_path / "1.diff", out)
    for name, array in ModelFiles(out).items():
        new = changes[name].apply(before[name]) if name in changes else array
        assert np.array_equal(array, new)
    assert np.array_equal(ModelFiles(out)["net.w9"], before["net.w9"])
    old, new = (
        next(one.rglob("net.ckpt")).stat().st_size for one in (folder, out)
    )
    assert new < 1.2 * old


def test_sparse_tensors_are_nobodys_business(tmp_path):
    """They are no weights of ours, and stay."""
    folder, out = tmp_path / "odd", tmp_path / "new"
    folder.mkdir()
    odd = torch.eye(3).to_sparse()
    torch.save({"w": torch.ones(4), "odd": odd}, folder / "net.ckpt")
    base = dict(ModelFiles(folder))
    assert list(base) == ["net.w"]
    change = SparseChange((4,), np.array([2]), Values.rounded([0.5], 4))
    write_diff(make_diff({"net.w": change}, base), tmp_path / "1.diff")
    apply_update(folder, tmp_path / "1.diff", out)
    assert ModelFiles(out)["net.w"].tolist() == [1, 1, 1.5, 1]
    kept = ModelFiles(out).states["net"]["odd"]
    assert torch.equal(kept.to_dense(), torch.eye(3))
