"""The command `amnet`: one function pair a subcommand, `add_X` and `run_X`.

`add_X(subparsers)` declares the arguments and sets `run=run_X`; `run_X(args)`
does the work and prints. A module adds its own subcommand by listing it in
`COMMANDS`. Whatever is slow to import (torch) is imported inside `run_X`.
"""

import argparse
import importlib
import importlib.metadata
import os
import shutil
import sys
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "recipes"

# What of a recipe an installed package holds; setup.cfg has the same list.
SHIPPED = ("*.py", "*.md", "hparams/*.yaml")

# Functions that declare a subcommand, as `module:function`.
COMMANDS = (
    "speechbrain_amnet.cli:add_names",
    "speechbrain_amnet.cli:add_ls",
    "speechbrain_amnet.cli:add_cp",
    "speechbrain_amnet.cli:add_corpus",
)


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand; what a user can mend ends with one line.

    Arguments
    ---------
    argv : list of str, optional
        The words after `amnet`; the process's own by default.

    Returns
    -------
    int
        Exit code: 0, or 2 after an error. With `AMNET_DEBUG=1` in the
        environment errors are raised with their traceback instead.

    Example
    -------
    >>> main(["cp", "NoSuchRecipe", "mine"])
    2
    """
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except BrokenPipeError:  # `amnet names | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("amnet: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, LookupError, ImportError) as error:
        if os.environ.get("AMNET_DEBUG") == "1":
            raise
        print(f"amnet: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand of `COMMANDS`.

    Example
    -------
    >>> build_parser().parse_args(["names"]).markdown
    False
    """
    parser = argparse.ArgumentParser(
        prog="amnet",
        description="Amortized networks for speech recognition.",
    )
    parser.add_argument(
        "--version", action="version", version=f"amnet {version()}"
    )
    subparsers = parser.add_subparsers(
        title="subcommands", metavar="COMMAND", required=True
    )
    for command in COMMANDS:
        module, _, function = command.partition(":")
        getattr(importlib.import_module(module), function)(subparsers)
    return parser


def version() -> str:
    """The installed version; `unknown` when run from a bare checkout."""
    try:
        return importlib.metadata.version("speechbrain-amnet")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def one_line(error: BaseException) -> str:
    """An error's message on one line, without the quotes of a KeyError.

    Example
    -------
    >>> one_line(KeyError("no such branch: 3"))
    'no such branch: 3'
    """
    message: Any = error
    if isinstance(error, LookupError) and len(error.args) == 1:
        message = error.args[0]
    return " ".join(str(message).split()) or type(error).__name__


# names ---------------------------------------------------------------------


def add_names(subparsers: Any) -> None:
    """Declares `amnet names`."""
    parser = subparsers.add_parser(
        "names", help="list the names that hparams files may use"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the reference page"
    )
    parser.set_defaults(run=run_names)


def run_names(args: argparse.Namespace) -> None:
    """Prints the catalogue."""
    from speechbrain_amnet import catalogue

    text = catalogue.markdown() if args.markdown else catalogue.plain()
    print(text, end="")


# ls, cp --------------------------------------------------------------------


def add_ls(subparsers: Any) -> None:
    """Declares `amnet ls`."""
    parser = subparsers.add_parser(
        "ls", help="list the recipes and hparams files that can be copied"
    )
    parser.set_defaults(run=run_ls)


def run_ls(args: argparse.Namespace) -> None:
    """Prints each file that `amnet cp` can copy."""
    for file in shipped_files(RECIPES):
        print(file)


def add_cp(subparsers: Any) -> None:
    """Declares `amnet cp`."""
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
    FileExistsError
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

    in_the_way = [target for _, target in pairs if target.exists()]
    if in_the_way and not force:
        raise FileExistsError(
            f"{in_the_way[0]} exists already; give another place, or --force"
        )
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return [target for _, target in pairs]


# corpus --------------------------------------------------------------------


def add_corpus(subparsers: Any) -> None:
    """Declares `amnet corpus`."""
    parser = subparsers.add_parser(
        "corpus",
        help="make the built-in spoken corpus, in LibriSpeech layout",
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="the corpus's folder"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=60,
        help="speech to make, in minutes (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the same seed makes the same corpus (default: %(default)s)",
    )
    parser.set_defaults(run=run_corpus)


def run_corpus(args: argparse.Namespace) -> None:
    """Makes the corpus, or says that it is there already."""
    from speechbrain_amnet.corpus.spoken import make_spoken_corpus

    make_spoken_corpus(args.out, minutes=args.minutes, seed=args.seed)
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
