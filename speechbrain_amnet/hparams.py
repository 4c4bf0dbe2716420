"""Experiments as short files: a base, and what an experiment changes in it.

SpeechBrain's hparams files are whole files, so experiments are usually copies
of each other. Here a file may name its base in one line and hold nothing but
the difference::

    base: amnet.yaml
    encoder: !new:speechbrain_amnet.AmortizedEncoder
        branches: [!new:speechbrain_amnet.Dense]

The texts are merged as YAML nodes, before anything is built, into one whole
standard hyperpyyaml text. The rule, for each key of the experiment:

* a value with a tag (`!new:`, `!ref`, ...) replaces the base's value whole
  (hyperpyyaml's own override would keep the base's class without a word);
* a plain mapping is merged into the base's mapping, key by key; where the
  base's value is tagged, its class stays and its arguments change;
* everything else (numbers, strings, lists) replaces the base's value;
* a top-level key that the base does not have is an error.
"""

import io
import pydoc
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from .nodes import (
    COMMAND_LINE,
    built_name,
    compose,
    content,
    differences,
    is_tagged,
    merge,
    place_of,
    serialize,
    walk,
)

BASE = "base"
YAML_IN_TEXT = re.compile(r"\s#|:\s")  # a comment, or a mapping

# What may differ when a training goes on: where it is, and how it is run.
MAY_CHANGE = {
    "data_folder",
    "output_folder",
    "save_folder",
    "ckpt_interval_minutes",
    "num_workers",
    "threads",
}


def load_hparams(
    path: str | Path, overrides: str | Mapping[str, Any] = ""
) -> dict[str, Any]:
    """Loads an hparams file with its bases and the command line's overrides.

    Arguments
    ---------
    path : str or Path
        A hyperpyyaml file, whole or with a line `base: other.yaml` (a path
        relative to the file). Bases may have bases.
    overrides : str or mapping
        YAML text as `parse_arguments` gives it, or plain values by key.

    Returns
    -------
    dict
        The loaded objects and values by their top-level key.

    Raises
    ------
    FileNotFoundError
        If the file or one of its bases does not exist.
    ValueError
        If a text is not YAML, a key is unknown, a value is still missing
        (`!PLACEHOLDER`), a name after `!new:` cannot be imported, or an
        object refuses its arguments. The message names the file.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "whole.yaml").write_text(
    ...     "size: 3\\ncount: !new:collections.Counter\\n    a: !ref <size>\\n"
    ... )
    >>> _ = (folder / "mine.yaml").write_text("base: whole.yaml\\nsize: 4\\n")
    >>> load_hparams(folder / "mine.yaml")["count"]
    Counter({'a': 4})
    >>> load_hparams(folder / "mine.yaml", "size: 5")["size"]
    5
    """
    from hyperpyyaml import load_hyperpyyaml

    text = resolve_hparams(path, overrides)
    root = compose(text, path)
    _check_values(root, path)
    stream = io.StringIO(text)
    stream.name = str(path)  # hyperpyyaml finds !include: files beside it
    with building(root, path):
        return load_hyperpyyaml(stream)


@contextmanager
def building(root: str | Node, path: str | Path) -> Iterator[None]:
    """Objects are built of an hparams text: errors name file and key.

    Arguments
    ---------
    root : str or Node
        The text, or what was parsed of it.
    path : str or Path
        Its file.

    Raises
    ------
    ValueError
        For what a class said of its arguments, or hyperpyyaml of the text.
        Errors of a type of their own, as `WeightsError`, pass as they are.
    """
    if isinstance(root, str):
        root = compose(root, path)
    try:
        yield
    except TypeError as error:
        raise ValueError(_bad_argument(error, root, path)) from error
    except MarkedYAMLError as error:
        hint = " (a reference to itself?)" if "!ref" in str(error) else ""
        raise ValueError(f"{path}: {error.problem}{hint}") from error
    except ValueError as error:
        if type(error) is not ValueError:  # typed errors speak for themselves
            raise
        message = " ".join(str(part) for part in error.args)
        where = _keys_of(message.partition(":")[0], root)
        raise ValueError(": ".join([str(path), *where, message])) from error


