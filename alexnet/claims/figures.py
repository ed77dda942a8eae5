"""The paper's figures: a tidy frame in, a matplotlib figure out, one function for each.

Colours are of the Okabe-Ito palette, which the colour-blind can tell apart; line styles repeat what colours say. Every
figure carries the scale and the data it was made from.
"""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from alexnet.claims.experiments import LINE
from alexnet.claims.search import StudyResult, crossing_epoch

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#595959"
COLOURS, LINES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#000000"), ("-", "--", "-.", ":", (0, (5, 1, 1, 1)))
LOOKS = {"relu": {"color": BLUE, "linestyle": "-"}, "tanh": {"color": ORANGE, "linestyle": "--"}}
NAMES = {"relu": "ReLU", "tanh": "tanh"}


def use_style() -> None:
    """Set the look that all figures share, and make SVG output the same at every run."""
    mpl.rcParams |= {
        "figure.figsize": (7.0, 4.2),
        "figure.dpi": 110,
        "savefig.bbox": "tight",
        "figure.facecolor": "white",
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "svg.hashsalt": "alexnet",
    }


def stamp(figure: Figure, scale: str, data: str) -> None:
    """Write the scale and the data under a figure."""
    figure.text(0.99, -0.02, f"scale {scale} | {data}", ha="right", va="top", color=GREY, fontsize=9)


def curves_frame(results: list[StudyResult]) -> pd.DataFrame:
    """Return one row for each epoch of each seed: topology, activation, rate, seed, epoch, train_error, test_error."""
    rows = [
        {"topology": r.study.topology, "activation": r.study.activation, "rate": r.search.best_rate, "seed": seed}
        | {key: line[key] for key in ("epoch", "train_error", "test_error")}
        for r in results
        for seed, metrics in r.metrics.items()
        for line in metrics
    ]
    columns = ["topology", "activation", "rate", "seed", "epoch", "train_error", "test_error"]
    return pd.DataFrame(rows, columns=columns)


def search_curves(results: list[StudyResult], scale: str, data: str) -> Figure:
    """Draw the training error at every rate that a search tried: one panel an activation, the chosen rate in colour."""
    figure, panels = plt.subplots(1, len(results), sharey=True, figsize=(9.0, 3.8), squeeze=False)
    for axes, result in zip(panels[0], results, strict=True):
        look = LOOKS[result.study.activation]
        for i, (rate, metrics) in enumerate(result.search.metrics.items()):
            frame = pd.DataFrame(metrics)
            chosen = rate == result.search.best_rate and result.search.bracketed
            paint = look if chosen else {"color": GREY, "linestyle": ("-", "--", "-.", ":")[i % 4], "alpha": 0.8}
            axes.plot(frame["epoch"], frame["train_error"], label=f"{rate:g}" + (", chosen" if chosen else ""), **paint)
        axes.axhline(LINE, color=GREY, linewidth=0.9, linestyle=":")
        axes.set(xlim=(0, None), ylim=(0, 0.95), xlabel="epochs", title=NAMES[result.study.activation])
        axes.legend(frameon=False, title="rate")
    panels[0][0].set_ylabel("training error rate")
    stamp(figure, scale, data)
    plt.close(figure)
    return figure


def figure1(curves: pd.DataFrame, scale: str, data: str, width_in_paper: float = 40.0) -> Figure:
    """Draw training error against epochs, ReLU solid and tanh dashed, with the line at 25 % (paper, figure 1).

    `curves` is one topology's part of `curves_frame`; every seed is a line, its first crossing a dot. The axes are the
    paper's: 0 to 0.75, and epochs to `width_in_paper` or as far as the runs go.
    """
    figure, axes = plt.subplots()
    for (activation, _seed), run in curves.groupby(["activation", "seed"]):
        first = run["seed"].iloc[0] == curves.loc[curves["activation"] == activation, "seed"].min()
        label = f"{NAMES[activation]}, rate {run['rate'].iloc[0]:g}" if first else None
        axes.plot(run["epoch"], run["train_error"], label=label, linewidth=1.6, **LOOKS[activation])
        crossing = crossing_epoch(run.to_dict("records"))
        if crossing < float("inf"):
            axes.plot(crossing, LINE, "o", color=LOOKS[activation]["color"], markersize=5, zorder=3)
    last = max(curves["epoch"].max(), 1)
    axes.set(
        xlim=(0, max(last * 1.03, min(width_in_paper, last * 1.5))),
        ylim=(0, 0.75),
        xlabel="epochs",
        ylabel="training error rate",
    )
    axes.axhline(LINE, color=GREY, linewidth=0.9, linestyle=":")
    axes.annotate(f" {LINE:.0%}", (1.0, LINE), xycoords=("axes fraction", "data"), va="center", ha="left", color=GREY)
    axes.legend(frameon=False)
    stamp(figure, scale, data)
    # Why: a notebook shows what a cell returns, and would show an open figure once more.
    plt.close(figure)
    return figure


def learning_curves(curves: pd.DataFrame, scale: str, data: str) -> Figure:
    """Draw validation error in one view against epochs, a line for each run, and a dot for the error in ten views.

    `curves` has one row for each epoch: run, epoch, one_view, ten_views (missing where it was not measured).
    """
    figure, axes = plt.subplots()
    for (name, run), colour, line in zip(curves.groupby("run", sort=False), COLOURS, LINES, strict=False):
        axes.plot(run["epoch"], run["one_view"], label=name, color=colour, linestyle=line, linewidth=1.6)
        ten = run.dropna(subset="ten_views")
        axes.plot(ten["epoch"], ten["ten_views"].astype(float), "o", color=colour, markersize=6, zorder=3)
    axes.set(xlim=(0, None), ylim=(0, 1), xlabel="epochs", ylabel="validation error rate, top-1")
    axes.legend(frameon=False)
    stamp(figure, scale, data)
    plt.close(figure)
    return figure


def kernels(columns: Sequence[np.ndarray], scale: str, data: str) -> Figure:
    """Draw the first layer's kernels, one column's above the other's (paper, figure 3).

    Each column is (kernels, H, W, 3) from 0 to 1. The rows are as long as they can be, up to the paper's sixteen.
    """
    count, side = len(columns[0]), columns[0].shape[1]
    across = max(n for n in range(1, 17) if count % n == 0)
    rows = count // across * len(columns)
    figure, panels = plt.subplots(len(columns), 1, figsize=(7.0, 7.0 * rows / across + 0.5 * len(columns)), squeeze=False)
    for axes, column, letter in zip(panels[:, 0], columns, "abcdefgh", strict=False):
        tiles = np.ones((count // across, across, side + 1, side + 1, 3))  # a white line between kernels
        tiles[:, :, :side, :side] = column.reshape(count // across, across, side, side, 3)
        picture = tiles.transpose(0, 2, 1, 3, 4).reshape(count // across * (side + 1), across * (side + 1), 3)
        axes.imshow(picture[:-1, :-1], interpolation="nearest")
        axes.set_title(f"column {letter}", fontsize=10, color=GREY)
        axes.axis("off")
    stamp(figure, scale, data)
    plt.close(figure)
    return figure
