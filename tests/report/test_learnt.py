"""Which frames go to the dense branch, by what is heard in them."""

import json

import numpy as np
import pytest

from speechbrain_amnet import cli
from speechbrain_amnet.report import learnt
from speechbrain_amnet.report.utterances import read_frames

RATE, FRAME = 16000, 0.04


def tone(hertz, seconds, loudness=0.3):
    time = np.arange(round(RATE * seconds)) / RATE
    return loudness * np.sin(2 * np.pi * hertz * time)


def test_silence_steady_sound_and_transitions():
    quiet = 1e-4 * np.random.default_rng(0).standard_normal(RATE * 2 // 5)
    wave = np.concatenate(
        [quiet, tone(300, 0.4), tone(2500, 0.4), tone(700, 0.4), quiet]
    )
    classes = learnt.classify(wave, RATE, FRAME)
    assert len(classes) == 50
    assert not classes[:10].any() and not classes[40:].any()
    assert classes[10:40].all()
    assert (classes == 2).sum() <= 15  # half of what is no silence
    for border in (20, 30):  # 300 to 2500 Hz, 2500 to 700
        assert (classes[border - 1 : border + 1] == 2).all()


def test_a_last_frame_that_is_short_and_silence_alone():
    assert learnt.classify(np.zeros(641), RATE, FRAME).tolist() == [1, 1]
    assert len(learnt.classify(tone(300, 0.1), RATE, FRAME)) == 3


def test_frames_are_counted(runs):
    folder = runs.make("amnet")
    count = learnt.count_frames(folder, "test")
    frames, (dense, cheap) = np.array(count["frames"]), np.array(count["taken"])
    assert count["experiment"] == "amnet" and count["seed"] == 1
    assert frames.shape == dense.shape == (3, 3)
    assert (dense + cheap == frames).all()
    # 25, 50, ... 125 frames, every other one dense.
    assert frames.sum() == 375 and dense.sum() == 13 + 25 + 38 + 50 + 63
    backlogs = [b for u in read_frames(folder, "test") for b in u["backlog_ms"]]
    more = sum(b >= 2 * 40 for b in backlogs)
    none = backlogs.count(0.0)
    assert frames.sum(0).tolist() == [none, 375 - none - more, more]
    assert min(none, 375 - none - more, more) > 0


def test_the_table():
    count = {
        "experiment": "amnet",
        "seed": 3,
        "frames": [[10, 0, 0], [5, 5, 0], [0, 10, 10]],
        "taken": [
            [[0, 0, 0], [5, 0, 0], [0, 5, 1]],
            [[10, 0, 0], [0, 5, 0], [0, 5, 9]],
        ],
    }
    table = learnt.markdown_text([count]).splitlines()
    assert len(table) == 3
    cells = [cell.strip() for cell in table[2].strip("|").split("|")]
    # all; silence, steady, transition; these without backlog; with some, more
    assert cells[0] == "`amnet`, seed 3"
    assert cells[1:] == "28 0 50 30 0 100 – 33 10".split()
    first, rest = count["taken"]
    more = {**count, "taken": [first, np.zeros((3, 3)), rest]}
    table = learnt.markdown_text([more]).splitlines()
    assert "`amnet`, seed 3, branch 0 | 28 |" in table[2]
    assert "`amnet`, seed 3, branch 1 | 0 |" in table[3] and len(table) == 4


def test_the_command(runs, tmp_path, capsys):
    folder, page = runs.make("amnet"), tmp_path / "page.md"
    page.write_text("<!-- table: who -->\n<!-- end -->\n")
    kept = tmp_path / "published" / "learnt.json"
    command = ["learnt", str(folder), f"--publish={kept}"]
    command += [f"--markdown={page}", "--name=who"]
    assert cli.main(command) == 0
    table = learnt.markdown_text(learnt.read_counts(kept))
    assert table in capsys.readouterr().out and table in page.read_text()
    assert len(json.loads(kept.read_text())) == 1
    assert cli.main(command[:3] + ["--markdown=x.md"]) == 2
    assert "go together" in capsys.readouterr().err


def test_what_tells_runs_apart_is_in_their_names(runs):
    slow = {"load": 4.0, "flops_per_second": 2e7}
    folders = runs.make("amnet"), runs.make("amnet", seed=2, device=slow)
    counts = [learnt.count_frames(folder, "test") for folder in folders]
    lines = learnt.markdown_text(counts).splitlines()[2:]
    names = [line.split("|")[1].strip() for line in lines]
    assert names == ["`amnet`, seed 1, r = 2", "`amnet`, seed 2, r = 4"]
    assert len(learnt.markdown_text(counts[:1]).split("seed 1 |")) == 2


def test_a_run_that_was_not_evaluated_is_refused(runs):
    with pytest.raises(FileNotFoundError, match="dev"):
        learnt.count_frames(runs.make("amnet"), "dev")


def test_a_run_of_one_branch_is_refused(runs):
    with pytest.raises(ValueError, match="full.*two or more branches"):
        learnt.count_frames(runs.make("full", period=1), "test")


def test_kept_counts_and_a_new_run_in_one_table(runs, tmp_path, capsys):
    kept = tmp_path / "kept.json"
    first, second = map(str, (runs.make("amnet", 1), runs.make("amnet", 2)))
    assert cli.main(["learnt", first, second]) == 0
    both = capsys.readouterr().out
    assert cli.main(["learnt", first, "--publish", str(kept)]) == 0
    capsys.readouterr()
    assert cli.main(["learnt", str(kept), second, "--publish", str(kept)]) == 0
    assert capsys.readouterr().out == both
    assert cli.main(["learnt", str(kept)]) == 0
    assert capsys.readouterr().out == both
    for other in ("{", "[1]", '{"a": 1}', '[{"frames": []}]'):
        kept.write_text(other)
        assert cli.main(["learnt", str(kept)]) == 2
        assert "kept.json: expected counts that" in capsys.readouterr().err
