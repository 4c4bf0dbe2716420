"""The grammar: enough words, enough sentences, plain text."""

import re

import numpy as np
import pytest

from speechbrain_amnet.corpus.grammar import (
    CHOICE,
    CHOICES,
    TEMPLATES,
    as_jsgf,
    sample_sentence,
    vocabulary,
)
from speechbrain_amnet.grammar import Grammar


@pytest.fixture(scope="module")
def sentences():
    rng = np.random.default_rng(0)
    return [sample_sentence(rng) for _ in range(20000)]


def test_at_least_150_words_all_of_them_said(sentences):
    said = {word for s in sentences for word in s.text.split()}
    assert said == vocabulary()
    assert len(said) >= 150


def test_thousands_of_distinct_sentences(sentences):
    texts = {s.text for s in sentences}
    assert len(texts) > 8000


def test_text_is_upper_case_words(sentences):
    for sentence in sentences:
        assert re.fullmatch(r"[A-Z']+( [A-Z']+)*", sentence.text)


def test_slots_are_said_and_intents_known(sentences):
    for sentence in sentences:
        assert sentence.intent in TEMPLATES
        assert sentence.slots
        assert len(set(sentence.slots.values())) == len(sentence.slots)
        for words in sentence.slots.values():
            assert f" {words} " in f" {sentence.text} "


def test_same_seed_same_sentences():
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    assert [sample_sentence(first) for _ in range(50)] == [
        sample_sentence(second) for _ in range(50)
    ]


def test_two_slots_of_a_sentence_never_share_a_name():
    for template in (t for some in TEMPLATES.values() for t in some):
        kept = [m[2] or m[3] for m in CHOICE.finditer(template) if m[3]]
        assert len(kept) == len(set(kept)), template
        used = {m[1] or m[3] for m in CHOICE.finditer(template)}
        assert used <= set(CHOICES), template


def test_as_jsgf_it_knows_what_each_sentence_means(sentences):
    grammar = Grammar(as_jsgf())
    for sentence in sentences[:1000]:
        _, intent, slots = grammar.command(sentence.text)
        assert (intent, slots) == (sentence.intent, sentence.slots)
    assert grammar.command("SET A TIMER FOR KITCHEN").intent is None


def test_as_jsgf_it_draws_what_the_corpus_could_say():
    grammar = Grammar(as_jsgf())
    rng = np.random.default_rng(0)
    said = [grammar.draw(rng) for _ in range(300)]
    assert {command.intent for command in said} == set(TEMPLATES)
    assert {w for c in said for w in c.words.split()} <= vocabulary()
