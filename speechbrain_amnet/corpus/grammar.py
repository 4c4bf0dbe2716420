"""What people say to an assistant: a grammar of sentences, intents, slots.

A template holds words, `{slot}` (a choice that is kept as a slot),
`{name=slot}` (the same under another name), `<choice>` (a choice that is not
kept) and `/` (where a speaker may pause). Choices may hold choices.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TEMPLATES = {
    "switch_light": [
        "<please> TURN {state} THE {room} <light>",
        "<please> TURN THE {room} <light> {state}",
        "<please> SWITCH {state} THE <light> / IN THE {room}",
    ],
    "set_light": [
        "<please> SET THE {room} <light> / TO {level} PERCENT",
        "<please> DIM THE <light> IN THE {room} / TO {level} PERCENT",
        "<please> MAKE THE {room} <light> {color}",
        "<please> CHANGE THE {room} <light> / TO {color}",
    ],
    "set_timer": [
        "<please> SET A TIMER / FOR {duration}",
        "<please> START A TIMER / FOR {duration}",
        "<please> SET A {food} TIMER / FOR {duration}",
        "ADD {duration} / TO THE {food} TIMER",
    ],
    "ask_timer": [
        "HOW MUCH TIME IS LEFT / ON THE {food} TIMER",
        "<please> STOP THE {food} TIMER / AND THE {other_food=food} TIMER",
    ],
    "set_alarm": [
        "<please> SET AN ALARM / FOR {time}",
        "<please> WAKE ME UP / AT {time}",
        "<please> WAKE ME / {day} / AT {time}",
        "SET MY ALARM / FOR {time} / ON {day=weekday}",
        "CANCEL MY {time} ALARM",
    ],
    "play_music": [
        "<please> PLAY SOME {genre} MUSIC",
        "<please> PLAY {genre} MUSIC / IN THE {room}",
        "<please> PLAY THE {ordinal} {genre} SONG / IN THE {room}",
        "I WANT TO HEAR {genre} / IN THE {room}",
    ],
    "set_volume": [
        "<please> TURN THE VOLUME {direction} / IN THE {room}",
        "<please> SET THE VOLUME / TO {level} PERCENT",
        "<please> TURN {direction} THE {genre} MUSIC / IN THE {room}",
    ],
    "skip_song": [
        "<please> SKIP {count=few} {genre} SONGS / IN THE {room}",
        "PAUSE THE {genre} MUSIC / FOR {duration}",
    ],
    "get_weather": [
        "WHAT'S THE WEATHER / IN {city} / {day}",
        "WHAT IS THE WEATHER LIKE / IN {city} / {day}",
        "WILL IT {sky} / IN {city} / {day}",
        "IS IT GOING TO {sky} / IN {city} / {day}",
        "HOW {feel} WILL IT BE / IN {city} / {day}",
    ],
    "make_call": [
        "<please> CALL {contact}",
        "<please> CALL {contact} / ON {device=phone}",
        "<please> CALL {number=digits}",
        "DIAL {number=digits}",
    ],
    "send_message": [
        "<please> SEND A MESSAGE / TO {contact} / AND {other_contact=contact}",
        "<please> TELL {contact} / {message}",
        "TEXT {contact} / {message}",
        "<please> READ MY {ordinal} MESSAGE / FROM {contact}",
    ],
    "add_item": [
        "<please> ADD {item=food} / TO MY {list} LIST",
        "<please> PUT {amount} {item=food} / ON THE {list} LIST",
        "ADD {item=food} / AND {second_item=food} / TO MY {list} LIST",
        "WE NEED {amount} {item=food} / AND {second_item=food}",
        "DON'T FORGET THE {item=food} / AND {amount} {second_item=food}",
    ],
    "remove_item": [
        "<please> REMOVE {item=food} / FROM THE {list} LIST",
        "TAKE THE {item=food} / OFF MY {list} LIST",
        "WE DON'T NEED {item=food} / AND {second_item=food}",
    ],
    "add_reminder": [
        "<please> REMIND ME TO {task} / {day}",
        "<please> REMIND ME / AT {time} / TO {task}",
        "REMIND ME / IN {duration} / TO {task}",
    ],
    "calculate": [
        "WHAT IS {number=number} PLUS {second_number=number}",
        "HOW MUCH IS {number=number} TIMES {second_number=number}",
    ],
}

CHOICES = {
    "please": ["", "", "", "PLEASE", "COULD YOU", "CAN YOU PLEASE"],
    "light": ["LIGHT", "LIGHTS"],
    "state": ["ON", "OFF"],
    "direction": ["UP", "DOWN"],
    "room": [
        "KITCHEN",
        "BEDROOM",
        "BATHROOM",
        "LIVING ROOM",
        "GARAGE",
        "OFFICE",
        "HALLWAY",
        "GARDEN",
    ],
    "color": ["RED", "GREEN", "BLUE", "YELLOW"],
    "genre": ["JAZZ", "ROCK", "PIANO", "DANCE", "COUNTRY", "CLASSICAL"],
    "ordinal": ["FIRST", "NEXT", "LAST"],
    "city": [
        "LONDON",
        "PARIS",
        "BERLIN",
        "TOKYO",
        "BOSTON",
        "CHICAGO",
    ],
    "sky": ["RAIN", "SNOW"],
    "feel": ["COLD", "WARM"],
    "weekday": [
        "MONDAY",
        "TUESDAY",
        "WEDNESDAY",
        "THURSDAY",
        "FRIDAY",
        "SATURDAY",
        "SUNDAY",
    ],
    "day": ["TODAY", "TONIGHT", "TOMORROW", "ON <weekday>", "ON <weekday>"],
    "contact": ["<name>", "<name>", "<name>", "<name>", "MY <relative>"],
    "name": [
        "ANNA",
        "DAVID",
        "MARIA",
        "PETER",
        "SARAH",
        "THOMAS",
        "LUCY",
        "MICHAEL",
    ],
    "relative": ["MOTHER", "BROTHER"],
    "phone": ["MY PHONE", "THE OFFICE PHONE"],
    "message": [
        "I'M LATE",
        "I WILL BE LATE <day>",
        "I WILL CALL <day>",
        "DINNER IS AT <time>",
        "WE NEED <food>",
    ],
    "task": [
        "CALL <contact>",
        "BUY <food>",
        "FEED THE DOG",
        "WATER THE GARDEN",
    ],
    "list": ["SHOPPING", "HOLIDAY", "DINNER"],
    "food": [
        "MILK",
        "BREAD",
        "EGGS",
        "BUTTER",
        "COFFEE",
        "APPLES",
        "CHEESE",
        "RICE",
        "TEA",
        "SUGAR",
        "PASTA",
        "CHICKEN",
    ],
    "amount": ["SOME", "MORE"],
    "few": ["TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"],
    "count": ["<few>", "<teen>", "<teen>", "<ten>", "<ten> <digit>"],
    "digit": [
        "ONE",
        "TWO",
        "THREE",
        "FOUR",
        "FIVE",
        "SIX",
        "SEVEN",
        "EIGHT",
        "NINE",
    ],
    "teen": [
        "TEN",
        "ELEVEN",
        "TWELVE",
        "THIRTEEN",
        "FOURTEEN",
        "FIFTEEN",
        "SIXTEEN",
        "SEVENTEEN",
        "EIGHTEEN",
        "NINETEEN",
    ],
    "ten": [
        "TWENTY",
        "THIRTY",
        "FORTY",
        "FIFTY",
        "SIXTY",
        "SEVENTY",
        "EIGHTY",
        "NINETY",
    ],
    "level": ["<teen>", "<ten>", "<ten> <digit>"],
    "number": ["<digit>", "<teen>", "<teen>", "<ten>", "<ten> <digit>"],
    "digits": [
        "<digit> <digit> <digit> / <digit> <digit> <digit> <digit>",
        "<digit> <digit> ZERO / <digit> <digit> <digit>",
    ],
    "duration": ["<count> MINUTES", "<count> SECONDS", "<few> HOURS"],
    "hour": ["<digit>", "<digit>", "<digit>", "TEN", "ELEVEN", "TWELVE"],
    "time": [
        "<hour> O'CLOCK",
        "<hour> <part>",
        "HALF PAST <hour>",
        "QUARTER TO <hour>",
        "<hour> <minute> <part>",
    ],
    "minute": ["FIFTEEN", "THIRTY", "FORTY FIVE"],
    "part": ["IN THE MORNING", "IN THE EVENING", "AT NIGHT"],
}

CHOICE = re.compile(r"<(\w+)>|{(?:(\w+)=)?(\w+)}")


@dataclass(frozen=True)
class Sentence:
    """A sentence; between its phrases a speaker may pause.

    Arguments
    ---------
    phrases : tuple of str
        Words in upper case, as `("SET A TIMER", "FOR TEN MINUTES")`.
    intent : str
        A key of `TEMPLATES`.
    slots : dict
        Slot name -> words.
    """

    phrases: tuple[str, ...]
    intent: str
    slots: dict[str, str]

    @property
    def text(self) -> str:
        """The words of all phrases."""
        return " ".join(self.phrases)


def sample_sentence(
    rng: np.random.Generator,
    templates: Mapping[str, Sequence[str]] = TEMPLATES,
    choices: Mapping[str, Sequence[str]] = CHOICES,
) -> Sentence:
    """Draws a template, then each of its choices.

    Arguments
    ---------
    rng : numpy.random.Generator
        The source of chance.
    templates : mapping
        Intent to its templates.
    choices : mapping
        Name to what it stands for.

    Returns
    -------
    sentence : Sentence
        With phrases, intent and slots.

    Example
    -------
    >>> sentence = sample_sentence(np.random.default_rng(3))
    >>> sentence.intent in TEMPLATES
    True
    >>> all(words in sentence.text for words in sentence.slots.values())
    True
    """
    # Each template is equally likely: intents with more to say are commoner.
    listed = [(i, t) for i, some in templates.items() for t in some]
    while True:
        intent, template = listed[rng.integers(len(listed))]
        words, slots = _fill(template, choices, rng)
        if len(set(slots.values())) == len(slots):  # no "MILK AND MILK"
            phrases = (" ".join(phrase.split()) for phrase in words.split("/"))
            return Sentence(tuple(filter(None, phrases)), intent, slots)


def _fill(template, choices, rng):
    """Makes each choice of a template: the words and the slots."""
    slots = {}

    def choose(match):
        hidden, name, slot = match.groups()
        options = choices[hidden or slot]
        words = CHOICE.sub(choose, options[rng.integers(len(options))])
        if slot:
            slots[name or slot] = " ".join(words.replace("/", " ").split())
        return words

    return CHOICE.sub(choose, template), slots


def vocabulary(
    templates: Mapping[str, Sequence[str]] = TEMPLATES,
    choices: Mapping[str, Sequence[str]] = CHOICES,
) -> set[str]:
    """All words that a sentence can hold.

    Arguments
    ---------
    templates : mapping
        Intent to its templates.
    choices : mapping
        Name to what it stands for.

    Returns
    -------
    words : set of str
        In upper case.

    Example
    -------
    >>> len(vocabulary()) >= 150
    True
    """
    lists = [*templates.values(), *choices.values()]
    texts = " ".join(text for some in lists for text in some)
    return set(CHOICE.sub(" ", texts).replace("/", " ").split())


def as_jsgf(
    templates: Mapping[str, Sequence[str]] = TEMPLATES,
    choices: Mapping[str, Sequence[str]] = CHOICES,
    name: str = "assistant",
) -> str:
    """The same sentences as a grammar that recognisers are held to.

    Arguments
    ---------
    templates : mapping
        Intent to its templates.
    choices : mapping
        Name to what it stands for.
    name : str
        Of the grammar.

    Returns
    -------
    str
        In JSGF, as `speechbrain_amnet.grammar` reads it.

    Example
    -------
    >>> choices = {"please": ["", "", "PLEASE"], "side": ["LEFT", "RIGHT"]}
    >>> print(as_jsgf({"go": ["<please> GO / {way=side}"]}, choices, "moves"))
    #JSGF V1.0 UTF-8 en;
    grammar moves;
    public <go> = <please> GO <side> {way};
    <please> = /2/ <NULL> | /1/ PLEASE;
    <side> = /1/ LEFT | /1/ RIGHT;
    <BLANKLINE>
    """
    lines = ["#JSGF V1.0 UTF-8 en;", f"grammar {name};"]
    for intent, options in templates.items():
        ways = " | ".join(map(_expanded, options))
        lines.append(f"public <{intent}> = {ways};")
    for choice, options in choices.items():
        ways = " | ".join(
            f"/{count}/ {_expanded(option) or '<NULL>'}"
            for option, count in Counter(options).items()
        )
        lines.append(f"<{choice}> = {ways};")
    return "\n".join(lines) + "\n"


def _expanded(template):
    """A template in JSGF: its choices are rules, its slots are tags."""

    def rule(match):
        hidden, name, slot = match.groups()
        return f"<{hidden or slot}>" + (f" {{{name or slot}}}" if slot else "")

    return " ".join(CHOICE.sub(rule, template.replace("/", " ")).split())
