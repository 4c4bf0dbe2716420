"""Pictures of runs: what happened to each frame, the trade-off, the training.

Colours are Okabe and Ito's, which differ in brightness too: the expensive
branch is dark, the cheap one light.
"""

import json
import os
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.colors
import numpy as np
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)

from speechbrain_amnet.report.table import (
    read_results,
    read_rows,
    summarise,
)

BLUE, ORANGE, GREEN, RED = "#0072B2", "#F2B134", "#009E73", "#D55E00"
PURPLE, SKY, GREY, PALE = "#CC79A7", "#56B4E9", "#6B7280", "#E5E7EB"
INK = "#1F2937"
BRANCHES = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)  # the most expensive first
EXPERIMENTS = {"full": INK, "small": GREY, "amnet": RED}
OTHERS = (BLUE, GREEN, PURPLE, SKY, ORANGE)
MARKERS = "osD^v<>ph*"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#9CA3AF",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "grid.color": PALE,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
}


# Utterances ----------------------------------------------------------------

# Inches.
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 10.0, 0.75, 0.2, 0.1, 0.5
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

    From top to bottom: the words that were found, each over the frames at
    which its letters were; the waveform; the branch of each frame; the
    backlog, and after the end of the recording the wait. The utterances are
    chosen by their length: a short, a median and a long one.

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

    heights = [
        TITLE
        + 0.16 * (u["hypothesis"] != u["reference"])
        + WORD_ROW * u["rows"]
        + WAVE
        + STRIP
        + BACKLOG
        + 2 * GAP
        for u in chosen
    ]
    height = TOP + sum(heights) + BETWEEN * (len(chosen) - 1) + BOTTOM
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
    lines = frames.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            utterance = json.loads(line)
            row = rows[utterance["id"]]
            for key in ("wav", "branch", "backlog_ms", "tokens", "frame_ms"):
                utterance[key]
            for key in ("reference", "hypothesis", "latency_ms"):
                utterance[key] = row[key]
            utterance["latency_ms"] = float(row["latency_ms"])
            if not len(utterance["branch"]) == len(utterance["backlog_ms"]) > 0:
                raise ValueError("as many branches as backlogs are expected")
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

    Example
    -------
    >>> spread(101, 3)
    [10, 50, 90]
    >>> spread(2, 3)
    [0, 1]
    """
    quantiles = np.linspace(0.1, 0.9, count) if count > 1 else [0.5]
    return sorted({round(q * (length - 1)) for q in quantiles}) or [0]


def prepare(utterance: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is drawn of an utterance; times in seconds, latency in ms."""
    branch = np.array([int(b) for b in utterance["branch"]])
    branches = max(utterance["branches"], branch.max() + 1)
    frame = utterance["frame_ms"] / 1000
    wave, rate = read_audio(Path(utterance["wav"]), utterance["id"], folder)
    end = len(branch) * frame
    limit = max(end, len(wave) / rate) + utterance["latency_ms"] / 1000
    words = words_of(utterance["tokens"], frame)
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
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return wave.mean(1), rate


def words_of(
    tokens: list[tuple[str, int]], frame: float
) -> list[tuple[str, list[float]]]:
    """Join pieces to words, with the time of each piece in seconds.

    Example
    -------
    >>> words_of([("▁", 0), ("G", 2), ("O", 4), ("▁ON", 6)], frame=0.5)
    [('GO', [1.5, 2.5]), ('ON', [3.5])]
    """
    words: list[tuple[str, list[float]]] = []
    for piece, at in tokens:
        if piece.startswith("▁") or not words:
            words.append(("", []))
        text, times = words[-1]
        letters = piece.replace("▁", "")
        if letters:
            # A frame's tokens are there when the frame is over.
            words[-1] = (text + letters, [*times, (at + 1) * frame])
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
    figure.text(x, (y - 0.04) / height, title, va="top", size=10, weight="bold")
    if utterance["hypothesis"] != utterance["reference"]:
        said = textwrap.shorten(utterance["reference"], 110)
        figure.text(
            x,
            (y - 0.26) / height,
            f"said: {said}",
            va="top",
            size=8,
            color=GREY,
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


def branch_names(count: int) -> list[str]:
    """How a legend calls the branches.

    Example
    -------
    >>> branch_names(3)
    ['dense', 'cheap', 'cheaper']
    """
    if count == 1:
        return ["single branch"]
    if count <= 3:
        return ["dense", "cheap", "cheaper"][:count]
    return ["dense", *(f"branch {k}" for k in range(1, count))]


def draw_words(axes: Any, utterance: dict[str, Any]) -> None:
    """Each word over a line from its first to its last token."""
    axes.set_ylim(0, utterance["rows"])
    axes.axis("off")
    for word, times, row in utterance["words"]:
        middle = (times[0] + times[-1]) / 2
        axes.text(middle, row + 0.2, word, ha="center", va="bottom", size=8.5)
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
        arrivals, utterance["backlog"], color=SKY, alpha=0.35, linewidth=0
    )
    axes.plot(arrivals, utterance["backlog"], color=BLUE, linewidth=1.2)
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
    axes.set_ylabel("backlog, ms", size=8, color=INK)
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


