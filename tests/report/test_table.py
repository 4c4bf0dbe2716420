"""The table: its figures, its intervals, its place in a Markdown file."""

import csv
import io
import json

import numpy as np
import pytest

from speechbrain_amnet import cli
from speechbrain_amnet.report import table

ERRORS = {
    "full": [(0, 1, 2, 0, 1), (1, 1, 1, 0, 0)],
    "amnet": [(1, 1, 3, 0, 1)],
}
WORDS = np.array([3, 5, 7, 9, 11])


@pytest.fixture
def published(runs):
    """`full` with two seeds, `amnet` and two others with one."""
    for experiment, seeds in ERRORS.items():
        for seed, errors in enumerate(seeds, 1):
            runs.make(experiment, seed, errors, published=True)
    runs.make("small", errors=(2, 2, 2, 2, 2), published=True)
    runs.make("energy", errors=(1, 2, 2, 2, 2), published=True)
    return runs.folder / "published"


def rows_of(*paths):
    return {
        row["experiment"]: row
        for row in table.summarise(table.read_results(paths))
    }


def by_hand(errors, resamples=10_000):
    """The interval as a plain loop over resamples."""
    random, rates = np.random.RandomState(0), []
    drawn = np.concatenate(
        [random.randint(0, 5, (500, 5), dtype=np.int64) for _ in range(20)]
    )
    for utterances in drawn[:resamples]:
        wrong = sum(errors[u] for u in utterances)
        rates.append(100 * wrong / sum(int(WORDS[u]) for u in utterances))
    return [np.percentile(rates, 2.5), np.percentile(rates, 97.5)]


def test_rows_are_in_order(published):
    assert list(rows_of(published)) == ["full", "small", "amnet", "energy"]


def test_a_row_is_the_mean_over_seeds(runs):
    for seed, errors in enumerate(ERRORS["full"], 1):
        runs.make(
            "full",
            seed,
            errors,
            mflops_per_frame=2.0 + seed,
            compute_saved=0.1 * seed,
            real_time_factor=0.02 * seed,
            latency_ms={
                "mean": 10.0 * seed,
                "p50": 5.0 * seed,
                "p90": 20.0 * seed,
                "max": 50.0 * seed,
                "above_floor": 2.0 * seed,
            },
        )
    row = rows_of(runs.folder / "runs")["full"]
    assert row["seeds"] == 2
    assert row["wer"] == pytest.approx(100 * (4 / 35 + 3 / 35) / 2)
    assert row["mflops_per_frame"] == pytest.approx(3.5)
    assert row["compute_saved"] == pytest.approx(0.15)
    assert row["real_time_factor"] == pytest.approx(0.03)
    assert row["latency_mean_ms"] == pytest.approx(15)
    assert row["latency_p50_ms"] == pytest.approx(7.5)
    assert row["latency_p90_ms"] == pytest.approx(30)
    assert row["latency_max_ms"] == 100
    assert row["above_floor_ms"] == pytest.approx(3)
    assert row["parameters"] == 1_500_000
    assert row["last_word_ms"] is None and row["difference"] is None


def test_interval_of_one_seed_is_its_own(published):
    row = rows_of(published)["amnet"]
    assert (row["wer_low"], row["wer_high"]) == (1.0, 30.0)


def test_interval_of_several_seeds_resamples_their_mean(published):
    row = rows_of(published)["full"]
    mean = np.mean(ERRORS["full"], axis=0)
    assert [row["wer_low"], row["wer_high"]] == pytest.approx(by_hand(mean))


def test_difference_is_paired(published):
    row = rows_of(published)["amnet"]
    difference = np.array(ERRORS["amnet"][0]) - np.mean(ERRORS["full"], axis=0)
    assert row["difference"] == pytest.approx(100 * difference.sum() / 35)
    ends = [row["difference_low"], row["difference_high"]]
    assert ends == pytest.approx(by_hand(difference))


def test_what_two_experiments_share_does_not_widen_their_difference(runs):
    runs.make("full")
    runs.make("amnet")
    row = rows_of(runs.folder / "runs")["amnet"]
    assert row["difference"] == row["difference_low"] == 0
    assert row["difference_high"] == 0


def test_order_of_the_utterances_does_not_matter(published):
    before = rows_of(published)["amnet"]
    file = published / "toy" / "amnet-1.csv"
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([head, *reversed(lines)]) + "\n")
    assert rows_of(published)["amnet"] == before


def test_bootstrap_covers_the_rate_and_narrows_with_more_words():
    random = np.random.default_rng(3)
    words = np.full(400, 10)
    errors = random.binomial(10, 0.2, 400)
    low, high = table.bootstrap(errors, words)
    deviation = 100 * (errors / 10).std() / 20
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.05)
    assert low < 100 * errors.sum() / words.sum() < high
    assert table.bootstrap(errors, words) == (low, high)


def test_without_utterances_there_is_no_interval(published):
    for file in published.rglob("*.csv"):
        file.unlink()
    rows = rows_of(published)
    assert rows["full"]["wer_low"] is None
    assert rows["amnet"]["difference"] == pytest.approx(100 * (6 - 3.5) / 35)
    assert rows["amnet"]["difference_low"] is None
    text = table.markdown_table(list(rows.values()))
    assert "| +7.14 |" in text and "| 10.0 |" in text


