"""Updates compared: means, gains, tables, pictures, and the command."""

import json
from unittest.mock import patch

import pytest

from speechbrain_amnet.cli import main
from speechbrain_amnet.report import updates
from speechbrain_amnet.report.updates import (
    KEYS,
    all_error,
    gain_of_all,
    markdown_table,
    plot_updates,
    read_updates,
    summarise_updates,
)


def record(method, generation=1, seed=1, budget=0.02, **values):
    """An update that took the errors from 20 to 10 % (full) or 12."""
    whole = method == "full"
    return {
        "task": "asr",
        "data": "spoken",
        "generation": generation,
        "method": method,
        "budget": 1.0 if whole else budget,
        "bytes": 1_000_000 if whole else int(budget * 1_000_000),
        "seed": seed,
        "wer": 10.0 if whole else 12.0,
        "old_wer": 5.0,
        "base_wer": 20.0,
        "base_old_wer": 4.0,
        **values,
    }


@pytest.fixture
def records():
    return [
        record(method, generation, seed)
        for method in ("full", "sparse", "hash")
        for generation in (1, 2)
        for seed in (1, 2)
    ]


def test_gain_is_paired_with_the_full_update_of_the_seed(records):
    for one in records:
        if one["method"] == "full" and one["seed"] == 2:
            one["wer"] = 4.0
    rows = summarise_updates(records)
    assert [(r["method"], r["generation"]) for r in rows] == [
        (m, g) for m in ("full", "sparse", "hash") for g in (1, 2)
    ]
    assert all(row["runs"] == 2 for row in rows)
    assert rows[0]["error"] == 7 and rows[0]["gain"] == 1
    # 8 of 10 points, and 8 of 16.
    assert rows[2]["gain"] == pytest.approx((0.8 + 0.5) / 2)


@pytest.mark.parametrize(
    "other", [{"base_wer": 21.0}, {"words": 50}, {"grammar_digest": "b"}]
)
def test_the_full_update_of_another_base_is_no_bound(other):
    known = {"words": 100, "grammar_digest": "a"}
    bound = record("full", **known)
    one = record("sparse", **{**known, **other})
    (key,) = other
    with pytest.raises(ValueError, match=f"of the same base.*: {key} is"):
        summarise_updates([bound, one])
    # Later on each method goes on from its own update.
    later = record("sparse", 2, **known, base_wer=13.0)
    summarise_updates([bound, record("full", 2, **known), later])


def test_folds_are_pooled_and_paired():
    """Each with the full update of its own voices, by commands."""
    some = {"task": "slu", "old_command_error": 1, "base_command_error": 50}
    some["base_old_command_error"] = 1
    records = [
        record(
            method,
            fold=fold,
            command_error=error,
            commands=commands,
            **some,
        )
        for method, fold, error, commands in (
            ("full", 1, 10, 10),
            ("full", 2, 30, 30),
            ("sparse", 1, 30, 10),
            ("sparse", 2, 34, 30),
        )
    ]
    full, sparse = summarise_updates(records)
    assert full["runs"] == 2 and full["error"] == 25
    assert sparse["error"] == 33
    # Of 50 - 25 points for all commands together.
    assert sparse["gained"] / sparse["to_gain"] == (50 - 33) / (50 - 25)


def test_what_is_old_is_compared_on_the_same_test_sets(records):
    """They grow from release to release."""
    for one in records:
        if one["generation"] == 2:
            one["base_old_wer"] = 4.5
    text = markdown_table(summarise_updates(records))
    assert "| 1.00 | 4.5 | 5.0 |" in text


def test_a_gain_of_fewer_runs_says_so(records):
    records = [r for r in records if (r["method"], r["seed"]) != ("full", 2)]
    text = markdown_table(summarise_updates(records))
    assert "| 0.80 (1 of 2) |" in text and "| 1.00 |" in text


