"""A picture of utterances: what happened to each frame."""

import json
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from speechbrain_amnet.audio import read_channels
from speechbrain_amnet.report.results import read_rows
from speechbrain_amnet.report.style import (
    BRANCHES,
    GREY,
    INK,
    PLAIN,
    RED,
    STYLE,
    WIDTH,
    save,
)
from speechbrain_amnet.report.text import branch_names
from speechbrain_amnet.slots import is_tag
from speechbrain_amnet.text import UNKNOWN

# Inches.
LEFT, RIGHT, TOP, BOTTOM = 0.75, 0.2, 0.1, 0.5
TITLE, WORD_ROW, WAVE, STRIP, BACKLOG, GAP = 0.28, 0.19, 0.75, 0.2, 0.9, 0.08
BETWEEN = 0.5
CHARACTER = 0.085


def plot_utterances(
    run_folder: str | Path,
    split: str,
    count: int = 3,
    out: str | Path | None = None,
) -> Path:
    """Draw what happened to the frames of a few utterances.

    From top to bottom: the words that were found, each where the device has
    its letters, which is later than they were spoken by the backlog; the
    waveform; the branch of each frame; the backlog, and after the end of the
    recording the wait. The utterances are chosen by their length: a short, a
    median and a long one.

    Arguments
    ---------
    run_folder : str or Path
        The folder of an evaluated run.
    split : str
        The evaluated split.
    count : int
        How many utterances.
    out : str or Path, optional
        The picture; `utterances_<split>.png` in the run's folder by default.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    FileNotFoundError
        If the run was not evaluated on this split, or the audio is gone.
    ValueError
        If its files are incomplete.
    """
    folder = Path(run_folder)
    utterances = read_frames(folder, split)
    chosen = [
        prepare(utterances[i], folder) for i in spread(len(utterances), count)
    ]
    branches = max(len(u["shares"]) for u in chosen)
    top = 1.4 * max(max(u["latency"], *u["backlog"]) for u in chosen)

    height = TOP + sum(map(height_of, chosen)) + BOTTOM
    height += BETWEEN * (len(chosen) - 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        y = height - TOP
        for utterance in chosen:
            y = draw_utterance(figure, utterance, y, branches, top)
            y -= BETWEEN
        figure.axes[-1].set_xlabel("seconds", size=8, labelpad=1)
        return save(figure, out or folder / f"utterances_{split}.png")


def read_frames(folder: Path, split: str) -> list[dict[str, Any]]:
    """All utterances of a run, the shortest first; rows of both its files."""
    frames = folder / f"frames_{split}.jsonl"
    table = folder / f"utterances_{split}.csv"
    for file in (frames, table):
        if not file.is_file():
            raise FileNotFoundError(
                f"no {file.name} in {folder}; evaluate the run on {split} first"
            )
    rows = {row["id"]: row for row in read_rows(table)}
    utterances = []
    # Not splitlines(), which takes U+2028 in a name for the end of a line.
    lines = frames.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(filter(None, lines), 1):
        try:
            utterance = json.loads(line)
            row = rows[utterance["id"]]
            for key in ("wav", "tokens", "frame_ms"):
                utterance[key]
            for key in ("reference", "hypothesis", "latency_ms"):
                utterance[key] = row[key]
            utterance["latency_ms"] = float(row["latency_ms"])
            frames_of = ("branch", "backlog_ms", "wait_ms")
            lengths = {len(utterance[key]) for key in frames_of}
            if len(lengths) != 1 or 0 in lengths:
                raise ValueError(f"{', '.join(frames_of)} differ in length")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{frames}, line {number}, is incomplete ({error}); evaluate "
                f"the run on {split} again"
            ) from None
        utterance["branches"] = sum(name.startswith("share_") for name in row)
        utterances.append(utterance)
    if not utterances:
        raise ValueError(f"{frames} is empty; evaluate the run on {split}")
    return sorted(utterances, key=lambda u: (len(u["branch"]), u["id"]))


def spread(length: int, count: int) -> list[int]:
    """Positions of short, median and long in a sorted list, without extremes.

    All of them where there are not more; of a few, some may be missing.

    Example
    -------
    >>> spread(101, 3)
    [10, 50, 90]
    >>> spread(2, 3)
    [0, 1]
    """
    if count >= length:
        return list(range(length)) or [0]
    quantiles = np.linspace(0.1, 0.9, count) if count > 1 else [0.5]
    return sorted({round(q * (length - 1)) for q in quantiles}) or [0]


