"""Grammars: what they let through, what sentences mean, and mistakes."""

import re

import numpy as np
import pytest

from speechbrain_amnet.grammar import Grammar
from speechbrain_amnet.grammar_writer import written
from speechbrain_amnet.slots import tagged

LIGHTS = """#JSGF V1.0;
grammar lights;
public <switch> = turn (on | off) {state} [the] <room> {room} light;
public <stop> = stop it* | wait+ <NULL>;
<room> = kitchen | (living | dining) room;
"""


def reads(grammar, text):
    """Whether a text, tags and all, is a sentence."""
    states = grammar.start
    for piece in re.findall(r"<[^>]*>|.", "▁" + text.replace(" ", "▁")):
        states = grammar.advance(states, piece)
    return grammar.complete(states)


@pytest.mark.parametrize(
    "text, intent, slots",
    [
        (
            "TURN ON THE LIVING ROOM LIGHT",
            "switch",
            {"state": "ON", "room": "LIVING ROOM"},
        ),
        (
            "TURN OFF KITCHEN LIGHT",
            "switch",
            {"state": "OFF", "room": "KITCHEN"},
        ),
        ("STOP", "stop", {}),
        ("STOP IT IT IT", "stop", {}),
        ("WAIT WAIT", "stop", {}),
    ],
)
def test_sentences_and_their_meaning(text, intent, slots):
    grammar = Grammar(LIGHTS)
    assert reads(grammar, text)
    assert tuple(grammar.command(text.lower())) == (text, intent, slots)
    # Tagged as a model's training text is.
    assert reads(Grammar(LIGHTS, tags=True), tagged(text, slots, intent))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TURN",
        "TURN ON",
        "TURN ON THE LIGHT",
        "IT",
        "STOPIT",
        "STOP IT STOP",
    ],
)
def test_other_sentences(text):
    grammar = Grammar(LIGHTS)
    assert not reads(grammar, text)
    assert tuple(grammar.command(text)) == (text, None, {})


def test_pieces_of_any_length_lead_to_the_same_states():
    grammar = Grammar(LIGHTS)
    ends = set()
    for pieces in (
        ["▁TURN", "▁ON"],
        ["▁", "TU", "RN▁O", "N"],
        list("▁turn▁on"),
    ):
        states = grammar.start
        for piece in pieces:
            states = grammar.advance(states, piece)
        ends.add(states)
    assert len(ends) == 1 and ends != {frozenset()}
    # What is no text leads nowhere.
    assert not grammar.advance(grammar.start, "")


def test_a_rule_may_end_with_itself():
    text = (
        "public <count> = one [<more>]; <more> = and (one | two) {n} [<more>];"
    )
    grammar = Grammar(f"#JSGF V1.0; grammar g; {text}")
    assert reads(grammar, "ONE AND TWO AND ONE AND ONE")
    assert not reads(grammar, "ONE AND")
    assert grammar.command("ONE AND TWO").slots == {"n": "TWO"}


@pytest.mark.parametrize(
    "rules, message",
    [
        ("public <a> = go", "not a grammar in JSGF"),
        ("<a> = go;", "no rule is public"),
        ("public <a> = go <b>;", "there is no rule <b>"),
        ("public <a> = go <a>;", "no sentence comes to an end"),
        ("public <a> = <b>; <b> = <a>;", "no sentence comes to an end"),
        ("public <a> = go <VOID>;", "no sentence comes to an end"),
        ("public <a> = [<a>] go;", "<a> calls itself before its end"),
        ("public <a> = (<a> go)*;", "<a> calls itself before its end"),
        ("public <a> = go <b>; <b> = <a> now;", "<a> calls itself before"),
        (
            "public <a> = go (on) {out.x = 1;};",
            "line 1: expected the name of a",
        ),
        ("public <a> = (a (hall) {room}) {what};", "{room} is within {what}"),
        ("public <a> = (hall) {room} {what};", "{room} is within {what}"),
    ],
)
def test_mistakes(rules, message):
    with pytest.raises(ValueError, match=message):
        Grammar(f"#JSGF V1.0; grammar g; {rules}", name="my.gram")