def test_all_together_is_pooled_too():
    folds = [
        record("full", fold=1, wer=10, words=100, old_wer=0, old_words=100),
        record("full", fold=2, wer=50, words=10, old_wer=0, old_words=10),
    ]
    (row,) = summarise_updates(folds)
    assert row["all_error"] == pytest.approx(100 * (10 + 5) / 220)


def test_without_a_bound_there_is_no_gain(records):
    rows = summarise_updates([r for r in records if r["method"] != "full"])
    assert {row["gain"] for row in rows} == {None}
    assert "| – |" in markdown_table(rows)


def test_table_has_a_row_for_each_budget(records):
    records.append(record("sparse", budget=0.01, old_wer=None))
    text = markdown_table(summarise_updates(records))
    assert (
        "| full | 1,000,000 | 20.0 | 10.0, 10.0 | 1.00 | 4.0 | 5.0 | – | 2 |"
        in text
    )
    assert "| sparse 2 % | 20,000 | 20.0 | 12.0, 12.0 | 0.80" in text
    assert "| sparse 1 % | 10,000 |" in text


def test_small_budgets_are_told_apart():
    rows = summarise_updates(
        [record("sparse", budget=budget) for budget in (0.00012, 0.000149)]
    )
    table = markdown_table(rows)
    assert "| sparse 0.012 % |" in table and "| sparse 0.0149 % |" in table


def test_table_weighs_generations_by_what_was_to_gain():
    records = [
        record("full"),
        record("full", 2, base_wer=11.0),
        record("sparse"),
        record("sparse", 2, base_wer=11.0, wer=11.0, old_wer=9.0),
    ]
    for one in records:
        one |= {"words": 100, "old_words": 200 * one["generation"]}
    text = markdown_table(summarise_updates(records))
    # 8 + 0 of 10 + 1 points; after the last 400 old words at 9, 100 at 11.
    assert "| 15.5 | 12.0, 11.0 | 0.73 | 4.0 | 9.0 | 9.4 | 1 |" in text


def test_a_release_in_which_the_full_update_lost_counts_too():
    records = [
        record("full"),  # 20 to 10
        record("full", 2, base_wer=11.0, wer=15.0),
        record("sparse"),  # 20 to 12
        record("sparse", 2, base_wer=11.0, wer=17.0),
    ]
    rows = summarise_updates(records)
    whole = [row for row in rows if row["method"] == "sparse"]
    assert [row["gain"] for row in whole] == [pytest.approx(0.8), None]
    assert gain_of_all(whole) == pytest.approx((8 - 6) / (10 - 4))
    assert gain_of_all(whole[1:]) is None


