"""`amnet grammar`, and `amnet evaluate` held to what it wrote."""

import json

import numpy as np
import pytest
import soundfile

from speechbrain_amnet import cli
from speechbrain_amnet.grammar import Grammar

SAID = [
    ("GO WEST", {"way": "west"}, "go"),
    ("GO EAST AFTER TEN", {"way": "east"}, "go"),
    ("STOP", {}, "stop"),
]


@pytest.fixture
def data(tmp_path):
    """Three commands."""
    folder = tmp_path / "data" / "train"
    place = folder / "1" / "1"
    place.mkdir(parents=True)
    random = np.random.default_rng(0)
    words, records = [], []
    for n, (text, slots, intent) in enumerate(SAID):
        name = f"1-1-{n}"
        soundfile.write(
            place / f"{name}.wav", 0.1 * random.normal(size=9000), 16000
        )
        words.append(f"{name} {text}\n")
        records.append({"id": name, "slots": slots, "intent": intent})
    (place / "1-1.trans.txt").write_text("".join(words))
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (folder / "commands.jsonl").write_text(lines)
    return tmp_path / "data"


def test_commands_are_written_and_held_to(run, data, tmp_path, capsys):
    file = tmp_path / "moves.gram"
    assert cli.main(["grammar", str(data), str(file)]) == 0
    assert "6 words and 2 intents of 3 commands" in capsys.readouterr().out
    grammar = Grammar.read(file)
    assert grammar.command("GO WEST AFTER TEN").slots == {"way": "WEST"}
    command = ["evaluate", str(run), f"--data_folder={data}", "--split=train"]
    assert cli.main([*command, f"--grammar={file}"]) == 0
    out = run / "data" / "grammar-moves"
    results = json.loads((out / "results_train.json").read_text())
    assert results["grammar"] == "moves.gram"
    assert results["command_accuracy"] is not None
    assert "commands right, %" in capsys.readouterr().out
    # Without it this model knows no commands.
    assert cli.main(command) == 0
    results = json.loads((run / "data" / "results_train.json").read_text())
    assert results["grammar"] is results["command_accuracy"] is None


def test_any_sample_rate_and_commands_without_labels(data, tmp_path, capsys):
    for path in data.rglob("*.wav"):
        soundfile.write(path, soundfile.read(path)[0], 8000)
    labels = data / "train" / "commands.jsonl"
    lines = labels.read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "slots": None})
    labels.write_text("\n".join(lines))
    file = tmp_path / "moves.gram"
    assert cli.main(["grammar", str(data), str(file)]) == 0
    assert "of 2 commands" in capsys.readouterr().out
    lines[0] = json.dumps({**json.loads(lines[0]), "slots": ["WEST"]})
    labels.write_text("\n".join(lines))
    assert cli.main(["grammar", str(data), str(file)]) == 2
    assert "line 1: expected a JSON object with" in capsys.readouterr().err


def test_data_without_commands(data, tmp_path, capsys):
    (data / "train" / "commands.jsonl").unlink()
    file = tmp_path / "moves.gram"
    assert cli.main(["grammar", str(data), str(file)]) == 2
    assert "no commands in train" in capsys.readouterr().err
    assert not file.exists()
