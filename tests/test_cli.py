"""The command line: help, and errors as one line."""

import logging
import os
import subprocess
import sys

import pytest

from speechbrain_amnet import cli
from speechbrain_amnet.commands import names


def test_help_lists_subcommands_and_imports_nothing_slow():
    code = (
        "import sys, speechbrain_amnet; before = 'torch' in sys.modules;"
        "from speechbrain_amnet.cli import build_parser;"
        "print(build_parser().format_help());"
        "print('torch' in sys.modules and not before)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    for command in ("names", "ls", "cp", "corpus"):
        assert f"\n    {command} " in shown
    assert shown.splitlines()[-1] == "False"


def test_no_subcommand_shows_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 2
    assert "usage: amnet" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, message",
    [
        (ValueError("wrong\n  rate"), "wrong rate"),
        (KeyError("no branch 3"), "no branch 3"),
        (FileNotFoundError("no such folder: x"), "no such folder: x"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ModuleNotFoundError("No module named 'hibari'"), "hibari"),
    ],
)
def test_errors_are_one_line_unless_debugging(
    monkeypatch, capsys, error, message
):
    def fail(args):
        raise error

    monkeypatch.setattr(names, "run", fail)
    monkeypatch.delenv("AMNET_DEBUG", raising=False)
    assert cli.main(["names"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("amnet: error: ") and message in shown
    assert shown.count("\n") == 1
    monkeypatch.setenv("AMNET_DEBUG", "1")
    with pytest.raises(type(error)):
        cli.main(["names"])


def test_scripts_end_with_a_line_too(capsys, monkeypatch):
    monkeypatch.delenv("AMNET_DEBUG", raising=False)

    def end(error):
        def main(argv):
            raise error

        with pytest.raises(SystemExit) as stopped:
            cli.run_script("train.py", main)
        return stopped.value.code, capsys.readouterr().err

    assert end(ValueError("epochs")) == (2, "train.py: error: epochs\n")
    code, said = end(KeyboardInterrupt())
    assert code == 130
    assert said == "train.py: stopped; the same command goes on\n"


def test_a_missing_torchvision_is_not_mentioned(caplog):
    logger = logging.getLogger("speechbrain.utils.train_logger")
    logger.warning("torchvision is not available - cannot save figures")
    logger.warning("something else")
    assert caplog.messages == ["something else"]


def test_a_closed_output_is_no_error(monkeypatch):
    """As some daemons start things."""
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["names"]) == 0


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(args):
        raise AttributeError("a bug")

    monkeypatch.setattr(names, "run", fail)
    with pytest.raises(AttributeError):
        cli.main(["names"])


def test_torchrun_s_processes_end_without_finalization():
    """What is registered for the end still happens, and all is printed."""
    code = (
        "import atexit\n"
        "from speechbrain_amnet.cli import run_script\n"
        "class Late:\n"
        "    def __del__(self): print('finalized')\n"
        "late = Late()\n"
        "atexit.register(print, 'at exit')\n"
        "run_script('train.py', lambda argv: print('done'))\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\n")
        for more in ({}, {"TORCHELASTIC_RUN_ID": "1"})
    ]
    assert said[0] == ["done", "at exit", "finalized", ""]
    assert said[1] == ["done", "at exit", ""]
