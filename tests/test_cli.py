"""The command line: help, names, ls, cp, corpus, and errors."""

import subprocess
import sys

import pytest

from speechbrain_amnet import catalogue, cli


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A folder of recipes as an installed package has it."""
    folder = tmp_path / "installed"
    (folder / "Toy" / "hparams").mkdir(parents=True)
    (folder / "Toy" / "train.py").write_text("print('train')\n")
    (folder / "Toy" / "README.md").write_text("# Toy\n")
    (folder / "Toy" / "hparams" / "amnet.yaml").write_text("seed: 1\n")
    (folder / "Toy" / "results.ckpt").write_text("left by a run")
    monkeypatch.setattr(cli, "RECIPES", folder)
    return folder


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


def test_names_prints_the_catalogue(capsys):
    assert cli.main(["names"]) == 0
    assert capsys.readouterr().out == catalogue.plain()
    assert cli.main(["names", "--markdown"]) == 0
    assert capsys.readouterr().out == catalogue.markdown()


def test_ls_lists_what_cp_copies(recipes, tmp_path, capsys):
    assert cli.main(["ls"]) == 0
    listed = capsys.readouterr().out.split()
    assert listed == [
        "Toy/README.md",
        "Toy/hparams/amnet.yaml",
        "Toy/train.py",
    ]
    mine = tmp_path / "mine"
    assert cli.main(["cp", "Toy", str(mine)]) == 0
    copied = sorted(p for p in mine.rglob("*") if p.is_file())
    assert [p.relative_to(mine).as_posix() for p in copied] == [
        name.removeprefix("Toy/") for name in listed
    ]
    assert (mine / "hparams" / "amnet.yaml").read_text() == "seed: 1\n"
    assert capsys.readouterr().out.split() == [
        str(mine / name.removeprefix("Toy/")) for name in listed
    ]


def test_cp_follows_the_link_of_a_checkout(tmp_path, capsys):
    assert cli.main(["ls"]) == 0
    for name in capsys.readouterr().out.split():
        target = tmp_path / "one.file"
        assert cli.main(["cp", "--force", name, str(target)]) == 0
        assert target.read_bytes() == (cli.RECIPES / name).read_bytes()
        assert not target.is_symlink()


def test_cp_of_one_file_into_a_folder(recipes, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    assert cli.main(["cp", "Toy/train.py", str(folder)]) == 0
    assert (folder / "train.py").read_text() == "print('train')\n"


def test_cp_overwrites_only_when_forced(recipes, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "train.py").write_text("my work")
    assert cli.main(["cp", "Toy", str(mine)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("amnet: error: ") and "train.py exists" in error
    assert (mine / "train.py").read_text() == "my work"
    assert not (mine / "README.md").exists()
    assert cli.main(["cp", "Toy", str(mine), "--force"]) == 0
    assert (mine / "train.py").read_text() == "print('train')\n"


def test_corpus_passes_its_arguments_on(tmp_path, monkeypatch, capsys):
    spoken = pytest.importorskip("speechbrain_amnet.corpus.spoken")
    calls = []
    monkeypatch.setattr(
        spoken, "make_spoken_corpus", lambda *a, **k: calls.append((a, k))
    )
    out = tmp_path / "corpus"
    arguments = ["corpus", str(out), "--minutes", "2.5", "--seed", "7"]
    assert cli.main(arguments) == 0
    assert calls == [((out,), {"minutes": 2.5, "seed": 7})]


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

    monkeypatch.setattr(cli, "run_names", fail)
    monkeypatch.delenv("AMNET_DEBUG", raising=False)
    assert cli.main(["names"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("amnet: error: ") and message in shown
    assert shown.count("\n") == 1
    monkeypatch.setenv("AMNET_DEBUG", "1")
    with pytest.raises(type(error)):
        cli.main(["names"])


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(args):
        raise AttributeError("a bug")

    monkeypatch.setattr(cli, "run_names", fail)
    with pytest.raises(AttributeError):
        cli.main(["names"])
