"""`amnet study`: trained in order, continued, and shown in a table."""

import csv
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

from speechbrain_amnet.cli import main
from speechbrain_amnet.report import plots

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "LibriSpeech"
TINY = (
    "--set",
    "epochs=1",
    "batch_seconds=3",
    "buckets=2",
    "average_checkpoints=1",
    "test_splits=[dev]",  # not what data have by default
    "hidden_size=32",
    "layers=1",
    "predictor_size=8",
    "joint_size=8",
)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A dense model and an amortized one that starts from it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(
        f"train: {RECIPE / 'train.py'}\n"
        f"hparams: {ROOT / 'hparams'}\n"
        "results: results/tones\n"
        "runs:\n"
        "    amnet:\n"
        "        seeds: [1]\n"
        "        loads: [0.5]\n"
        "        overrides: {start_from: 'results/tones/full/{seed}'}\n"
        "    full: {seeds: [1]}\n"
    )
    return path


def test_study_trains_what_is_missing_and_shows_it(
    study, tones, capsys, monkeypatch
):
    arguments = ["study", str(study), f"--data_folder={tones}"]
    assert main([*arguments, "--only", "amnet", "--list", *TINY]) == 2
    assert "starts from full/1, which is not" in capsys.readouterr().err
    assert main([*arguments, "--jobs=2", *TINY]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 to train, 2 epochs left" in said
    assert "saved %" in said and "tradeoff" in said
    log = Path("results/tones/amnet/1/output.txt").read_text()
    assert "Every branch starts from the first of" in log
    assert main([*arguments, "--list", *TINY]) == 0
    said = capsys.readouterr().out
    assert "amnet/1  done" in said and "0 of 2 to train" in said
    # Another study's table, of the same runs.
    other = study.with_name("other.yaml")
    other.write_text(
        study.read_text()
        .replace("    amnet:", "    amnet_sparse_backlog:")
        .replace(
            "        loads: [0.5]",
            "        file: amnet.yaml\n"
            "        trained_as: amnet\n"
            "        loads: [0.5]",
        )
    )
    line = ["study", str(other), f"--data_folder={tones}", *TINY]
    monkeypatch.setattr(plots, "plot_run", lambda *some: [])  # as before
    with patch.object(plots, "plot_tradeoff", return_value="t.png") as drawn:
        assert main([*line, "--publish=kept", "--csv=table.csv"]) == 0
    names = {run["experiment"] for run in drawn.call_args.args[0]}
    assert names == {"full", "amnet_sparse_backlog"}  # the study's own
    assert "0 of 2 to train" in capsys.readouterr().out
    with open("table.csv") as lines:
        rows = [(r["experiment"], r["device"]) for r in csv.DictReader(lines)]
    assert rows == [
        ("full", "r = 2"),
        ("amnet_sparse_backlog", "r = 0.5"),
        ("amnet_sparse_backlog", "r = 2"),
    ]
    kept = sorted(file.name for file in Path("kept").glob("*.json"))
    assert kept == [
        "amnet_sparse_backlog-r0.5-1.json",
        "amnet_sparse_backlog-r2-1.json",
        "full-1.json",
    ]
    monkeypatch.setattr(plots, "plot_tradeoff", lambda *some, **more: "t.png")
    # Speech that has moved is the same, with other words it is not.
    moved = shutil.copytree(tones, Path("moved"))
    line = ["study", str(study), f"--data_folder={moved}", *TINY]
    assert main(line) == 0
    said = next(moved.glob("dev/*/*/*.trans.txt"))
    said.write_text(said.read_text().rstrip() + " AND MORE\n")
    assert main(line) == 2
    assert "tested on other utterances than dev" in capsys.readouterr().err
    # Nothing to compare with: shown as it is.
    shutil.rmtree(moved / "dev")
    assert main(line) == 0
    # Other settings than the study's now: refused, not shown as its results.
    assert main([*arguments, *TINY, "dropout=0.5"]) == 2
    assert "trained with other hparams" in capsys.readouterr().err
    assert main([*arguments, "--only", "small", *TINY]) == 2
    assert "no such run: small" in capsys.readouterr().err
