"""A picture of a training: losses, errors and routing over the epochs."""

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)

from speechbrain_amnet.report.style import (
    BLUE,
    BRANCHES,
    GREY,
    INK,
    RED,
    STYLE,
    WIDTH,
    save,
)
from speechbrain_amnet.report.text import branch_names


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
        color = BRANCHES[k % len(BRANCHES)]
        axes.bar(at, values, 1.0, bottom, color=color, label=labels[k])
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
