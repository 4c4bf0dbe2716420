"""The results of runs, read and checked.

A run left a `results.json` and, beside it, `utterances_<split>.csv`; a
published run is the same two files as `<experiment>-<seed>.json` and `.csv`.
"""

import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_amnet import files

PUBLISHED = re.compile(r".+-\d+\.json")
TEXTS = ("reference", "hypothesis")

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
        The contents of each results.json, and its `path`. Of a run that was
        published, too, its own.

    Raises
    ------
    FileNotFoundError
        If a path does not exist or holds no results.
    ValueError
        If a file is not the results of a run, or two are of the same run.
    """
    seen: dict[tuple, dict[str, Any]] = {}
    for file in dict.fromkeys(f for path in paths for f in find_results(path)):
        result = read_result(file)
        run = (*group_of(result), result["seed"])
        other = seen.get(run)
        if other and is_run(other["path"]) == is_run(file):
            raise ValueError(
                f"two results of {result['experiment']}, seed "
                f"{result['seed']}, on {heard(result)} {result['split']}: "
                f"{other['path']} and {file}; leave out one of them"
            )
        if not other or is_run(file):
            seen[run] = result
    return list(seen.values())


def is_run(file: Path) -> bool:
    """Whether it is a run's own results, and not published ones.

    Example
    -------
    >>> is_run(Path("amnet/1/results_dev.json")), is_run(Path("amnet-1.json"))
    (True, False)
    """
    return file.stem.startswith("results")


def find_results(path: str | Path) -> list[Path]:
    """The results files that a path stands for, see `read_results`."""
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder of results: {path}")
    if (path / "results.json").is_file():
        return [path / "results.json"]
    found = sorted(path.rglob("results.json"))
    # Whoever names the folder of some means these too.
    runs = {file.parent for file in found}
    found += sorted(
        file
        for file in path.rglob("*.json")
        if PUBLISHED.fullmatch(file.name) and not runs & set(file.parents)
    )
    if not found:
        raise FileNotFoundError(
            f"no results.json and no <experiment>-<seed>.json in {path}; "
            "a run writes its results when it is evaluated"
        )
    return found


def read_split(folder: str | Path, split: str) -> dict[str, Any]:
    """The results of a run on one split.

    Arguments
    ---------
    folder : str or Path
        Of the run.
    split : str
        The evaluated split.

    Returns
    -------
    dict
        As `read_results` gives it.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or it has no results of this split.
    """
    folder = Path(folder)
    name = "results.json" if split == "test" else f"results_{split}.json"
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of results: {folder}")
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"no {name} in {folder}; a run writes its results when it is "
            f"evaluated on {split}"
        )
    return read_result(folder / name)


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
    path, file = result["path"], utterances_file(result)
    if file is None:
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


def utterances_file(result: dict[str, Any]) -> Path | None:
    """The table of utterances beside some results, if there is one."""
    path = Path(result["path"])
    beside = path.parent / f"utterances_{result['split']}.csv"
    return next(filter(Path.is_file, (path.with_suffix(".csv"), beside)), None)


def publish(results: Iterable[dict[str, Any]], folder: str | Path) -> None:
    """Write the results of runs where they can be kept for all.

    Each as `<experiment>-<seed>.json` and `.csv`, with noise and device in
    the name where there was noise or there are several devices; without the
    words of the utterances, which are the corpus's.

    Arguments
    ---------
    results : iterable of dict
        As `read_results` gives them.
    folder : str or Path
        Where to write.

    Raises
    ------
    ValueError
        If two would have one name, as those of two data sets may, or one is
        there of other data or another device; nothing is written.
    """
    results = list(results)
    names = [published_name(result, results) for result in results]
    for name in names:
        same = [r for r, other in zip(results, names) if other == name]
        if len(same) > 1:
            sets = " and ".join(f"{heard(r)} {r['split']}" for r in same)
            raise ValueError(
                f"{name} is a result on {sets}; publish them into folders of "
                "their own"
            )
    for result, name in zip(results, names, strict=True):
        file = Path(folder) / f"{name}.json"
        if file.is_file():
            there = read_result(file)
            if group_of(there) != group_of(result):
                raise ValueError(
                    f"{file} is a result {told(there)}, and would be written "
                    f"over with one {told(result)}; publish that into a "
                    "folder of its own"
                )
    for result, name in zip(results, names, strict=True):
        source, table = utterances_file(result), io.StringIO()
        if source is not None:
            rows = read_rows(source)
            columns = [c for c in rows[0] if c not in TEXTS]
            writer = csv.DictWriter(
                table, columns, extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(rows)
            files.write(Path(folder) / f"{name}.csv", table.getvalue())
        kept = {k: v for k, v in result.items() if k != "path"}
        files.write(
            Path(folder) / f"{name}.json", json.dumps(kept, indent=2) + "\n"
        )


def published_name(
    result: dict[str, Any], results: Iterable[dict[str, Any]]
) -> str:
    """The name of a published file among others, see `publish`."""
    name = result["experiment"]
    if result.get("noise_db") is not None:
        name += f"-{result['noise_db']:g}dB"
    same = [r for r in results if r["experiment"] == result["experiment"]]
    if len({device_of(r) for r in same}) > 1:
        name += "-" + device_of(result).replace(" = ", "").split(" ")[0]
    return f"{name}-{result['seed']}"


def told(result: dict[str, Any]) -> str:
    """Of what a result is, without its experiment."""
    return f"on {heard(result)} {result['split']}, {device_of(result)}"


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def errors_of(row: dict[str, str]) -> int:
    """All word errors of an utterance."""
    kinds = ("substitutions", "deletions", "insertions")
    return sum(int(row[kind]) for kind in kinds)


def group_of(result: dict[str, Any]) -> tuple[str, str, str, str]:
    """What the runs that are averaged have in common."""
    return (
        heard(result),
        result["split"],
        device_of(result),
        result["experiment"],
    )


def heard(result: dict[str, Any]) -> str:
    """The data, the noise that was mixed in, and what was searched alone.

    Example
    -------
    >>> heard({"data": "coffee", "noise_db": 12.0, "grammar": "coffee.gram"})
    'coffee, noise 12 dB, held to coffee.gram'
    >>> heard({"data": "coffee", "noise": "kitchen.flac", "noise_db": 6.0})
    'coffee, kitchen.flac 6 dB'
    """
    noise, grammar = result.get("noise_db"), result.get("grammar")
    parts = [result["data"]]
    if noise is not None:
        parts.append(f"{result.get('noise') or 'noise'} {noise:g} dB")
    if grammar is not None:
        parts.append(f"held to {grammar}")
    return ", ".join(parts)


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
