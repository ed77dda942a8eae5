"""How figures of the book look, and how they reach the page: as SVG in two palettes, with caption, alt text, provenance.

Importing this sets matplotlib's style. Pages for dark screens get the same drawing, each colour replaced by its partner.
Colours are of the Okabe-Ito palette, which the colour-blind can tell apart; line styles and markers should repeat them.
"""

import base64
import io
import os
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import SVG, Markdown, display
from matplotlib.figure import Figure
from PIL import Image

INK, GREY, FAINT, PAPER = "#1f2933", "#5b6673", "#d5dae0", "#ffffff"
BLUE, ORANGE, GREEN, PURPLE, GOLD = "#0072b2", "#d55e00", "#008060", "#a8518a", "#946c00"
COLOURS, LINES = (BLUE, ORANGE, GREEN, PURPLE, GOLD), ("-", "--", "-.", ":", (0, (5, 1, 1, 1)))
# Each colour on a light page -> its partner on a dark one, about as far from the ground. Others stay as they are.
DARK = {
    INK: "#e4e7eb", GREY: "#a3adb8", FAINT: "#3d4650", PAPER: "#14181e", "#000000": "#e4e7eb",
    BLUE: "#56b4e9", ORANGE: "#ff9650", GREEN: "#3fcfa3", PURPLE: "#e39ac7", GOLD: "#f0c75e",
}  # fmt: skip
FOLDER = "ALEXNET_FIGURES"  # the variable with the folder of the book's pictures, where a book is being made

mpl.rcParams |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), INK)
mpl.rcParams |= dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), GREY)
mpl.rcParams |= {
    "figure.figsize": (5.6, 3.6),  # inches: so narrow that a phone still shows its letters
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    **{"font.size": 12, "axes.titlesize": 12, "legend.fontsize": 11},
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.prop_cycle": mpl.cycler(color=COLOURS, linestyle=LINES),
    "grid.color": FAINT,
    "lines.linewidth": 1.7,
    "svg.hashsalt": "alexnet",  # the same bytes at every run
}


def show(figure: Figure, name: str, caption: str, alt: str, stamp: str = "", provenance: str = "") -> Markdown:
    """Return a figure for the last line of a cell, under `name` for `{numref}`; `stamp` is written into it.

    `alt` says what one sees for those who do not. While a book is made the pictures are files beside its pages; in a
    notebook opened by itself the figure stands in its place.
    """
    if stamp:
        bottom = figure.get_tightbbox().y0 / figure.get_figheight()
        figure.text(0.99, min(bottom - 0.02, -0.01), stamp, ha="right", va="top", color=GREY, fontsize=10)
    light = as_svg(figure)
    plt.close(figure)  # Why: a notebook would show an open figure once more.
    folder = os.environ.get(FOLDER)
    if folder is None:
        display(SVG(light))
        return Markdown(f"{caption}\n\n{provenance}")
    for suffix, svg in (("", light), ("-dark", in_the_dark(light))):
        Path(folder, f"{name}{suffix}.svg").write_text(svg)
    options = f":name: {name}\n:alt: {' '.join(alt.split())}"
    return Markdown(f":::{{figure}} {Path(folder).name}/{name}.svg\n{options}\n\n{caption}\n\n{provenance}\n:::")


def as_svg(figure: Figure) -> str:
    """Return a figure as SVG on a transparent ground, the same bytes at every run."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return re.sub(r"data:image/png;base64,([^\"]+)", _lighter, text.getvalue())


def _lighter(picture: re.Match) -> str:
    """Return a picture inside a drawing as a JPEG where that is less than half as large, as it is of photographs."""
    image, small = Image.open(io.BytesIO(base64.b64decode(picture[1]))), io.BytesIO()
    if image.mode == "RGBA" and image.getextrema()[3][0] < 255:
        return picture[0]
    image.convert("RGB").save(small, "JPEG", quality=90, subsampling=0)
    text = base64.b64encode(small.getvalue()).decode()
    return f"data:image/jpeg;base64,{text}" if 2 * len(text) < len(picture[1]) else picture[0]


def in_the_dark(svg: str) -> str:
    """Return a drawing in the palette for dark pages."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: DARK.get(colour[0], colour[0]), svg)