def resolve_hparams(
    path: str | Path, overrides: str | Mapping[str, Any] = ""
) -> str:
    """Merges a file, its bases and overrides into one hyperpyyaml text.

    References (`!ref`) and placeholders stay as they are written, so that the
    text reads as a file does and can be loaded by plain hyperpyyaml. A file
    without base and overrides is returned as it stands; a merged text has no
    comments but the one that says where it comes from.

    Arguments
    ---------
    path : str or Path
        The file, as for `load_hparams`.
    overrides : str or mapping
        The overrides, as for `load_hparams`.

    Returns
    -------
    str
        The whole text.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_hparams`, but for what is only found by building objects.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "whole.yaml").write_text("a: 1\\nb: !ref <a> * 2\\n")
    >>> _ = (folder / "mine.yaml").write_text("base: whole.yaml\\na: 3\\n")
    >>> print(resolve_hparams(folder / "mine.yaml"), end="")
    # mine.yaml on whole.yaml
    a: 3
    b: !ref <a> * 2
    """
    files = _chain(Path(path))
    change = _overrides_node(overrides)
    if len(files) == 1 and change is None:
        return files[0][1]

    names = " on ".join(file.name for file, _, _ in files)
    _, _, whole = files.pop()
    for file, _, node in reversed(files):
        merge(whole, node, file)
    if change is not None:
        names += ", command line's values put in"
        merge(whole, change, COMMAND_LINE)
    return f"# {names}\n{serialize(whole)}"


def check_recorded(file: Path, text: str) -> None:
    """Refuse to go on with a training under other hparams than its own.

    Arguments
    ---------
    file : Path
        The `hyperparams.yaml` in the training's folder.
    text : str
        What is asked for now, from `resolve_hparams`. Comments, the form of
        the YAML (`1e-3` or 0.001), and the keys of `MAY_CHANGE` may differ.

    Raises
    ------
    ValueError
        If anything else does; the message names the keys and both values.

    Example
    -------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "hyperparams.yaml")
    >>> _ = file.write_text("layers: 3\\nthreads: 1\\n")
    >>> check_recorded(file, "threads: 2\\nlayers: 0x3  # or more\\n")
    """
    old, new = (
        content(compose(one, file)) for one in (resolve_hparams(file), text)
    )
    for _, values in (old, new):
        for key in MAY_CHANGE:
            values.pop(key, None)
    changed = [
        f"{place} ({there} there, {now} now)"
        for place, there, now in differences(old, new)
    ]
    if changed:
        raise ValueError(
            f"{file.parent} was trained with other hparams than are asked for "
            f"now: {', '.join(changed)}; see {file.name} in it, and give "
            "another folder (output_folder, or --out), or move this one away "
            "to train it anew"
        )


def plain_values(text: str) -> dict[str, Any]:
    """The top-level values that stand in a text as they are.

    They can be checked before anything is built.

    Arguments
    ---------
    text : str
        From `resolve_hparams`.

    Returns
    -------
    dict
        Without the values that have a tag (`!ref`, `!new:`) in them.

    Example
    -------
    >>> plain_values("a: 1.5\\nb: [x]\\nc: !ref <a>\\n")
    {'a': 1.5, 'b': ['x']}
    """
    from hyperpyyaml import load_hyperpyyaml

    root = compose(text, "hparams")
    root.value = [
        (key, value)
        for key, value in root.value
        if not any(is_tagged(node) for _, node in walk(value))
    ]
    return load_hyperpyyaml(serialize(root)) or {}


def parse_arguments(argv: list[str]) -> tuple[str, Any, str]:
    """SpeechBrain's `parse_arguments`, for all keys and values of hparams.

    SpeechBrain joins and splits the arguments at every `=`, so that
    `--data_folder=/data/set=1` becomes `/data/set 1`; it takes `--optimizer`
    for short for its own `--optimizer_step_limit`; and it keeps its own
    options to itself, where hparams have them, too, as `precision`.

    Arguments
    ---------
    argv : list of str
        The command line after the script's name.

    Returns
    -------
    tuple
        The hparams file, SpeechBrain's run options, and the other arguments
        as YAML text.

    Example
    -------
    >>> parse_arguments(["my.yaml", "--data_folder=/data/set=1"])[2]
    'data_folder: /data/set=1'
    """
    import speechbrain
    from speechbrain.utils.run_opts import RunOptions

    # Private characters, never in an argument.
    equal_sign, hparam = "\ue000", "\ue001"
    options = {field.name for field in fields(RunOptions)}

    def whole(argument: str) -> str:
        name = argument.partition("=")[0].removeprefix("--")
        short = any(option.startswith(name) for option in options - {name})
        if not argument.startswith("--") or name in options or not short:
            return argument
        return f"--{hparam}{argument.removeprefix('--')}"

    def protect(argument: str) -> str:
        name, equals, value = argument.partition("=")
        if not argument.startswith("--"):
            name, equals, value = "", "", argument
        plain = "\n" not in value and value.lstrip()[:1] not in "[{!'\""
        if plain and YAML_IN_TEXT.search(value):
            value = "'" + value.replace("'", "''") + "'"  # a path, mostly
        return name + equals + value.replace("=", equal_sign)

    argv = [whole(argument) for argument in argv]
    path, run_opts, _ = speechbrain.parse_arguments(argv)
    _, _, text = speechbrain.parse_arguments([protect(a) for a in argv])
    lines = [text.replace(equal_sign, "=").replace(hparam, "")]
    given = sorted(run_opts.overridden_args)
    if given and Path(path).is_file():  # else that is said later
        root = compose(resolve_hparams(path), path)
        keys = {key.value for key, _ in root.value}
        lines += [
            f"{name}: {getattr(run_opts, name)}"
            for name in given
            if name in keys
        ]
    return path, run_opts, "\n".join(filter(None, lines))


