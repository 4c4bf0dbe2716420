"""Real speech as base and releases: nothing old is new."""

import json

import numpy as np
import pytest
import soundfile

from speechbrain_amnet import cli
from speechbrain_amnet.corpus.manifest import read_commands, read_manifest
from speechbrain_amnet.corpus.prepare import prepare_librispeech

DRINKS = ["latte", "mocha", "tea", "milk", "water", "cocoa", "juice"]


@pytest.fixture
def data(tmp_path):
    """24 speakers in train, 3 in dev, 3 in test; a drink in each command."""
    rng, number = np.random.default_rng(0), 0
    for split, people in (("train", 24), ("dev", 3), ("test", 3)):
        commands = []
        for person in range(people):
            speaker = f"{split}{person:02}"
            folder = tmp_path / "data" / split / speaker / "1"
            folder.mkdir(parents=True)
            lines = []
            for n in range(8):
                name, drink = f"{speaker}-1-{n}", DRINKS[number % len(DRINKS)]
                number += 1
                noise = 0.1 * rng.standard_normal(800)
                soundfile.write(folder / f"{name}.wav", noise, 16000)
                lines.append(f"{name} A {drink.upper()}\n")
                # Labels of people: one writes them so, another so.
                slots = {"drink": drink if person % 2 else drink.title()}
                commands.append(json.dumps({"id": name, "slots": slots}) + "\n")
            (folder / f"{speaker}-1.trans.txt").write_text("".join(lines))
        file = tmp_path / "data" / split / "commands.jsonl"
        file.write_text("".join(commands))
    return tmp_path / "data"


def read(folder):
    """Path of each split -> its rows, as a training would read them."""
    found = {}
    for place in ("base", *"12345"):
        for split in sorted(p.name for p in (folder / place).iterdir()):
            name = f"{place}/{split}"
            paths = prepare_librispeech(
                folder, folder.parent / "m", {"x": [name]}
            )
            rows = read_manifest(paths["x"])
            commands = read_commands(rows)
            assert len(commands) == len(rows)
            found[name] = [
                {**r, **upper(commands[r["ID"]]["slots"])} for r in rows
            ]
    return found


def upper(slots):
    return {name: str(value).upper() for name, value in slots.items()}


def ids(rows):
    return {row["ID"] for row in rows}


def test_releases_by_speaker(data, tmp_path, capsys):
    out = tmp_path / "releases"
    line = ["corpus", str(out), f"--from={data}"]
    assert cli.main(line) == 0
    splits = read(out)
    people = {n: {r["spk_id"] for r in rows} for n, rows in splits.items()}
    assert len(people["base/train"]) == 12
    seen = set(people["base/train"])
    known = ids(splits["base/train"])
    for n in range(1, 6):
        new = people[f"{n}/train"]
        assert new == people[f"{n}/test"] and not new & seen
        assert not ids(splits[f"{n}/train"]) & ids(splits[f"{n}/test"])
        replay = ids(splits[f"{n}/replay"])
        assert replay <= known and len(replay) == len(splits[f"{n}/train"])
        assert ids(splits[f"{n}/dev"]) == ids(splits["base/dev"])
        seen |= new
        known |= ids(splits[f"{n}/train"])
    assert len(seen) == 24
    assert (
        people["base/test"] == {"test00", "test01", "test02"}
        and capsys.readouterr()
    )
    assert cli.main(line) == 2
    assert "is there already; remove it first" in capsys.readouterr().err


def test_releases_by_a_slot_in_folds(data, tmp_path):
    tested = []
    for fold in (1, 2, 3):
        out = tmp_path / f"fold-{fold}"
        options = [f"--from={data}", "--by=drink", f"--fold={fold}/3"]
        assert cli.main(["corpus", str(out), *options]) == 0
        splits = read(out)
        drinks = {n: {r["drink"] for r in rows} for n, rows in splits.items()}
        known = drinks["base/train"]
        assert len(known) == 2 and drinks["base/test"] == known
        for n in range(1, 6):
            (new,) = drinks[f"{n}/train"]
            assert drinks[f"{n}/test"] == {new} and new not in known
            assert drinks[f"{n}/replay"] <= known
            known = known | {new}
        who = [
            {r["spk_id"] for n, v in splits.items() if kind in n for r in v}
            for kind in ("train", "dev", "test")
        ]
        assert not who[0] & who[1] and not who[0] & who[2]
        assert not who[1] & who[2]
        tested.append(who[2])
    assert len(set.union(*tested)) == sum(map(len, tested)) == 30


def test_a_slot_may_be_a_number(data, tmp_path):
    for file in data.rglob("commands.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        drinks = sorted({line["slots"]["drink"] for line in lines})
        for line in lines:
            line["slots"]["number"] = drinks.index(line["slots"].pop("drink"))
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "numbers"
    options = [f"--from={data}", "--by=number", "--fold=1/3"]
    assert cli.main(["corpus", str(out), *options]) == 0
    new = [{r["number"] for r in read(out)[f"{n}/train"]} for n in range(1, 6)]
    assert all(len(one) == 1 for one in new) and len(set.union(*new)) == 5


@pytest.mark.parametrize(
    "options, said",
    [
        (["--by=size"], "by size: expected more than 5 values"),
        (["--by=drink", "--fold=4/3"], "got 4 of 3"),
        (["--by=drink", "--fold=one"], "--fold: expected N/M"),
    ],
)
def test_mistakes_leave_nothing(options, said, data, tmp_path, capsys):
    out = tmp_path / "x" / "releases"
    assert cli.main(["corpus", str(out), f"--from={data}", *options]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not out.parent.exists()
