"""What stands beside the audio is read line by line, and checked."""

import json

import pytest

from speechbrain_amnet.corpus.manifest import read_commands


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
