"""A picture of experiments: errors against computation and latency."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from speechbrain_amnet.report.results import group_of
from speechbrain_amnet.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PLAIN,
    PURPLE,
    RED,
    SKY,
    STYLE,
    WIDTH,
    save,
)
from speechbrain_amnet.report.summary import summarise
from speechbrain_amnet.report.table import one_device

EXPERIMENTS = {"full": INK, "small": GREY, "amnet": RED}
OTHERS = (BLUE, GREEN, PURPLE, SKY, ORANGE)
MARKERS = "osD^v<>ph*"


def plot_tradeoff(results: list[dict[str, Any]], out: str | Path) -> Path:
    """Draw WER against computation, and beside it against latency.

    A large point is an experiment's mean over its seeds with its 95 %
    interval; the runs of several seeds are small points. A line is one
    experiment on several devices.

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
    sets = sorted({group_of(r)[:2] for r in results})
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
        left.set_ylabel(f"WER on {' '.join(sets[0])}, %", **PLAIN)
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
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
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
                [(short_label(r, rows), key(r), r["wer"]) for r in rows],
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
    """The experiment; data and device where not all rows have the same."""
    parts = [row["data"]] if len({r["data"] for r in rows}) > 1 else []
    if not one_device(rows):
        parts.append(row["device"])
    return ", ".join([row["experiment"], *parts])


def short_label(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The same, but of points on one line only the first has the name."""
    label = label_of(row, rows)
    first = next(r for r in rows if r["experiment"] == row["experiment"])
    if row is first:
        return label
    return label.removeprefix(f"{row['experiment']}, ")


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
    for name, (color, _) in looks.items():
        line = sorted(
            (x(row), row["wer"]) for row in rows if row["experiment"] == name
        )
        if len(line) > 1:
            axes.plot(*zip(*line), color=color, alpha=0.6, linewidth=1.2)
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
                **PLAIN,
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
