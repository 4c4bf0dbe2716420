"""Reading grammars in the JSpeech Grammar Format.

Rules, words, alternatives, groups, options, repetitions and tags; imports are
refused.

Source: JSpeech Grammar Format, W3C Note, 2000, https://www.w3.org/TR/jsgf/. The
package pyjsgf 1.9.0 reads some grammars otherwise than that says: `a (b) c | d`
as `a (b) (c | d)`, and a tag behind two words as of both.
"""

import math
import re
from typing import NamedTuple

TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    | (?P<rule><[^<>\s]+>)
    | \{(?P<tag>[^{}]*)\}
    | (?P<weight>/[0-9.eE+-]+/)
    | "(?P<quoted>[^"]*)"
    | (?P<sign>[;=|*+()\[\]])
    | (?P<word>[^\s;=|*+<>(){}\[\]/"]+)
    """,
    re.VERBOSE | re.DOTALL,
)
# A comment ends where it first can: other ways to cut many of them into
# comments would all be tried.
GAP = r"(?:\s|//[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/)*"
HEADER = re.compile(
    rf"{GAP}#JSGF\s+V1\.0[^;]*;{GAP}grammar\s+[^;\s/]+{GAP};", re.DOTALL
)
# Of a slot, or an intent; tags of other kinds are refused.
NAME = re.compile(r"[^\s<>=]*")
EMPTY, NEVER = "<NULL>", "<VOID>"
DEEPEST = 100  # groups in groups: reading and compiling them recurs


class Part(NamedTuple):
    """An expansion.

    kind : word, rule, sequence, choice, option, tag, any (how often) or some
        (once at least).
    text : the word, or the name of the rule or tag.
    parts : what it is made of.
    weight : of an alternative, how likely it is beside the others.
    """

    kind: str
    text: str = ""
    parts: tuple["Part", ...] = ()
    weight: float = 1.0


class Rule(NamedTuple):
    """A rule: its name, its expansion, and whether people may say it."""

    name: str
    part: Part
    public: bool


def read_rules(text: str, name: str = "the grammar") -> dict[str, Rule]:
    """The rules of a grammar by name.

    Arguments
    ---------
    text : str
        In JSGF.
    name : str
        What errors call it.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is not JSGF; the message names the line.

    Example
    -------
    >>> rules = read_rules("#JSGF V1.0; grammar g; public <go> = go [<way>];")
    >>> [part.kind for part in rules["go"].part.parts]
    ['word', 'option']
    """
    if not HEADER.match(text):
        raise ValueError(
            f"{name}: not a grammar in JSGF; expected '#JSGF V1.0; grammar "
            "NAME;' at its beginning"
        )
    return _Reader(text, name).rules()


def number(text: str) -> float:
    """What it says, or not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


class _Reader:
    """Goes through the tokens, one ahead."""

    def __init__(self, text: str, name: str):
        self.text, self.name = text, name
        self.at = HEADER.match(text).end()
        self.kind, self.token, self.start = "", "", self.at
        self.depth = 0  # groups that it is in
        self.next()

    def next(self) -> tuple[str, str]:
        """The token, and on to the following one."""
        before = self.kind, self.token
        while True:
            self.start = self.at
            if self.at == len(self.text):
                self.kind, self.token = "end", "the end"
                return before
            found = TOKEN.match(self.text, self.at)
            if found is None:
                self.token = self.text[self.at]
                raise self.error("words, tags or signs")
            self.at = found.end()
            if found.lastgroup != "space":
                break
        self.kind, self.token = found.lastgroup, found[found.lastgroup]
        return before

    def error(self, wanted: str) -> ValueError:
        """What is wrong where it stands."""
        line = self.text.count("\n", 0, self.start) + 1
        return ValueError(
            f"{self.name}: not a grammar in JSGF; line {line}: expected "
            f"{wanted}, got {self.token!r}"
        )

    def sign(self, wanted: str) -> None:
        """This sign has to come."""
        if (self.kind, self.token) != ("sign", wanted):
            raise self.error(f"'{wanted}'")
        self.next()

    def rules(self) -> dict[str, Rule]:
        found = {}
        while self.kind != "end":
            public = self.token == "public"
            if public:
                self.next()
            if self.kind != "rule":
                raise self.error("a rule as '<name> = ...;'")
            if public and not NAME.fullmatch(self.token[1:-1]):
                raise self.error("the name of an intent, without =")
            rule = self.next()[1][1:-1]
            if rule in found:
                self.token = f"<{rule}>"
                raise self.error("each rule once")
            self.sign("=")
            found[rule] = Rule(rule, self.choice(), public)
            self.sign(";")
        return found

    def choice(self) -> Part:
        """Sequences with | between them."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(f"groups in groups no deeper than {DEEPEST}")
        parts = [self.sequence()]
        while self.token == "|" and self.kind == "sign":
            self.next()
            parts.append(self.sequence())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Part("choice", "", tuple(parts))

    def sequence(self) -> Part:
        """Items one after the other."""
        weight = 1.0
        if self.kind == "weight":
            weight = number(self.token.strip("/"))
            if not 0 <= weight < math.inf:
                raise self.error("a number from 0 on between slashes")
            self.next()
        parts = []
        while self.kind in ("word", "quoted", "rule") or (
            self.kind == "sign" and self.token in "(["
        ):
            parts.append(self.item())
        if not parts:
            raise self.error("words, rules or groups")
        whole = Part("sequence", "", tuple(parts))
        one = parts[0] if len(parts) == 1 else whole
        return one._replace(weight=weight)

    def item(self) -> Part:
        """One thing, and how often, and its tags."""
        if self.kind == "quoted" and "\\" in self.token:
            raise self.error("words without a backslash in quotes")
        kind, token = self.next()
        if kind == "rule":
            part = Part("rule", token[1:-1])
            if token == EMPTY:
                part = Part("sequence")
            elif token == NEVER:
                part = Part("choice")
        elif kind == "sign":
            part = self.choice()
            self.sign(")" if token == "(" else "]")
            if token == "[":
                part = Part("option", "", (part,))
        elif len(words := token.split()) == 1:
            part = Part("word", token)
        else:
            part = Part("sequence", "", tuple(Part("word", w) for w in words))
        while self.kind == "tag" or (
            self.kind == "sign" and self.token in "*+"
        ):
            if self.kind == "tag" and not NAME.fullmatch(self.token.strip()):
                raise self.error("the name of a slot in braces")
            kind, token = self.next()
            if kind == "tag":
                part = Part("tag", token.strip(), (part,))
            else:
                kind = "any" if token == "*" else "some"
                part = Part(kind, "", (part,))
        return part
