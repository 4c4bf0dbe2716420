"""A page to watch a run: play an utterance, see what happened to its frames.

One HTML file that opens from disk and asks no network for anything.
"""

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechbrain_amnet.files import write
from speechbrain_amnet.report.results import (
    device_of,
    group_of,
    heard,
    read_results,
    read_split,
)
from speechbrain_amnet.report.style import BRANCHES
from speechbrain_amnet.report.summary import summarise
from speechbrain_amnet.report.table import shown
from speechbrain_amnet.report.text import branch_names
from speechbrain_amnet.report.tradeoff import label_of, looks_of
from speechbrain_amnet.report.utterances import prepare, read_frames, spread

COLUMNS = 500  # of the drawn sound


def write_page(
    runs: Sequence[str | Path],
    out: str | Path,
    split: str = "test",
    count: int = 5,
    others: Iterable[str | Path] = (),
) -> Path:
    """Make a page of one run, or of several beside each other.

    Arguments
    ---------
    runs : sequence of str or Path
        Folders of runs that were evaluated on the same split.
    out : str or Path
        The page.
    split : str
        The evaluated split.
    count : int
        How many utterances, from short to long.
    others : iterable of str or Path
        Further results for the plots of the trade-off, as `read_results`
        takes them.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FileNotFoundError
        If a run was not evaluated on this split, or audio is gone.
    ValueError
        If the runs have no utterances in common, or others of the same ids,
        or files are incomplete.
    """
    if count < 1:
        raise ValueError(f"a page needs at least one utterance, got {count}")
    folders = [Path(run) for run in runs]
    results = [read_split(folder, split) for folder in folders]
    named = told_apart(results)
    frames = [
        {one["id"]: one for one in read_frames(folder, split)}
        for folder in folders
    ]
    ids = [i for i in frames[0] if all(i in others_ for others_ in frames)]
    if not ids:
        raise ValueError(
            f"{', '.join(map(str, folders))} have no utterances of {split} in "
            "common"
        )
    for i in ids:
        said = {one[i]["reference"] for one in frames}
        if len(said) > 1:
            raise ValueError(
                f"{', '.join(map(str, folders))} are of different recordings: "
                f"{i} is {' and '.join(map(repr, sorted(said)))}; give runs "
                "that were evaluated on the same"
            )
    chosen = [ids[n] for n in spread(len(ids), count)]
    utterances = [
        about_utterance(
            [prepare(run[id], folder) for run, folder in zip(frames, folders)]
        )
        for id in chosen
    ]
    branches = [
        max(len(prepare(run[id], folder)["shares"]) for id in chosen)
        for run, folder in zip(frames, folders)
    ]
    data = {
        "runs": [
            about_run(result, number, next(iter(run.values()))["frame_ms"])
            for result, number, run in zip(named, branches, frames)
        ],
        "utterances": utterances,
        "points": points([*named, *read_more(others, results)]),
    }
    title = html.escape(
        " and ".join(run["name"] for run in data["runs"]), quote=False
    )
    return fill("page.html", {"TITLE": title}, data, out)


def told_apart(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trainings of one experiment and seed are named by their folders, too."""
    keys = [(*group_of(result), result["seed"]) for result in results]
    return [
        {
            **result,
            "experiment": f"{result['experiment']}, {result['path'].parent}",
        }
        if keys.count(key) > 1
        else result
        for key, result in zip(keys, results)
    ]


def fill(
    template: str, parts: dict[str, str], data: Any, out: str | Path
) -> Path:
    """Write a page of one of this folder's templates, with its data in it."""
    # A "</script>" in the data would end the element that holds them.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    parts = {**parts, "DATA": text.replace("<", "\\u003c")}
    folder = resources.files("speechbrain_amnet.report")
    page = (folder / template).read_text(encoding="utf-8")
    write(out, re.sub("|".join(parts), lambda found: parts[found[0]], page))
    return Path(out)


def read_more(
    paths: Iterable[str | Path], known: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Further results of the same data and split."""
    paths = list(paths)
    seen = {(*group_of(result), result["seed"]) for result in known}
    same = group_of(known[0])[:2]
    more = [
        result
        for result in (read_results(paths) if paths else [])
        if (*group_of(result), result["seed"]) not in seen
        and group_of(result)[:2] == same
    ]
    if paths and not more:
        raise ValueError(
            f"no further results of {' '.join(same)} in "
            + ", ".join(map(str, paths))
        )
    return more


def about_run(
    result: dict[str, Any], branches: int, frame_ms: float
) -> dict[str, Any]:
    """What the page says of a run."""
    waits = result["latency_ms"]
    return {
        "name": f"{result['experiment']}, {heard(result)} {result['split']}, "
        f"{device_of(result)}, seed {result['seed']}",
        "branches": branch_names(branches),
        "colors": [BRANCHES[k % len(BRANCHES)] for k in range(branches)],
        "frame": frame_ms / 1000,
        "figures": [
            *(
                [["sound here", "without the noise"]]
                if result.get("noise_db") is not None
                else []
            ),
            ["word errors", f"{result['wer']:.1f} %"],
            ["compute saved", f"{100 * result['compute_saved']:.0f} %"],
            ["latency", f"{waits['mean']:,.0f} ms"],
            ["MFLOPs a frame", f"{result['mflops_per_frame']:.2f}"],
        ],
    }


def about_utterance(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page shows of an utterance, in each run."""
    first = runs[0]
    return {
        "id": first["id"],
        "reference": first["reference"],
        "seconds": len(first["wave"]) / first["rate"],
        "audio": as_url(first["wave"], first["rate"]),
        "wave": outline(first["wave"]),
        "runs": [
            {
                "branch": "".join(np.base_repr(b, 36) for b in run["branch"]),
                "backlog": run["backlog"],
                "wait": run["wait_ms"],
                "words": [
                    [word, round(times[-1], 3)]
                    for word, times, _ in run["words"]
                ],
                "hypothesis": run["hypothesis"],
            }
            for run in runs
        ],
    }


def as_url(wave: np.ndarray, rate: int) -> str:
    """Sound as a data URL."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()


def outline(wave: np.ndarray) -> list[float]:
    """Lowest and highest sample of each column, the loudest at 1.

    Example
    -------
    >>> outline(np.array([0.0, 0.5, -0.25, 0.0]))[:4]
    [0.0, 0.0, 1.0, 1.0]
    """
    parts = np.array_split(wave, min(COLUMNS, len(wave)))
    peak = max(1e-6, float(np.abs(wave).max()))
    both = [(part.min() / peak, part.max() / peak) for part in parts]
    return [round(float(value), 3) for pair in both for value in pair]


def points(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The experiments of the trade-off plots."""
    rows = summarise(results)
    looks = looks_of(rows)
    return [
        {
            "name": label_of(row, rows),
            "mflops": row["mflops_per_frame"],
            "wer": row["wer"],
            "latency": max(1.0, row["latency_mean_ms"]),
            "color": looks[row["experiment"]][0],
            "about": f"{row['experiment']} ({row['device']}, seeds: "
            f"{row['seeds']})\nWER {row['wer']:.1f} % "
            f"({shown(row['wer_low'], '.1f')} to "
            f"{shown(row['wer_high'], '.1f')})\n"
            f"{row['mflops_per_frame']:.2f} MFLOPs a frame\n"
            f"{row['latency_mean_ms']:,.0f} ms after the last sample",
        }
        for row in rows
    ]
