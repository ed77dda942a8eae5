"""Figures that answer a touch: a drawing, in whose place the page's script puts the same as a Plotly chart; and controls.

Traces and layouts are Plotly's, as plain dictionaries. Where scripts are off, in print and in search engines the drawing
stands. The script is `book/_static/interactive.js`; `book/make.py` copies Plotly's beside it from the Python package, and
only a page with such a figure loads that. Colours are those of `figures`, which the script replaces on dark pages.
"""

import json
import os
from typing import Any

from IPython.display import Markdown
from matplotlib.figure import Figure

from alexnet.report import figures

Traces = list[dict[str, Any]]

AXIS = {"gridcolor": figures.FAINT, "linecolor": figures.GREY, "zeroline": False, "ticks": "outside", "automargin": True}
LAYOUT = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": figures.INK, "size": 13},
    "hoverlabel": {"bgcolor": figures.PAPER, "bordercolor": figures.GREY, "font": {"color": figures.INK}, "align": "left"},
    "margin": {"l": 45, "r": 10, "t": 30, "b": 45},
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    "height": 440,
}


def show(figure: Figure, traces: Traces, layout: dict[str, Any], name: str, *words: str, **more: str) -> Markdown:
    """Return a figure whose drawing becomes a chart; what follows the name is `figures.show`'s."""
    return chart(figures.show(figure, name, *words, **more), traces, layout, name)


def chart(drawn: Markdown, traces: Traces, layout: dict[str, Any], name: str) -> Markdown:
    """Return a figure that is drawn already, with its chart; axes of `layout` ("xaxis", ...) get the book's look."""
    if os.environ.get(figures.FOLDER) is None:
        return drawn
    axes = {key: AXIS | value for key, value in layout.items() if key[1:5] == "axis"}
    content = {"data": traces, "layout": LAYOUT | layout | axes, "dark": figures.DARK}
    html = f'<script type="application/json" class="chart" data-figure="{name}">{_json(content)}</script>'
    return Markdown(f"{drawn.data}\n\n:::{{raw}} html\n{html}\n:::")


def controls(name: str, body: str, data: Any, script: str) -> Markdown:
    """Return controls to move: plain HTML with a script of a few lines, in which `box` is the element that holds `body`.

    `data` reaches the script as JSON under that name. The controls show once it has run; where scripts are off a line says
    what is missing, and in print they are left out. Colours are the page's: currentColor and its variables.
    """
    html = (
        f'<div class="controls" id="{name}" hidden><script type="application/json">{_json(data)}</script>'
        f"{body.strip()}</div>\n"
        f"<noscript><p>Here are controls that need scripts, which are off.</p></noscript>\n<script>{{\n"
        f'const box = document.getElementById("{name}"), data = JSON.parse(box.firstElementChild.textContent);\n'
        f"{script.strip()}\nbox.hidden = false;\n}}</script>"
    )
    return Markdown(f":::{{raw}} html\n{html}\n:::")


def _json(data: Any) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
