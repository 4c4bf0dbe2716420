"""A moving picture: one utterance, as the devices of several runs live it."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from speechbrain_amnet.files import write
from speechbrain_amnet.report.results import read_split
from speechbrain_amnet.report.style import RED, STYLE, WIDTH
from speechbrain_amnet.report.utterances import (
    BETWEEN,
    BOTTOM,
    LEFT,
    RIGHT,
    TITLE,
    TOP,
    draw_utterance,
    height_of,
    prepare,
    read_frames,
)

FPS, DPI, COLOURS = 12.5, 72, 64  # GIFs count in 10 ms
HOLD = 2.0  # seconds at the end


def animate_utterance(
    runs: Sequence[str | Path], split: str, out: str | Path
) -> Path:
    """Let one utterance go by in real time, one run above the other.

    A curtain opens with the clock: sound and branches as they come, the backlog
    grows and shrinks, words where the device has them. The utterance is the
    one of median length among those that no run got wrong, if there is one.

    Arguments
    ---------
    runs : sequence of str or Path
        Folders of runs that were evaluated on the split.
    split : str
        The evaluated split.
    out : str or Path
        The picture, a GIF.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    FileNotFoundError
        If a run was not evaluated on this split, or the audio is gone.
    ValueError
        If the runs have no utterance in common.
    """
    runs = [Path(run) for run in runs]
    said = [{u["id"]: u for u in read_frames(run, split)} for run in runs]
    name = choose(said)
    limit = max(prepare(u[name], run)["limit"] for run, u in zip(runs, said))
    chosen = []
    for run, utterances in zip(runs, said):
        result = read_split(run, split)
        utterance = prepare(utterances[name], run, limit)
        chosen.append({**utterance, "id": result["experiment"]})
    top = 1.2 * max(max(u["latency"], *u["backlog"]) for u in chosen)
    height = TOP + sum(map(height_of, chosen)) + BOTTOM
    height += BETWEEN * (len(chosen) - 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        FigureCanvasAgg(figure)
        y, curtains = height - TOP, []
        for utterance in chosen:
            upper = y - TITLE
            y = draw_utterance(
                figure, utterance, y, len(utterance["shares"]), top
            )
            curtains.append((y - 0.02, upper))
            y -= BETWEEN
        figure.axes[-1].set_xlabel("seconds", size=8, labelpad=1)
        pictures = film(figure, curtains, limit)
    durations = [round(1000 / FPS)] * len(pictures)
    durations[-1] = round(1000 * HOLD)
    film_bytes = io.BytesIO()
    pictures[0].save(
        film_bytes,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
    )
    write(Path(out), film_bytes.getvalue())
    return Path(out)


def choose(said: Sequence[dict[str, dict]]) -> str:
    """The id of an utterance that all runs have, right if there is one."""
    common = [name for name in said[0] if all(name in other for other in said)]
    if not common:
        raise ValueError("the runs have no utterance in common")
    right = [
        name
        for name in common
        if all(u[name]["hypothesis"] == u[name]["reference"] for u in said)
    ]
    rows = right or common  # in the order of their lengths
    return rows[len(rows) // 2]


def film(
    figure: Figure, curtains: Sequence[tuple[float, float]], limit: float
) -> list[Image.Image]:
    """The figure with its curtains further open each time."""
    height = figure.get_figheight()
    width = WIDTH - LEFT - RIGHT
    covers = [
        figure.add_artist(
            Rectangle(
                (0, low / height),
                1,
                (high - low) / height,
                facecolor="white",
                zorder=10,
                transform=figure.transFigure,
            )
        )
        for low, high in curtains
    ]
    hands = [
        figure.add_artist(
            Rectangle(
                (0, low / height),
                0.0015,
                (high - low) / height,
                facecolor=RED,
                zorder=11,
                transform=figure.transFigure,
            )
        )
        for low, high in curtains
    ]
    pictures = []
    for now in [*np.arange(0, limit, 1 / FPS), limit]:
        x = (LEFT + width * now / limit) / WIDTH
        for cover, hand in zip(covers, hands):
            cover.set_x(x)
            cover.set_width(1 - x)
            hand.set_x(x)
            hand.set_visible(now < limit)
        figure.canvas.draw()
        picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba()))
        pictures.append(picture.convert("RGB"))
    # The last one has every colour.
    palette = pictures[-1].quantize(COLOURS)
    return [
        p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures
    ]
