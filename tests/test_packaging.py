"""Metadata, pinned versions, and what a built wheel holds."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement

from speechbrain_amnet.commands import cp


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the checkout, without network."""
    root = cp.RECIPES.parent.parent
    work = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (root / name).exists():
            shutil.copy(root / name, work)
    for name in ("speechbrain_amnet", "recipes", "hparams"):
        shutil.copytree(root / name, work / name, symlinks=True, ignore=ignore)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--quiet"]
    build += ["--no-deps", "--no-build-isolation", "--no-index", "-w", "dist"]
    done = subprocess.run(build, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (work / "dist").glob("*.whl")
    return file


def test_wheel_holds_recipes_and_hparams_as_files(wheel, root):
    with zipfile.ZipFile(wheel) as archive:
        held = {n: archive.read(n) for n in archive.namelist()}
    inside = "speechbrain_amnet/recipes/"
    recipes = [n.removeprefix(inside) for n in held if n.startswith(inside)]
    assert sorted(recipes) == cp.shipped_files(root / "recipes")
    for file in (root / "hparams").glob("*.yaml"):
        name = f"{inside}LibriSpeech/hparams/{file.name}"
        assert held[name] == file.read_bytes()
    for file in (root / "speechbrain_amnet").rglob("*.py"):
        assert file.relative_to(root).as_posix() in held
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_wheel_holds_what_is_no_python(wheel, root):
    """Templates of pages, and whatever else lies beside the modules."""
    package = root / "speechbrain_amnet"
    files = [file for file in package.rglob("*") if file.is_file()]
    others = [
        file
        for file in files
        if file.suffix != ".py" and "__pycache__" not in file.parts
    ]
    assert package / "report" / "page.html" in others
    with zipfile.ZipFile(wheel) as archive:
        held = {n: archive.read(n) for n in archive.namelist()}
    for file in others:
        assert held.get(file.relative_to(root).as_posix()) == file.read_bytes()


def test_recipe_is_copied_out_of_an_installed_wheel(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    command = [sys.executable, "-m", "speechbrain_amnet.cli"]
    done = subprocess.run(
        [*command, "ls"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    listed = done.stdout.split()
    assert listed == cp.shipped_files(site / "speechbrain_amnet" / "recipes")
    if listed:
        subprocess.run(
            [*command, "cp", "LibriSpeech", "mine"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            check=True,
        )
    for name in listed:
        copy = tmp_path / "mine" / name.removeprefix("LibriSpeech/")
        assert copy.is_file(), name


def test_tested_versions_are_in_the_allowed_ranges(root):
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    extras = setup["options.extras_require"]
    lines = setup["options"]["install_requires"] + extras["dev"]
    needed = [Requirement(line) for line in lines.split("\n") if line]
    pins = {}
    for line in (root / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            (version,) = pin.specifier
            pins[pin.name] = version.version
    for need in needed:
        if need.name in ("build", "packaging"):
            continue
        assert pins[need.name] in need.specifier, need


def test_links_of_the_checkout(root):
    recipe = root / "recipes" / "LibriSpeech"
    assert (recipe / "hparams").resolve() == (root / "hparams").resolve()
    assert cp.RECIPES.resolve() == (root / "recipes").resolve()


def test_licence_is_apache(root):
    text = (root / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0" in text
