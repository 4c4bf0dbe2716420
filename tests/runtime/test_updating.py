"""A packed model takes the updates of the folder that it was packed from."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from speechbrain_amnet import files
from speechbrain_amnet.cli import main
from speechbrain_amnet.diff.changes import (
    HashChange,
    LowRankChange,
    SparseChange,
    Values,
)
from speechbrain_amnet.diff.file import (
    DiffError,
    make_diff,
    model_of,
    write_diff,
)
from speechbrain_amnet.diff.folder import apply_update
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.inference import load
from speechbrain_amnet.runtime.convert import as_int8, pack
from speechbrain_amnet.runtime.packed import (
    Packed,
    read_packed,
    to_bytes,
    write_packed,
)
from speechbrain_amnet.runtime.updating import PackedTensors, update_packed

ALONE = """
import sys
for name in ("torch", "torchaudio", "speechbrain"):
    sys.modules[name] = None  # whoever imports one fails
from speechbrain_amnet.cli import main
sys.exit(main(sys.argv[1:]))
"""


def packed_of(folder):
    return pack(load(folder, run_opts={"device": "cpu"}))


@pytest.fixture(scope="module")
def file(run):
    write_packed(packed_of(run), run / "model.safetensors")
    return run / "model.safetensors"


def learning(folder):
    """The tensors that an update may change."""
    return {
        name: array
        for name, array in ModelFiles(folder).items()
        if array.ndim and not name.startswith("features.")
    }


def test_every_weight_is_there_bit_for_bit(run, file):
    tensors, theirs = PackedTensors(read_packed(file)), learning(run)
    assert tensors.keys() == theirs.keys() and len(tensors) == len(theirs)
    for name, array in theirs.items():
        assert tensors[name].shape == array.shape
        assert tensors[name].tobytes() == array.tobytes(), name


def a_diff(kind, tensors):
    """Every tensor changes, in one way or another."""
    changes, random = {}, np.random.default_rng(0)
    for name, array in tensors.items():
        rows, columns = array.shape[0], array.size // array.shape[0]

        def drawn(count):
            normal = random.normal(size=count).astype(np.float32)
            return Values.rounded(normal, 4)

        if kind == "sparse":
            where = np.arange(min(3, array.size))
            change = SparseChange(array.shape, where, drawn(len(where)))
        elif kind == "hash":
            change = HashChange(array.shape, drawn(3), 0, name)
        else:
            change = LowRankChange(array.shape, drawn(rows), drawn(columns), 1)
        changes[name] = change
    return make_diff(changes, tensors)


@pytest.mark.parametrize("kind", ["sparse", "hash", "lowrank"])
def test_it_becomes_the_updated_folder_packed(
    run, file, kind, tmp_path, capsys
):
    names = {
        name: array
        for name, array in learning(run).items()
        if array.ndim == 2 or kind != "lowrank"
    }
    diff, new = tmp_path / "1.diff", tmp_path / "new.safetensors"
    made = a_diff(kind, names)
    made.model = model_of(ModelFiles(run))  # as a training's diff has it
    write_diff(made, diff)
    before = file.read_bytes()
    command = ["diff", "apply", str(file), str(diff), f"--out={new}"]
    assert main(command) == 0
    assert f"{new} is {file} with 1.diff of" in capsys.readouterr().out
    apply_update(run, diff, tmp_path / "folder")
    assert new.read_bytes() == to_bytes(packed_of(tmp_path / "folder"))
    assert file.read_bytes() == before != new.read_bytes()


def test_a_device_without_pytorch(run, file, tmp_path):
    diff, new = tmp_path / "1.diff", tmp_path / "new.safetensors"
    write_diff(a_diff("sparse", learning(run)), diff)
    command = ["diff", "apply", str(file), str(diff), f"--out={new}"]
    alone = partial(subprocess.run, capture_output=True, text=True)
    done = alone([sys.executable, "-c", ALONE, *command])
    assert done.returncode == 0, done.stderr
    done = alone([sys.executable, "-c", ALONE, *command])
    assert done.returncode == 2
    assert "exists already; give another file" in done.stderr
    command[2], command[-1] = str(new), f"--out={tmp_path / 'newer'}"
    done = alone([sys.executable, "-c", ALONE, *command])
    assert done.returncode == 2 and "has this diff already" in done.stderr


def test_killed_anywhere_there_is_the_whole_new_file_or_none(
    run, file, tmp_path, killed_at
):
    diff, new = tmp_path / "1.diff", tmp_path / "new.safetensors"
    write_diff(a_diff("sparse", learning(run)), diff)
    update_packed(file, diff, tmp_path / "whole")
    whole, old = (tmp_path / "whole").read_bytes(), file.read_bytes()
    step, seen = 0, set()
    while True:
        step += 1
        new.unlink(missing_ok=True)
        killed = killed_at(step, lambda: update_packed(file, diff, new))
        seen.add(new.exists())
        assert not new.exists() or new.read_bytes() == whole
        assert file.read_bytes() == old
        if not killed:
            break
    assert step > 3 and seen == {False, True}
    assert not files.aside_of(new).exists()


def test_of_two_updates_at_once_one_is_refused(run, file, tmp_path):
    """And what the other wrote is whole."""
    diff, new = tmp_path / "1.diff", tmp_path / "new.safetensors"
    write_diff(a_diff("sparse", learning(run)), diff)
    update_packed(file, diff, tmp_path / "whole")
    with ThreadPoolExecutor(1) as pool:
        with files.alone(files.aside_of(new)):
            # It has seen that there is none yet, and waits to write its own.
            waiting = pool.submit(update_packed, file, diff, new)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            os.replace(files.aside_of(new), new)  # of the other
        with pytest.raises(FileExistsError, match="exists already"):
            waiting.result()
    assert new.read_bytes() == b""


def test_a_full_disk_is_noticed_before_anything_is_written(
    run, file, tmp_path, monkeypatch
):
    diff, new = tmp_path / "1.diff", tmp_path / "new.safetensors"
    write_diff(a_diff("sparse", learning(run)), diff)
    free = SimpleNamespace(free=file.stat().st_size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(OSError, match="an update needs .* MB of free space"):
        update_packed(file, diff, new)
    assert {path.name for path in tmp_path.iterdir()} == {"1.diff"}


def test_what_does_not_fit_changes_nothing(run, file, tmp_path):
    new, diff = tmp_path / "new.safetensors", tmp_path / "1.diff"
    names = learning(run)
    other = {name: array + 1 for name, array in names.items()}
    write_diff(a_diff("sparse", other), diff)
    with pytest.raises(DiffError, match="not the base.*pack the updated f"):
        update_packed(file, diff, new)
    strange = {"features.mean": np.zeros(80, dtype=np.float32)}
    write_diff(a_diff("sparse", strange), diff)
    with pytest.raises(DiffError, match="no features.mean.*pack the updated f"):
        update_packed(file, diff, new)
    write_diff(a_diff("sparse", names), diff)
    packed = read_packed(file)
    small = tmp_path / "small.safetensors"
    write_packed(as_int8(packed), small)
    with pytest.raises(ValueError, match="small.*rounded to 8 bits"):
        update_packed(small, diff, new)
    old = {k: v for k, v in packed.arrays.items() if "recurrent_bias" not in k}
    write_packed(replace(packed, arrays=old), small)
    with pytest.raises(ValueError, match="small.*packed by an older version"):
        update_packed(small, diff, new)
    assert not new.exists() and not list(tmp_path.glob("*.part"))


def test_numbers_that_are_none_are_refused(run, file, tmp_path):
    bad = a_diff("hash", learning(run))
    for change in bad.changes.values():
        change.values[0].scale = np.float32(np.nan)
    write_diff(bad, tmp_path / "1.diff")
    with pytest.raises(DiffError, match="the diff makes NaN or infinity of "):
        update_packed(file, tmp_path / "1.diff", tmp_path / "new")


@pytest.mark.parametrize("options", [[], ["--out=new", "--keep=1"]])
def test_a_file_is_not_kept_as_folders_are(file, options, capsys):
    assert main(["diff", "apply", str(file), "1.diff", *options]) == 2
    assert "give the new file as --out, and no --keep" in (
        capsys.readouterr().err
    )


def test_pruned_matrices_are_not_there():
    """Nobody knows what an update would make of their zeros."""
    arrays = {
        name: np.ones((8, 2), dtype=np.float32)
        for name in ("encoder.0.0.input.0", "encoder.0.1.input.0")
    }
    arrays["predictor.0.recurrent_bias"] = np.ones(8, dtype=np.float32)
    encoder = {"layers": 1, "branches": 2, "pruned": [1]}
    config = {"encoder": encoder, "search": {"layers": 1}}
    assert set(PackedTensors(Packed(config, arrays))) == {
        "encoder.layers.0.input.0.weight",
        "predictor.lstm.bias_hh_l0",
    }
