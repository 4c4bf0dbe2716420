"""A grammar: which sentences there are, and what their words mean.

It is a file in JSGF, as other recognisers read it:

    #JSGF V1.0;
    grammar lights;
    public <switch> = turn (on | off) {state} the <room> {room} light;
    <room> = kitchen | living room;

A public rule is an intent and has its name; a tag is a slot, whose value is
what was said of the expansion before it. A rule may end with itself, directly
or through others. Weights (`/3/ left | /1/ right`) say how often sentences are
drawn; a search takes all as equally likely.

Nothing here imports PyTorch: a device searches with the same grammar.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np

from .jsgf import read_rules
from .slots import Command, is_tag, understood

States = frozenset[int]
MOST = 1_000_000  # states; 100,000 words have as many


def symbols_of(piece: str) -> list[str]:
    """What a piece has a grammar read, one after the other.

    Example
    -------
    >>> symbols_of("▁go"), symbols_of("<room>")
    (['▁', 'G', 'O'], ['<room>'])
    """
    return [piece] if is_tag(piece) else list(piece.upper())


class Grammar:
    """The sentences of a JSGF file, as an automaton of letters.

    Arguments
    ---------
    text : str
        In JSGF.
    tags : bool
        Whether what is read has tags behind the words, as a model writes that
        learnt slots and intents (`slots: True`).
    name : str
        What errors call it.

    Raises
    ------
    ValueError
        If the text is not JSGF, no rule is public, no sentence comes to an
        end, a rule is missing, or one calls itself before its end.

    Example
    -------
    >>> text = "public <go> = go (left | right) {way} [now];"
    >>> grammar = Grammar(f"#JSGF V1.0; grammar g; {text}")
    >>> grammar.command("GO LEFT NOW")
    Command(words='GO LEFT NOW', intent='go', slots={'way': 'LEFT'})
    >>> states = grammar.start
    >>> for piece in ("▁", "G", "O", "▁L"):
    ...     states = grammar.advance(states, piece)
    >>> grammar.advance(states, "E") != frozenset()
    True
    >>> grammar.advance(states, "O")
    frozenset()
    """

    def __init__(
        self, text: str, tags: bool = False, name: str = "the grammar"
    ):
        self.text, self.name, self.tags = text, name, tags
        self.arcs: list[list[tuple[str, int, str | None]]] = []
        self.free: list[list[tuple[int, str | None]]] = []
        self.rules = read_rules(text, name)
        self.weights: dict[int, float] = {}  # of alternatives, by their nodes
        self.known: dict[tuple[str, int, str | None], int] = {}
        self.to_lay: list[tuple] = []  # recursion would be as deep as rules are
        first, self.end = self._node(), self._node()
        public = [rule for rule in self.rules.values() if rule.public]
        if not public:
            raise ValueError(f"{name}: no rule is public, nothing to recognise")
        for rule in public:
            begin, end = self._node(), self.end
            self.free[first].append((begin, rule.name))
            if tags:
                end = self._node()
                self.arcs[end].append((f"<={rule.name}>", self.end, None))
            self.free[begin].append(
                (self._rule(rule.name, end, None, None), None)
            )
        try:
            while self.to_lay:
                self._add(*self.to_lay.pop())
        except RecursionError:
            raise ValueError(
                f"{name}: groups, repetitions and tags are nested too deeply"
            ) from None
        self.first = first
        if self.end not in self._reached(first):
            raise ValueError(
                f"{name}: no sentence comes to an end; every way leads into a "
                "rule that needs itself, or through <VOID>"
            )
        self.start = self._closure([first])
        self.seen: dict[States, dict[str, States]] = {}
        # By the pieces of a model: where each of them leads from some states;
        # searches note it here for those that come after them.
        self.ways: dict[tuple[str, ...], dict[States, dict[int, States]]] = {}

    @property
    def digest(self) -> str:
        """The beginning of its text's SHA-256, as files may share a name."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @classmethod
    def read(cls, path: str | Path, tags: bool = False) -> "Grammar":
        """Read a file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            As for the class.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no such grammar: {path}")
        try:  # With or without the mark that some editors put first.
            text = normalize("NFC", path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected UTF-8; {error}") from error
        return cls(text, tags, str(path))

    def check(self, pieces: Iterable[str]) -> None:
        """Refuse what a model cannot write.

        Arguments
        ---------
        pieces : iterable of str
            Of each token; see `text.pieces_of`.

        Raises
        ------
        ValueError
            If there are letters or tags in the grammar and not in the pieces.
        """
        pieces = [piece for piece in pieces if "⁇" not in piece]
        known = {p for p in pieces if is_tag(p)}
        known |= {c for p in pieces if not is_tag(p) for c in p.upper()}
        missing = {
            symbol for arcs in self.arcs for symbol, _, _ in arcs
        } - known
        if missing:
            raise ValueError(
                f"{self.name}: {', '.join(sorted(missing))}: the model has no "
                "token for that; leave such words or slots out, or train a "
                "model with them"
            )

    def advance(self, states: States, piece: str) -> States:
        """Where the letters of a piece lead; empty if nowhere.

        Arguments
        ---------
        states : frozenset
            `start`, or what this returned.
        piece : str
            Letters, with "▁" before each word, or a tag.
        """
        symbols = symbols_of(piece)
        for symbol in symbols:
            states = self.after(states).get(symbol, frozenset())
        return states if symbols else frozenset()

    def after(self, states: States) -> dict[str, States]:
        """What may be read there, and where each of it leads.

        All of it at once: of a large vocabulary, a model has hundreds of pieces
        that begin some word, and each of them alone would look at every word.
        """
        if states not in self.seen:
            targets: dict[str, list[int]] = {}
            for state in states:
                for symbol, target, _ in self.arcs[state]:
                    targets.setdefault(symbol, []).append(target)
            self.seen[states] = {
                symbol: self._closure(some) for symbol, some in targets.items()
            }
        return self.seen[states]

    def complete(self, states: States) -> bool:
        """Whether a sentence may end there."""
        return self.end in states

    def command(self, words: str) -> Command:
        """What a sentence means; of one that is not in the grammar, nothing.

        Where two rules say the same sentence, the first gives its meaning.

        Arguments
        ---------
        words : str
            Without tags.

        Returns
        -------
        Command
        """
        text = "".join(f"▁{word}" for word in words.upper().split())
        came: dict[tuple[int, int], tuple] = {}
        open_ = [((0, self.first), ())]
        while open_:
            here, step = open_.pop()
            if here in came:
                continue
            came[here] = step
            at, state = here
            steps = [
                ((at, t), (here, "", None, intent))
                for t, intent in self.free[state]
            ]
            for symbol, target, slot in self.arcs[state]:
                if is_tag(symbol):
                    steps.append(((at, target), (here, "", None, None)))
                elif text[at : at + 1] == symbol:
                    steps.append(((at + 1, target), (here, symbol, slot, None)))
            open_ += reversed(steps)  # the last is taken up first
        place = len(text), self.end
        if place not in came:
            return Command(" ".join(words.split()), None, {})
        said, intents, before = "", "", None
        while came[place]:
            place, symbol, slot, intent = came[place]
            # A slot stands behind the word that it is of; this goes backwards.
            if symbol and before is None and slot:
                said = f"<{slot}>{said}"
            before = None if symbol == "▁" else symbol or before
            said = symbol.replace("▁", " ") + said
            intents = f"<={intent}>" if intent else intents
        return understood((said + intents).strip())

    def draw(self, random: np.random.Generator) -> Command:
        """A sentence by chance; at each fork ways are as likely as they weigh.

        Arguments
        ---------
        random : numpy.random.Generator
            The source of chance.

        Returns
        -------
        Command
            None of whose slots is said twice.

        Raises
        ------
        ValueError
            If none is found in a thousand draws.
        """
        for _ in range(1000):
            text, said, state, steps = "", [None], self.first, 0
            while state != self.end and steps < 3000:
                steps += 1
                ways = [("", target, None) for target, _ in self.free[state]]
                ways += self.arcs[state]
                if not ways:
                    break
                weights = [
                    self.weights.get(target, 1.0) for _, target, _ in ways
                ]
                symbol, state, slot = ways[drawn(weights, random)]
                # A tag of a word stands within its slot, and is in none.
                if symbol and not is_tag(symbol):
                    text += symbol
                    if slot != said[-1]:
                        said.append(slot)
            slots = [slot for slot in said if slot]
            if state == self.end and text and len(slots) == len(set(slots)):
                return self.command(text.replace("▁", " "))
        raise ValueError(f"{self.name}: no sentence of it was found by chance")

    def _reached(self, first: int) -> set[int]:
        """All nodes that some way leads to."""
        found, open_ = {first}, [first]
        while open_:
            state = open_.pop()
            targets = {target for target, _ in self.free[state]}
            targets |= {target for _, target, _ in self.arcs[state]}
            open_ += targets - found
            found |= targets
        return found

    def _node(self) -> int:
        if len(self.arcs) == MOST:
            raise ValueError(
                f"{self.name}: of more than {MOST:,} states; a rule is laid "
                "out anew wherever it is used, and what it uses with it"
            )
        self.arcs.append([])
        self.free.append([])
        return len(self.arcs) - 1

    def _rule(self, name, end, slot, inside) -> int:
        """Where a rule begins that leads to a node."""
        if name not in self.rules:
            raise ValueError(f"{self.name}: there is no rule <{name}>")
        key = name, end, slot
        if key not in self.known:
            caller = inside
            while caller:
                above, its_end, caller = caller
                if above == name and its_end != end:
                    raise ValueError(
                        f"{self.name}: <{name}> calls itself before its end; "
                        "only what stands last in a rule may lead back to it"
                    )
            self.known[key] = begin = self._node()
            part = self.rules[name].part
            self.to_lay.append((part, begin, end, slot, (name, end, inside)))
        return self.known[key]

    def _add(self, part, begin, end, slot, inside) -> None:
        """Lay the ways of an expansion from one node to another."""
        if part.kind == "word":
            self._word(part.text.upper(), begin, end, slot)
        elif part.kind == "rule":
            rule = self._rule(part.text, end, slot, inside)
            self.free[begin].append((rule, None))
        elif part.kind == "choice":
            whole = sum(one.weight for one in part.parts)
            if part.parts and not whole:
                raise ValueError(
                    f"{self.name}: all weights of a choice are 0; expected "
                    "one above it"
                )
            for one in part.parts:  # each its own node: their order is kept
                own = self._node()
                self.free[begin].append((own, None))
                # They weigh 1 on average, as what may be left out does.
                self.weights[own] = one.weight * len(part.parts) / whole
                self._add(one, own, end, slot, inside)
        elif part.kind == "sequence":
            for one in part.parts[:-1]:
                after = self._node()
                self._add(one, begin, after, slot, inside)
                begin = after
            if part.parts:
                self._add(part.parts[-1], begin, end, slot, inside)
            else:
                self.free[begin].append((end, None))
        elif part.kind == "tag":
            if part.text and slot and part.text != slot:
                raise ValueError(
                    f"{self.name}: {{{part.text}}} is within {{{slot}}}; "
                    "expected one tag for a word"
                )
            self._add(part.parts[0], begin, end, part.text or slot, inside)
        elif part.kind == "option":
            self._add(part.parts[0], begin, end, slot, inside)
            self.free[begin].append((end, None))
        elif part.kind == "any":
            loop = self._node()
            self._add(part.parts[0], loop, loop, slot, inside)
            self.free[begin].append((loop, None))
            self.free[loop].append((end, None))
        else:  # some, once at least
            loop, after = self._node(), self._node()
            self._add(part.parts[0], loop, after, slot, inside)
            self.free[begin].append((loop, None))
            self.free[after] += [(loop, None), (end, None)]

    def _word(self, word, begin, end, slot) -> None:
        """Lay a word, with its tag behind it if tags are read."""
        symbols = [("▁", slot), *((letter, slot) for letter in word)]
        if slot and self.tags:
            symbols.append((f"<{slot}>", None))
        for symbol, own in symbols[:-1]:
            after = self._node()
            self.arcs[begin].append((symbol, after, own))
            begin = after
        self.arcs[begin].append((symbols[-1][0], end, symbols[-1][1]))

    def _closure(self, states: Iterable[int]) -> States:
        """These nodes and what is reached from them for free."""
        found, open_ = set(), list(states)
        while open_:
            state = open_.pop()
            if state not in found:
                found.add(state)
                open_ += [target for target, _ in self.free[state]]
        return frozenset(found)


def drawn(weights: Sequence[float], random: np.random.Generator) -> int:
    """Which one, by chance and weight."""
    if len(set(weights)) == 1:
        return int(random.integers(len(weights)))
    shares = np.cumsum(weights)
    return int(np.searchsorted(shares, shares[-1] * random.random(), "right"))
