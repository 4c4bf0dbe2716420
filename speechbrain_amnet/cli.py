"""The command `amnet`: its subcommands, and errors as one line.

A module in `commands` declares a subcommand with `add(subparsers)`, which sets
`run=run`; `run(args)` does the work and prints. Whatever is slow to import
(torch) is imported inside `run`.
"""

import argparse
import atexit
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from speechbrain_amnet.commands import (
    bench,
    corpus,
    cp,
    demo,
    diff,
    evaluate,
    grammar,
    learnt,
    names,
    pack,
    page,
    plot,
    study,
    table,
    transcribe,
)

# In the order of `amnet --help`.
COMMANDS = (
    names,
    cp,
    corpus,
    grammar,
    transcribe,
    evaluate,
    study,
    table,
    plot,
    learnt,
    page,
    pack,
    bench,
    diff,
    demo,
)


# A logger of SpeechBrain's for pictures that nothing here makes asks for
# torchvision, whenever hparams are loaded.
logging.getLogger("speechbrain.utils.train_logger").addFilter(
    lambda record: "torchvision" not in record.getMessage()
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
        if sys.stdout is not None:  # closed, as some daemons start things
            # Or Python finds that nobody reads it, at the end.
            sys.stdout.flush()
    except BrokenPipeError:  # `amnet names | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("amnet: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("AMNET_DEBUG") == "1" or not is_users(error):
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
        command.add(subparsers)
    return parser


def version() -> str:
    """The installed version; `unknown` when run from a bare checkout."""
    try:
        return importlib.metadata.version("speechbrain-amnet")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def run_script(name: str, main: Callable[[list[str]], None]) -> None:
    """Run a recipe's script; what a user can mend ends with one line.

    Arguments
    ---------
    name : str
        What the line begins with.
    main : callable
        Gets the words of the command line. After an error that a user can
        mend the process ends with code 2, after Ctrl-C with 130.

    Example
    -------
    >>> run_script("train.py", lambda argv: None)
    """
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        print(f"{name}: stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if os.environ.get("AMNET_DEBUG") == "1" or not is_users(error):
            raise
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        leave()


def leave() -> NoReturn:
    """End a process that torchrun started, without Python's finalization.

    Threads of PyTorch's may ask for the interpreter while it goes away, and
    abort the process ("terminate called without an active exception", one end
    of forty on a busy machine); torchrun then kills the others, of which the
    main one may still be evaluating.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(0)


def is_users(error: Exception) -> bool:
    """Whether a user can mend it: then a line says more than a traceback.

    Example
    -------
    >>> is_users(ValueError("epochs: expected 1 or more, got 0"))
    True
    """
    return isinstance(error, (ValueError, OSError, LookupError, ImportError))


def one_line(error: BaseException) -> str:
    """An error's message on one line, without the quotes of a KeyError.

    Example
    -------
    >>> one_line(KeyError("no such branch: 3"))
    'no such branch: 3'
    >>> print(one_line(ValueError("it has no \x1b[2J")))
    it has no \\x1b[2J
    """
    message: Any = error
    if isinstance(error, LookupError) and len(error.args) == 1:
        message = error.args[0]
    text = " ".join(str(message).split()) or type(error).__name__
    # What a file's stranger wrote is not for the terminal to obey.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    sys.exit(main())
