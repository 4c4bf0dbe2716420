"""The format of grammars: precedence, what is skipped, and mistakes by line."""

import pytest

from speechbrain_amnet.jsgf import read_rules

HEADER = "#JSGF V1.0 UTF-8 en;\ngrammar g;\n"


def short(part):
    """An expansion in one line."""
    inner = [short(one) for one in part.parts]
    return {
        "word": part.text,
        "rule": f"<{part.text}>",
        "sequence": f"({' '.join(inner)})",
        "choice": f"({' | '.join(inner)})",
        "option": f"[{''.join(inner)}]",
        "any": f"{''.join(inner)}*",
        "some": f"{''.join(inner)}+",
        "tag": f"{''.join(inner)}{{{part.text}}}",
    }[part.kind]


@pytest.mark.parametrize(
    "text, read",
    [
        ("a b | c", "((a b) | c)"),
        # What another reader takes for `a (b) (c | d)`.
        ("a (b) c | d", "((a b c) | d)"),
        ("a (b | c) | (d) {x}", "((a (b | c)) | d{x})"),
        # An operator and a tag belong to what stands before them alone.
        ("a b {x}", "(a b{x})"),
        ("(a b) {x} {y}", "(a b){x}{y}"),
        ("a b* c+", "(a b* c+)"),
        ("[a | <b>] c", "([(a | <b>)] c)"),
        ("/2/ a | /0.5/ b c", "(a | (b c))"),
        ('"a b" {x} c', "((a b){x} c)"),
        ("i'd like é", "(i'd like é)"),
        ("a <NULL> | <VOID>", "((a ()) | ())"),
        ("a // no | b\n | /* nor | c */ d", "(a | d)"),
        ("a {}", "a{}"),
    ],
)
def test_precedence(text, read):
    rules = read_rules(f"{HEADER}public <a> = {text};")
    assert short(rules["a"].part) == read


def test_groups_may_be_deep_but_not_endless():
    """Each recurs, and Python's stack has an end."""
    for deep in (99, 100, 5000):
        text = f"{HEADER}\npublic <a> = {'(' * deep} go {')' * deep};"
        if deep < 100:
            assert short(read_rules(text)["a"].part) == "go"
            continue
        with pytest.raises(ValueError, match="expected groups in groups no d"):
            read_rules(text)
    # Those that have ended do not count.
    many = " ".join(200 * ["(go)"])
    assert read_rules(f"{HEADER}public <a> = {many};")


def test_rules_and_headers():
    text = (
        "// mine\n#JSGF V1.0;\ngrammar com.me.g;\n<b> = x;\npublic <a> = <b>;"
    )
    rules = read_rules(text)
    assert {name: rule.public for name, rule in rules.items()} == {
        "b": False,
        "a": True,
    }
    # A word may be called as a keyword is.
    assert short(read_rules(f"{HEADER}<a> = a public b;")["a"].part) == (
        "(a public b)"
    )


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "public <a> = go;",
            "expected '#JSGF V1.0; grammar NAME;' at its begin",
        ),
        (f"{HEADER}public <a> = go", "line 3: expected ';', got 'the end'"),
        (f"{HEADER}\npublic a = go;", "line 4: expected a rule as .*, got 'a'"),
        (
            f"{HEADER}import <b.c>;",
            "line 3: expected a rule as .*, got 'import'",
        ),
        (
            f"{HEADER}<a> = ;",
            "line 3: expected words, rules or groups, got ';'",
        ),
        (f"{HEADER}<a> = b |\n| c;", "line 4: expected words, .*, got '|'"),
        (f"{HEADER}<a> = (b;", "line 3: expected '[)]', got ';'"),
        (f"{HEADER}<a> = b); <c> = d;", "line 3: expected ';', got '[)]'"),
        (f"{HEADER}<a> = {{x}} b;", "line 3: expected words, .*, got 'x'"),
        (
            f"{HEADER}<a> = b {{x;",
            "line 3: expected words, tags or signs, got '{'",
        ),
        (f"{HEADER}<a> = b | /-1/ c;", "line 3: .* a number from 0 on .*-1"),
        (f"{HEADER}<a> = /1-1/ b;", "line 3: .* a number from 0 on .*1-1"),
        (
            f"{HEADER}public <a=b> = c;",
            "line 3: expected the name of an intent, without =, got '<a=b>'",
        ),
        (
            f'{HEADER}<a> = b\n"say \\"hi\\" now";',
            "line 4: expected words without a backslash in quotes",
        ),
        (30 * "/* mine */\n" + "grammar g;", "expected '#JSGF V1.0; grammar"),
        (f"{HEADER}<a> = b;\n<a> = c;", "line 4: expected each rule once"),
    ],
)
def test_mistakes_have_their_line(text, message):
    with pytest.raises(
        ValueError, match=f"my.gram: not a grammar in JSGF.*{message}"
    ):
        read_rules(text, "my.gram")
