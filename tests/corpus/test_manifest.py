"""What stands beside the audio is read line by line, and checked."""

import json

import pytest

from speechbrain_amnet.corpus.manifest import (
    digest_of,
    read_commands,
    words_of,
)


@pytest.fixture
def read(tmp_path):
    """Reads lines as the `commands.jsonl` of a split."""

    def read(*lines):
        text = "".join(f"{line}\n" for line in lines)
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / "commands.jsonl").write_text(text)
        wav = f"{tmp_path}/train/1/1/1-1-0.flac"
        return read_commands([{"ID": "a", "wav": wav}])

    return read


def test_a_slot_that_is_blank_is_not_said(read):
    slots = {"size": "large", "milk": "", "sugar": None, "roast": " ", "n": 0}
    found = read(json.dumps({"id": "a", "slots": slots}))
    assert found["a"]["slots"] == {"size": "large", "n": 0}


def test_of_other_recordings(read):
    assert read() == {}
    assert set(read('{"id": "b"}', '{"id": "a"}')) == {"a", "b"}
    with pytest.raises(ValueError, match="ids of recordings, as a, got b"):
        read('{"id": "b"}', '{"id": "c"}')


def test_what_is_null_is_not_known(read):
    said = {"id": "a", "slots": {"number": 3, "to": "tea"}, "intent": "make"}
    found = read(
        json.dumps(said), '{"id": "b", "slots": null}', '{"id": "c", "x": 1}'
    )
    assert found == {"a": said, "b": {"id": "b"}, "c": {"id": "c", "x": 1}}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "7",
        "{}",
        '{"id": 7}',
        '{"id": "b", "slots": ["tea"]}',
        '{"id": "b", "slots": {"to": ["tea"]}}',
        '{"id": "b", "intent": 3}',
        9000 * "[",
        '{"id": "b", "speech_end": "1.5"}',
        '{"id": "b", "speech_end": NaN}',
        '{"id": "b", "speech_end": -1}',
    ],
)
def test_what_is_no_command_is_named(line, read):
    with pytest.raises(ValueError, match="jsonl, line 2: expected a JSON obj"):
        read('{"id": "a"}', line)


def test_an_id_is_there_once(read):
    with pytest.raises(ValueError, match="jsonl, line 2: a is there already"):
        read('{"id": "a"}', '{"id": "a"}')


def test_a_line_ends_with_a_line_feed_alone(read, tmp_path):
    """In JSON, U+2028 may stand in a text, as it is."""
    record = {"id": "a", "slots": {"to": "tea\u2028cup"}}
    line = json.dumps(record, ensure_ascii=False)
    assert read(f"{line}\r") == {"a": record}
    with pytest.raises(ValueError, match="line 2: expected a JSON object"):
        read(line, "")


def test_commands_in_another_encoding(read, tmp_path):
    read()
    file = tmp_path / "train" / "commands.jsonl"
    file.write_bytes(b'{"id": "a"}\n{"id": "caf\xe9"}\n')
    wav = f"{tmp_path}/train/1/1/1-1-0.flac"
    with pytest.raises(
        ValueError, match="jsonl, line 2: expected UTF-8, got .* 0xe9; .*iconv"
    ):
        read_commands([{"ID": "a", "wav": wav}])


def test_recordings_are_told_apart_by_id_and_words():
    rows = [{"ID": "a", "wrd": "CAFE\u0301"}, {"ID": "b", "wrd": "GO ON"}]
    digest = digest_of(words_of(rows))
    assert digest == digest_of(words_of(rows[::-1]))
    assert digest == digest_of({"a": "CAF\u00c9", "b": "GO ON"})
    for other in ({"a": "CAF\u00c9"}, {"a": "CAF\u00c9", "b": "GO"}):
        assert digest_of(other) != digest
    assert digest_of({"a": "B C"}) != digest_of({"a B": "C"})