def _chain(path: Path) -> list[tuple[Path, str, MappingNode]]:
    """The file, its base, the base's base...: path, text, parsed node."""
    files: list[tuple[Path, str, MappingNode]] = []
    while True:
        names = [file.name for file, _, _ in files]
        if path.resolve() in [file.resolve() for file, _, _ in files]:
            circle = " -> ".join([*names, path.name])
            raise ValueError(f"{files[0][0]}: bases form a circle: {circle}")
        if not path.is_file():
            named = f" (the base of {files[-1][0]})" if files else ""
            raise FileNotFoundError(f"no such hparams file: {path}{named}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text: {error}") from error
        node = compose(_absolute_includes(text, path.parent), path)
        base = _pop_base(node, path)
        files.append((path, text, node))
        if base is None:
            return files
        path = path.parent / base


def _pop_base(node: MappingNode, path: Path) -> str | None:
    """Takes the line `base: ...` out of a parsed file."""
    for index, (key, value) in enumerate(node.value):
        if key.value == BASE:
            if not isinstance(value, ScalarNode) or is_tagged(value):
                raise ValueError(
                    f"{place_of(path, value)}: 'base' must be the path of an "
                    "hparams file"
                )
            del node.value[index]
            return value.value
    return None


def _absolute_includes(text: str, folder: Path) -> str:
    """Lets `!include:x.yaml` mean the same from any other file."""
    here = quote(str(folder.resolve()))  # a tag has no blanks
    return re.sub(r"!include:(?!/)", f"!include:{here}/", text)


def _overrides_node(overrides: str | Mapping[str, Any]) -> MappingNode | None:
    if not overrides:
        return None
    if not isinstance(overrides, str):
        stream = io.StringIO()
        try:
            YAML().dump(overrides, stream)
        except YAMLError as error:
            raise ValueError(
                f"overrides must be plain values: {error}"
            ) from error
        overrides = stream.getvalue()
    return compose(overrides, COMMAND_LINE)


def _check_values(root: MappingNode, path: str | Path) -> None:
    """Finds missing values and wrong names before anything is built."""
    missing = [w for w, node in walk(root) if node.tag == "!PLACEHOLDER"]
    if missing:
        options = " ".join(f"--{where}=..." for where in missing)
        raise ValueError(f"{path}: to be given on the command line: {options}")
    for where, node in walk(root):
        name = built_name(node)
        if name is None:
            continue
        try:
            found = pydoc.locate(name) is not None
            why = "there is no such name"
        except pydoc.ErrorDuringImport as error:
            found, why = False, str(error)
        if not found:
            raise ValueError(f"{path}: {where}: cannot import {name}: {why}")


def _bad_argument(error: TypeError, root: Node, path: str | Path) -> str:
    """hyperpyyaml names the class of a wrong argument; the keys are added."""
    first, *rest = [str(part) for part in error.args]
    name = first.rsplit(" ", 1)[-1]
    return ": ".join([str(path), *_keys_of(name, root), first, *rest])


def _keys_of(name: str, root: Node) -> list[str]:
    """The places where a class is built, as one part of a message, or none."""
    keys = [
        where
        for where, node in walk(root)
        if name in (built := built_name(node) or "", built.rpartition(".")[2])
    ]
    return [" or ".join(keys)] if name and keys else []