def test_what_a_model_cannot_write_is_refused():
    pieces = ["", "▁⁇▁", "▁", *"abcdefghiklmnoprstvw", "<room>", "<=stop>"]
    plain = Grammar(LIGHTS, name="my.gram")
    with pytest.raises(ValueError, match="my.gram: U: the model has no token"):
        plain.check(pieces)
    plain.check([*pieces, "TU"])
    with pytest.raises(ValueError, match="<=switch>, <state>: the model"):
        Grammar(LIGHTS, tags=True).check([*pieces, "u"])


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such grammar: .*none.gram"):
        Grammar.read(tmp_path / "none.gram")


def test_a_file_may_begin_with_a_mark_but_is_in_utf8(tmp_path):
    file = tmp_path / "a.gram"
    text = "#JSGF V1.0; grammar g; public <go> = zürich;"
    file.write_text(text, encoding="utf-8-sig")
    assert Grammar.read(file).command("zürich").intent == "go"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.gram: expected UTF-8; .* 0xfc"):
        Grammar.read(file)


def test_of_two_rules_with_a_sentence_the_first_counts():
    rules = "public <a> = go (now) {x}; public <b> = go now | stay;"
    grammar = Grammar(f"#JSGF V1.0; grammar g; {rules}")
    assert grammar.command("go now") == ("GO NOW", "a", {"x": "NOW"})
    assert grammar.command("stay").intent == "b"


@pytest.mark.parametrize(
    "rules, slots",
    [
        ("public <a> = play (one {n} | <c>); <c> = one {m};", {"n": "ONE"}),
        (
            "public <a> = play (<c> | one {n}); <c> = one {song};",
            {"song": "ONE"},
        ),
        (
            "public <s> = play (<x> | <z>); <x> = <z> | <w>;"
            "<z> = one {a}; <w> = one {b};",
            {"a": "ONE"},
        ),
    ],
)
def test_of_two_ways_to_say_it_the_first_counts(rules, slots):
    grammar = Grammar(f"#JSGF V1.0; grammar g; {rules}")
    assert grammar.command("play one").slots == slots


def test_comments_may_stand_anywhere():
    text = """/* ours */ // #JSGF V1.0; grammar old;
    #JSGF V1.0; /** Hello */
    grammar hello; // and
    public <greet> = hello /* to */ you;"""
    assert Grammar(text).command("hello you").intent == "greet"


def test_a_tail_may_have_a_tag():
    text = "public <n> = (one | two) [<n> {more}];"
    grammar = Grammar(f"#JSGF V1.0; grammar g; {text}")
    assert grammar.command("one two two").slots == {"more": "TWO TWO"}


def test_many_words_and_rules():
    words = [f"w{n}" for n in range(2000)]
    grammar = Grammar(written([(" ".join(words), {}, "go")]))
    assert grammar.command(" ".join(words)).intent == "go"


def test_a_rule_without_an_end_stops_no_drawing():
    grammar = Grammar(
        "#JSGF V1.0; grammar g; public <a> = go | <b>; <b> = <b>;"
    )
    random = np.random.default_rng(0)
    assert {grammar.draw(random).words for _ in range(8)} == {"GO"}


def test_drawn_sentences_are_of_the_grammar_and_all_come():
    grammar, random = Grammar(LIGHTS), np.random.default_rng(0)
    drawn = [grammar.draw(random) for _ in range(300)]
    assert {one.intent for one in drawn} == {"switch", "stop"}
    switches = {one.words for one in drawn if one.intent == "switch"}
    assert len(switches) == 2 * 2 * 3
    for one in drawn:
        assert reads(grammar, one.words) and grammar.command(one.words) == one
    again = np.random.default_rng(0)
    assert [grammar.draw(again) for _ in range(300)] == drawn


