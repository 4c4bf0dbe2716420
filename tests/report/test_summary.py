"""Rows: their figures, their intervals, their difference to `full`."""

import numpy as np
import pytest

from speechbrain_amnet.report import table
from speechbrain_amnet.report.results import read_results
from speechbrain_amnet.report.summary import bootstrap, summarise

WORDS = np.array([3, 5, 7, 9, 11])


def rows_of(*paths):
    return {row["experiment"]: row for row in summarise(read_results(paths))}


def by_hand(errors):
    """The interval as a plain loop over resamples, of each run's errors."""
    random, others = np.random.RandomState(0), np.random.RandomState(1)
    rates, count = [], len(errors)
    for _ in range(20):
        drawn = random.randint(0, 5, (500, 5), dtype=np.int64)
        runs = np.zeros((1, 500), dtype=np.int64)
        if count > 1:
            runs = others.randint(0, count, (count, 500), dtype=np.int64)
        for utterances, some in zip(drawn, runs.T):
            wrong = np.mean(
                [sum(errors[run][u] for u in utterances) for run in some]
            )
            rates.append(100 * wrong / sum(int(WORDS[u]) for u in utterances))
    return [np.percentile(rates, 2.5), np.percentile(rates, 97.5)]


def test_rows_are_in_order(published):
    assert list(rows_of(published)) == ["full", "small", "amnet", "energy"]


def test_a_row_is_the_mean_over_seeds(runs, errors):
    for seed, wrong in enumerate(errors["full"], 1):
        runs.make(
            "full",
            seed,
            wrong,
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


def test_interval_of_several_seeds_resamples_them(published, errors):
    """Trainings differ, and so another pair of them would have."""
    row = rows_of(published)["full"]
    of_both = by_hand(errors["full"])
    assert [row["wer_low"], row["wer_high"]] == pytest.approx(of_both)
    low, high = by_hand([np.mean(errors["full"], axis=0)])
    assert of_both[1] - of_both[0] > high - low


def test_what_began_with_a_trained_network_is_beside_what_did_too(runs):
    """And the dense network that was trained as long is in the sentence."""
    runs.make("full")
    runs.make("amnet", errors=(3, 1, 3, 0, 1))
    runs.make("amnet_from_full", errors=(1, 1, 2, 0, 1))
    runs.make("small_from_full", errors=(1, 1, 3, 0, 1))
    runs.make("full_longer", errors=(0, 0, 2, 0, 1))
    rows = rows_of(runs.folder / "runs")
    words = sum(map(int, WORDS))
    assert rows["small_from_full"]["above_amnet"] == pytest.approx(100 / words)
    assert rows["amnet_from_full"]["above_amnet"] is None
    said = table.headline(list(rows.values()))
    lower = f"has a WER that is {100 * 5 / words:.2f} points lower ("
    assert (
        f"`full_longer`, the dense network after as long a training, {lower}"
        in (said)
    )


def test_seeds_that_differ_are_said_to(runs):
    runs.make("full", seed=1)
    runs.make("amnet", seed=2, errors=(1, 1, 3, 0, 1))
    rows = rows_of(runs.folder / "runs")
    assert rows["amnet"]["difference_seeds"] == 0
    text = table.markdown_table(list(rows.values()))
    assert "), other seeds |" in text
    assert table.headline(list(rows.values())).count(") (of other seeds)") == 1
    assert ", other seeds  " in table.terminal_text(list(rows.values()))


def test_difference_is_paired(published, errors):
    row = rows_of(published)["amnet"]
    # By seed, too: `full` has another one, which `amnet` did not begin with.
    difference = np.array(errors["amnet"][0]) - np.array(errors["full"][0])
    assert row["difference"] == pytest.approx(100 * difference.sum() / 35)
    ends = [row["difference_low"], row["difference_high"]]
    assert ends == pytest.approx(by_hand([difference]))


def test_other_seeds_are_compared_as_a_whole(runs, errors):
    for seed, wrong in enumerate(errors["full"], 1):
        runs.make("full", seed, wrong)
    runs.make("amnet", 7, errors["amnet"][0])
    row = rows_of(runs.folder / "runs")["amnet"]
    difference = np.array(errors["amnet"][0]) - np.mean(errors["full"], axis=0)
    assert row["difference"] == pytest.approx(100 * difference.sum() / 35)


def test_trainings_of_other_seeds_widen_a_difference():
    """Of one utterance all is the trainings' doing: 0, 50 or 100 % less."""
    one, two = np.array([[2], [2]]), np.array([[0], [2]])
    words = np.array([2])
    assert bootstrap(one, words, less=two) == (0, 100)
    assert bootstrap(one, words, less=two[:1]) == (100, 100)
    assert bootstrap(one - two, words) == (0, 100)


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
    low, high = bootstrap(errors, words)
    deviation = 100 * (errors / 10).std() / 20
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.05)
    assert low < 100 * errors.sum() / words.sum() < high
    assert bootstrap(errors, words) == (low, high)


def test_without_utterances_there_is_no_interval(published):
    for file in published.rglob("*.csv"):
        file.unlink()
    rows = rows_of(published)
    assert rows["full"]["wer_low"] is None
    assert rows["amnet"]["difference"] == pytest.approx(100 * (6 - 4) / 35)
    assert rows["amnet"]["difference_low"] is None
    text = table.markdown_table(list(rows.values()))
    assert "| +5.71 |" in text and "| 10.0 |" in text


