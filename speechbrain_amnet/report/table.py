"""The table of all runs: one row an experiment, from their results.json.

A run left a `results.json` and, beside it, `utterances_<split>.csv`; a
published run is the same two files as `<experiment>-<seed>.json` and `.csv`.
A row is the mean over an experiment's seeds; its intervals are 95 % and come
from resampling the utterances, the same for every experiment.

A Markdown file holds a table between two lines of their own, the first of
which says which results it is made from:

    <!-- table: an4 from recipes/LibriSpeech/results/an4 -->
    <!-- end -->
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REFERENCE = "full"
FIRST = (REFERENCE, "small", "amnet")  # the order of the rows; then by name

PUBLISHED = re.compile(r".+-\d+\.json")
MARKER = re.compile(r"<!-- table: (\S+)(?: from (.+?))? -->")
END = "<!-- end -->"

KEYS = (
    "experiment",
    "data",
    "split",
    "seed",
    "wer",
    "wer_interval",
    "mflops_per_frame",
    "compute_saved",
    "latency_ms",
    "device",
)

COLUMNS = (
    "data",
    "split",
    "device",
    "experiment",
    "seeds",
    "wer",
    "wer_low",
    "wer_high",
    "difference",
    "difference_low",
    "difference_high",
    "mflops_per_frame",
    "compute_saved",
    "latency_mean_ms",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_max_ms",
    "above_floor_ms",
    "last_word_ms",
    "real_time_factor",
    "parameters",
    "megabytes",
)


# Reading -------------------------------------------------------------------


def read_results(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Read the results of runs.

    Arguments
    ---------
    paths : iterable of str or Path
        A results file, the folder of a run, or a folder with the folders of
        runs or with published results anywhere below it.

    Returns
    -------
    list of dict
        The contents of each results.json, and its `path`.

    Raises
    ------
    FileNotFoundError
        If a path does not exist or holds no results.
    ValueError
        If a file is not the results of a run, or two are of the same run.
    """
    results, seen = [], {}
    for file in dict.fromkeys(f for path in paths for f in find_results(path)):
        result = read_result(file)
        run = (*group_of(result), result["seed"])
        if run in seen:
            raise ValueError(
                f"two results of {result['experiment']}, seed "
                f"{result['seed']}, on {result['data']} {result['split']}: "
                f"{seen[run]} and {file}; leave out one of them"
            )
        seen[run] = file
        results.append(result)
    return results


def find_results(path: str | Path) -> list[Path]:
    """The results files that a path stands for, see `read_results`."""
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder of results: {path}")
    if (path / "results.json").is_file():
        return [path / "results.json"]
    files = sorted(path.rglob("results.json")) or sorted(
        file for file in path.rglob("*.json") if PUBLISHED.fullmatch(file.name)
    )
    if not files:
        raise FileNotFoundError(
            f"no results.json and no <experiment>-<seed>.json in {path}; "
            "a run writes its results when it is evaluated"
        )
    return files


def read_result(file: Path) -> dict[str, Any]:
    """One results file, checked for what the table needs."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(result, dict):
        raise ValueError(f"{file} is not the results of a run")
    missing = [key for key in KEYS if key not in result]
    if missing:
        raise ValueError(
            f"{file} is not the results of a run: without {', '.join(missing)}"
        )
    return {**result, "path": file}


def read_utterances(
    result: dict[str, Any],
) -> dict[str, tuple[int, int]] | None:
    """Words and errors of each utterance of a run.

    Arguments
    ---------
    result : dict
        As `read_results` gives it.

    Returns
    -------
    dict or None
        Id to (words, errors); None if there is no such file.

    Raises
    ------
    ValueError
        If the file does not belong to these results.
    """
    path = Path(result["path"])
    file = path.with_suffix(".csv")
    if not file.is_file():
        file = path.parent / f"utterances_{result['split']}.csv"
    if not file.is_file():
        return None
    try:
        found = {
            row["id"]: (int(row["words"]), errors_of(row))
            for row in read_rows(file)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is not a table of utterances ({error})"
        ) from None
    words, errors = np.array(list(found.values())).reshape(-1, 2).sum(0)
    if not words or abs(100 * errors / words - result["wer"]) > 0.05:
        raise ValueError(
            f"{file} has {errors} errors in {words} words, which is not the "
            f"{result['wer']:.2f} % of {path}; evaluate the run again"
        )
    return found


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def errors_of(row: dict[str, str]) -> int:
    """All word errors of an utterance."""
    kinds = ("substitutions", "deletions", "insertions")
    return sum(int(row[kind]) for kind in kinds)


# Arithmetic ----------------------------------------------------------------


def bootstrap(
    errors: np.ndarray,
    words: np.ndarray,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of `100 * sum(errors) / sum(words)` over utterances.

    Arguments
    ---------
    errors : numpy.ndarray
        Of each utterance, `[utterances]`; or the difference of two systems'.
    words : numpy.ndarray
        Of each utterance, `[utterances]`.
    resamples : int
        How often utterances are drawn with replacement.
    seed : int
        Of the draws.

    Returns
    -------
    tuple of float
        Lower and upper end, in percent.

    Example
    -------
    >>> bootstrap(np.array([1, 1, 1]), np.array([4, 4, 4]))
    (25.0, 25.0)
    """
    # RandomState's numbers never change with NumPy's version; a table that
    # is compared to the letter needs that.
    random, rates = np.random.RandomState(seed), []
    for start in range(0, resamples, 500):
        size = (min(500, resamples - start), len(words))
        drawn = random.randint(0, len(words), size, dtype=np.int64)
        rates.append(100 * errors[drawn].sum(1) / words[drawn].sum(1))
    low, high = np.percentile(np.concatenate(rates), [2.5, 97.5])
    return float(low), float(high)


