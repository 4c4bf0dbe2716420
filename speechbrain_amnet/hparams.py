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

import difflib
import io
import pydoc
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

BASE = "base"
PLAIN = "tag:yaml.org,2002:"  # prefix of the tags that YAML itself gives
BUILDERS = ("!new:", "!name:", "!apply:", "!module:", "!applyref:")
COMMAND_LINE = "command line"

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
    root = _compose(text, path)
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
        root = _compose(root, path)
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
        _merge_top(whole, node, file)
    if change is not None:
        names += ", command line's values put in"
        _merge_top(whole, change, COMMAND_LINE)
    return f"# {names}\n{_serialize(whole)}"


def check_recorded(file: Path, text: str) -> None:
    """Refuse to go on with a training under other hparams than its own.

    Arguments
    ---------
    file : Path
        The `hyperparams.yaml` in the training's folder.
    text : str
        What is asked for now, from `resolve_hparams`. Comments, the form of
        the YAML, and the keys of `MAY_CHANGE` may differ.

    Raises
    ------
    ValueError
        If anything else does; the message names the keys.

    Example
    -------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "hyperparams.yaml")
    >>> _ = file.write_text("layers: 3\\nthreads: 1\\n")
    >>> check_recorded(file, "threads: 2\\nlayers: 3  # or more\\n")
    """
    old, new = (
        {key.value: _content(value) for key, value in root.value}
        for root in (
            _compose(resolve_hparams(file), file),
            _compose(text, file),
        )
    )
    changed = sorted(
        key
        for key in (old.keys() | new.keys()) - MAY_CHANGE
        if old.get(key) != new.get(key)
    )
    if changed:
        raise ValueError(
            f"{file.parent} was trained with other hparams than are asked for "
            f"now: {', '.join(changed)} (see {file.name} in it); give another "
            "output_folder, or move this one away to train it anew"
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

    root = _compose(text, "hparams")
    root.value = [
        (key, value)
        for key, value in root.value
        if not any(_tagged(node) for _, node in _walk(value))
    ]
    return load_hyperpyyaml(_serialize(root)) or {}


def parse_arguments(argv: list[str]) -> tuple[str, Any, str]:
    """SpeechBrain's `parse_arguments`, for values that contain `=` too.

    SpeechBrain joins and splits the arguments at every `=`, so that
    `--data_folder=/data/set=1` becomes `/data/set 1`.

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

    stand_in = "\ue000"  # a private character, never in an argument

    def protect(argument: str) -> str:
        name, equals, value = argument.partition("=")
        if not argument.startswith("--"):
            name, equals, value = "", "", argument
        return name + equals + value.replace("=", stand_in)

    path, run_opts, _ = speechbrain.parse_arguments(argv)
    _, _, text = speechbrain.parse_arguments([protect(a) for a in argv])
    return path, run_opts, text.replace(stand_in, "=")


# Reading and writing -------------------------------------------------------


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
        node = _compose(_absolute_includes(text, path.parent), path)
        base = _pop_base(node, path)
        files.append((path, text, node))
        if base is None:
            return files
        path = path.parent / base


def _pop_base(node: MappingNode, path: Path) -> str | None:
    """Takes the line `base: ...` out of a parsed file."""
    for index, (key, value) in enumerate(node.value):
        if key.value == BASE:
            if not isinstance(value, ScalarNode) or _tagged(value):
                raise ValueError(
                    f"{_place(path, value)}: 'base' must be the path of an "
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
    return _compose(overrides, COMMAND_LINE)


def _compose(text: str, path: str | Path) -> MappingNode:
    """Parses a text into nodes, with every tag as written, building nothing."""
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        raise ValueError(f"{path}: {_one_line(error)}") from error
    except YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if not isinstance(node, MappingNode):
        raise ValueError(f"{path}: expected `key: value` lines at the top")
    for _, child in _walk(node):
        if isinstance(child, MappingNode):
            _refuse_doubles(child, path)
    return node


def _refuse_doubles(node: MappingNode, path: str | Path) -> None:
    seen = set()
    for key, _ in node.value:
        if str(key.value) in seen:
            raise ValueError(f"{_place(path, key)}: '{key.value}' stands twice")
        seen.add(str(key.value))


def _content(node: Node) -> Any:
    """What a node says, however it is written."""
    value = node.value
    if isinstance(node, MappingNode):
        value = {str(key.value): _content(child) for key, child in node.value}
    elif isinstance(node, SequenceNode):
        value = [_content(child) for child in node.value]
    return str(node.tag), value


def _serialize(node: Node) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.width = 4096  # long values stay on their line
    stream = io.StringIO()
    _unfold(node)
    yaml.serialize(node, stream)
    return stream.getvalue()


def _unfold(node: Node) -> bool:
    """Block style for lists of tagged mappings, and for what is around them.

    ruamel.yaml writes `[!new:a {b: 1}]` as `[!new:a b: 1]`, which is no YAML.
    """
    if isinstance(node, MappingNode):
        children = [child for _, child in node.value]
    elif isinstance(node, SequenceNode):
        children = node.value
    else:
        return False
    inner = [_unfold(child) for child in children]
    tagged = isinstance(node, SequenceNode) and any(
        isinstance(child, MappingNode) and _built_name(child)
        for child in children
    )
    if tagged or any(inner):
        node.flow_style = False
        return True
    return False


# Merging -------------------------------------------------------------------


def _merge_top(whole: MappingNode, change: MappingNode, source: Any) -> None:
    """Puts the top-level keys of `change` in; each must exist already."""
    known = [key.value for key, _ in whole.value]
    for key, _ in change.value:
        if key.value not in known:
            close = difflib.get_close_matches(str(key.value), known)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(
                f"{_place(source, key)}: unknown key '{key.value}'{hint}"
            )
    _merge(whole, change, source)


def _merge(old: MappingNode, change: MappingNode, source: Any) -> None:
    index = {key.value: i for i, (key, _) in enumerate(old.value)}
    for key, value in change.value:
        if key.value not in index:
            old.value.append((key, value))
            continue
        i = index[key.value]
        old_key, old_value = old.value[i]
        if not _is_plain_mapping(value):
            old.value[i] = (old_key, value)
        elif isinstance(old_value, MappingNode):
            _merge(old_value, value, source)
        elif _takes_arguments(old_value) and not old_value.value:
            # `!new:X` alone, now with arguments
            value.ctag = old_value.ctag
            old.value[i] = (old_key, value)
        elif _takes_arguments(old_value):
            raise ValueError(
                f"{_place(source, value)}: '{key.value}' takes a list of "
                f"arguments; write the whole value, from {old_value.tag} on"
            )
        else:
            old.value[i] = (old_key, value)


def _tagged(node: Node) -> bool:
    return bool(node.tag) and not str(node.tag).startswith(PLAIN)


def _is_plain_mapping(node: Node) -> bool:
    return isinstance(node, MappingNode) and not _tagged(node)


def _takes_arguments(node: Node) -> bool:
    return str(node.tag).startswith((*BUILDERS, "!include:"))


# Checking and messages -----------------------------------------------------


def _walk(node: Node, where: str = "") -> Iterator[tuple[str, Node]]:
    """Each node with its place as `!ref` writes it: `encoder[branches][0]`."""
    yield where, node
    if isinstance(node, MappingNode):
        children = [(str(key.value), value) for key, value in node.value]
    elif isinstance(node, SequenceNode):
        children = [(str(i), value) for i, value in enumerate(node.value)]
    else:
        return
    for name, child in children:
        yield from _walk(child, f"{where}[{name}]" if where else name)


def _check_values(root: MappingNode, path: str | Path) -> None:
    """Finds missing values and wrong names before anything is built."""
    missing = [w for w, node in _walk(root) if node.tag == "!PLACEHOLDER"]
    if missing:
        options = " ".join(f"--{where}=..." for where in missing)
        raise ValueError(f"{path}: to be given on the command line: {options}")
    for where, node in _walk(root):
        name = _built_name(node)
        if name is None:
            continue
        try:
            found = pydoc.locate(name) is not None
            why = "there is no such name"
        except pydoc.ErrorDuringImport as error:
            found, why = False, str(error)
        if not found:
            raise ValueError(f"{path}: {where}: cannot import {name}: {why}")


def _built_name(node: Node) -> str | None:
    """`package.Class` of `!new:package.Class`, None for other tags."""
    for prefix in BUILDERS:
        if str(node.tag).startswith(prefix):
            return str(node.tag)[len(prefix) :]
    return None


def _bad_argument(error: TypeError, root: Node, path: str | Path) -> str:
    """hyperpyyaml names the class of a wrong argument; the keys are added."""
    first, *rest = [str(part) for part in error.args]
    name = first.rsplit(" ", 1)[-1]
    return ": ".join([str(path), *_keys_of(name, root), first, *rest])


def _keys_of(name: str, root: Node) -> list[str]:
    """The places where a class is built, as one part of a message, or none."""
    keys = [
        where
        for where, node in _walk(root)
        if name in (built := _built_name(node) or "", built.rpartition(".")[2])
    ]
    return [" or ".join(keys)] if name and keys else []


def _place(source: Any, node: Node) -> str:
    """`file.yaml:12`, or the command line, which has no lines."""
    if source == COMMAND_LINE:
        return COMMAND_LINE
    return f"{source}:{node.start_mark.line + 1}"


def _one_line(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    line = f"line {mark.line + 1}: " if mark else ""
    context = f" {error.context}" if error.context else ""
    return f"{line}not YAML: {error.problem}{context}"
