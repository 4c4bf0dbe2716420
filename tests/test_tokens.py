"""Tokens: transcripts come back, blank and unknown are where they must be."""

import os

import pytest
from sentencepiece import SentencePieceProcessor

from speechbrain_amnet.tokens import (
    BLANK,
    UNKNOWN,
    add_symbols,
    load_tokenizer,
    missing_letters,
    train_tokenizer,
    without_tokens,
)

TEXTS = ["TEN TENTS", "NO TEA THEN", "THE STONE'S TONE", "TEN NOTES TEN"] * 5
# 11 are needed; letters cannot fill 30, word pieces cannot fill 200.
TYPES = [("char", 11), ("char", 30), ("bpe", 20), ("bpe", 200), ("unigram", 20)]


@pytest.mark.parametrize("model_type, size", TYPES)
def test_transcripts_come_back(tmp_path, model_type, size):
    tokenizer = train_tokenizer(TEXTS, tmp_path / "m", model_type, size)
    for text in [*TEXTS, "NET STONES"]:
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert BLANK not in tokens and UNKNOWN not in tokens
    assert tokenizer.get_piece_size() == size


@pytest.mark.parametrize("model_type, size", TYPES)
def test_blank_and_unknown_are_0_and_1(tmp_path, model_type, size):
    tokenizer = train_tokenizer(TEXTS, tmp_path / "m", model_type, size)
    assert tokenizer.id_to_piece(BLANK) == "<blank>"
    assert tokenizer.unk_id() == UNKNOWN == 1
    assert tokenizer.bos_id() == tokenizer.eos_id() == -1
    assert UNKNOWN in tokenizer.encode("TÉN")


def test_letters_have_one_token_each(tmp_path):
    tokenizer = train_tokenizer(TEXTS, tmp_path / "m")
    assert len(tokenizer.encode("NO TEA")) == len(" NO TEA")


@pytest.mark.parametrize("model_type, size", [("char", 30), ("bpe", 200)])
def test_spare_tokens_decode_to_nothing(tmp_path, model_type, size):
    tokenizer = train_tokenizer(TEXTS, tmp_path / "m", model_type, size)
    spare = [n for n in range(size) if "<spare" in tokenizer.id_to_piece(n)]
    assert spare
    text = tokenizer.encode("TEN TONES")
    assert tokenizer.decode([*spare, *text, *spare]) == "TEN TONES"


def test_a_rare_letter_is_kept_and_nothing_is_normalized(tmp_path):
    rare = ["TEN"] * 5000 + ["ÉT ﬁ"]
    tokenizer = train_tokenizer(rare, tmp_path / "m")
    assert tokenizer.decode(tokenizer.encode("ÉT ﬁ")) == "ÉT ﬁ"


@pytest.mark.parametrize("model_type", ["char", "bpe", "unigram"])
@pytest.mark.parametrize("others", [[], TEXTS])
def test_a_long_transcript_is_one_like_others(tmp_path, model_type, others):
    """Sentencepiece would leave out what has more than 4,192 bytes."""
    long = "ÉT SO " * 1000 + "X"
    tokenizer = train_tokenizer([*others, long], tmp_path / "m", model_type)
    assert tokenizer.decode(tokenizer.encode(long)) == long


