"""What was to be reached and what was, from the published results.

    python ../../benchmarks/targets.py --markdown README.md

in recipes/LibriSpeech. A target of several parts that some reach is met "in
part"; of few seeds or utterances it says so.
"""

import argparse
from pathlib import Path
from statistics import mean

from speechbrain_amnet.report.figures import read_figures
from speechbrain_amnet.report.markdown import update_markdown
from speechbrain_amnet.report.peers import read_peers
from speechbrain_amnet.report.results import read_results
from speechbrain_amnet.report.summary import compare, of_same_seeds, summarise
from speechbrain_amnet.report.table import ranged
from speechbrain_amnet.report.updates import (
    all_error,
    read_updates,
    summarise_updates,
)

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "recipes" / "LibriSpeech" / "results"
MET = {True: "yes", False: "no", None: "in part"}
BUDGETS = (0.1, 0.05, 0.02, 0.01, 0.005)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    args = parser.parse_args()
    text = markdown_text(RESULTS)
    if args.markdown:
        update_markdown(args.markdown, text, "targets")
    print(text)


def markdown_text(results: Path) -> str:
    """The table, and how many are met."""
    rows = [*amortized(results), *updates(results)]
    lines = ["| What | To reach | Reached | Met |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {what} | {asked} | {reached} | {MET[met]} |"
        for what, asked, reached, met in rows
    ]
    met = [row[-1] for row in rows]
    counts = f"{met.count(True)} of {len(met)} are met, {met.count(None)} in"
    return "\n".join([*lines, "", f"{counts} part."])


def amortized(results: Path):
    """Those of the amortized networks."""
    runs = read_results([results / "an4"])
    rows = {(r["experiment"], r["device"]): r for r in summarise(runs)}

    def row(name, load="2"):
        return rows[name, f"r = {load}"]

    def points(row, key="difference"):
        low, high = row[f"{key}_low"], row[f"{key}_high"]
        return ranged(f"{row[key]:+.1f}", low, high, "+")

    ours, longer = row("amnet_sparse_backlog"), of(runs, "full_longer")
    beside = {
        name: compare(*of_same_seeds(of(runs, name), longer))
        for name in ("amnet", "amnet_sparse_backlog")
    }
    yield (
        "AN4: compute saved by the better AmNet, r = 2",
        "60 %, at most 0.3 points above `full`",
        f"{100 * ours['compute_saved']:.0f} %, {points(ours)} points; above a "
        "`full` that was trained as long "
        f"{points(beside['amnet_sparse_backlog'])} (seed 10), `amnet` "
        f"{points(beside['amnet'])} (seed 1)",
        None,
    )
    controls = ("sparse", "small", "random")
    above = [row(name)["above_amnet"] for name in controls]
    yield (
        "AN4: AmNet against one network of its cost, and drawn branches",
        "fewer errors than each",
        "; ".join(
            f"`{name}` {points(row(name), 'above_amnet')} points above"
            for name in controls
        ),
        among(gap > 0 for gap in above),
    )
    cost, backlog = (
        next(r for r in of(runs, name) if r["seed"] == 5)
        for name in ("amnet_cost", "amnet")
    )
    waits = [r["latency_ms"]["above_floor"] for r in (cost, backlog)]
    flops = cost["mflops_per_frame"] / backlog["mflops_per_frame"] - 1
    yield (
        "AN4: wait above the floor, without and with the backlog-aware loss",
        "10 times shorter, at equal FLOPs (3 %)",
        f"{waits[0]:.0f} and {waits[1]:.0f} ms, {100 * flops:+.1f} % FLOPs, "
        f"WER {cost['wer']:.1f} and {backlog['wer']:.1f} (one seed)",
        waits[0] >= 10 * waits[1] and abs(flops) <= 0.03,
    )
    any_ = [row("amnet_any_device_ends", load) for load in ("1.5", "2", "4")]
    saved = any_[-1]["compute_saved"]
    gaps = [one["above_amnet"] for one in any_]
    yield (
        "AN4: one model for r = 1.5, 2 and 4",
        "at most 0.5 points above models for one; 75 % saved at 4",
        ", ".join(f"{gap:+.1f}" for gap in gaps)
        + f" points; {100 * saved:.0f} % (one seed)",
        among([max(gaps) <= 0.5, saved >= 0.75]),
    )
    shares = [
        (frame["Frames"], frame["Whole: of what FLOPs promise"])
        for frame in read_figures(results / "figures" / "runtime_frame.json")[
            "rows"
        ][1:]
    ]
    yield (
        "Stream at the paper's size, on the clock",
        "0.8 of what FLOPs promise",
        "; ".join(f"{name}: {share:.2f}" for name, share in shares),
        among(share >= 0.8 for _, share in shares),
    )
    measured, reckoned = read_figures(results / "figures" / "live.json")[
        "rows"
    ][:2]
    names = ("mean", "p50")
    yield (
        "Live at r = 2: wait measured and reckoned",
        "within 20 % or 2 ms",
        ", ".join(
            f"{name} {measured[name]:.0f} and {reckoned[name]:.0f} ms"
            for name in names
        ),
        among(near(measured[name], reckoned[name]) for name in names),
    )
    an4, coffee = (
        {
            one["name"]: one
            for one in read_peers(results / "peers" / f"{data}.json")[
                "recognisers"
            ]
        }
        for data in ("an4", "coffee")
    )
    found = []
    for data, peers, mine in (
        ("AN4", an4, "amnet"),
        ("coffee", coffee, "full_voices"),
    ):
        whisper, mine = peers["whisper-tiny int8"], peers[mine]
        times = whisper["real_time_factor"] / mine["real_time_factor"]
        found.append((data, mine["wer"], whisper["wer"], times))
    yield (
        "Against whisper-tiny in 8 bits",
        "fewer errors, 10 times as fast",
        "; ".join(
            f"{data}: {mine:.1f} and {its:.1f} %, {times:.1f} times"
            for data, mine, its, times in found
        )
        + " (coffee: ours held to a grammar)",
        among(mine < its and times >= 10 for _, mine, its, times in found),
    )