def test_other_utterances_are_refused(runs):
    runs.make("full")
    runs.make("amnet", errors=(0, 1, 2, 0))
    with pytest.raises(ValueError, match="not of the same utter.*instance u4"):
        rows_of(runs.folder / "runs")


@pytest.mark.parametrize(
    "about",
    [
        {"grammar": "lights.gram"},
        {"noise": "kitchen.flac", "noise_db": 6.0},
    ],
)
def test_seeds_of_different_files_of_a_name_are_no_row(runs, about):
    what = next(iter(about))
    runs.make("full", 1, **about, **{f"{what}_digest": "a"})
    runs.make("full", 2, **about, **{f"{what}_digest": "b"})
    with pytest.raises(ValueError, match=f"different {what}s of one name"):
        rows_of(runs.folder / "runs")


def test_utterances_of_another_run_are_refused(runs):
    run = runs.make("full", wer=12.0)
    runs.make("amnet")
    with pytest.raises(ValueError, match="4 errors in 35 words"):
        rows_of(runs.folder / "runs")
    (run / "utterances_test.csv").write_text("id,words\nu0,3\n")
    with pytest.raises(ValueError, match="not a table of utterances"):
        rows_of(runs.folder / "runs")


def test_flops_of_one_seed_do_not_make_up_for_anothers(runs):
    for seed, flops in ((1, 1.2), (2, 0.9)):
        runs.make("amnet", seed, mflops_per_frame=1.0)
        runs.make("random", seed, mflops_per_frame=flops)
    rows = summarise(read_results([runs.folder / "runs"]))
    (random,) = [row for row in rows if row["experiment"] == "random"]
    assert random["flops_over_amnet"] == pytest.approx(0.2)


def test_controls_are_compared_with_amnet_of_the_same_seeds(runs):
    runs.make("amnet", 1, errors=(0, 1, 2, 0, 1), mflops_per_frame=2.0)
    runs.make("amnet", 2, errors=(0, 0, 0, 0, 1), mflops_per_frame=1.0)
    runs.make("random", 1, errors=(1, 1, 2, 1, 1), mflops_per_frame=2.1)
    runs.make("full", 1)
    rows = summarise(read_results([runs.folder / "runs"]))
    rows = {row["experiment"]: row for row in rows}
    words = 3 + 5 + 7 + 9 + 11
    assert rows["random"]["above_amnet"] == pytest.approx(100 * 2 / words)
    assert rows["random"]["above_amnet_low"] >= 0  # never better
    assert rows["random"]["flops_over_amnet"] == pytest.approx(0.05)
    for name in ("amnet", "full"):
        assert rows[name]["above_amnet"] is None


@pytest.mark.parametrize("name", ["amnet_sparse_backlog", "amnet_sparse"])
def test_sparse_networks_are_compared_with_the_sparse_amnet(runs, name):
    runs.make(name, 1, mflops_per_frame=2.0, errors=(0, 0, 2, 1, 1))
    runs.make(name, 2, mflops_per_frame=8.0)
    runs.make("amnet", 1, mflops_per_frame=5.0)
    runs.make("sparse", 1, mflops_per_frame=2.1, errors=(1, 1, 2, 1, 1))
    runs.make("amnet_sparse_cost", 1, mflops_per_frame=1.0)
    runs.make("full", 1)
    rows = summarise(read_results([runs.folder / "runs"]))
    sparse = {row["experiment"]: row["above_amnet"] for row in rows}["sparse"]
    assert sparse == pytest.approx(100 * 2 / (3 + 5 + 7 + 9 + 11))
    over = {row["experiment"]: row["flops_over_amnet"] for row in rows}
    assert over["sparse"] == pytest.approx(0.05)
    assert over["amnet_sparse_cost"] == pytest.approx(-0.5)
    assert over["full"] is None
    said = table.headline([r for r in rows if r["experiment"] != "amnet"])
    assert "`sparse` +5 %" in said and "`amnet_sparse_cost` -50 %" in said


def test_one_model_for_every_device_is_compared_with_those_for_one(runs):
    device = {"load": 4.0, "flops_per_second": 2e7}
    runs.make("amnet_any_device", 1, errors=(1, 1, 2, 1, 1))
    runs.make("amnet_any_device", 2, device=device, errors=(1, 1, 2, 1, 1))
    runs.make("amnet_load_4", 2, device=device, errors=(0, 1, 2, 1, 1))
    # Nor with one that was trained for another device.
    runs.make("amnet", 2, device=device, errors=(3, 3, 3, 3, 3))
    runs.make("amnet_factorized_backlog", 1, errors=(0, 0, 2, 1, 1))
    runs.make("amnet_no_backlog", 3)  # of a seed that no other has
    above = {
        (row["device"], row["experiment"]): row["above_amnet"]
        for row in summarise(read_results([runs.folder / "runs"]))
    }
    point = 100 / (3 + 5 + 7 + 9 + 11)
    assert above.pop(("r = 2", "amnet_any_device")) == pytest.approx(2 * point)
    assert above.pop(("r = 4", "amnet_any_device")) == pytest.approx(point)
    assert set(above.values()) == {None}