def test_characters_that_sentencepiece_keeps_for_itself(tmp_path):
    """It leaves out the lines that have one, without a word."""
    for texts, said in (
        ([*TEXTS, "X\u2585Y"], "none of X, Y, \u2585 "),
        (["X\u2585Y"], "sentencepiece can make 30 of type char, got INTERNAL"),
    ):
        with pytest.raises(ValueError, match=f"^tokens: expected .*{said}"):
            train_tokenizer(texts, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_letters_without_tokens_are_said_and_counted(tmp_path):
    model = train_tokenizer(TEXTS, tmp_path / "m").serialized_model_proto()
    assert without_tokens(model, TEXTS) == ""
    said = without_tokens(model, ["NÖT", "TÄTÄ Ö", *TEXTS])
    assert said.startswith("no tokens for Ä, Ö, in 2 of 22 utterances, where")


def test_a_model_that_is_there_is_loaded(tmp_path):
    path = tmp_path / "new folder" / "m"
    train_tokenizer(TEXTS, path)
    written = path.read_bytes()
    assert os.listdir(path.parent) == ["m"]
    again = train_tokenizer(["OTHER LETTERS"], str(path))
    assert path.read_bytes() == written
    assert again.decode(load_tokenizer(path).encode("TEN")) == "TEN"


def test_the_same_texts_give_the_same_model(tmp_path):
    for name in "ab":
        train_tokenizer(iter(TEXTS), tmp_path / name, "bpe", 20)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_model_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.model"):
        load_tokenizer(tmp_path / "none.model")


def test_a_training_without_texts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no transcript"):
        train_tokenizer([], tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_too_few_tokens_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 11 .* got 10"):
        train_tokenizer(TEXTS, tmp_path / "m", size=10)


def test_a_model_of_another_size_is_refused(tmp_path):
    train_tokenizer(TEXTS, tmp_path / "m", size=20)
    with pytest.raises(ValueError, match="has 20, expected 30"):
        train_tokenizer(TEXTS, tmp_path / "m", size=30)


@pytest.mark.parametrize("model_type, size", TYPES)
def test_tags_are_tokens_of_their_own(tmp_path, model_type, size):
    tags = ["<tea>", "<=order>"]
    plain = train_tokenizer(TEXTS, tmp_path / "m", model_type, size)
    both = train_tokenizer(TEXTS, tmp_path / "tags", model_type, size + 2, tags)
    assert both.get_piece_size() == size + 2
    text = "NO TEA<tea> THEN<=order>"
    tokens = both.encode(text)
    assert both.decode(tokens) == text
    pieces = [both.id_to_piece(token) for token in tokens]
    assert [piece for piece in pieces if "<" in piece] == tags
    # All that is no tag is as it was.
    assert both.encode("NO TEA") == plain.encode("NO TEA")


def test_a_model_takes_further_tags(tmp_path):
    path = tmp_path / "m"
    old = train_tokenizer(TEXTS, path, size=30)
    model = add_symbols(path.read_bytes(), ["<a>", "<b>"], 34)
    new = SentencePieceProcessor(model_proto=model)
    assert new.get_piece_size() == 34
    for token in range(30):
        assert new.id_to_piece(token) == old.id_to_piece(token)
    assert new.encode("TEN<b> TEA<a>", out_type=str)[-1] == "<a>"
    assert new.is_control(33) and new.decode([33]) == ""
    again = add_symbols(model, ["<b>", "<c>"], 35)
    again = SentencePieceProcessor(model_proto=again)
    assert [again.id_to_piece(n) for n in (30, 31, 34)] == ["<a>", "<b>", "<c>"]
    with pytest.raises(
        ValueError, match=r"besides \(<a> <b>\) there are 32, got 31"
    ):
        add_symbols(path.read_bytes(), ["<a>", "<b>"], 31)


@pytest.mark.parametrize("model_type", ["char", "bpe", "unigram"])
def test_a_model_takes_letters_that_were_not_there(model_type, tmp_path):
    path = tmp_path / "m"
    old = train_tokenizer(TEXTS, path, model_type, size=30)
    model = path.read_bytes()
    texts = ["NO TEN", "NÖT ÄT"]
    assert missing_letters(model, TEXTS) == []
    assert missing_letters(model, texts) == ["Ä", "Ö"]
    new = SentencePieceProcessor(model_proto=add_symbols(model, ["Ä", "Ö"], 32))
    for text in texts:
        tokens = new.encode(text)
        assert UNKNOWN not in tokens and new.decode(tokens) == text
    assert new.encode(TEXTS[0]) == old.encode(TEXTS[0])
