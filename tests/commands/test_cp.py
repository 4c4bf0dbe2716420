"""`amnet ls` and `amnet cp`: what can be copied, and where to."""

import pytest

from speechbrain_amnet import cli
from speechbrain_amnet.commands import cp


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A folder of recipes as an installed package has it."""
    folder = tmp_path / "installed"
    (folder / "Toy" / "hparams").mkdir(parents=True)
    (folder / "Toy" / "train.py").write_text("print('train')\n")
    (folder / "Toy" / "README.md").write_text("# Toy\n")
    (folder / "Toy" / "hparams" / "amnet.yaml").write_text("seed: 1\n")
    (folder / "Toy" / "results.ckpt").write_text("left by a run")
    monkeypatch.setattr(cp, "RECIPES", folder)
    return folder


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


def test_links_out_of_a_copy_are_words(recipes, tmp_path):
    (recipes / "Toy" / "README.md").write_text(
        "See [why](../../docs/why.md#so), [here](hparams/a.md).\n"
        "![Errors](../../docs/pictures/errors.png)\n"
    )
    assert cli.main(["cp", "Toy", str(tmp_path / "mine")]) == 0
    text = (tmp_path / "mine" / "README.md").read_text()
    assert text == "See why, [here](hparams/a.md).\nErrors\n"


def test_cp_follows_the_link_of_a_checkout(tmp_path, capsys):
    assert cli.main(["ls"]) == 0
    for name in capsys.readouterr().out.split():
        target = tmp_path / "one.file"
        assert cli.main(["cp", "--force", name, str(target)]) == 0
        if not name.endswith(".md"):  # whose links may be others
            assert target.read_bytes() == (cp.RECIPES / name).read_bytes()
        assert not target.is_symlink()


def test_cp_of_one_file_into_a_folder(recipes, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    assert cli.main(["cp", "Toy/train.py", str(folder)]) == 0
    assert (folder / "train.py").read_text() == "print('train')\n"


@pytest.mark.parametrize("name", ["Toy", "Toy/train.py"])
def test_cp_into_a_file(recipes, tmp_path, capsys, name):
    mine = tmp_path / "mine"
    mine.write_text("my work")
    dest = mine if name == "Toy" else mine / "train.py"
    assert cli.main(["cp", name, str(dest), "--force"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"amnet: error: {mine} is a file, expected a folder")
    assert mine.read_text() == "my work"


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