def prepare(
    utterance: dict[str, Any], folder: Path, limit: float | None = None
) -> dict[str, Any]:
    """What is drawn of an utterance; times in seconds, latency in ms.

    The axis ends at `limit`, or where the last frame is encoded.
    """
    branch = np.array([int(b, 36) for b in utterance["branch"]])
    branches = max(utterance["branches"], branch.max() + 1)
    frame = utterance["frame_ms"] / 1000
    wave, rate = read_audio(Path(utterance["wav"]), utterance["id"], folder)
    end = len(branch) * frame
    if limit is None:
        limit = max(end, len(wave) / rate) + utterance["latency_ms"] / 1000
    waits = [wait / 1000 for wait in utterance["wait_ms"]]
    words = words_of(utterance["tokens"], frame, waits)
    second = (WIDTH - LEFT - RIGHT) / limit  # in inches
    rows = stack(
        [(w, second * times[0], second * times[-1]) for w, times in words]
    )
    return {
        **utterance,
        "branch": branch,
        "shares": np.bincount(branch, minlength=branches) / len(branch),
        "frame": frame,
        "wave": wave,
        "rate": rate,
        "end": end,
        "limit": limit,
        "backlog": utterance["backlog_ms"],
        "latency": utterance["latency_ms"],
        "words": [(*word, row) for word, row in zip(words, rows)],
        "rows": max(rows, default=0) + 1,
    }


def read_audio(path: Path, id: str, folder: Path) -> tuple[np.ndarray, int]:
    """Samples of one channel, and their rate."""
    if not path.is_absolute() and not path.is_file():
        path = folder / path
    if not path.is_file():
        raise FileNotFoundError(
            f"the audio of {id} is no longer at {path}; evaluate the run again"
        )
    wave, rate = read_channels(path)
    return wave.mean(1), rate


def words_of(
    tokens: list[tuple[str, int]], frame: float, waits: list[float]
) -> list[tuple[str, list[float]]]:
    """Join pieces to words, with the time of each piece in seconds.

    Example
    -------
    >>> tokens = [("▁", 0), ("G", 0), ("O", 2), ("▁ON", 3)]
    >>> words_of(tokens, frame=0.5, waits=[0.0, 0.0, 0.25, 1.0])
    [('GO', [0.5, 1.75]), ('ON', [3.0])]
    >>> tokens = [("▁TEA", 0), ("<drink>", 0), ("<unk>", 1), ("S", 2)]
    >>> [word for word, _ in words_of(tokens, frame=0.5, waits=[0, 0, 0])]
    ['TEA', '⁇', 'S']
    """
    words: list[tuple[str, list[float]]] = []
    for piece, at in tokens:
        if piece == "<unk>":
            piece = UNKNOWN
        elif is_tag(piece):
            continue
        for n, part in enumerate(piece.split("▁")):
            if n or not words:
                words.append(("", []))
            if part:
                # A frame's tokens are there when it has come and is encoded.
                text, times = words[-1]
                ready = (at + 1) * frame + waits[at]
                words[-1] = (text + part, [*times, ready])
    return [word for word in words if word[0]]


def stack(spans: list[tuple[str, float, float]]) -> list[int]:
    """The row of each word, so that none is written over another.

    Arguments
    ---------
    spans : list of tuple
        Word, first and last position, in inches.

    Returns
    -------
    list of int
        Rows from 0; as few as are needed.

    Example
    -------
    >>> stack([("A", 0.0, 0.0), ("LONG", 0.1, 0.2), ("B", 2.0, 2.0)])
    [0, 1, 0]
    """
    ends: list[float] = []
    rows = []
    for word, first, last in spans:
        half = max(len(word) * CHARACTER, last - first) / 2 + 0.04
        middle = (first + last) / 2
        free = [r for r, end in enumerate(ends) if end <= middle - half]
        row = free[0] if free else len(ends)
        ends[row : row + 1] = [middle + half]
        rows.append(row)
    return rows


def height_of(utterance: dict[str, Any]) -> float:
    """What `draw_utterance` needs, in inches."""
    wrong = utterance["hypothesis"] != utterance["reference"]
    words = 0.16 * wrong + WORD_ROW * utterance["rows"]
    return TITLE + words + WAVE + STRIP + BACKLOG + 2 * GAP


def draw_utterance(
    figure: Figure,
    utterance: dict[str, Any],
    y: float,
    branches: int,
    top: float,
) -> float:
    """Draws downwards from `y` (inches) and returns where it ends."""
    height = figure.get_figheight()
    width = WIDTH - LEFT - RIGHT

    def axes(inches: float, gap: float = 0.0) -> Any:
        nonlocal y
        y -= inches + gap
        made = figure.add_axes(
            [LEFT / WIDTH, y / height, width / WIDTH, inches / height]
        )
        made.set_xlim(0, utterance["limit"])
        return made

    draw_title(figure, utterance, y, branches)
    y -= TITLE + 0.16 * (utterance["hypothesis"] != utterance["reference"])
    draw_words(axes(WORD_ROW * utterance["rows"]), utterance)
    draw_wave(axes(WAVE), utterance)
    draw_strip(axes(STRIP, GAP), utterance)
    draw_backlog(axes(BACKLOG, GAP), utterance, top)
    return y


