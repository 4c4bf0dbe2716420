"""The table in Markdown, in CSV and in words, and `amnet table`."""

import csv
import io

import pytest

from speechbrain_amnet import cli
from speechbrain_amnet.report import table
from speechbrain_amnet.report.results import read_results
from speechbrain_amnet.report.summary import COLUMNS, summarise


def test_markdown_table(published):
    rows = summarise(read_results([published]))
    lines = table.markdown_table(rows).splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    cells = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert cells[:2] == ["`amnet`", "1"]
    assert cells[2] == "17.1 (1.0 to 30.0)"
    assert cells[3].startswith("+5.71 (") and " to +" in cells[3]
    assert cells[4:7] == ["–", "2.00", "37.5"]
    assert cells[9:] == ["0.050", "1,500,000", "6.0"]
    assert "Device" not in lines[0] and "last word" not in lines[0]
    assert "Commands" not in lines[0]
    assert lines[2].split("|")[4].strip() == "–"


def test_columns_that_are_there_only_when_needed(runs):
    runs.make("full")
    runs.make(
        "amnet",
        last_word_ms={"mean": 321.0},
        commands_matched=62.5,
        command_accuracy=51.5,
        slot_f1=71.5,
        intent_accuracy=81.5,
    )
    slow = {"load": 3.0, "flops_per_second": 3e7}
    other = runs.make("amnet", published=True, device=slow)
    rows = summarise(read_results([runs.folder / "runs", other]))
    lines = table.markdown_table(rows).splitlines()
    assert lines[0].startswith("| Device | Experiment |")
    assert "After last word ms" in lines[0] and "| 321 |" in lines[3]
    assert "Commands matched %" in lines[0] and "| 62.5 |" in lines[3]
    assert "Commands right % | Slots F1 % | Intents right %" in lines[0]
    assert "| 51.5 | 71.5 | 81.5 |" in lines[3]
    assert [row["device"] for row in rows] == ["r = 2", "r = 2", "r = 3"]
    # Another split has rows of its own, and no `full` to compare with.
    dev = runs.make("amnet", 2, published=True, split="dev")
    rows = summarise(read_results([runs.folder / "runs", dev]))
    assert table.markdown_table(rows).startswith("| Data |")
    assert [row["difference"] is None for row in rows] == [True, True, False]


def test_a_bar_in_a_name_is_no_column(runs):
    runs.make("full")
    runs.make("full", 2, published=True, data="a|b")
    made = [runs.folder / "runs", runs.folder / "published"]
    lines = table.markdown_table(summarise(read_results(made))).splitlines()
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert r"| a\|b test |" in lines[2]


def test_same_speed_is_the_same_device(runs):
    runs.make("full")
    runs.make("small", device={"load": None, "flops_per_second": 4e7})
    rows = summarise(read_results([runs.folder / "runs"]))
    assert rows[1]["device"] == "40 MFLOP/s"
    assert "Device" not in table.markdown_table(rows)


def test_terminal_text(published):
    rows = summarise(read_results([published]))
    lines = table.terminal_text(rows).splitlines()
    assert lines[0].split()[0] == "seeds" and max(map(len, lines)) < 100
    amnet = next(line for line in lines if line.startswith("amnet"))
    assert amnet.split()[1:6] == ["1", "17.1", "+5.71", "–", "37.5"]
    assert " ".join(lines[-2:]).endswith("frame durations.")


def test_the_sentence_has_what_the_whole_recogniser_saves(runs):
    runs.make("full")
    runs.make("amnet", recogniser_saved=0.315)
    rows = summarise(read_results([runs.folder / "runs"]))
    assert "computation (32 % of the recogniser's, with" in table.headline(rows)
    runs.make("amnet", 2)  # an older one, of which it is not known
    rows = summarise(read_results([runs.folder / "runs"]))
    assert "recogniser" not in table.headline(rows)


def test_csv_table(published):
    rows = summarise(read_results([published]))
    read = list(csv.DictReader(io.StringIO(table.csv_table(rows))))
    assert list(read[0]) == list(COLUMNS)
    assert read[0]["difference"] == ""
    assert float(read[2]["difference"]) == pytest.approx(
        rows[2]["difference"], abs=1e-6
    )


def test_headline(published):
    rows = summarise(read_results([published]))
    said = table.headline(rows)
    assert said.startswith("On toy test, `amnet` saves 38 % ")
    assert "5.71 points higher (95 % interval " in said
    assert "takes 2 frame durations" in said
    alone = [row for row in rows if row["experiment"] != "full"]
    assert "not both among them" in table.headline(alone)


def test_a_wait_on_another_device_is_not_compared(runs):
    """`full` was reckoned for r = 2 alone."""
    slow = {"load": 3.0, "flops_per_second": 3e7}
    runs.make("full", latency_ms={"mean": 2796.0})
    runs.make("amnet", device=slow, latency_ms={"mean": 30.0})
    rows = summarise(read_results([runs.folder / "runs"]))
    said = table.headline(rows)
    assert "answers 30 ms after the last sample, at a WER" in said
    assert "instead" not in said
    assert said.endswith("on which a dense frame takes 3 frame durations.")


def test_both_networks_on_other_data_each(runs):
    runs.make("full")
    runs.make("amnet", 2, data="other")
    rows = summarise(read_results([runs.folder / "runs"]))
    assert table.headline(rows).endswith("among them on the same data.")


def test_the_headline_says_which_controls_are_not_equal(published):
    rows = summarise(read_results([published]))
    ours = next(row for row in rows if row["experiment"] == "amnet")
    others = {
        name: {**ours, "experiment": name, "flops_over_amnet": more}
        for name, more in (("small", 0.029), ("random", 0.14), ("own", 3.5))
    }
    said = table.headline([*rows, *others.values()])
    assert said.endswith(
        "within 3 %: `random` +14 % (of the seed that is farthest off)."
    )
    assert "`small`" not in said and "own" not in said
    # The paper's two, each by its own name.
    renamed = [
        {**ours, "experiment": name}
        for name in ("amnet_sparse_backlog", "amnet_no_backlog")
    ]
    full = next(row for row in rows if row["experiment"] == "full")
    said = table.headline([full, *renamed])
    assert "`amnet_sparse_backlog` saves" in said and "no_backlog" not in said


def test_command(published, tmp_path, capsys):
    file = tmp_path / "README.md"
    file.write_text("<!-- table: toy -->\n<!-- end -->\n")
    words = ["table", str(published), "--markdown", str(file), "--name", "toy"]

    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--check"])
    assert "table toy in" in stopped.value.code
    assert "stale" in stopped.value.code and "\n" not in stopped.value.code
    assert file.read_text().count("\n") == 2

    assert cli.main([*words, "--csv", str(tmp_path / "toy.csv")]) == 0
    shown = capsys.readouterr().out
    assert "amnet saves" in shown.splitlines()[-4]
    assert "| `amnet` | 1 |" in file.read_text()
    assert (tmp_path / "toy.csv").read_text().count("\n") == 5
    assert cli.main([*words, "--check"]) == 0

    (published / "toy" / "energy-1.json").unlink()
    with pytest.raises(SystemExit):
        cli.main([*words, "--check"])


def test_command_refuses_half_of_the_options(published, capsys):
    assert cli.main(["table", str(published), "--name", "toy"]) == 2
    assert cli.main(["table", str(published), "--check"]) == 2
    assert "--check needs --markdown" in capsys.readouterr().err
