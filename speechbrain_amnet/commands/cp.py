"""`amnet ls` and `amnet cp`: recipes for a folder of one's own."""

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[1] / "recipes"

# What of a recipe an installed package holds; setup.cfg has the same list.
SHIPPED = (
    "*.py",
    "*.md",
    "grammars/*.gram",
    "hparams/*.md",
    "hparams/*.yaml",
    "studies/*.yaml",
)
# A link out of the recipe's folder, which leads nowhere from a copy.
OUTSIDE = re.compile(r"!?\[([^\]]+)\]\(\.\./\.\./[^)]*\)")


def add(subparsers: Any) -> None:
    """Declares `amnet ls` and `amnet cp`."""
    parser = subparsers.add_parser(
        "ls", help="list the recipes and hparams files that can be copied"
    )
    parser.set_defaults(run=run_ls)
    parser = subparsers.add_parser(
        "cp",
        help="copy a recipe, or one of its files, into a folder of your own",
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="a name as `amnet ls` prints it: LibriSpeech for all of its "
        "files, or LibriSpeech/hparams/amnet.yaml for one",
    )
    parser.add_argument(
        "dest", metavar="DEST", type=Path, help="the new folder, or file"
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite files that exist"
    )
    parser.set_defaults(run=run_cp)


def run_ls(args: argparse.Namespace) -> None:
    """Prints each file that `amnet cp` can copy."""
    for file in shipped_files(RECIPES):
        print(file)


def run_cp(args: argparse.Namespace) -> None:
    """Copies a recipe's files, or one of them; refuses to overwrite."""
    for target in copy_recipe(args.recipe, args.dest, args.force):
        print(target)


def shipped_files(folder: Path) -> list[str]:
    """What can be copied, relative to the folder of all recipes.

    Arguments
    ---------
    folder : Path
        The folder that holds the recipes' folders.

    Returns
    -------
    list of str
        Sorted, for instance `LibriSpeech/train.py`.

    Example
    -------
    >>> shipped_files(Path("no/such/folder"))
    []
    """
    return sorted(
        path.relative_to(folder).as_posix()
        for pattern in SHIPPED
        for path in folder.glob(f"*/{pattern}")
    )


def copy_recipe(name: str, dest: Path, force: bool = False) -> list[Path]:
    """Copies the recipe `name`, or one file of it, to `dest`.

    Arguments
    ---------
    name : str
        A recipe (`LibriSpeech`) or a file as `amnet ls` prints it.
    dest : Path
        The new folder, or for a single file the new file, or a folder that
        exists.
    force : bool
        Whether files that exist are overwritten.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    FileNotFoundError
        If there is no such recipe or file.
    FileExistsError, NotADirectoryError
        If a file is in the way; then nothing is written.

    Example
    -------
    >>> copy_recipe("NoSuchRecipe", Path("mine"))
    Traceback (most recent call last):
    ...
    FileNotFoundError: no such recipe: NoSuchRecipe (see `amnet ls`)
    """
    name = name.strip("/")
    files = shipped_files(RECIPES)
    if name in files:
        target = dest / Path(name).name if dest.is_dir() else dest
        pairs = [(RECIPES / name, target)]
    else:
        pairs = [
            (RECIPES / file, dest / Path(file).relative_to(name))
            for file in files
            if file.startswith(f"{name}/")
        ]
    if not pairs:
        raise FileNotFoundError(f"no such recipe: {name} (see `amnet ls`)")

    for _, target in pairs:
        for folder in target.parents:
            if folder.exists() and not folder.is_dir():
                raise NotADirectoryError(
                    f"{folder} is a file, expected a folder; give another place"
                )
    in_the_way = [target for _, target in pairs if target.exists()]
    if in_the_way and not force:
        raise FileExistsError(
            f"{in_the_way[0]} exists already; give another place, or --force"
        )
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text = OUTSIDE.sub(r"\1", source.read_text(encoding="utf-8"))
            target.write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    return [target for _, target in pairs]