def updates(results: Path):
    """Those of the updates."""
    first, five, an4, coffee = (
        read_updates([results / f"diff_{name}.json"])
        for name in ("first", "spoken", "an4", "coffee")
    )
    excess = [100 * (a / b - 1) for a, b in paired(five, 0.1, all_error)]
    real = [a - b for a, b in paired(an4, 0.1, all_error)]
    yield (
        "Five updates of 10 % of the bytes, against full ones: all words",
        "within 1 % of the errors; AN4: 0.3 points",
        f"{mean(excess):+.0f} % (seeds: "
        + ", ".join(f"{one:+.0f}" for one in excess)
        + f"); AN4 {mean(real):+.1f} points ({seeds(real)})",
        among([mean(excess) <= 1, mean(real) <= 0.3]),
    )
    rows = {
        (row["method"], round(row["budget"], 3)): row
        for row in summarise_updates(first)
    }
    for budget, asked in ((0.02, 0.95), (0.01, 0.9), (0.005, 0.75)):
        row = rows["sparse", budget]
        yield (
            f"One update of {100 * budget:g} %: share of a full one's gain",
            f"{asked:.2f}",
            f"{row['gain']:.2f} ({seeds(range(row['runs']))})",
            row["gain"] >= asked,
        )
    noise = read_figures(results / "figures" / "commands_in_noise.json")["rows"]
    voices = next(row for row in noise if row["Engine"] == "`full_voices`")
    yield (
        "Coffee commands right, unseen voices: clean, noise at 12 dB",
        "90 and 80 %",
        f"{voices['clean']:.1f} and {voices['12 dB']:.1f} % of 93 (a dense "
        "network with spoken commands in its training, one seed)",
        among([voices["clean"] >= 90, voices["12 dB"] >= 80]),
    )
    new, old = (
        [a - b for a, b in paired(coffee, 0.02, lambda r, key=key: r[key])]
        for key in ("command_error", "old_command_error")
    )
    yield (
        "Coffee after five updates of 2 %: commands wrong, against full ones",
        "at most 3 points more, new and old",
        f"new {mean(new):+.1f}, old {mean(old):+.1f} points (one fold)",
        among([mean(new) <= 3, mean(old) <= 3]),
    )
    beside = []
    for budget in BUDGETS:
        if ("lora", budget) in rows:
            beside.append(
                (
                    budget,
                    *(rows[method, budget] for method in ("sparse", "lora")),
                )
            )
    yield (
        "Against LoRA of at most as many bytes, first release: all words wrong",
        "fewer at every budget",
        "; ".join(
            f"{100 * budget:g} %: {a['all_error']:.1f} and "
            f"{b['all_error']:.1f} (new {a['error']:.1f} and "
            f"{b['error']:.1f})"
            for budget, a, b in beside
        ),
        among(
            a[key] < b[key]
            for _, a, b in beside
            for key in ("all_error", "error")
        ),
    )
    smaller = [r for r in rows.values() if r["method"].startswith("compressed")]
    yield (
        "Against the updated model compressed to as many bytes",
        "fewer at every budget",
        f"2 %: {rows['sparse', 0.02]['all_error']:.1f}, "
        + ", ".join(f"`{r['method']}` {r['all_error']:.1f}" for r in smaller)
        + " (other budgets not trained)",
        None,
    )
    sent = read_figures(results / "figures" / "diff_bytes.json")["rows"]
    lossless = min(r["Bytes"] for r in sent if r["Update"].startswith("full,"))
    one = next(r for r in sent if r["Update"] == "`sparse_1`")
    yield (
        "Bytes of 1 % against the best of bsdiff4, zstandard and XOR",
        "50 times smaller",
        f"{lossless / one['Bytes']:.0f} times ({one['Bytes']:,} bytes)",
        lossless >= 50 * one["Bytes"],
    )
    coded = [
        r
        for r in sent
        if r["Update"].startswith("NNC") and r["WER %"] <= one["WER %"]
    ]
    least = min(r["Bytes"] for r in coded)
    yield (
        "Bytes against NNC at equal errors",
        "smaller",
        f"{one['Bytes']:,} bytes with {one['WER %']:.1f} %, NNC {least:,} to "
        "have no more",
        one["Bytes"] < least,
    )
    forgotten = {
        budget: [a - b for a, b in paired(five, budget, lambda r: r["old_wer"])]
        for budget in (0.1, 0.02)
    }
    yield (
        "Old words wrong after five updates, against full ones",
        "not more",
        "; ".join(
            f"{100 * budget:g} %: "
            + ", ".join(f"{one:+.1f}" for one in some)
            + " points"
            for budget, some in forgotten.items()
        ),
        among(mean(some) <= 0 for some in forgotten.values()),
    )


def of(runs, name):
    """The runs of an experiment."""
    return [run for run in runs if run["experiment"] == name]


def near(one: float, other: float) -> bool:
    """Within 20 % or 2 ms."""
    return abs(one - other) <= max(2, 0.2 * other)


def among(parts) -> bool | None:
    """All of them, none, or None for some."""
    parts = list(parts)
    return True if all(parts) else None if any(parts) else False


def seeds(some) -> str:
    """How many there are."""
    return "one seed" if len(some) == 1 else f"{len(some)} seeds"


def paired(records, budget, value):
    """A sparse chain's last update and the full one of its seed, in turn."""
    last = max(record["generation"] for record in records)
    here = [r for r in records if r["generation"] == last]
    full = {r["seed"]: r for r in here if r["method"] == "full"}
    return [
        (value(r), value(full[r["seed"]]))
        for r in here
        if r["method"] == "sparse" and round(r["budget"], 3) == budget
    ]


if __name__ == "__main__":
    main()
