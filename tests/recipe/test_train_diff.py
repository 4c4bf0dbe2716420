"""train_diff.py as a user runs it: each method, the file, and mistakes."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from speechbrain_amnet import evaluation
from speechbrain_amnet.diff.file import fingerprint, read_diff
from speechbrain_amnet.diff.folder import apply_update
from speechbrain_amnet.diff.model import DiffModel
from speechbrain_amnet.diff.model_files import ModelFiles
from speechbrain_amnet.inference import load
from speechbrain_amnet.slots import SCORES

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "LibriSpeech"
GATE = "!new:speechbrain_amnet.Schedule {points: [[0, 1], [1, 20]]}"
QUICK = {
    "find_epochs": 1,
    "tune_epochs": 2,
    "halvings": 0,
    "batch_seconds": 3,
    "buckets": 2,
    "old_splits": "[dev]",
}
SMALL = {
    "batch_seconds": 3,
    "buckets": 2,
    "hidden_size": 32,
    "layers": 1,
    "predictor_size": 8,
    "joint_size": 8,
}
GRAMMAR = "#JSGF V1.0;\ngrammar g;\npublic <go> = do re;\n"


def words(hparams, **values):
    """The arguments of a script."""
    return [
        str(ROOT / "hparams" / hparams),
        "--noprogressbar",
        *(f"--{key}={value}" for key, value in values.items()),
    ]


def run(script, *arguments):
    """Run it as a user does; gives the finished process."""
    return subprocess.run(
        [sys.executable, str(RECIPE / script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def base(tones, tmp_path_factory):
    """A tiny trained model."""
    out = tmp_path_factory.mktemp("base") / "out"
    values = {"epochs": 1, "average_checkpoints": 1, **SMALL}
    given = words("amnet.yaml", data_folder=tones, output_folder=out, **values)
    done = run("train.py", *given)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


METHODS = [
    "sparse",
    "sparse_gated",
    "hash",
    "lora",
    "last",
    "lora_linear",
    "shira",
    "full",
]
JOINT = ("last", "lora_linear", "shira")  # the joint network alone
COMPRESSED = [f"compressed_{m}" for m in ("sparse", "hash", "lowrank")]


@pytest.mark.parametrize("method", METHODS + COMPRESSED)
def test_update_keeps_its_budget_and_is_what_was_measured(
    method, base, tones, tmp_path, run_here
):
    out = tmp_path / "out"
    budget = {} if method == "full" else {"budget": "5%"}
    given = words(
        f"diff_{method}.yaml",
        base=base,
        data_folder=tones,
        output_folder=out,
        **{**QUICK, **budget},
    )
    if method == "sparse":
        done = run("train_diff.py", *given)
    else:
        with patch.object(
            DiffModel, "round", autospec=True, side_effect=DiffModel.round
        ) as rounds:
            done = run_here("train_diff.py", *given)
        # In its steps, and once more at the end.
        assert method == "full" or rounds.call_count > 1
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((out / "diff.json").read_text())
    assert record["method"] == method and record["old_wer"] is not None
    assert record["seconds"] > 0
    file = out / "update.diff"
    assert record["bytes"] == file.stat().st_size
    whole = 4 * sum(a.size for a in ModelFiles(base).values())
    if method != "full":
        assert record["bytes"] <= 0.05 * whole
        # The last layers may be smaller than the budget.
        assert record["bytes"] > 0.7 * 0.05 * whole or method in JOINT
    assert f"{record['bytes']:,} bytes" in done.stdout
    # The file alone makes the model that was measured, bit for bit.
    again = tmp_path / "again"
    before = out / "save" / "zeros" if method in COMPRESSED else base
    apply_update(before, file, again)
    new, old = ModelFiles(again), ModelFiles(base)
    for name, array in ModelFiles(out / "updated").items():
        assert array.tobytes() == new[name].tobytes()
        if "router" in name or (method in JOINT and "joint" not in name):
            assert array.tobytes() == old[name].tobytes()
    assert any(new[n].tobytes() != old[n].tobytes() for n in new)
    if method in ("full", "sparse"):
        # What grammars are searched by learns with the rest.
        head = "ctc_head.weight"
        assert new[head].tobytes() != old[head].tobytes()
    if method == "compressed_sparse":
        # The file is the whole model, and the rest of it is zero.
        rest = [a for n, a in new.items() if "features" not in n]
        assert sum((a == 0).sum() for a in rest) > 0.5 * whole / 4
    assert read_diff(file).about["method"] == method
    results = json.loads((out / "results.json").read_text())
    assert results["wer"] == record["wer"]


def test_lowrank_updates_of_some_matrices(base, tones, tmp_path, run_here):
    """A budget that is too small for a rank of every matrix."""
    out = tmp_path / "out"
    given = words(
        "diff_lora.yaml",
        base=base,
        data_folder=tones,
        output_folder=out,
        **{**QUICK, "budget": "2500"},
    )
    done = run_here("train_diff.py", *given)
    assert done.returncode == 0, done.stderr[-3000:]
    changes = read_diff(out / "update.diff").changes
    ranks = [c.rank for c in changes.values() if c.kind == "lowrank"]
    assert set(ranks) == {1}
    matrices = [
        name
        for name, array in ModelFiles(base).items()
        if array.ndim > 1 and "router" not in name and "features" not in name
    ]
    assert 0 < len(ranks) < len(matrices)


def test_killed_update_goes_on_to_the_same_file(
    base, tones, tmp_path, run_here
):
    """And the next update starts from the folder that it deployed."""
    values = {
        **QUICK,
        "data_folder": tones,
        "budget": "5%",
        "halvings": 1,
        "gate_schedule": GATE,
    }
    outs = tmp_path / "whole", tmp_path / "killed"
    whole, given = (
        words("diff_sparse.yaml", base=base, output_folder=out, **values)
        for out in outs
    )
    done = run("train_diff.py", *whole)
    assert done.returncode == 0, done.stderr[-3000:]
    command = [sys.executable, str(RECIPE / "train_diff.py"), *given]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    log = outs[1] / "train_log.txt"
    while not (log.exists() and "part: tune, epoch: 1" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (outs[1] / "update.diff").exists()
    done = run("train_diff.py", *given)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ((out / "update.diff").read_bytes() for out in outs)
    assert first == second
    # With other speech it would be another.
    other = shutil.copytree(tones, tmp_path / "other")
    for file in (other / "test").rglob("*.trans.txt"):
        file.write_text(file.read_text().replace("DO", "SO"))
    wrong = [a.replace(str(tones), str(other)) for a in given]
    done = run_here("train_diff.py", *wrong)
    assert done.returncode == 2
    assert "its recordings are not those" in done.stderr.splitlines()[-1]
    assert (outs[1] / "update.diff").read_bytes() == first
    # Once it is done the command only says so, also where the data have moved;
    # for another one it is no place.
    moved = [a.replace(str(tones), "elsewhere") for a in given]
    done = run_here("train_diff.py", *moved)
    assert done.returncode == 0 and f"{len(first):,} bytes" in done.stdout
    assert (outs[1] / "update.diff").read_bytes() == first
    for wrong, message in (
        ("--budget=6%", "with other hparams"),
        (f"--base={outs[1] / 'updated'}", "is in the output_folder"),
        (f"--base={outs[0] / 'updated'}", "of another base"),
    ):
        name = wrong.split("=")[0]
        again = [wrong if a.startswith(name) else a for a in given]
        done = run_here("train_diff.py", *again)
        assert done.returncode == 2 and message in done.stderr
    assert (outs[1] / "update.diff").read_bytes() == first
    # A full update is given, so nothing is trained but the diff.
    given = words(
        "diff_sparse.yaml",
        base=outs[0] / "updated",
        full_model=base,
        output_folder=tmp_path / "next",
        **values,
    )
    done = run_here("train_diff.py", *given)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "next" / "save" / "find").exists()
    apply_update(outs[0] / "updated", tmp_path / "next" / "update.diff")


@pytest.fixture
def commands(tones, tmp_path, monkeypatch):
    """The same data in a folder of its own, and what writes what was meant.

    What streaming takes is not measured, which would take a process each time.
    """
    times = {"real_time_factor": 0.1, "peak_memory_mb": 9.0}
    monkeypatch.setattr(evaluation, "measure_stream", lambda *some: times)
    data = shutil.copytree(tones, tmp_path / "data")

    def write(split, records):
        lines = "\n".join(map(json.dumps, records))
        (data / split / "commands.jsonl").write_text(lines)

    return data, write


def results_of(folder):
    """All that was evaluated for an update, by the names of the figures."""
    names = ("base_test", "base_old", "old")
    files = [folder / f"results_{name}.json" for name in names]
    files.append(folder / "results.json")
    keys = ("base_", "base_old_", "old_", "")
    return {k: json.loads(f.read_text()) for k, f in zip(keys, files)}


def test_updates_held_to_a_grammar(base, commands, tmp_path, run_here):
    """Of one sentence, so that it is known what is heard."""
    data, write = commands
    right, wrong = {"notes": "do re"}, {"notes": "fa"}
    for split, slots in (
        ("test", (right, wrong, wrong)),
        ("dev", (wrong, None, right)),
    ):
        write(
            split,
            [
                {"id": f"1-1-{n:04d}", "slots": one, "intent": "play"}
                for n, one in enumerate(slots)
            ],
        )
    file, out = tmp_path / "play.gram", tmp_path / "out"
    file.write_text(GRAMMAR.replace("<go> = do re", "<play> = (do re) {notes}"))
    values = {"base": base, "data_folder": data, "output_folder": out}
    values |= {**QUICK, "tune_epochs": 1, "grammar": file, "fold": 2}
    done = run_here("train_diff.py", *words("diff_hash.yaml", **values))
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((out / "diff.json").read_text())
    assert record["task"] == "slu" and record["fold"] == 2
    assert (record["commands"], record["old_commands"]) == (3, 2)
    for prefix, found in results_of(out).items():
        assert found["grammar"] == "play.gram"
        error = 50 if "old" in prefix else 100 * 2 / 3
        assert found["command_accuracy"] == pytest.approx(100 - error)
        assert record[f"{prefix}command_error"] == pytest.approx(error)
        assert record[f"{prefix}wer"] == found["wer"]
    assert "command error on what is new 66.7 -> 66.7 %" in done.stdout


def test_updates_of_a_model_that_understands(
    base, commands, tmp_path, run_here
):
    """What was meant is learnt with the words, and counts whole."""
    data, write = commands
    for split in ("train", "dev", "test"):
        said = next((data / split).rglob("*.trans.txt")).read_text()
        lines = [line.split() for line in said.splitlines()]
        write(
            split,
            [
                {"id": name, "slots": {"first": first}, "intent": "play"}
                for name, first, *_ in lines
            ],
        )
    slots, out = tmp_path / "slots", tmp_path / "out"
    values = {"data_folder": data, "epochs": 1, "average_checkpoints": 1}
    values |= {"start_from": base, "output_folder": slots, **SMALL}
    done = run_here("train.py", *words("commands.yaml", **values))
    assert done.returncode == 0, done.stderr[-3000:]
    asr = load(slots, run_opts={"device": "cpu"})
    assert {"<first>", "<=play>"} <= set(asr.pieces)
    found = json.loads((slots / "results.json").read_text())
    assert all(found[key] is not None for key in SCORES)
    values = {"base": slots, "data_folder": data, "output_folder": out}
    values |= {**QUICK, "tune_epochs": 1}
    done = run_here("train_diff.py", *words("diff_hash.yaml", **values))
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((out / "diff.json").read_text())
    assert record["task"] == "slu" and record["fold"] is None
    assert record["commands"] == record["old_commands"] == 3
    for prefix, found in results_of(out).items():
        assert found["grammar"] is None
        error = 100 - found["command_accuracy"]
        assert record[f"{prefix}command_error"] == pytest.approx(error)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"budget": "much"}, "budget: expected a share"),
        ({"budget": "10"}, "too few for any diff"),
        ({"kind": "sparse", "budget": "10"}, "too few for any diff"),
        ({"kind": "compressed_lowrank", "budget": "99"}, "too few for any"),
        (
            {"kind": "compressed_lowrank", "budget": "2500"},
            "2500 bytes are too few for a rank of every matrix",
        ),
        ({"include": "joint.*"}, "include: expected a list of patterns"),
        ({"grammar": "nowhere.gram"}, "no such grammar: nowhere.gram"),
        ({"grammar": "some.gram"}, "no commands.jsonl in these splits"),
        ({"grammar": "some.gram", "commands": {}}, "give splits that have one"),
        (
            {"grammar": "some.gram", "commands": {"slots": {}}},
            "old.csv: no commands.jsonl",
        ),
        ({"save_folder": "out"}, "is the output_folder, which is locked"),
        ({"method": "magic"}, "method: expected sparse, sparse_gated, hash, l"),
        ({"include": "['nothing*']"}, "no weight is called 'nothing*'"),
        ({"base": "nowhere"}, "nowhere: no model"),
        (
            {"sample_rate": 8000, "resample": True},
            "the base was trained with 16000, got 8000; give --sample_rate=16",
        ),
        ({"n_mels": 40}, "n_mels: the base was trained with 80, got 40"),
        ({"max_seconds": 0.1}, "No training utterance is shorter than max_sec"),
        ({"letter": "Ö"}, "Ö: no tokens of the base"),
        ({"old_splits": "[tset]"}, "tset: no such split"),
    ],
)
def test_mistakes_are_one_line(
    values, message, base, tones, tmp_path, run_here
):
    """Found before anything is trained."""
    values = {"base": base, "data_folder": tones, "tune_epochs": 0, **values}
    kind = values.pop("kind", "hash")
    commands = values.pop("commands", None)
    if commands is not None:  # of what is new alone
        old = tones
        tones = values["data_folder"] = shutil.copytree(
            tones, tmp_path / "data"
        )
        record = {"id": "1-1-0000", "speech_end": 1.0, **commands}
        (tones / "test" / "commands.jsonl").write_text(json.dumps(record))
        values["old_splits"] = f"[{old / 'test'}]"
    if "letter" in values:
        tones = values["data_folder"] = shutil.copytree(
            tones, tmp_path / "data"
        )
        said = next((tones / "train").rglob("*.trans.txt"))
        said.write_text(said.read_text().rstrip() + values.pop("letter") + "\n")
    if values.get("grammar") == "some.gram":
        values["grammar"] = tmp_path / "some.gram"
        values["grammar"].write_text(GRAMMAR)
    out = tmp_path / "out"
    if "save_folder" in values:
        values["save_folder"] = tmp_path / "." / "else" / ".." / "out"
    given = words(f"diff_{kind}.yaml", output_folder=out, **values)
    done = run_here("train_diff.py", *given)
    assert done.returncode == 2
    if re.match("budget: exp|method: exp|include: exp|nowhere:|is", message):
        assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out" / "save" / "find").exists()
    assert not (tmp_path / "out" / "save" / "full").exists()
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_folder_of_something_else_stays_as_it_is(
    base, tones, tmp_path, run_here
):
    out = tmp_path / "out"
    (out / "save").mkdir(parents=True)
    values = {"base": base, "data_folder": tones, "output_folder": out}
    handle = os.open(out / "save", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as a training that runs has it
    done = run_here("train_diff.py", *words("diff_hash.yaml", **values))
    assert done.returncode == 2
    assert "another process trains there" in done.stderr.splitlines()[-1]
    assert list(out.iterdir()) == [out / "save"]
    os.close(handle)
    (out / "hyperparams.yaml").write_text("epochs: 1\n")
    done = run_here("train_diff.py", *words("diff_hash.yaml", **values))
    assert done.returncode == 2
    assert "holds another training, no update" in done.stderr.splitlines()[-1]
    assert {p.name for p in out.iterdir()} == {"save", "hyperparams.yaml"}


def test_what_was_measured_is_of_one_command(base, tones, tmp_path, run_here):
    """Also where the update itself was moved away, and its checkpoints."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "base.txt").write_text(f"{fingerprint(ModelFiles(base))}\n")
    (folder / "hyperparams.yaml").write_text("method: sparse\n")
    (folder / "diff.json").write_text("{}")
    values = {"base": base, "data_folder": tones, "output_folder": folder}
    done = run_here("train_diff.py", *words("diff_hash.yaml", **values))
    assert done.returncode == 2
    assert "trained with other hparams" in done.stderr.splitlines()[-1]
    assert (folder / "hyperparams.yaml").read_text() == "method: sparse\n"


def test_a_refused_command_may_be_mended(base, tones, tmp_path, run_here):
    """Its folder holds nothing that other hparams would spoil."""
    values = {"base": base, "data_folder": tones, "output_folder": tmp_path}
    for mistake, message in (
        ({"budget": "10"}, "too few for any diff"),
        ({"include": "['nothing*']"}, "no weight is called"),
    ):
        done = run_here(
            "train_diff.py", *words("diff_hash.yaml", **values, **mistake)
        )
        assert done.returncode == 2 and message in done.stderr
