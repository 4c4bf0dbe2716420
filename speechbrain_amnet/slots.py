"""Commands in transcripts: a tag behind each word of a slot.

``TURN ON THE KITCHEN<room> LIGHT<device><=switch_on>`` says what was understood
in the words themselves, the intent at the end. A transducer learns it as it
learns words, and streams it: a slot is known as soon as its last word.

Nothing here imports PyTorch: a device reads commands with the same functions.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

SCORES = ("command_accuracy", "slot_f1", "intent_accuracy")
TAG = re.compile(r"<(=?)([^<>=\s]+)>")


class Command(NamedTuple):
    """What was understood.

    words : str, without tags.
    intent : str, or None where there is no tag of one.
    slots : dict, the words of each slot by its name.
    """

    words: str
    intent: str | None
    slots: dict[str, str]


def is_tag(piece: str) -> bool:
    """Whether a token is a tag and no part of a word.

    Example
    -------
    >>> is_tag("<room>"), is_tag("<=switch_on>"), is_tag("ROOM")
    (True, True, False)
    """
    return bool(TAG.fullmatch(piece))


def tagged(words: str, slots: dict[str, str], intent: str | None = None) -> str:
    """Write a command's slots and intent into its words.

    Arguments
    ---------
    words : str
        The transcript.
    slots : dict
        Words of each slot by its name. A phrase that is said twice is that of
        the first place that no longer phrase takes.
    intent : str, optional
        Its name.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a slot's words are not in the transcript, or a name has what no tag
        can have.

    Example
    -------
    >>> tagged("A LARGE ICED COFFEE", {"size": "large", "drink": "iced coffee"})
    'A LARGE<size> ICED<drink> COFFEE<drink>'
    >>> tagged("STOP", {}, "stop")
    'STOP<=stop>'
    """
    for name in (*slots, *([intent] if intent else [])):
        if not is_tag(f"<{name}>") or name.startswith("="):
            raise ValueError(
                f"{name!r}: expected a name of a slot or an intent without "
                "blanks, <, > and ="
            )
    said = words.split()
    tags: list[str | None] = [None] * len(said)
    phrases = [(name, str(v).upper().split()) for name, v in slots.items()]
    # The longest first: MEDIUM may be a size, and MEDIUM ROAST no size.
    for name, phrase in sorted(phrases, key=lambda one: -len(one[1])):
        for start in range(len(said) - len(phrase) + 1):
            place = slice(start, start + len(phrase))
            here = [word.upper() for word in said[place]]
            if here == phrase and not any(tags[place]):
                tags[place] = [name] * len(phrase)
                break
        else:
            raise ValueError(
                f"slot {name}: {' '.join(phrase)!r} is not said in {words!r}"
            )
    text = " ".join(
        word + (f"<{tag}>" if tag else "") for word, tag in zip(said, tags)
    )
    return text + (f"<={intent}>" if intent else "")


def understood(text: str) -> Command:
    """Read a text with tags, whatever a search has made of it.

    Arguments
    ---------
    text : str
        Words and tags.

    Returns
    -------
    Command

    Example
    -------
    >>> understood("A LARGE<size> ICED<drink> COFFEE<drink><=order>").slots
    {'size': 'LARGE', 'drink': 'ICED COFFEE'}
    """
    words: list[str] = []
    slots: dict[str, list[str]] = {}
    intent = None
    for part in text.split():
        word = TAG.sub("", part)
        if word:
            words.append(word)
        for sign, name in TAG.findall(part):
            if sign:
                intent = name
            elif words:
                slots.setdefault(name, []).append(words[-1])
    return Command(
        " ".join(words),
        intent,
        {name: " ".join(said) for name, said in slots.items()},
    )


def tags_of(texts: Iterable[str]) -> list[str]:
    """All tags of some texts, sorted."""
    return sorted({tag[0] for text in texts for tag in TAG.finditer(text)})


def score(
    references: Sequence[dict[str, Any]], found: Sequence[Command]
) -> dict[str, Any]:
    """How many commands, slots and intents were understood.

    Arguments
    ---------
    references : sequence of dict
        Each with ``slots`` and, where it is known, ``intent``.
    found : sequence of Command
        In the same order.

    Returns
    -------
    dict
        In percent: `command_accuracy`, of commands of which the intent and
        every slot are right and nothing is made up; `slot_f1`, over name and
        words of each, None where there are none; and `intent_accuracy`, None
        if no intent is known. One that is not known counts as right.

    Example
    -------
    >>> said = {"intent": "order", "slots": {"size": "large", "drink": "tea"}}
    >>> heard = Command("A LARGE T", "order", {"size": "LARGE"})
    >>> score([said], [heard])["command_accuracy"]
    0.0
    """
    right = hits = wanted = given = intents = named = 0
    for reference, command in zip(references, found, strict=True):
        slots = {
            (name, " ".join(str(words).upper().split()))
            for name, words in reference["slots"].items()
        }
        heard = {(n, w.upper()) for n, w in command.slots.items()}
        hits += len(slots & heard)
        wanted += len(slots)
        given += len(heard)
        intent = reference.get("intent")
        same = intent is None or command.intent == intent
        named += intent is not None
        intents += intent is not None and same
        right += same and slots == heard
    values = (
        100 * right / len(found),
        200 * hits / (wanted + given) if wanted + given else None,
        100 * intents / named if named else None,
    )
    return dict(zip(SCORES, values))