def test_no_slot_is_drawn_twice():
    text = "public <a> = <b> [then <a>]; <b> = (x | y) {s} | (z) {t};"
    grammar, random = (
        Grammar(f"#JSGF V1.0; grammar g; {text}"),
        np.random.default_rng(0),
    )
    words = [grammar.draw(random).words.split() for _ in range(200)]
    assert max(map(len, words)) == 3
    twice = "public <a> = (x) {s} and (y) {s};"
    with pytest.raises(ValueError, match="found by chance"):
        Grammar(f"#JSGF V1.0; grammar g; {twice}").draw(random)


def test_a_slot_of_several_words_is_drawn_with_its_tags():
    text = "public <a> = light the (living room) {room};"
    grammar = Grammar(f"#JSGF V1.0; grammar g; {text}", tags=True)
    said = grammar.draw(np.random.default_rng(0))
    assert said.slots == {"room": "LIVING ROOM"}


def test_drawn_as_often_as_they_weigh():
    text = "public <a> = (/6/ x | /3/ <NULL> | y | /0/ z) end;"
    grammar = Grammar(f"#JSGF V1.0; grammar g; {text}")
    random = np.random.default_rng(0)
    words = [grammar.draw(random).words for _ in range(1000)]
    assert words.count("X END") == pytest.approx(600, abs=50)
    assert words.count("END") == pytest.approx(300, abs=45)
    assert words.count("Y END") == pytest.approx(100, abs=30)
    assert "Z END" not in words
    assert grammar.command("Z END").intent == "a"  # may be said


def test_weights_are_relative():
    """As large as they are, what may be left out is left out as often."""
    said = []
    for one, other in ((3, 1), (3000, 1000), (0.003, 0.001)):
        text = f"public <a> = go [/{one}/ x | /{other}/ y] (/{one}/ now)*;"
        grammar = Grammar(f"#JSGF V1.0; grammar g; {text}")
        random = np.random.default_rng(0)
        said.append([grammar.draw(random).words for _ in range(100)])
    assert said[0] == said[1] == said[2]
    with pytest.raises(ValueError, match="all weights of a choice are 0"):
        Grammar("#JSGF V1.0; grammar g; public <a> = (/0/ x | /0/ y);")


SAID = [
    ("A SMALL ICED TEA", {"size": "SMALL", "drink": "ICED TEA"}, "order"),
    ("AN ICED COFFEE PLEASE", {"drink": "ICED COFFEE"}, "order"),
    ("A LARGE COFFEE", {"size": "LARGE", "drink": "COFFEE"}, "order"),
    ("CANCEL", {}, "cancel"),
]


def test_written_grammar_knows_what_was_said_and_more():
    grammar = Grammar(written(SAID))
    for words, slots, intent in SAID:
        assert tuple(grammar.command(words)) == (words, intent, slots)
    # A slot's words go where the slot has been, what follows it may follow.
    more = grammar.command("A LARGE ICED TEA PLEASE")
    assert more.slots == {"size": "LARGE", "drink": "ICED TEA"}
    for words in ("A TEA", "AN LARGE TEA", "A LARGE", "SMALL TEA", "CANCEL A"):
        assert grammar.command(words).intent is None


def test_a_written_grammar_draws_what_was_said_as_often():
    said = 3 * SAID[2:3] + [("A LARGE COFFEE PLEASE", *SAID[2][1:])]
    grammar, random = Grammar(written(said)), np.random.default_rng(0)
    words = [grammar.draw(random).words for _ in range(1000)]
    assert words.count("A LARGE COFFEE") == pytest.approx(750, abs=45)


def test_written_grammar_needs_intents():
    with pytest.raises(ValueError, match="no commands"):
        written([])
    with pytest.raises(ValueError, match="without an intent: GO"):
        written([("GO", {}, None)])


