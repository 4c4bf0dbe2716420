"""YAML as nodes: parsed, merged and written again, building nothing.

A tag (`!new:`, `!ref`, ...) is a word here as any other.
"""

import copy
import difflib
import io
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

PLAIN = "tag:yaml.org,2002:"  # prefix of the tags that YAML itself gives
TEXT = f"{PLAIN}str"
BUILDERS = ("!new:", "!name:", "!apply:", "!module:", "!applyref:")
COMMAND_LINE = "command line"


def compose(text: str, path: str | Path) -> MappingNode:
    """Parses a text into nodes, with every tag as written, building nothing.

    Arguments
    ---------
    text : str
        Of YAML, `key: value` lines at the top.
    path : str or Path
        Its file, for messages.

    Returns
    -------
    MappingNode

    Raises
    ------
    ValueError
        If it is no such text, or a key stands twice.

    Example
    -------
    >>> serialize(compose("a: !ref <b>  # why", "mine.yaml"))
    'a: !ref <b>\\n'
    """
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        raise ValueError(f"{path}: {_one_line(error)}") from error
    except YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if not isinstance(node, MappingNode):
        raise ValueError(f"{path}: expected `key: value` lines at the top")
    for _, child in walk(node):
        if isinstance(child, MappingNode):
            _refuse_doubles(child, path)
    return node


def _refuse_doubles(node: MappingNode, path: str | Path) -> None:
    seen = set()
    for key, _ in node.value:
        if str(key.value) in seen:
            raise ValueError(
                f"{place_of(path, key)}: '{key.value}' stands twice"
            )
        seen.add(str(key.value))


def serialize(node: Node) -> str:
    """The text of a node; changes its style where YAML could not be read."""
    yaml = YAML(typ="safe", pure=True)
    yaml.width = 4096  # long values stay on their line
    stream = io.StringIO()
    _unfold(node)
    yaml.serialize(node, stream)
    return stream.getvalue()


def _unfold(node: Node) -> bool:
    """Block style for lists of named mappings, and for what is around them.

    ruamel.yaml leaves out the braces around a single pair in a list. The tag
    or anchor in front of them is then the key's: `[!new:a b: 1]`.
    """
    if isinstance(node, MappingNode):
        children = [child for _, child in node.value]
    elif isinstance(node, SequenceNode):
        children = node.value
    else:
        return False
    inner = [_unfold(child) for child in children]
    named = isinstance(node, SequenceNode) and any(
        isinstance(child, MappingNode)
        and (str(child.tag) != f"{PLAIN}map" or child.anchor)
        for child in children
    )
    if named or any(inner):
        node.flow_style = False
        return True
    return False


