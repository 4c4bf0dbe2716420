"""Updates compared: by generation, by bytes, on what is new and on what is old.

A record is what `train_diff.py` writes as `diff.json`; published records are
lists of them. What counts is words for speech recognition (task `asr`), whole
commands for understanding (task `slu`).
"""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from speechbrain_amnet.report.markdown import cell
from speechbrain_amnet.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    STYLE,
    WIDTH,
    save,
)

KEYS = (
    "task",
    "data",
    "generation",
    "method",
    "budget",
    "bytes",
    "seed",
)
ERRORS = {"asr": "wer", "slu": "command_error"}
COUNTS = {"asr": "words", "slu": "commands"}
TITLES = {"asr": "WER", "slu": "command error"}
BOUND = "full"
COLOURS = {"full": INK, "sparse": RED, "hash": BLUE, "lora": GREEN}
OTHERS = (PURPLE, ORANGE, SKY, GREY)


def read_updates(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Read records of updates.

    Arguments
    ---------
    paths : iterable of str or Path
        Files with a record or a list of them, or folders with files
        `diff.json` anywhere below.

    Returns
    -------
    list of dict

    Raises
    ------
    FileNotFoundError
        If a path does not exist or holds no records.
    ValueError
        If a file holds something else, or two records are of one update.
    """
    records, seen = [], {}
    for path in map(Path, paths):
        files = sorted(path.rglob("diff.json")) if path.is_dir() else [path]
        if not files or not files[0].exists():
            raise FileNotFoundError(f"no records of updates: {path}")
        for file in files:
            try:
                found = json.loads(file.read_text())
            except ValueError as error:
                raise ValueError(f"{file}: not JSON: {error}") from None
            for record in found if isinstance(found, list) else [found]:
                keys = [*KEYS]
                if isinstance(record, dict):
                    keys += error_keys(record)
                missing = [
                    key
                    for key in keys
                    if not isinstance(record, dict) or key not in record
                ]
                if missing:
                    raise ValueError(
                        f"{file}: not the record of an update, there is no "
                        f"{missing[0]}"
                    )
                for key in ("budget", "bytes", "generation", *keys[-4::2]):
                    if not isinstance(record[key], int | float):
                        raise ValueError(
                            f"{file}: {key} must be a number, got "
                            f"{record[key]!r}"
                        )
                one = (*place_of(record), *kind_of(record))
                if one in seen:
                    raise ValueError(
                        f"two records of {name_of_kind(*kind_of(record))}, "
                        f"generation {record['generation']}, seed "
                        f"{record['seed']}, on {record['data']}: {seen[one]} "
                        f"and {file}; leave out one of them"
                    )
                seen[one] = file
                records.append(record)
    return records


def error_keys(record: dict[str, Any]) -> list[str]:
    """Its errors: on what is new, on what is old, and both before the update.

    Example
    -------
    >>> error_keys({"task": "slu"})[:2]
    ['command_error', 'old_command_error']
    """
    key = ERRORS.get(record.get("task"), "wer")
    return [key, f"old_{key}", f"base_{key}", f"base_old_{key}"]


def summarise_updates(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds and folds, and the share of the bound's gain.

    Arguments
    ---------
    records : list of dict
        As `read_updates` gives them.

    Returns
    -------
    list of dict
        A row for each task, data, method, budget and generation, of so many
        `runs`, with its errors in percent: `error`, `old_error`, `base_error`
        and `base_old_error`. `gain` is (before - after) / (before - after the
        full update), on what is new, mean over the seeds whose full update
        gained, None without one; `gained` and `to_gain` are the sums over all
        seeds and folds that have both, each weighed by its words or commands
        where they are known, and `bounded` their number.
        `all_error` is that on new and old together, each weighed by its words
        or commands, and `all_range` its least and its most; None where they
        are not known.

    Raises
    ------
    ValueError
        If an update and the full one of its place are of another base, or on
        other material.

    Example
    -------
    >>> one = dict.fromkeys(KEYS, 0) | {"task": "asr", "method": "full"}
    >>> one |= {"wer": 0.0, "old_wer": 0.0, "base_wer": 20.0, "base_old_wer": 1}
    >>> two = one | {"method": "sparse", "wer": 5.0}
    >>> [row["gain"] for row in summarise_updates([one, two])]
    [1.0, 0.75]
    """
    bounds = {place_of(r): r for r in records if r["method"] == BOUND}
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for record in records:
        key = (*place_of(record)[:2], *kind_of(record), record["generation"])
        groups.setdefault(key, []).append(record)
    order = {BOUND: 0, "sparse": 1, "hash": 2, "lora": 3}
    rows = []
    for key, group in sorted(
        groups.items(),
        key=lambda one: (
            one[0][:2],
            order.get(one[0][2], 9),
            -one[0][3],
            one[0][4],
        ),
    ):
        row = dict(zip(("task", "data", "method", "budget", "generation"), key))
        row["runs"] = len(group)
        new, old, base, base_old = error_keys(group[0])
        for name, theirs in (
            ("bytes", "bytes"),
            ("error", new),
            ("old_error", old),
            ("base_error", base),
            ("base_old_error", base_old),
        ):
            row[name] = weighed_mean(group, theirs)
        both = [r for r in group if place_of(r) in bounds]
        for record in both:
            check_bound(record, bounds[place_of(record)])
        pairs = [
            (r[base] - r[new], r[base] - bounds[place_of(r)][new]) for r in both
        ]
        shares = [a / b for a, b in pairs if b > 0]
        row["gain"] = mean(shares) if shares else None
        weights = counts_of(both, new)
        row["gained"], row["to_gain"] = (
            sum(points * n for points, n in zip(each, weights))
            for each in (zip(*pairs) if pairs else ((), ()))
        )
        row["bounded"] = len(pairs)
        everything = [all_error(record) for record in group]
        row["all_error"] = row["all_range"] = None
        if None not in everything:
            here, there = (counts_of(group, key) for key in (new, old))
            counts = [a + b for a, b in zip(here, there)]
            sums = sum(e * n for e, n in zip(everything, counts))
            row["all_error"] = sums / sum(counts)
            row["all_range"] = min(everything), max(everything)
        rows.append(row)
    return rows


def weighed_mean(group: list[dict[str, Any]], key: str) -> float | None:
    """The mean of what is known; errors by the words or commands they are of.

    Example
    -------
    >>> known = {"old_wer": 10, "old_words": 1}
    >>> folds = [known, {"old_wer": 2, "old_words": 3}]
    >>> weighed_mean(folds, "old_wer")
    4.0
    """
    known = [r for r in group if r[key] is not None]
    if not known:
        return None
    counts = counts_of(known, key)
    return sum(r[key] * n for r, n in zip(known, counts)) / sum(counts)


def counts_of(group: list[dict[str, Any]], key: str) -> list[int]:
    """The words or commands that errors are of; ones where not all are known.

    Example
    -------
    >>> counts_of([{"old_words": 3}, {"old_words": 4}], "base_old_wer")
    [3, 4]
    >>> counts_of([{"words": 3}, {}], "wer"), counts_of([{}], "bytes")
    ([1, 1], [1])
    """
    for error, count in zip(ERRORS.values(), COUNTS.values()):
        if key.endswith(error):
            old = "old_" if "old_" in key else ""
            counts = [r.get(old + count) for r in group]
            if all(counts):
                return counts
    return [1] * len(group)


def all_error(record: dict[str, Any]) -> float | None:
    """On new and old material together, where both counts are known.

    Example
    -------
    >>> all_error({"wer": 10, "words": 100, "old_wer": 20, "old_words": 300})
    17.5
    """
    count = COUNTS.get(record.get("task"), "words")
    new, old = error_keys(record)[:2]
    keys = new, old, count, f"old_{count}"
    if any(record.get(key) is None for key in keys):
        return None
    error, old_error, here, there = (record[key] for key in keys)
    return (error * here + old_error * there) / (here + there)


def place_of(record: dict[str, Any]) -> tuple:
    """What a full update is the bound of."""
    keys = "task", "data", "generation", "seed", "fold"
    return tuple(record.get(key) for key in keys)


def check_bound(record: dict[str, Any], bound: dict[str, Any]) -> None:
    """Refuses the full update of another base, or on other material.

    After the first generation bases differ, as each method goes on from its
    own update.
    """
    keys = ["grammar_digest"]
    keys += [old + count for count in COUNTS.values() for old in ("", "old_")]
    if record["generation"] == 1:
        keys += error_keys(record)[2:]
    for key in keys:
        ours, theirs = (some.get(key) for some in (record, bound))
        if None not in (ours, theirs) and ours != theirs:
            raise ValueError(
                f"{name_of_kind(*kind_of(record))} and {BOUND} of generation "
                f"{record['generation']}, seed {record['seed']}, on "
                f"{record['data']} are not of the same base, material and "
                f"grammar: {key} is {ours} and {theirs}; give the records of "
                "one base alone"
            )


def kind_of(record: dict[str, Any]) -> tuple[str, float]:
    """Method and budget; a full update has none."""
    if record["method"] == BOUND:
        return BOUND, 1.0
    return record["method"], float(f"{record['budget']:.3g}")


def name_of(row: dict[str, Any]) -> str:
    """What tables and pictures call a method.

    Example
    -------
    >>> name_of({"method": "sparse", "budget": 0.02})
    'sparse 2 %'
    """
    return name_of_kind(row["method"], row["budget"])


def name_of_kind(method: str, budget: float) -> str:
    """What `name_of` says of method and budget."""
    return method if method == BOUND else f"{method} {100 * budget:.3g} %"


def title_of(rows: list[dict[str, Any]]) -> str:
    """What the errors of rows are called."""
    titles = {TITLES.get(row["task"], "WER") for row in rows}
    return titles.pop() if len(titles) == 1 else "error"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table with a row for each method and budget.

    Arguments
    ---------
    rows : list of dict
        As `summarise_updates` gives them. What was new is told of each
        generation, and its share of the gain of all of them together (and of
        how many runs, where not all have their full update); what is old before
        and after the last, of the same test sets, and everything after it; of
        several runs the mean, and of everything also the least and the most.
    """

    def of_fewer(some):
        runs, bounded = (
            min(r[key] for r in some) for key in ("runs", "bounded")
        )
        return "" if bounded in (0, runs) else f" ({bounded} of {runs})"

    def shown(value, form=".1f"):
        return "–" if value is None else format(value, form)

    def spread(row):
        low, high = row["all_range"] or (0, 0)
        return "" if low == high else f" ({low:.1f} to {high:.1f})"

    def average(some, key):
        known = [row[key] for row in some if row[key] is not None]
        return mean(known) if known else None

    several = len({(row["task"], row["data"]) for row in rows}) > 1
    title = title_of(rows)
    lines = [
        "| "
        + ("Data | " if several else "")
        + f"Update | Bytes each | New: {title} % before | after, by generation "
        f"| share of the gain | Old: {title} % before the last | after it "
        "| All | Runs |",
        "|" + (" --- |" if several else "") + " --- |" + " ---: |" * 8,
    ]
    kinds: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault((row["task"], row["data"], name_of(row)), []).append(
            row
        )
    for (_, data, name), some in kinds.items():
        some = sorted(some, key=lambda row: row["generation"])
        runs = dict.fromkeys(str(row["runs"]) for row in some)
        cells = [
            cell(name),
            f"{average(some, 'bytes'):,.0f}",
            shown(average(some, "base_error")),
            ", ".join(shown(row["error"]) for row in some),
            shown(gain_of_all(some), ".2f") + of_fewer(some),
            shown(some[-1]["base_old_error"]),
            shown(some[-1]["old_error"]),
            shown(some[-1]["all_error"]) + spread(some[-1]),
            ", ".join(runs),
        ]
        front = f"{cell(data)} | " if several else ""
        lines.append(f"| {front}" + " | ".join(cells) + " |")
    return "\n".join(lines)


def gain_of_all(rows: list[dict[str, Any]]) -> float | None:
    """The share of the gain of several generations of one method.

    A generation in which there was little to gain says little, so sums are
    divided; one in which the full update lost counts against both. None if it
    gained nothing in all.

    Example
    -------
    >>> rows = [{"gained": 10, "to_gain": 10}, {"gained": 1, "to_gain": 2}]
    >>> round(gain_of_all(rows), 3)
    0.917
    """
    possible = sum(row["to_gain"] for row in rows)
    return (
        sum(row["gained"] for row in rows) / possible if possible > 0 else None
    )


def plot_updates(rows: list[dict[str, Any]], out: str | Path) -> Path:
    """Draw errors by generation and by bytes.

    Of a single generation what is new, old, and both, all by bytes.

    Arguments
    ---------
    rows : list of dict
        As `summarise_updates` gives them, of one task and data set.
    out : str or Path
        The picture.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    ValueError
        If there are no rows, or they are of several data sets.
    """
    sets = {(row["task"], row["data"]) for row in rows}
    if len(sets) != 1:
        raise ValueError(
            f"updates are drawn of one data set, not of {len(sets)}"
        )
    methods = list(dict.fromkeys(row["method"] for row in rows))
    others = [method for method in methods if method not in COLOURS]
    colours = {**COLOURS, **dict(zip(others, OTHERS * len(others)))}
    once = len({row["generation"] for row in rows}) == 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        new, old, last = figure.subplots(1, 3)
        if once:
            for axes, key, title in (
                (new, "error", "What is new"),
                (old, "old_error", "What was there before"),
                (last, "all_error", "All of it"),
            ):
                draw_bytes(axes, rows, key, colours)
                # 0 % has a place.
                axes.set_yscale("symlog", linthresh=1, subs=(2, 3, 5))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}")
                axes.set_title(title)
        else:
            draw_generations(new, rows, "error", colours)
            new.set_title("What is new in each release")
            draw_generations(old, rows, "old_error", colours)
            old.set_title("What was there before")
            draw_bytes(last, rows, "error", colours)
            last.set_title("New, mean over generations")
            last.set_ylim(bottom=0)
            last.legend()
        new.legend()
        new.set_ylabel(f"{title_of(rows)}, %{' (log scale)' if once else ''}")
        return save(figure, out)


def draw_generations(
    axes: Any, rows: list[dict[str, Any]], key: str, colours: dict[str, str]
) -> None:
    """A line for each method and budget, faded for small ones."""
    budgets = sorted({row["budget"] for row in rows}, reverse=True)
    for name in dict.fromkeys(map(name_of, rows)):
        mine = [row for row in rows if name_of(row) == name]
        points = [
            (row["generation"], row[key])
            for row in mine
            if row[key] is not None
        ]
        if not points:
            continue
        fade = 1 - 0.6 * budgets.index(mine[0]["budget"]) / len(budgets)
        axes.plot(
            *zip(*points),
            marker="o",
            markersize=4,
            color=colours[mine[0]["method"]],
            alpha=fade,
            label=name,
        )
    axes.set_xlabel("generation")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)


def draw_bytes(
    axes: Any, rows: list[dict[str, Any]], key: str, colours: dict[str, str]
) -> None:
    """A line for each method, over the bytes of its budgets."""
    known = [row for row in rows if row[key] is not None]
    for method in dict.fromkeys(row["method"] for row in known):
        by_budget: dict[float, list] = {}
        for row in known:
            if row["method"] == method:
                by_budget.setdefault(row["budget"], []).append(row)
        points = sorted(
            (mean(r["bytes"] for r in some), mean(r[key] for r in some))
            for some in by_budget.values()
        )
        axes.plot(
            *zip(*points),
            marker="o",
            markersize=4,
            color=colours[method],
            label=method,
        )
    axes.set_xscale("log")
    axes.set_xlabel("bytes of an update (log scale)")
