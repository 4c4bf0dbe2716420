"""Commands of all pages are taken by the programs that they start."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_amnet.cli import build_parser
from speechbrain_amnet.commands import corpus
from speechbrain_amnet.study import read_study
from speechbrain_amnet.trainings import loaded

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "LibriSpeech"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(
        RECIPE / name
        for name in ("README.md", "RESULTS.md", "hparams/README.md")
    ),
    *sorted((RECIPE / "hparams").glob("*.yaml")),
    *sorted((RECIPE / "studies").glob("*.yaml")),
]
FENCES = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^(?:.* \| )?((?:amnet|python|torchrun) .*)$", re.M)
FOLDERS = ("grammars", "hparams", "studies")  # of the recipe


def code_of(page):
    """What stands in a page's fences, or in the comments of a YAML file."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".yaml":
        return "\n".join(re.findall(r"^# *(.*)$", text, re.M))
    return "".join(code for name, code in FENCES.findall(text) if not name)


def commands(program):
    """What follows a program in each command that starts it."""
    found = []
    for page in PAGES:
        for line in COMMAND.findall(code_of(page).replace("\\\n", " ")):
            words = shlex.split(line, comments=True)
            if program in words[:3]:  # torchrun --nproc_per_node=4 train.py
                name = f"{page.relative_to(ROOT)}: {' '.join(words)}"
                rest = words[words.index(program) + 1 :]
                found.append(pytest.param(rest, id=name))
    return found


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A folder with what commands find in the recipe's; gives its modules."""
    for name in FOLDERS:
        (tmp_path / name).symlink_to(RECIPE / name)
    samples = np.random.default_rng(0).random(16000) / 9
    soundfile.write(tmp_path / "kitchen.flac", samples, 16000)
    for name, code in FENCES.findall((RECIPE / "README.md").read_text("utf-8")):
        if name == "yaml":
            (own,) = re.findall(r"^experiment: (\w+)$", code, re.M)
            (tmp_path / f"{own}.yaml").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(RECIPE))
    return importlib.import_module


def check_files(words):
    """What a command names of the recipe is there."""
    for word in words:
        name = word.rpartition("=")[2]
        if name.partition("/")[0] in FOLDERS:
            assert (RECIPE / name).is_file(), name


@pytest.mark.parametrize(
    "program, least",
    [
        ("amnet", 40),
        ("train.py", 30),
        ("train_diff.py", 8),
        ("train_releases.py", 4),
    ],
)
def test_there_are_commands(program, least):
    assert len(commands(program)) >= least


@pytest.mark.parametrize("words", commands("amnet"))
def test_subcommands(words, monkeypatch):
    args = build_parser().parse_args(words)
    check_files(words)
    if words[0] == "corpus":  # not all of its options go together
        for name in ("make_spoken", "make_resplit"):
            monkeypatch.setattr(corpus, name, lambda args: None)
        args.run(args)


@pytest.mark.parametrize("words", commands("train.py"))
def test_trainings(words, recipe):
    """All that train.py looks at before it reads any speech."""
    hparams, checks = loaded(words), recipe("checks")
    for check in ("schedules", "router_learns", "noise", "optimizer"):
        getattr(checks, f"check_{check}")(hparams)
    assert hparams["start_from"] or not hparams["starts_at"]
    check_files(words)


@pytest.mark.parametrize("words", commands("train_diff.py"))
def test_updates(words, recipe):
    """The base is what is looked for after the options."""
    with pytest.raises(FileNotFoundError, match="no model"):
        recipe("train_diff").main(words)
    check_files(words)


@pytest.mark.parametrize("words", commands("train_releases.py"))
def test_updates_in_a_row(words, recipe, tmp_path, monkeypatch):
    """Where there is a base, and what each release brings."""

    class Started(Exception):
        pass

    def train(missing, jobs, unit):
        raise Started(len(missing))

    releases = recipe("train_releases")
    args = releases.build_parser().parse_args(words)
    for generation in range(1, args.generations + 1):
        (args.data_folder / str(generation) / "train").mkdir(parents=True)
    monkeypatch.setattr(releases, "ModelFiles", lambda base: {})
    monkeypatch.setattr(releases, "train", train)
    with pytest.raises(Started) as started:
        releases.main(words)
    assert started.value.args[0] >= args.generations


def test_the_study_of_a_fifth_of_the_compute():
    trainings = read_study(RECIPE / "studies" / "lean.yaml", "data")
    epochs = {one.name: one.epochs for one in trainings}
    assert len(epochs) == 15 and set(epochs.values()) == {12}
    later = {one.row for one in trainings if one.after}
    assert later == {"small_from_full", "amnet_from_full"}