def merge(whole: MappingNode, change: MappingNode, source: Any) -> None:
    """Puts the top-level keys of `change` in; each must exist already.

    By the rule that `hparams` states.

    Arguments
    ---------
    whole : MappingNode
        Changed in place.
    change : MappingNode
        What replaces parts of it.
    source : str or Path
        Where the change stands, for messages.

    Raises
    ------
    ValueError
        If there is no such key, or keys meet a list of arguments.

    Example
    -------
    >>> whole = compose("a: !new:A {b: 1, c: 2}", "whole.yaml")
    >>> merge(whole, compose("a: {b: 3}", "mine.yaml"), "mine.yaml")
    >>> serialize(whole)
    'a: !new:A {b: 3, c: 2}\\n'
    """
    known = [key.value for key, _ in whole.value]
    for key, _ in change.value:
        if key.value not in known:
            close = difflib.get_close_matches(str(key.value), known)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(
                f"{place_of(source, key)}: unknown key '{key.value}'{hint}"
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
            # What an alias stands for is the same node elsewhere.
            mine = copy.deepcopy(old_value) if old_value.anchor else old_value
            mine.anchor = None
            old.value[i] = (old_key, mine)
            _merge(mine, value, source)
        elif _takes_arguments(old_value) and not old_value.value:
            # `!new:X` alone, now with arguments
            value.ctag = old_value.ctag
            old.value[i] = (old_key, value)
        elif _takes_arguments(old_value):
            raise ValueError(
                f"{place_of(source, value)}: '{key.value}' takes a list of "
                f"arguments; write the whole value, from {old_value.tag} on"
            )
        else:
            old.value[i] = (old_key, value)


def walk(node: Node, where: str = "") -> Iterator[tuple[str, Node]]:
    """Each node with its place as `!ref` writes it: `encoder[branches][0]`."""
    yield where, node
    if isinstance(node, MappingNode):
        children = [(str(key.value), value) for key, value in node.value]
    elif isinstance(node, SequenceNode):
        children = [(str(i), value) for i, value in enumerate(node.value)]
    else:
        return
    for name, child in children:
        yield from walk(child, f"{where}[{name}]" if where else name)


def content(node: Node) -> Any:
    """What a node says, however it is written.

    A value without a tag is what hyperpyyaml makes of it (`3.0e-3` is 0.003,
    `'3'` is text); one with a tag, as `!ref <a> * 2`, is its own text.

    Example
    -------
    >>> one, other = (compose(f"a: {x}", "x.yaml") for x in ("1e-3", "0.001"))
    >>> content(one) == content(other)
    True
    """
    plain = [
        child
        for _, child in walk(node)
        if isinstance(child, ScalarNode) and not is_tagged(child)
    ]
    return _content(node, dict(zip(map(id, plain), _constructed(plain))))


def _constructed(scalars: list[ScalarNode]) -> list[Any]:
    """The values of untagged nodes, all at once: that is quicker."""
    from hyperpyyaml import load_hyperpyyaml

    root = compose("values: []", "values")
    ((_, values),) = root.value
    values.value = scalars
    values.flow_style = False  # within brackets no text is a tuple
    return load_hyperpyyaml(serialize(root))["values"]


def _content(node: Node, constructed: dict[int, Any]) -> Any:
    tag, value = str(node.tag), node.value
    if isinstance(node, MappingNode):
        value = {str(k.value): _content(v, constructed) for k, v in node.value}
    elif isinstance(node, SequenceNode):
        value = [_content(child, constructed) for child in node.value]
    elif id(node) in constructed:
        value = constructed[id(node)]
        # Text and type, as 1 is neither 1.0 nor True, but NaN is NaN.
        tag = f"{PLAIN}{type(value).__name__}"
        value = "null" if value is None else str(value)
    return tag, value


def differences(
    old: Any, new: Any, place: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Where two `content`s differ: place, what was there, what is now.

    Arguments
    ---------
    old, new : Any
        From `content`; None where there is nothing.
    place : str
        Where they stand.

    Yields
    ------
    tuple of str
        Such as ``("encoder.branches[1].rank", "32", "8")``.
    """
    if old == new:
        return
    same = old is not None and new is not None and old[0] == new[0]
    kinds = {type(one[1]) for one in (old, new)} if same else set()
    if kinds == {dict}:
        for key in sorted(old[1].keys() | new[1].keys()):
            inner = f"{place}.{key}" if place else key
            yield from differences(old[1].get(key), new[1].get(key), inner)
    elif kinds == {list} and len(old[1]) == len(new[1]):
        pairs = zip(old[1], new[1], strict=True)
        for n, (one, other) in enumerate(pairs):
            yield from differences(one, other, f"{place}[{n}]")
    else:
        yield place, _said(old), _said(new)


def _said(one):
    """A content in a few words."""
    if one is None:
        return "none"
    tag, value = one
    if isinstance(value, dict):
        inner = ", ".join(f"{key}: {_said(v)}" for key, v in value.items())
        value = f"{{{inner}}}" if value else ""
    elif isinstance(value, list):
        value = f"[{', '.join(map(_said, value))}]"
    elif tag == TEXT and _resolve(value) != TEXT:
        value = repr(value)  # as it is not what it would be without quotes
    if tag and not tag.startswith(PLAIN):
        value = f"{tag} {value}".rstrip()
    return textwrap.shorten(value or "''", 80, placeholder=" ...")


def _resolve(text):
    """The tag that YAML gives to a text without quotes."""
    resolver = YAML(typ="safe", pure=True).resolver
    return str(resolver.resolve(ScalarNode, text, (True, False)))


def is_tagged(node: Node) -> bool:
    """Whether it has a tag that stands in the text, as `!ref`."""
    # `!tuple` is what (3, 4) has, as soon as hyperpyyaml has loaded anything.
    return bool(node.tag) and not str(node.tag).startswith((PLAIN, "!tuple"))


def _is_plain_mapping(node: Node) -> bool:
    return isinstance(node, MappingNode) and not is_tagged(node)


def _takes_arguments(node: Node) -> bool:
    return str(node.tag).startswith((*BUILDERS, "!include:"))


def built_name(node: Node) -> str | None:
    """`package.Class` of `!new:package.Class`, None for other tags."""
    for prefix in BUILDERS:
        if str(node.tag).startswith(prefix):
            return str(node.tag)[len(prefix) :]
    return None


def place_of(source: Any, node: Node) -> str:
    """`file.yaml:12`, or the command line, which has no lines."""
    if source == COMMAND_LINE:
        return COMMAND_LINE
    return f"{source}:{node.start_mark.line + 1}"


def _one_line(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    line = f"line {mark.line + 1}: " if mark else ""
    context = f" {error.context}" if error.context else ""
    return f"{line}not YAML: {error.problem}{context}"