def mean_errors(
    results: list[dict[str, Any]],
) -> dict[str, tuple[int, float]] | None:
    """Words, and errors averaged over the seeds, of each utterance."""
    runs = [read_utterances(result) for result in results]
    if any(run is None for run in runs):
        return None
    for result, run in zip(results, runs):
        check_pairing(runs[0], run, results[0]["path"], result["path"])
    return {
        id: (words, float(np.mean([run[id][1] for run in runs])))
        for id, (words, _) in runs[0].items()
    }


def check_pairing(first: dict, second: dict, path: Any, other: Any) -> None:
    """Refuses to compare runs on different utterances."""
    ids = sorted(
        id
        for id in first.keys() | second.keys()
        if id not in first or id not in second or first[id][0] != second[id][0]
    )
    if ids:
        raise ValueError(
            f"{path} and {other} are not of the same utterances "
            f"({len(ids)} differ, for instance {ids[0]})"
        )


def interval(utterances: dict[str, tuple[int, float]]) -> tuple[float, float]:
    """`bootstrap` of what `mean_errors` gives, in the order of the ids."""
    pairs = [utterances[id] for id in sorted(utterances)]
    words, errors = np.array(pairs, dtype=float).T
    return bootstrap(errors, words)


def group_of(result: dict[str, Any]) -> tuple[str, str, str, str]:
    """What the runs that are averaged have in common."""
    return (
        result["data"],
        result["split"],
        device_of(result),
        result["experiment"],
    )


def device_of(result: dict[str, Any]) -> str:
    """The device, as `r = 2` or `650 MFLOP/s`.

    Example
    -------
    >>> device_of({"device": {"load": 2.0, "flops_per_second": 1.6e8}})
    'r = 2'
    """
    device = result["device"]
    if device.get("load") is not None:
        return f"r = {device['load']:.3g}"
    return f"{device['flops_per_second'] / 1e6:.4g} MFLOP/s"


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average the runs of each experiment, and compare with `full`.

    Arguments
    ---------
    results : list of dict
        As `read_results` gives them.

    Returns
    -------
    list of dict
        A row an experiment (and data, split, device), with the keys of
        `COLUMNS`; None for what is not known. Figures are means over the
        seeds; `latency_max_ms` is the longest of all.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(group_of(result), []).append(result)
    utterances = {key: mean_errors(runs) for key, runs in groups.items()}
    rows = []
    for key in sorted(groups, key=place):
        row = average(groups[key], utterances[key])
        other = reference_of(key, groups)
        if other is not None and other != key:
            row.update(
                compare(
                    row["wer"] - np.mean([r["wer"] for r in groups[other]]),
                    utterances[key],
                    utterances[other],
                    [groups[key][0]["path"], groups[other][0]["path"]],
                )
            )
        rows.append({column: row.get(column) for column in COLUMNS})
        rows[-1]["speed"] = groups[key][0]["device"].get("flops_per_second")
    return rows


def place(key: tuple[str, str, str, str]) -> tuple:
    """Sorts rows: by data, then full, small, amnet, the others by name."""
    data, split, device, experiment = key
    rank = FIRST.index(experiment) if experiment in FIRST else len(FIRST)
    return data, split, rank, experiment, device


def reference_of(key: tuple, groups: dict[tuple, Any]) -> tuple | None:
    """The group of `full` that a group is compared with."""
    found = [k for k in groups if k[:2] == key[:2] and k[3] == REFERENCE]
    same_device = [k for k in found if k[2] == key[2]]
    return next(iter(same_device + found), None)


