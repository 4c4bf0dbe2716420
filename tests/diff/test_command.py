"""`amnet diff`: from a file to the next model and back."""

import numpy as np
import pytest

from speechbrain_amnet.cli import main
from speechbrain_amnet.diff.applying import apply_diff
from speechbrain_amnet.diff.file import read_diff, write_diff
from speechbrain_amnet.diff.model_files import ModelFiles


@pytest.fixture
def run(capsys):
    """Gives the exit code and what was printed."""

    def run(*arguments):
        code = main(["diff", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_inspect_apply_undo_squash(run, model, chain, tmp_path):
    code, said = run("inspect", chain[0])
    assert code == 0 and "encoder.weight  sparse    24x16" in said
    assert "method: sparse" in said and "% of their 32 bits" in said
    assert "encoder.weight  sparse    24x16           2.34 %     4" in said
    (parts,) = [x for x in said.splitlines() if x.startswith("bytes: header")]
    numbers = [int(word.strip(",")) for word in parts.split()[2::2]]
    assert sum(numbers) == chain[0].stat().st_size
    new, one = tmp_path / "new", tmp_path / "one.diff"
    code, said = run("apply", model, chain[0], "--out", new)
    assert code == 0 and "has its update 1, 1.diff of" in said
    code, said = run("apply", new, chain[1])
    assert code == 0 and "update 2" in said
    code, said = run("squash", model, *chain, "--out", one)
    assert code == 0 and "the 2 diffs" in said and "send " in said
    code, said = run("apply", model, one, "--out", tmp_path / "other")
    assert code == 0
    here, there = ModelFiles(new), ModelFiles(tmp_path / "other")
    for name, array in here.items():
        assert array.tobytes() == there[name].tobytes()
    code, said = run("undo", new)
    assert code == 0 and "as it was before 2.diff; it has 1 updates" in said
    # Any name of the version in use, which is then another one.
    used = (new / "model").resolve()
    code, said = run("apply", used, chain[1])
    assert code == 0 and f"{used} has its update 2, 2.diff" in said
    code, said = run("undo", new / "model")
    assert code == 0 and "it has 1 updates" in said
    before = chain[0].read_bytes()
    code, said = run("squash", model, *chain, "--out", chain[0])
    assert code == 2 and "is one of the diffs; give another" in said
    code, said = run("squash", model, *chain, "--out", model)
    assert code == 2 and "is a folder; expected a file's name" in said
    assert chain[0].read_bytes() == before
    code, said = run("inspect", model)
    assert code == 2 and "is a folder; expected a diff's file" in said


@pytest.mark.parametrize("kind", ["hash", "lowrank"])
def test_a_chain_that_changes_everything_as_one(
    run, make, model, chain, tensors, kind, tmp_path
):
    """Exact, as large as the model, and the two files are advised."""
    now, paths = dict(tensors), [chain[0], tmp_path / "all.diff"]
    apply_diff(read_diff(chain[0]), now)
    write_diff(make.diff_of(kind, now), paths[1])
    apply_diff(read_diff(paths[1]), now)
    one = tmp_path / "one.diff"
    code, said = run("squash", model, *paths, "--out", one)
    assert code == 0 and "encoder.weight changes everywhere, so all" in said
    assert said.rstrip().endswith("send these")
    alone = dict(tensors)
    apply_diff(read_diff(one), alone)
    assert all(alone[name].tobytes() == now[name].tobytes() for name in now)


def test_inspect_counts_positions_without_decoding(run, chain, monkeypatch):
    monkeypatch.delattr("speechbrain_amnet.diff.changes.SparseChange.touched")
    code, said = run("inspect", chain[0])
    assert code == 0 and "24x16           2.34 %     4" in said


def test_inspect_does_not_obey_a_stranger(run, make, tensors, tmp_path):
    name, said = "x\x1b[2J\nresult: forged", "\x1b[1mtrust me"
    renamed = {name: tensors["joint.w"]}
    diff = make.diff_of("sparse", renamed)
    diff.about = {"by": said}
    write_diff(diff, tmp_path / "1.diff")
    code, said = run("inspect", tmp_path / "1.diff")
    assert code == 0 and "\x1b" not in said and r"x\x1b[2J" in said
    assert "\nresult: forged" not in said


def test_what_undoes_older_updates_may_go(run, model, chain, tmp_path):
    new = tmp_path / "new"
    code, _ = run("apply", model, chain[0], "--out", new, "--keep", "0")
    assert code == 0
    code, said = run("undo", new)
    assert code == 2 and "what undoes 1.diff was not kept" in said


def test_mistakes_are_one_line(run, model, chain, tmp_path):
    code, said = run("apply", model, chain[1], "--out", tmp_path / "new")
    assert code == 2 and "is not the base of this diff" in said
    code, said = run("apply", model, tmp_path / "no", "--out", tmp_path / "new")
    assert code == 2 and "no such file" in said
    code, said = run("undo", model)
    assert code == 2 and "there is no update to undo" in said
    assert said.count("\n") == 1
    before = chain[0].read_bytes()
    code, said = run("squash", model, *chain, "--out", chain[0])
    assert code == 2 and "1.diff is one of the diffs" in said
    assert chain[0].read_bytes() == before
    code, said = run("squash", model, *chain, "--out", tmp_path)
    assert code == 2 and "is a folder; expected a file's name" in said
    assert not list(tmp_path.parent.glob("*.part"))


def test_map(run, chain, make, tmp_path):
    out = tmp_path / "map.png"
    code, said = run("map", *chain, "--out", out)
    assert code == 0 and out.stat().st_size > 1000
    assert "% of them as the one before (" in said
    random = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")
    other = tmp_path / "other.diff"
    write_diff(make.diff_of("sparse", {"encoder.weight": random}), other)
    code, said = run("map", chain[0], other, "--out", tmp_path / "b.png")
    assert code == 2 and "other.diff: encoder.weight is of shape (3, 2)" in said
