"""Slots and intents go into transcripts and come out of them."""

import pytest

from speechbrain_amnet.slots import (
    Command,
    is_tag,
    score,
    tagged,
    tags_of,
    understood,
)

ORDER = "CAN I HAVE A MEDIUM ROAST MEDIUM LATTE WITH A LOT OF MILK"
SLOTS = {"size": "medium", "roast": "medium roast", "milk": "a lot of milk"}


def test_there_and_back():
    text = tagged(ORDER, SLOTS, "order")
    assert understood(text) == Command(
        ORDER, "order", {k: v.upper() for k, v in SLOTS.items()}
    )
    assert text.count("<milk>") == 4 and text.endswith("MILK<milk><=order>")
    # The size is the word that the roast has left.
    assert "MEDIUM<roast> ROAST<roast> MEDIUM<size> LATTE" in text


def test_nothing_to_tag():
    assert tagged("STOP IT", {}) == "STOP IT"
    assert understood("STOP IT") == Command("STOP IT", None, {})
    assert understood("") == Command("", None, {})


def test_what_is_not_said_is_refused():
    with pytest.raises(ValueError, match="slot size: 'SMALL' is not said in"):
        tagged(ORDER, {"size": "small"})
    # Not twice the same word for two slots.
    with pytest.raises(ValueError, match="slot b: 'STOP'"):
        tagged("STOP", {"a": "stop", "b": "stop"})


@pytest.mark.parametrize("name", ["light color", "a<b", "=a", "a=b", ""])
def test_names_that_no_tag_could_have(name):
    with pytest.raises(ValueError, match="expected a name of a slot or an"):
        tagged("STOP", {name: "stop"})
    if name:
        with pytest.raises(ValueError, match=f"'{name}': expected a name"):
            tagged("STOP", {}, name)


@pytest.mark.parametrize(
    "text, command",
    [
        ("<size> LARGE", Command("LARGE", None, {})),  # of no word
        ("LARGE <size>", Command("LARGE", None, {"size": "LARGE"})),
        ("A<a><b> B<a>", Command("A B", None, {"a": "A B", "b": "A"})),
        ("A<=x> B<=y>", Command("A B", "y", {})),
    ],
)
def test_whatever_a_search_writes_is_read(text, command):
    assert understood(text) == command


def test_tags():
    assert tags_of(["A<b> C<=d>", "E<b>"]) == ["<=d>", "<b>"]
    assert all(map(is_tag, ["<b>", "<=d>"]))
    assert not any(map(is_tag, ["<", "b", "<>", "<b", "<b>c", "▁<b>"]))


def test_an_intent_that_is_not_known_is_not_judged():
    said = {"slots": {"size": "large"}}
    heard = Command("", "order", {"size": "LARGE"})
    found = score([said], [heard])
    assert found["command_accuracy"] == 100 and found["intent_accuracy"] is None
    # Of two commands one has an intent, which was understood.
    both = score([said, {**said, "intent": "order"}], [heard, heard])
    assert both["intent_accuracy"] == 100


def test_score():
    said = [
        {"intent": "order", "slots": {"size": "large", "drink": "iced tea"}},
        {"intent": "stop", "slots": {}},
        {"intent": "order", "slots": {"size": "small"}},
        {"intent": "order", "slots": {"size": "small"}},
    ]
    heard = [
        Command("", "order", {"size": "LARGE", "drink": "ICED TEA"}),
        Command("", "order", {}),  # another intent
        Command("", "order", {"size": "SMALL", "drink": "TEA"}),  # made up
        Command("", "order", {"size": "LARGE"}),
    ]
    found = score(said, heard)
    assert found["command_accuracy"] == 25
    assert found["intent_accuracy"] == 75
    # Right 3 of 4 that were said and of 5 that were heard.
    assert found["slot_f1"] == pytest.approx(100 * 2 * 3 / (4 + 5))
    stop = {"intent": "stop", "slots": {}}
    found = score([stop], [Command("STOP", "stop", {})])
    assert found["slot_f1"] is None and found["command_accuracy"] == 100
