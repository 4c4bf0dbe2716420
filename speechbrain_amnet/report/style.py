"""What all pictures share: colours, fonts, names, and how they are saved.

Colours are Okabe and Ito's, which differ in brightness too: the expensive
branch is dark, the cheap one light.
"""

import io
from pathlib import Path

from matplotlib.figure import Figure

from speechbrain_amnet.files import write

BLUE, ORANGE, GREEN, RED = "#0072B2", "#F2B134", "#009E73", "#D55E00"
PURPLE, SKY, GREY, PALE = "#CC79A7", "#56B4E9", "#6B7280", "#E5E7EB"
INK = "#1F2937"
BRANCHES = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)  # the most expensive first
WIDTH = 10.0  # of every picture, in inches
PLAIN = {"parse_math": False}  # a dollar in a name is one

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


def save(figure: Figure, out: str | Path) -> Path:
    """Write a picture whole, or not at all."""
    out, picture = Path(out), io.BytesIO()
    figure.savefig(picture, format=out.suffix.removeprefix(".") or "png")
    write(out, picture.getvalue())
    return out
