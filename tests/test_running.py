"""Trainings that run: in which order, and what a failure or a signal leaves."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speechbrain_amnet.running import train
from speechbrain_amnet.trainings import Training


def fake(name, script="pass", after=()):
    """A training that only notes when it began and ended."""
    folder = Path(name)
    done = (
        "import json, time; from pathlib import Path; "
        f"f = Path({name!r}); t = time.monotonic(); {script}; "
        "(f / 'results.json').write_text(json.dumps([t, time.monotonic()]))"
    )
    command = [sys.executable, "-c", done]
    return Training(name, folder, command, 1, [Path(a) for a in after])


def spans(*names):
    """When fake trainings began and ended."""
    read = [(Path(name) / "results.json").read_text() for name in names]
    return [[float(x) for x in text.strip("[]").split(",")] for text in read]


def test_two_at_a_time_and_none_before_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # These two wait for each other: one at a time they would not end.
    meet = (
        "(f / 'here').touch(); "
        "[time.sleep(0.02) for _ in range(1500) "
        "if not (Path('early/here').exists() and Path('b/here').exists())]; "
        "assert Path('early/here').exists() and Path('b/here').exists()"
    )
    train(
        [fake("late", after=["early"]), fake("early", meet), fake("b", meet)],
        jobs=2,
    )
    late, early = spans("late", "early")
    assert late[0] >= early[1]


def test_failure_is_said_and_stops_only_what_waits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = fake("wrong", "raise SystemExit('train.py: error: no space')")
    with pytest.raises(ValueError) as error:
        train([wrong, fake("next", after=["wrong"]), fake("other")])
    said = str(error.value)
    assert re.search("wrong failed: train.py: error: no space", said)
    assert "Not started, as they wait for it: next" in said
    assert fake("other").done and not fake("next").done


def test_what_runs_is_stopped_with_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slow = fake("slow", "time.sleep(60)")
    children = started(monkeypatch)

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("speechbrain_amnet.running.time.sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train([slow])
    assert children[0].returncode == -signal.SIGKILL


def started(monkeypatch):
    """The processes that studies start from here on."""
    children = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        "speechbrain_amnet.running.subprocess.Popen",
        lambda *a, **k: children.append(popen(*a, **k)) or children[-1],
    )
    return children


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_stop_what_runs(tmp_path, monkeypatch, name):
    """Or the training would go on alone, and twice with the next study."""
    monkeypatch.chdir(tmp_path)
    slow = fake("slow", "time.sleep(60)")
    number = getattr(signal, name)
    children = started(monkeypatch)

    def told(seconds):
        os.kill(os.getpid(), number)

    monkeypatch.setattr("speechbrain_amnet.running.time.sleep", told)
    mine = signal.signal(number, signal.SIG_DFL)  # `nohup` has it ignored
    try:
        with pytest.raises(SystemExit) as ended:
            train([slow])
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, mine)
    assert ended.value.code == 128 + number
    assert children[0].returncode == -signal.SIGKILL  # waited for, and gone


def test_bar_tells_the_mean_time_of_what_it_counts(
    tmp_path, monkeypatch, capsys, clock
):
    """Not that of the last half second, in which one ended."""
    monkeypatch.chdir(tmp_path)
    # A child looks for the file that ends it for half a minute at most, and
    # nothing is said about how long that took: all times are `clock`'s.
    script = (
        "(f / 'train_log.txt').write_text('a\\nb\\n'); "
        "[time.sleep(0.02) for _ in range(1500) if not (f / 'end').exists()]"
    )
    children, really_sleep = started(monkeypatch), time.sleep

    def sleep(seconds):
        """Each goes on until the bar's clock has seen 1.5 s of it."""
        clock.sleep(seconds)
        folder = Path(("one", "two")[len(children) - 1])
        log, child = folder / "train_log.txt", children[-1]
        while child.poll() is None and not log.exists():
            really_sleep(0.02)
        if clock.now >= 100 + 1.5 * len(children):
            (folder / "end").touch()
            child.wait()

    monkeypatch.setattr("speechbrain_amnet.running.time.sleep", sleep)
    monkeypatch.setattr("tqdm.std.time", clock)
    train([fake("one", script), fake("two", script)], unit="update")
    shown = capsys.readouterr().err.split("\r")
    for wanted in (r"0/2 \[00:01", r"1/2 .*1\.50s/update"):
        assert any(re.search(wanted, state) for state in shown), shown


def test_jobs_must_be_positive():
    with pytest.raises(ValueError, match="jobs must be 1 or more, got 0"):
        train([], jobs=0)