def test_an_update_counts_once(records, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(json.dumps(records[:1]))
    with pytest.raises(ValueError, match=r"two records of full, .*: .*b\.json"):
        read_updates([tmp_path / "a.json", tmp_path / "b.json"])
    with pytest.raises(ValueError, match="leave out one of them"):
        read_updates([tmp_path / "a.json"] * 2)


def test_table_has_the_spread_of_several_runs():
    records = [
        record("full", seed=seed, wer=wer, words=100, old_words=100)
        for seed, wer in ((1, 10.0), (2, 14.0), (3, 12.0))
    ]
    text = markdown_table(summarise_updates(records))
    assert "| 5.0 | 8.5 (7.5 to 9.5) | 3 |" in text
    assert "(" not in markdown_table(summarise_updates(records[:1]))


def test_everything_is_known_where_its_parts_are():
    counted = record("sparse", words=100, old_words=300)
    assert all_error(counted) == (12 * 100 + 5 * 300) / 400
    assert all_error(record("sparse")) is None
    assert all_error(counted | {"old_wer": None, "old_words": None}) is None
    commands = counted | {"task": "slu", "command_error": 30.0}
    commands |= {"old_command_error": 10.0, "commands": 10}
    assert all_error(commands) is None
    assert all_error(commands | {"old_commands": 30}) == 15.0


def test_command_publishes_and_draws(records, tmp_path, capsys):
    folders = []
    for number, one in enumerate(records):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        (folders[-1] / "diff.json").write_text(json.dumps(one))
    page = tmp_path / "page.md"
    page.write_text("<!-- table: d from x -->\n<!-- end -->\n")
    published = tmp_path / "diff_spoken.json"
    command = ["diff", "table", *map(str, folders)]
    command += [f"--publish={published}", f"--plot={tmp_path / 'd.png'}"]
    assert main([*command, f"--markdown={page}", "--name=d"]) == 0
    assert "sparse 2 %" in capsys.readouterr().out
    assert "sparse 2 %" in page.read_text()
    assert (tmp_path / "d.png").stat().st_size > 10_000
    assert main(["diff", "table", *map(str, folders)]) == 0
    drawn = folders[0] / "updates.png"
    assert f"Picture: {drawn}\n" in capsys.readouterr().out
    assert drawn.read_bytes() == (tmp_path / "d.png").read_bytes()
    assert main(["diff", "table", str(published)]) == 0  # a file alone
    assert "Picture" not in capsys.readouterr().out
    again = read_updates([published])
    key = lambda r: [str(r[k]) for k in (*KEYS, "wer")]  # noqa: E731
    assert sorted(again, key=key) == sorted(records, key=key)
    assert len(read_updates([tmp_path / "0", tmp_path / "1"])) == 2


def test_commands_count_whole(records, tmp_path):
    commands = [
        record(
            method,
            task="slu",
            command_error=30.0 if method == "full" else 35.0,
            old_command_error=12.5,
            base_command_error=80.0,
            base_old_command_error=10.0,
        )
        for method in ("full", "sparse")
    ]
    rows = summarise_updates(commands)
    assert rows[1]["gain"] == pytest.approx(45 / 50)
    text = markdown_table(rows)
    assert "New: command error % before" in text
    assert "80.0 | 35.0 | 0.90 | 10.0 | 12.5 | – | 1 |" in text
    both = markdown_table(summarise_updates([*records, *commands]))
    assert "New: error % before" in both
    (tmp_path / "diff.json").write_text(json.dumps(commands[0] | {"wer": None}))
    assert len(read_updates([tmp_path])) == 1


def test_one_generation_is_drawn_by_bytes(records, tmp_path):
    """What is new, what is old, and both; no line of a single point."""
    rows = summarise_updates(
        [{**one, "words": 10, "old_words": 30} for one in records]
    )
    for some, labels in (
        (rows, ["generation", "generation"]),
        ([r for r in rows if r["generation"] == 1], ["bytes", "bytes"]),
    ):
        with patch.object(updates, "save", side_effect=lambda f, out: f):
            figure = plot_updates(some, tmp_path / "a.png")
        titles = [axes.get_xlabel().split()[0] for axes in figure.axes]
        assert titles == [*labels, "bytes"]
        points = {
            (line.get_label(), *line.get_xdata())
            for line in figure.axes[2].lines
        }
        assert points == {(row["method"], row["bytes"]) for row in some}
        if labels[0] == "bytes":  # and which errors; 0 % would be a point, too
            for axes, key in zip(
                figure.axes, ("error", "old_error", "all_error")
            ):
                drawn = {
                    (line.get_label(), *line.get_ydata()) for line in axes.lines
                }
                assert drawn == {(row["method"], row[key]) for row in some}
                assert axes.get_yscale() == "symlog"


def test_mistakes_are_named(records, tmp_path):
    with pytest.raises(FileNotFoundError, match="no records of updates"):
        read_updates([tmp_path])
    (tmp_path / "diff.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_updates([tmp_path])
    (tmp_path / "diff.json").write_text('{"wer": 3}')
    with pytest.raises(ValueError, match="there is no task"):
        read_updates([tmp_path])
    first = {**records[0], "generation": "x"}
    (tmp_path / "diff.json").write_text(json.dumps(first))
    with pytest.raises(ValueError, match="generation must be a number"):
        read_updates([tmp_path])
    other = record("sparse", data="an4")
    with pytest.raises(ValueError, match="one data set, not of 2"):
        plot_updates(summarise_updates([*records, other]), tmp_path / "a.png")