@pytest.mark.parametrize(
    "slots, intent", [({"a size": "SMALL"}, "order"), ({}, "an order")]
)
def test_written_grammar_needs_names_without_spaces(slots, intent):
    with pytest.raises(ValueError, match="no spaces .* A SMALL TEA"):
        written([("A SMALL TEA", slots, intent)])


@pytest.mark.parametrize("words", ["[NOISE] GO AC/DC", "ROCK+ROLL (UH) {NOW}"])
def test_signs_of_the_language_are_words(words):
    said = words.split()
    text = written([(words, {"way": said[-1]}, "go")])
    command = Grammar(text).command(words)
    assert command.intent == "go" and command.slots == {"way": said[-1]}
    assert Grammar(text).command(" ".join(said[1:])).intent is None


def test_a_word_that_no_grammar_has():
    with pytest.raises(ValueError, match="'<UNK>': .* command GO <UNK>"):
        written([("GO <UNK>", {}, "go")])


def test_a_slot_may_be_called_as_an_intent_is():
    grammar = Grammar(written([("GO NOW", {"go": "NOW"}, "go")]))
    assert grammar.command("GO NOW").slots == {"go": "NOW"}


def test_names_with_numbers_and_rules_of_their_parts():
    """An intent `go-1` and the first part of `go` are two rules."""
    said = [
        ("GO LEFT", {"go-slot": "LEFT"}, "go"),
        ("STOP NOW", {"go": "NOW"}, "go-1"),
    ]
    grammar = Grammar(written(said))
    for words, slots, intent in said:
        assert grammar.command(words) == (words, intent, slots)


def test_repetitions_of_repetitions_are_laid_once():
    text = "#JSGF V1.0; grammar g; public <a> = x{};"
    one = Grammar(text.format("+"))
    many = Grammar(text.format(40 * "+"))
    assert len(many.arcs) < len(one.arcs) + 3 * 40
    for grammar in (one, many):
        assert reads(grammar, "X") and reads(grammar, "X X X")
        assert not reads(grammar, "") and not reads(grammar, "X Y")
    drawn = {one.draw(np.random.default_rng(n)).words for n in range(50)}
    assert {"X", "X X", "X X X"} <= drawn


@pytest.mark.parametrize("suffix", ["*", "+", "{a}"])
def test_what_is_nested_too_deeply(suffix):
    text = f"#JSGF V1.0; grammar g; public <a> = x{5000 * suffix};"
    with pytest.raises(ValueError, match="the grammar: .* nested too deeply"):
        Grammar(text)


def test_rules_that_multiply(monkeypatch):
    rules = "".join(f"<r{n}> = <r{n - 1}> <r{n - 1}>;" for n in range(1, 40))
    text = f"#JSGF V1.0; grammar g; public <a> = <r39>; <r0> = x;{rules}"
    monkeypatch.setattr("speechbrain_amnet.grammar.MOST", 1000)
    with pytest.raises(ValueError, match="more than 1,000 states; a rule is"):
        Grammar(text)


def test_a_large_vocabulary_is_looked_at_once(monkeypatch):
    """Not by each piece that begins a word."""
    letters = "ABCDEFGHIJ"
    names = [f"{a}{b}{c}" for a in letters for b in letters for c in letters]
    text = f"#JSGF V1.0; grammar g; public <a> = call ({' | '.join(names)})+;"
    grammar, closed = Grammar(text), []
    closure = grammar._closure
    monkeypatch.setattr(
        grammar, "_closure", lambda some: closed.append(0) or closure(some)
    )
    states = grammar.advance(grammar.start, "▁CALL▁")
    del closed[:]
    for piece in [a + b for a in letters for b in letters]:
        assert len(grammar.advance(states, piece)) == 10
    # A first letter leads to one set of states, from which any second one does.
    assert len(closed) == 10 + 100