def draw_title(
    figure: Figure, utterance: dict[str, Any], y: float, branches: int
) -> None:
    """Id, length and what was said; the branches and their shares."""
    height = figure.get_figheight()
    x = LEFT / WIDTH
    title = f"{utterance['id']}, {utterance['end']:.1f} s"
    look = {"va": "top", "size": 10, "weight": "bold", **PLAIN}
    figure.text(x, (y - 0.04) / height, title, **look)
    if utterance["hypothesis"] != utterance["reference"]:
        said = textwrap.shorten(utterance["reference"], 110)
        figure.text(
            x,
            (y - 0.26) / height,
            f"said: {said}",
            va="top",
            size=8,
            color=GREY,
            **PLAIN,
        )
    shares = utterance["shares"]
    figure.legend(
        handles=[
            Patch(
                color=BRANCHES[k % len(BRANCHES)],
                label=f"{name} {100 * shares[k]:.0f} %",
            )
            for k, name in enumerate(branch_names(branches))
        ],
        loc="upper right",
        bbox_to_anchor=(1 - RIGHT / WIDTH, (y + 0.02) / height),
        ncols=branches,
        handlelength=1,
        handleheight=1,
        borderaxespad=0,
        columnspacing=1.2,
        handletextpad=0.5,
        fontsize=9,
    )


def draw_words(axes: Any, utterance: dict[str, Any]) -> None:
    """Each word over a line from its first to its last token."""
    axes.set_ylim(0, utterance["rows"])
    axes.axis("off")
    for word, times, row in utterance["words"]:
        middle = (times[0] + times[-1]) / 2
        look = {"ha": "center", "va": "bottom", "size": 8.5, **PLAIN}
        axes.text(middle, row + 0.2, word, **look)
        axes.plot(
            [times[0], times[-1]], [row + 0.12] * 2, color=GREY, linewidth=0.8
        )
        axes.plot(
            times, [row + 0.12] * len(times), ".", color=GREY, markersize=2.5
        )


def draw_wave(axes: Any, utterance: dict[str, Any]) -> None:
    """The waveform, as its highest and lowest sample in each column."""
    wave, rate = utterance["wave"], utterance["rate"]
    size = max(1, round(len(wave) / 1800))
    steps = wave[: len(wave) // size * size].reshape(-1, size)
    times = (np.arange(len(steps)) + 0.5) * size / rate
    peak = max(1e-6, float(np.abs(wave).max()))
    axes.fill_between(
        times,
        steps.min(1) / peak,
        steps.max(1) / peak,
        color="#4B5563",
        linewidth=0.3,
    )
    axes.set_ylim(-1.05, 1.05)
    axes.axis("off")
    axes.axvline(utterance["end"], color=GREY, linewidth=0.8, linestyle=":")
    side_label(axes, "sound")


def draw_strip(axes: Any, utterance: dict[str, Any]) -> None:
    """The branch of each frame as its colour."""
    frame = utterance["frame"]
    for k in np.unique(utterance["branch"]):
        at = np.flatnonzero(utterance["branch"] == k)
        axes.broken_barh(
            [(t * frame, frame) for t in at],
            (0, 1),
            color=BRANCHES[k % len(BRANCHES)],
            linewidth=0,
        )
    axes.set_ylim(0, 1)
    axes.axis("off")
    side_label(axes, "branch")


def draw_backlog(axes: Any, utterance: dict[str, Any], top: float) -> None:
    """What each frame finds on its arrival, then the wait after the end."""
    end, latency = utterance["end"], utterance["latency"]
    arrivals = (np.arange(len(utterance["branch"])) + 1) * utterance["frame"]
    axes.fill_between(
        arrivals, utterance["backlog"], color=GREY, alpha=0.25, linewidth=0
    )
    axes.plot(arrivals, utterance["backlog"], color=INK, linewidth=1.2)
    after = [end, end + latency / 1000]
    axes.fill_between(after, [latency, 0], color=RED, alpha=0.3, linewidth=0)
    axes.plot([end, *after], [utterance["backlog"][-1], latency, 0], color=RED)
    axes.axvline(end, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.text(
        1.0,
        1.0,
        f"ready {latency:,.0f} ms after the end",
        transform=axes.transAxes,
        ha="right",
        va="top",
        color=RED,
        size=9,
        weight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )
    axes.set_ylabel("backlog, ms", size=8)
    axes.yaxis.set_label_coords(-0.055, 0.5)


def side_label(axes: Any, text: str) -> None:
    """Names what a row shows, left of it."""
    axes.text(
        -0.008,
        0.5,
        text,
        transform=axes.transAxes,
        ha="right",
        va="center",
        size=8,
    )
