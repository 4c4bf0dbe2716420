"""A grammar in JSGF of commands as people said them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise

from .slots import tagged

NAME = re.compile(r"[^\s<>={}]+")  # of a slot or an intent


def written(
    commands: Iterable[tuple[str, Mapping[str, str], str | None]],
    name: str = "commands",
) -> str:
    """A grammar of commands as people said them.

    What followed a word or a slot once may always follow it, and so may words
    within a slot: it knows many more sentences than it was made from. Weights
    say how often it did; intents are all alike, as JSGF has none for them.

    Arguments
    ---------
    commands : iterable of tuple
        Words, slots (name to the words of each) and intent.
    name : str
        Of the grammar.

    Returns
    -------
    str
        In JSGF.

    Raises
    ------
    ValueError
        If there are no commands, one has no intent, a name that no tag can
        have, or a word that no grammar can.

    Example
    -------
    >>> print(written([("GO FAR LEFT", {"way": "FAR LEFT"}, "go")], "moves"))
    #JSGF V1.0 UTF-8 en;
    grammar moves;
    <BLANKLINE>
    public <go> = <go-1>;
    <go-1> = GO <go-2>;
    <go-2> = <way> {way};
    <BLANKLINE>
    <way> = <way-1>;
    <way-1> = FAR <way-2>;
    <way-2> = LEFT;
    <BLANKLINE>
    """
    commands = list(commands)
    intents = {intent for _, _, intent in commands}
    rules = {slot: slot for _, slots, _ in commands for slot in slots}
    for slot in rules:
        while rules[slot] in intents | (rules.keys() - {slot}):
            rules[slot] += "-slot"
    sentences: dict[str, Follow] = {}
    phrases: dict[str, Follow] = {}
    for words, slots, intent in commands:
        if not intent:
            raise ValueError(f"a command without an intent: {words}")
        for one in (intent, *slots):
            if not NAME.fullmatch(one):
                raise ValueError(
                    f"{one!r}: the name of a slot or intent has no spaces and "
                    f"none of < > = {{ }}; it is that of the command {words}"
                )
        for one in words.split():
            if set(one) & set('"<>\\'):
                raise ValueError(
                    f'{one!r}: a word in a grammar has none of " < > \\; it '
                    f"is one of the command {words}"
                )
        parts = [
            word.rstrip(">").partition("<")
            for word in tagged(words, dict(slots)).split()
        ]
        chain: list[str] = []
        for slot, group in groupby(parts, lambda part: part[2]):
            said = [_word(word) for word, _, _ in group]
            if slot:
                rule = rules[slot]
                _note(phrases.setdefault(rule, {}), said)
                said = [f"<{rule}> {{{slot}}}"]
            chain += said
        _note(sentences.setdefault(intent, {}), chain)
    if not sentences:
        raise ValueError("there are no commands to make a grammar of")
    lines = ["#JSGF V1.0 UTF-8 en;", f"grammar {name};"]
    mark = "-"  # before the number of a part; no other rule may have that name
    names = [*sentences, *phrases]
    while any(
        re.fullmatch(re.escape(one + mark) + r"\d+", other)
        for one in names
        for other in names
    ):
        mark += "-"
    for intent, follow in sentences.items():
        lines += ["", *_chain(intent, follow, mark, "public ")]
    for slot, follow in phrases.items():
        lines += ["", *_chain(slot, follow, mark)]
    return "\n".join(lines) + "\n"


def _word(word: str) -> str:
    """A word as JSGF has it: in quotes where it has signs of the language.

    Example
    -------
    >>> _word("AC/DC"), _word("DON'T")
    ('"AC/DC"', "DON'T")
    """
    return f'"{word}"' if set(word) & set("()[]{}|/*+;=") else word


Follow = dict[str, Counter[str]]  # in the order in which they came


def _note(follow: Follow, parts: Sequence[str]) -> None:
    """Note what follows what; "" is the beginning and the end."""
    for before, after in pairwise(["", *parts, ""]):
        follow.setdefault(before, Counter())[after] += 1


def _chain(
    name: str, follow: Follow, mark: str, visible: str = ""
) -> list[str]:
    """The rules of a chain: one for each part, ending with what follows it."""
    parts = [part for part in follow if part]
    rules = {part: f"<{name}{mark}{n}>" for n, part in enumerate(parts, 1)}
    lines = [f"{visible}<{name}> = {_any_of(follow[''], rules)};"]
    for part in parts:
        rest = _any_of(follow[part], rules)
        lines.append(f"{rules[part]} = {part}{rest and f' {rest}'};")
    return lines


def _any_of(follow: Mapping[str, int], rules: Mapping[str, str]) -> str:
    """What may follow, and how often it did."""
    ways = [(rules.get(part, "<NULL>"), n) for part, n in follow.items()]
    if len(ways) == 1:
        return "" if "" in follow else ways[0][0]
    return f"({' | '.join(f'/{n}/ {way}' for way, n in ways)})"