# Trade-off -----------------------------------------------------------------


def plot_tradeoff(results: list[dict[str, Any]], out: str | Path) -> Path:
    """Draw WER against computation, and beside it against latency.

    A large point is an experiment's mean over its seeds with its 95 %
    interval; the runs of several seeds are small points.

    Arguments
    ---------
    results : list of dict
        As `read_results` gives them, of one data set and split.
    out : str or Path
        The picture.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    ValueError
        If there are no results, or they are of several data sets.
    """
    sets = sorted({(r["data"], r["split"]) for r in results})
    if len(sets) != 1:
        names = ", ".join(" ".join(pair) for pair in sets) or "no results"
        raise ValueError(f"a trade-off is drawn of one data set, not: {names}")
    rows = summarise(results)
    looks = looks_of(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        draw_points(
            left,
            rows,
            results,
            looks,
            lambda row: row["mflops_per_frame"],
            lambda run: run["mflops_per_frame"],
        )
        left.set_xlim(0, 1.12 * max(r["mflops_per_frame"] for r in rows))
        left.set_xlabel("computation, MFLOPs a frame")
        left.set_ylabel(f"WER on {' '.join(sets[0])}, %")
        left.set_title("Errors against computation")
        draw_points(
            right,
            rows,
            results,
            looks,
            lambda row: max(1.0, row["latency_mean_ms"]),
            lambda run: max(1.0, run["latency_ms"]["mean"]),
        )
        right.set_xscale("log")
        right.margins(x=0.12)
        right.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        right.xaxis.set_minor_formatter(NullFormatter())
        right.set_xlabel("mean wait after the last sample, ms (log scale)")
        right.set_title("Errors against latency")
        FigureCanvasAgg(figure).draw()
        for axes, key in (
            (left, lambda row: row["mflops_per_frame"]),
            (right, lambda row: max(1.0, row["latency_mean_ms"])),
        ):
            label_points(
                axes,
                [(label_of(r, rows), key(r), r["wer"]) for r in rows],
                [(key(r), r["wer_low"], r["wer_high"]) for r in rows],
                [darker(looks[r["experiment"]][0]) for r in rows],
            )
        return save(figure, out)


def looks_of(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each experiment."""
    names = list(dict.fromkeys(row["experiment"] for row in rows))
    others = [name for name in names if name not in EXPERIMENTS]
    return {
        name: (
            EXPERIMENTS.get(name) or OTHERS[others.index(name) % len(OTHERS)],
            MARKERS[i % len(MARKERS)],
        )
        for i, name in enumerate(names)
    }


def label_of(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The experiment; and the device if that alone tells two rows apart."""
    same = [r for r in rows if r["experiment"] == row["experiment"]]
    if len(same) == 1:
        return row["experiment"]
    return f"{row['experiment']}, {row['device']}"


def draw_points(
    axes: Any,
    rows: list[dict[str, Any]],
    results: list[dict[str, Any]],
    looks: dict[str, tuple[str, str]],
    x: Any,
    run_x: Any,
) -> None:
    """Means with their intervals, and the single runs behind them."""
    axes.grid(True)
    axes.set_axisbelow(True)
    for run in results:
        color, marker = looks[run["experiment"]]
        axes.plot(
            run_x(run),
            run["wer"],
            marker,
            color=color,
            alpha=0.35,
            markersize=3.5,
            markeredgewidth=0,
        )
    for row in reversed(rows):  # the first ones on top
        color, marker = looks[row["experiment"]]
        if row["wer_low"] is not None:
            axes.vlines(
                x(row),
                row["wer_low"],
                row["wer_high"],
                color=color,
                alpha=0.45,
                linewidth=1.5,
            )
        axes.plot(
            x(row),
            row["wer"],
            marker,
            color=color,
            markersize=8,
            markeredgecolor="white",
        )


def label_points(
    axes: Any,
    points: list[tuple[str, float, float]],
    bars: list[tuple[float, float | None, float | None]],
    colors: list[Any],
) -> None:
    """Writes each name beside its point, where there is room for it.

    Arguments
    ---------
    axes : matplotlib.axes.Axes
        Drawn already.
    points : list of tuple
        Name, x and y.
    bars : list of tuple
        x, lowest and highest y of what is better not written over.
    colors : list
        Of the names.
    """
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    taken = []
    for _, x, y in points:
        at = axes.transData.transform((x, y))
        taken.append((at[0] - 5, at[1] - 5, at[0] + 5, at[1] + 5))
    for x, low, high in bars:
        if low is not None:
            ends = axes.transData.transform([(x, low), (x, high)])
            (left, bottom), (right, top) = ends
            taken.append((left - 1, bottom, right + 1, top))
    frame = axes.get_window_extent(renderer).extents
    for (text, x, y), color in zip(points, colors):
        best = None
        for dx, dy, ha, va in (
            (8, 0, "left", "center"),
            (-8, 0, "right", "center"),
            (7, 7, "left", "bottom"),
            (7, -7, "left", "top"),
            (-7, 7, "right", "bottom"),
            (-7, -7, "right", "top"),
            (8, 16, "left", "bottom"),
            (8, -16, "left", "top"),
            (-8, 16, "right", "bottom"),
            (-8, -16, "right", "top"),
        ):
            label = axes.annotate(
                text,
                (x, y),
                (dx, dy),
                textcoords="offset points",
                ha=ha,
                va=va,
                size=9,
                color=color,
            )
            box = label.get_window_extent(renderer).extents
            clash = sum(overlap(box, other) for other in taken)
            clash += outside(box, frame)
            if best is None or clash < best[0]:
                if best:
                    best[1].remove()
                best = (clash, label, box)
            else:
                label.remove()
            if clash == 0:
                break
        taken.append(best[2])


def darker(color: str) -> tuple[float, ...]:
    """The colour as it is legible in letters.

    Example
    -------
    >>> darker("#ffffff")
    (0.7, 0.7, 0.7)
    """
    return tuple(0.7 * part for part in matplotlib.colors.to_rgb(color))


def overlap(a: Iterable[float], b: Iterable[float]) -> float:
    """Area that two boxes (left, bottom, right, top) share.

    Example
    -------
    >>> overlap((0, 0, 2, 2), (1, 1, 5, 5))
    1
    """
    (a0, a1, a2, a3), (b0, b1, b2, b3) = a, b
    return max(0, min(a2, b2) - max(a0, b0)) * max(0, min(a3, b3) - max(a1, b1))


def outside(box: Iterable[float], frame: Iterable[float]) -> float:
    """Area of a box that is not in a frame."""
    left, bottom, right, top = box
    return (right - left) * (top - bottom) - overlap(box, frame)


# Training ------------------------------------------------------------------


def plot_training(train_log: str | Path, out: str | Path) -> Path:
    """Draw the course of a training from SpeechBrain's log.

    Arguments
    ---------
    train_log : str or Path
        What `FileTrainLogger` wrote.
    out : str or Path
        The picture.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    FileNotFoundError
        If there is no such log.
    ValueError
        If no epoch is in it.
    """
    epochs = read_log(train_log)
    with matplotlib.rc_context(STYLE):
        # Of a single branch there is no routing to show.
        routed = series(epochs, "train branch_1") is not None
        panels = [draw_loss, draw_wer] + [draw_shares, draw_sharpness] * routed
        height = 5.6 if routed else 3.0
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.get_layout_engine().set(hspace=0.06, wspace=0.06)
        grid = figure.subplots(len(panels) // 2, 2, sharex=True, squeeze=False)
        for axes, draw in zip(grid.flat, panels):
            draw(axes, epochs)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        grid[0, 0].set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        return save(figure, out)


def read_log(train_log: str | Path) -> dict[int, dict[str, float]]:
    """Epochs and their figures, from the lines of `FileTrainLogger`.

    Arguments
    ---------
    train_log : str or Path
        Lines as `epoch: 1, lr: 2.00e-03 - train loss: 89.87 - valid wer: 1`.
        An epoch that was trained again after a restart counts as it was last.

    Returns
    -------
    dict
        Epoch to names and values, in the order of the epochs.
    """
    train_log = Path(train_log)
    if not train_log.is_file():
        raise FileNotFoundError(f"no training log: {train_log}")
    epochs = {}
    for line in train_log.read_text(encoding="utf-8").splitlines():
        if not re.match(r"epoch: \d+\b", line, re.IGNORECASE):
            continue
        values = {}
        for item in re.split(r", | - ", line):
            name, _, value = item.rpartition(": ")
            try:
                values[name.strip().lower()] = float(value)
            except ValueError:
                continue
        epochs[int(values["epoch"])] = values
    if not epochs:
        raise ValueError(
            f"{train_log} has no epoch yet; lines `epoch: 1, ...` are expected"
        )
    return dict(sorted(epochs.items()))


def series(
    epochs: dict[int, dict[str, float]], name: str
) -> tuple[list[int], list[float]] | None:
    """Epochs and values of what is called so; None where it never occurs."""
    found = [(e, v[name]) for e, v in epochs.items() if name in v]
    if not found:
        return None
    at, values = zip(*found)
    return list(at), list(values)


def draw_line(axes: Any, line: Any, **look: Any) -> None:
    """Draws a series, if it is there; a single epoch as a point."""
    if line is not None:
        look.setdefault("linewidth", 1.6)
        axes.plot(*line, marker="." if len(line[0]) < 10 else "", **look)


def draw_loss(axes: Any, epochs: dict[int, dict[str, float]]) -> None:
    """The transducer's loss in training and on dev; all losses together."""
    axes.set_title("Loss, nats an utterance")
    if series(epochs, "train transducer"):
        draw_line(
            axes,
            series(epochs, "train transducer"),
            color=BLUE,
            label="transducer, train",
        )
        draw_line(
            axes,
            series(epochs, "valid transducer"),
            color=RED,
            label="transducer, dev",
        )
        look = {"color": GREY, "linewidth": 1.0, "linestyle": "--"}
        name = "all losses, train"
    else:
        look, name = {"color": BLUE}, "train"
        draw_line(axes, series(epochs, "valid loss"), color=RED, label="dev")
    draw_line(axes, series(epochs, "train loss"), label=name, **look)
    log_scale(axes)
    finish(axes)


def draw_wer(axes: Any, epochs: dict[int, dict[str, float]]) -> None:
    """The WER on dev, and its lowest value."""
    axes.set_title("WER on dev, %")
    line = series(epochs, "valid wer")
    if line is None:
        return absent(axes, "no WER in the log")
    draw_line(axes, line, color=RED)
    at = int(np.argmin(line[1]))
    axes.plot(line[0][at], line[1][at], "o", color=RED, markersize=5)
    top = 1.08 * min(max(line[1]), 110)
    right = line[0][at] > (min(epochs) + max(epochs)) / 2
    # The curve is above its lowest point; but the axis may be close below.
    below = line[1][at] > 0.15 * top
    axes.annotate(
        f"{line[1][at]:.1f} (epoch {line[0][at]})",
        (line[0][at], line[1][at]),
        (0, -8 if below else 12),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top" if below else "bottom",
    )
    axes.set_ylim(0, top)
    finish(axes)


def draw_shares(axes: Any, epochs: dict[int, dict[str, float]]) -> None:
    """The branches' shares in training, one on the other; dev's dashed."""
    axes.set_title("Share of each branch, %")
    names = [f"train branch_{k}" for k in range(len(BRANCHES))]
    lines = [series(epochs, name) for name in names]
    lines = [line for line in lines if line]
    at = list(epochs)
    stacked = [
        [100 * dict(zip(*line)).get(epoch, 0.0) for epoch in at]
        for line in lines
    ]
    labels = branch_names(len(lines))
    # Each epoch as wide as an epoch, so that a single one is seen too.
    bottom = np.zeros(len(at))
    for k, values in enumerate(stacked):
        axes.bar(at, values, 1.0, bottom, color=BRANCHES[k], label=labels[k])
        bottom += values
    if dev := series(epochs, "valid branch_0"):
        axes.plot(
            dev[0],
            [100 * v for v in dev[1]],
            color=INK,
            linewidth=1.2,
            linestyle="--",
            label="dense, dev",
        )
    axes.set_ylim(0, 100)
    legend = finish(axes, grid=False, loc="lower left")
    legend.set_frame_on(True)
    legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.85)


def draw_sharpness(axes: Any, epochs: dict[int, dict[str, float]]) -> None:
    """Temperature (left scale) and entropy of the routing (right scale)."""
    axes.set_title("Sharpness of the routing")
    temperature = series(epochs, "temperature")
    entropy = series(epochs, "valid entropy") or series(epochs, "train entropy")
    if not temperature and not entropy:
        return absent(axes, "neither temperature nor entropy in the log")
    draw_line(axes, temperature, color=BLUE)
    log_scale(axes)
    axes.set_ylabel("temperature (log scale)", color=BLUE)
    axes.tick_params(axis="y", colors=BLUE)
    finish(axes)
    other = axes.twinx()
    draw_line(other, entropy, color=RED, linestyle="--")
    other.set_ylim(0, max(0.7, 1.05 * max(entropy[1] if entropy else [0])))
    other.set_ylabel("entropy, nats (dashed)", color=RED)
    other.tick_params(axis="y", colors=RED)
    other.spines["right"].set_visible(True)


def log_scale(axes: Any) -> None:
    """A logarithmic scale with plain numbers, 1, 2 and 5 of each decade."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.15, high * 1.15)


def absent(axes: Any, why: str) -> None:
    """Says why a panel is empty."""
    axes.text(0.5, 0.5, why, ha="center", color=GREY, transform=axes.transAxes)
    axes.set_yticks([])


def finish(axes: Any, grid: bool = True, loc: str = "best") -> Any:
    """Grid and legend."""
    if grid:
        axes.grid(True)
        axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        return axes.legend(loc=loc)


# Files ---------------------------------------------------------------------


def plot_runs(
    folders: Iterable[str | Path], out: str | Path | None = None
) -> list[Path]:
    """Draw all that there is to draw of some runs.

    Arguments
    ---------
    folders : iterable of str or Path
        Folders of runs, finished or in training, or folders with the folders
        or published results of several runs.
    out : str or Path, optional
        A folder for all pictures; by default those of a run are in its own
        folder and the trade-off is in the folder that all have in common.

    Returns
    -------
    list of Path
        The pictures.
    """
    folders = [Path(folder) for folder in folders]
    training = [f for f in folders if (f / "train_log.txt").is_file()]
    results = read_results(
        folder
        for folder in folders
        if folder not in training or (folder / "results.json").is_file()
    )
    runs = training + [
        result["path"].parent
        for result in results
        if result["path"].name == "results.json"
    ]
    pictures = []
    for run in dict.fromkeys(runs):
        pictures += plot_run(run, None if out is None else Path(out))
    common = os.path.commonpath([folder.resolve() for folder in folders])
    for data, split in sorted({(r["data"], r["split"]) for r in results}):
        here = [r for r in results if (r["data"], r["split"]) == (data, split)]
        if len(here) > 1:
            name = f"tradeoff_{data}_{split}.png"
            pictures.append(plot_tradeoff(here, Path(out or common) / name))
    return pictures


def plot_run(run: Path, out: Path | None) -> list[Path]:
    """Draw the training of a run, and the utterances it was evaluated on."""
    # In a folder of all runs' pictures, names like an4-amnet-1-training.png.
    start = run if out is None else out
    prefix = "" if out is None else "-".join(run.resolve().parts[-3:]) + "-"
    pictures = []
    if (run / "train_log.txt").is_file():
        picture = start / f"{prefix}training.png"
        pictures.append(plot_training(run / "train_log.txt", picture))
    splits = {
        file.stem.removeprefix("frames_") for file in run.glob("frames_*.jsonl")
    }
    if (run / "results.json").is_file():
        splits.add(read_results([run])[0]["split"])
    for split in sorted(splits):
        picture = start / f"{prefix}utterances_{split}.png"
        pictures.append(plot_utterances(run, split, out=picture))
    return pictures


def save(figure: Figure, out: str | Path) -> Path:
    """Write a picture aside, then rename it."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(out.name + ".part")
    form = out.suffix.removeprefix(".") or "png"
    figure.savefig(aside, format=form)
    os.replace(aside, out)
    return out