def average(
    runs: list[dict[str, Any]],
    utterances: dict[str, tuple[int, float]] | None,
) -> dict[str, Any]:
    """The row of one experiment, without its difference to another."""
    runs = sorted(runs, key=lambda run: run["seed"])

    def mean(*keys: str) -> float | None:
        values = [dig(run, keys) for run in runs]
        return None if None in values else float(np.mean(values))

    low = high = None
    if len(runs) == 1:
        low, high = runs[0]["wer_interval"]
    elif utterances:
        low, high = interval(utterances)
    longest = [dig(run, ("latency_ms", "max")) for run in runs]
    data, split, device, experiment = group_of(runs[0])
    return {
        "data": data,
        "split": split,
        "device": device,
        "experiment": experiment,
        "seeds": len(runs),
        "wer": mean("wer"),
        "wer_low": low,
        "wer_high": high,
        "mflops_per_frame": mean("mflops_per_frame"),
        "compute_saved": mean("compute_saved"),
        "latency_mean_ms": mean("latency_ms", "mean"),
        "latency_p50_ms": mean("latency_ms", "p50"),
        "latency_p90_ms": mean("latency_ms", "p90"),
        "latency_max_ms": None if None in longest else max(longest),
        "above_floor_ms": mean("latency_ms", "above_floor"),
        "last_word_ms": mean("last_word_ms", "mean"),
        "real_time_factor": mean("real_time_factor"),
        "parameters": mean("parameters"),
        "megabytes": mean("megabytes"),
    }


def dig(value: Any, keys: tuple[str, ...]) -> float | None:
    """`value[key][key]...`; stops early at a number, None if it is absent."""
    for key in keys:
        if not isinstance(value, dict):
            break
        value = value.get(key)
    return value


def compare(
    difference: float,
    ours: dict[str, tuple[int, float]] | None,
    theirs: dict[str, tuple[int, float]] | None,
    paths: list[Any],
) -> dict[str, float | None]:
    """Difference in WER, in points, and its interval over paired utterances."""
    low = high = None
    if ours and theirs:
        check_pairing(ours, theirs, *paths)
        low, high = interval(
            {
                id: (words, errors - theirs[id][1])
                for id, (words, errors) in ours.items()
            }
        )
    return {
        "difference": float(difference),
        "difference_low": low,
        "difference_high": high,
    }