def test_markdown_table(published):
    rows = table.summarise(table.read_results([published]))
    lines = table.markdown_table(rows).splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    cells = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert cells[:2] == ["`amnet`", "1"]
    assert cells[2] == "17.1 (1.0 to 30.0)"
    assert cells[3].startswith("+7.14 (") and " to +" in cells[3]
    assert cells[4:6] == ["2.00", "37.5"]
    assert cells[8:] == ["0.050", "1,500,000", "6.0"]
    assert "Device" not in lines[0] and "last word" not in lines[0]
    assert lines[2].split("|")[4].strip() == "–"


def test_columns_that_are_there_only_when_needed(runs):
    runs.make("full")
    runs.make("amnet", last_word_ms={"mean": 321.0})
    slow = {"load": 3.0, "flops_per_second": 3e7}
    other = runs.make("amnet", published=True, device=slow)
    rows = table.summarise(table.read_results([runs.folder / "runs", other]))
    lines = table.markdown_table(rows).splitlines()
    assert lines[0].startswith("| Device | Experiment |")
    assert "After last word ms" in lines[0] and "| 321 |" in lines[3]
    assert [row["device"] for row in rows] == ["r = 2", "r = 2", "r = 3"]
    # Another split has rows of its own, and no `full` to compare with.
    dev = runs.make("amnet", 2, published=True, split="dev")
    rows = table.summarise(table.read_results([runs.folder / "runs", dev]))
    assert table.markdown_table(rows).startswith("| Data |")
    assert [row["difference"] is None for row in rows] == [True, True, False]


def test_same_speed_is_the_same_device(runs):
    runs.make("full")
    runs.make("small", device={"load": None, "flops_per_second": 4e7})
    rows = table.summarise(table.read_results([runs.folder / "runs"]))
    assert rows[1]["device"] == "40 MFLOP/s"
    assert "Device" not in table.markdown_table(rows)


def test_csv_table(published):
    rows = table.summarise(table.read_results([published]))
    read = list(csv.DictReader(io.StringIO(table.csv_table(rows))))
    assert list(read[0]) == list(table.COLUMNS)
    assert read[0]["difference"] == ""
    assert float(read[2]["difference"]) == pytest.approx(
        rows[2]["difference"], abs=1e-6
    )


def test_headline(published):
    rows = table.summarise(table.read_results([published]))
    said = table.headline(rows)
    assert said.startswith("On toy test, `amnet` saves 38 % ")
    assert "7.14 points higher (95 % interval " in said
    assert "takes 2 frame durations" in said
    alone = [row for row in rows if row["experiment"] != "full"]
    assert "not both among them" in table.headline(alone)


# Errors --------------------------------------------------------------------


def test_a_run_twice_is_refused(runs):
    run = runs.make("full")
    copy = runs.make("full", published=True)
    assert len(table.read_results([run, run / "results.json"])) == 1
    with pytest.raises(ValueError, match="two results of full, seed 1"):
        table.read_results([run, copy])


def test_other_utterances_are_refused(runs):
    runs.make("full")
    runs.make("amnet", errors=(0, 1, 2, 0))
    with pytest.raises(ValueError, match="not of the same utter.*instance u4"):
        rows_of(runs.folder / "runs")


def test_utterances_of_another_run_are_refused(runs):
    run = runs.make("full", wer=12.0)
    runs.make("amnet")
    with pytest.raises(ValueError, match="4 errors in 35 words"):
        rows_of(runs.folder / "runs")
    (run / "utterances_test.csv").write_text("id,words\nu0,3\n")
    with pytest.raises(ValueError, match="not a table of utterances"):
        rows_of(runs.folder / "runs")


def test_what_is_not_results_is_refused(tmp_path, runs):
    with pytest.raises(FileNotFoundError, match="no such folder of results"):
        table.read_results([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="no results.json and no"):
        table.read_results([runs.audio])
    file = runs.make("full") / "results.json"
    content = json.loads(file.read_text())
    del content["wer"], content["device"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="without wer, device"):
        table.read_results([file])
    file.write_text('{"wer": ')
    with pytest.raises(ValueError, match="is not JSON"):
        table.read_results([file])


# Markdown files ------------------------------------------------------------


def test_update_markdown(tmp_path):
    file = tmp_path / "README.md"
    before = (
        "# Title\n\n<!-- table: an4 from a b -->\nold\nlines\n<!-- end -->\n"
        "between\n<!-- table: an40 -->\nother\n<!-- end -->\nafter\n"
    )
    file.write_text(before)
    assert table.update_markdown(file, "| new |", "an4", check=True)
    assert file.read_text() == before
    assert table.update_markdown(file, "| new |", "an4")
    assert file.read_text() == before.replace("old\nlines", "| new |")
    assert not table.update_markdown(file, "| new |\n", "an4")
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


def test_markers_that_are_wrong(tmp_path):
    file = tmp_path / "README.md"
    with pytest.raises(FileNotFoundError, match="no such Markdown file"):
        table.update_markdown(file, "", "an4")
    file.write_text("<!-- table: an4 -->\n<!-- table: b -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="table an4 has no <!-- end -->"):
        table.update_markdown(file, "", "an4")
    file.write_text("<!-- table: an4 -->\n")
    with pytest.raises(ValueError, match="table an4 has no <!-- end -->"):
        table.update_markdown(file, "", "an4")
    file.write_text("text <!-- table: an4 --> text\n")
    with pytest.raises(ValueError, match="has no line `<!-- table: an4 -->`"):
        table.update_markdown(file, "", "an4")


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
    assert "`amnet` saves" in shown.splitlines()[-1]
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
