"""Records: what an evaluation leaves."""

from types import SimpleNamespace

import numpy as np

from speechbrain_amnet.records import command, write
from speechbrain_amnet.report.utterances import read_frames


def test_a_command_names_runs_by_data_experiment_and_seed(tmp_path):
    run = tmp_path / "results" / "an4" / "full" / "2"
    run.mkdir(parents=True)
    words = ["/x/train.py", "a.yaml", f"--teacher={run}", "--data=/x/an4"]
    assert command(words) == "train.py a.yaml --teacher=2 --data=an4"
    (run / "hyperparams.yaml").touch()
    assert command(words) == "train.py a.yaml --teacher=an4/full/2 --data=an4"


def test_paths_within_lists_and_mappings_are_shortened():
    words = ["train.py", "--noise=!new:a.Noise {file: /x/y/kitchen.flac}"]
    words += ["--train_splits=[train, /x/spoken/train]", "--lr=1/2"]
    assert command(words) == (
        "train.py --noise=!new:a.Noise {file: kitchen.flac} "
        "--train_splits=[train, train] --lr=1/2"
    )


def test_a_frame_s_branch_is_one_digit(tmp_path):
    """Of base 36, so that more than ten branches can be read again."""
    branch = np.array([0, 35, 11, 1])
    utterance = {
        **dict.fromkeys(("id", "wav", "reference", "hypothesis"), "a"),
        **dict.fromkeys(("substitutions", "deletions", "insertions"), 0),
        **dict.fromkeys(("backlog", "wait", "flops"), np.zeros(4)),
        **{"branch": branch, "tokens": [], "words": 1, "seconds": 0.16},
        **{"latency": 0.0, "floor": 0.0},
    }
    encoder = SimpleNamespace(
        dense_flops=2.0,
        frame_duration=0.04,
        router=SimpleNamespace(branches=36),
    )
    asr = SimpleNamespace(mods=SimpleNamespace(encoder=encoder))
    write(tmp_path, "test", {"split": "test"}, [utterance], asr)
    (read,) = read_frames(tmp_path, "test")
    assert read["branch"] == "0ZB1" and read["branches"] == 36
    assert [int(b, 36) for b in read["branch"]] == branch.tolist()