# Writing -------------------------------------------------------------------


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table.

    Data, device and the wait after the last word have a column only where
    there is something to tell.
    """
    columns = {
        "Experiment": [f"`{row['experiment']}`" for row in rows],
        "Seeds": [str(row["seeds"]) for row in rows],
        "WER %": [
            ranged(f"{row['wer']:.1f}", row["wer_low"], row["wer_high"], "")
            for row in rows
        ],
        f"Points above `{REFERENCE}`": [
            "–"
            if row["difference"] is None
            else ranged(
                f"{row['difference']:+.2f}",
                row["difference_low"],
                row["difference_high"],
                "+",
            )
            for row in rows
        ],
        "MFLOPs a frame": [
            shown(row["mflops_per_frame"], ".2f") for row in rows
        ],
        "Compute saved %": [
            shown(row["compute_saved"], ".1f", 100) for row in rows
        ],
        "Latency ms: mean / p50 / p90 / max": [
            " / ".join(
                shown(row[f"latency_{part}_ms"], ",.0f")
                for part in ("mean", "p50", "p90", "max")
            )
            for row in rows
        ],
        "Above floor ms": [
            shown(row["above_floor_ms"], ",.1f") for row in rows
        ],
        "After last word ms": [
            shown(row["last_word_ms"], ",.0f") for row in rows
        ],
        "Real-time factor": [
            shown(row["real_time_factor"], ".3f") for row in rows
        ],
        "Parameters": [shown(row["parameters"], ",.0f") for row in rows],
        "MB": [shown(row["megabytes"], ".1f") for row in rows],
    }
    if all(row["last_word_ms"] is None for row in rows):
        del columns["After last word ms"]
    front = {}
    if len({(row["data"], row["split"]) for row in rows}) > 1:
        front["Data"] = [f"{row['data']} {row['split']}" for row in rows]
    if not one_device(rows):
        front["Device"] = [row["device"] for row in rows]
    columns = {**front, **columns}
    names = {*front, "Experiment"}
    lines = [list(columns), ["---" if c in names else "---:" for c in columns]]
    lines += zip(*columns.values())
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ranged(text: str, low: float | None, high: float | None, sign: str) -> str:
    """A figure and its interval.

    Example
    -------
    >>> ranged("+0.26", -0.9, 1.5, "+")
    '+0.26 (-0.9 to +1.5)'
    """
    if low is None or high is None:
        return text
    # Adding 0 turns -0.0 into 0.0.
    low, high = round(low, 1) + 0.0, round(high, 1) + 0.0
    return f"{text} ({low:{sign}.1f} to {high:{sign}.1f})"


def shown(value: float | None, form: str, factor: float = 1) -> str:
    """A figure, or a dash."""
    return "–" if value is None else f"{factor * value:{form}}"


def one_device(rows: list[dict[str, Any]]) -> bool:
    """Whether all rows are for the same device."""
    if len({row["device"] for row in rows}) == 1:
        return True
    speeds = [row["speed"] for row in rows]
    # `r` refers to an encoder's own dense branch, the speed to nothing.
    return None not in speeds and max(speeds) <= 1.01 * min(speeds)


def csv_table(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV, every column of `COLUMNS`, empty where not known."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, COLUMNS, extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {k: round(v, 6) if type(v) is float else v for k, v in row.items()}
        )
    return out.getvalue()


def headline(rows: list[dict[str, Any]]) -> str:
    """What the table says, in one sentence."""
    pairs = [
        (row, full)
        for row in rows
        for full in rows
        if row["experiment"] == "amnet"
        and full["experiment"] == REFERENCE
        and (row["data"], row["split"]) == (full["data"], full["split"])
    ]
    if not pairs:
        runs = sum(row["seeds"] for row in rows)
        sets = sorted({f"{row['data']} {row['split']}" for row in rows})
        return (
            f"Experiments: {len(rows)}, runs: {runs}, on {', '.join(sets)}; "
            f"`amnet` and `{REFERENCE}` are not both among them."
        )
    row, full = min(
        pairs, key=lambda pair: pair[0]["device"] != pair[1]["device"]
    )
    change = row["difference"]
    within = ranged(
        f"{abs(change):.2f} points {'higher' if change > 0 else 'lower'}",
        row["difference_low"],
        row["difference_high"],
        "+",
    ).replace("(", "(95 % interval ")
    return (
        f"On {row['data']} {row['split']}, `amnet` saves "
        f"{shown(row['compute_saved'], '.0f', 100)} % of the dense encoder's "
        f"computation and answers {shown(row['latency_mean_ms'], ',.0f')} ms "
        f"after the last sample instead of "
        f"{shown(full['latency_mean_ms'], ',.0f')} ms, at a WER {within}, "
        f"for a device {device_in_words(row['device'])}."
    )


def device_in_words(device: str) -> str:
    """A device as the end of a sentence.

    Example
    -------
    >>> device_in_words("r = 2")
    'on which a dense frame takes 2 frame durations'
    """
    if device.startswith("r = "):
        load = device.removeprefix("r = ")
        return f"on which a dense frame takes {load} frame durations"
    return f"of {device}"


# Tables in Markdown files --------------------------------------------------


class Place(NamedTuple):
    """Where a Markdown file holds a table.

    name : of the table.
    sources : the folders of results it is made from, relative to the root.
    start, stop : its lines, without the markers.
    """

    name: str
    sources: list[str]
    start: int
    stop: int


def find_tables(text: str, file: Any = "the text") -> list[Place]:
    """The places for tables in a Markdown text.

    Raises
    ------
    ValueError
        If one is not closed.

    Example
    -------
    >>> find_tables("<!-- table: an4 from a b -->\\n| 1 |\\n<!-- end -->")
    [Place(name='an4', sources=['a', 'b'], start=1, stop=2)]
    """
    places, opened = [], None
    for number, line in enumerate(text.splitlines()):
        marker = MARKER.fullmatch(line)
        if marker and opened:
            break
        if marker:
            opened = (marker[1], (marker[2] or "").split(), number + 1)
        elif line == END and opened:
            places.append(Place(*opened, number))
            opened = None
    if opened:
        raise ValueError(f"{file}: table {opened[0]} has no {END} of its own")
    return places


def update_markdown(
    file: str | Path, table: str, name: str, check: bool = False
) -> bool:
    """Put a table between its markers in a Markdown file.

    Arguments
    ---------
    file : str or Path
        The Markdown file.
    table : str
        What is to stand between the markers.
    name : str
        Of the table, as its marker has it.
    check : bool
        Only look; write nothing.

    Returns
    -------
    bool
        Whether something else stood there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it has no such table, or one is not closed.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no such Markdown file: {file}")
    text = file.read_text(encoding="utf-8")
    places = [p for p in find_tables(text, file) if p.name == name]
    if not places:
        raise ValueError(
            f"{file} has no line `<!-- table: {name} -->` for the table"
        )
    old = text.splitlines()
    new = list(old)
    for place in reversed(places):
        new[place.start : place.stop] = table.strip().splitlines()
    if new != old and not check:
        write(file, "\n".join(new) + "\n")
    return new != old


def markdown_text(rows: list[dict[str, Any]]) -> str:
    """What a Markdown file holds: the table and its sentence."""
    return f"{markdown_table(rows)}\n\n{headline(rows)}"


def write(file: str | Path, text: str) -> None:
    """Write a file aside, then rename it."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(file.name + ".part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, file)
