"""The performance chapter: what `make bench` recorded, where a step's time goes, and a model of two GPUs and of more.

Ratios are within one run on one machine. What was never run has no number here, except in the model, which says so.
"""

import json
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown
from matplotlib.figure import Figure

from alexnet.claims import figures, paper, parity, runs
from alexnet.claims.arithmetic import count_parameters, operations
from alexnet.claims.figures import BLUE, GREY
from alexnet.claims.runs import runs_dir
from alexnet.claims.tables import numbered
from alexnet.config import ColumnNet
from alexnet.model.columns import bytes_per_image
from alexnet.model.nets import net_config
from alexnet.model.presets import source2012

NOT_MEASURED = "not measured"
BATCH = 128  # images of a step (paper 5)


def recorded() -> list[dict[str, Any]]:
    """Return what `make bench` has recorded, one dictionary for each machine, in the order of their files' names."""
    found = [json.loads(file.read_text()) for file in sorted((runs_dir() / "bench").glob("*.json"))]
    for bench in found:
        # Why: the first record has one target a row, and is of a machine without native bf16.
        bench.setdefault("fast_in", "fp32")
        for row in bench["rows"]:
            row.setdefault("at_least", {"fp32": row["target"]} if row.get("target") else {})
    return found


def _machine(bench: dict[str, Any]) -> str:
    has = bench["hardware"]
    return f"{has['processor']}, {has['cpu_capability']}, {bench['threads']} threads, fast in {bench['fast_in']}"


def bench_table() -> Markdown:
    """Return every row of every machine: ratio, target of that kind of machine, and whether it is met."""
    rows = []
    for bench in recorded():
        devices = [(f"{part['device']}, in {part['type']}", part["rows"]) for part in bench.get("devices", ())]
        for title, measured in [(_machine(bench), bench["rows"]), *devices]:
            rows.append((f"**{title}**", "", "", ""))
            for row in measured:
                target = row["at_least"].get(bench["fast_in"])
                judged = "" if target is None else f"{target:g}: {'met' if row['ratio'] >= target else 'not met'}"
                rows.append((f"{row['what']}, against {row['against']}", f"{row['ratio']:.2f}", judged, row["figures"]))
    headers = ("speed of", "ratio", "at least", "measured")
    unseen = "" if any(bench.get("devices") for bench in recorded()) else f" A CUDA device: {NOT_MEASURED}."
    return numbered(rows, headers, f"What `make bench` recorded. A ratio above 1 means faster.{unseen}", "tbl-bench")


def profiled() -> dict[str, Any] | None:
    """Return the latest record that has the times of layers, or None."""
    return max((bench for bench in recorded() if "layers" in bench), key=lambda bench: bench.get("date", ""), default=None)


def layers_table() -> Markdown:
    """Return the time of each layer, forward and backward, and the part of it that the machine's limits would take."""
    bench = profiled()
    if bench is None:
        return Markdown(f"The time of each layer: {NOT_MEASURED}.")
    costs = bench["layers"]
    total = sum(layer["seconds"] for layer in costs["layers"])
    rows = []
    for layer in costs["layers"]:
        limit, which = _limit(layer, costs["limits"])
        share = f"{layer['seconds'] / total:.0%}"
        speed = f"{layer['operations'] / layer['seconds'] / 1e9:.0f}"
        rows.append(
            (layer["layer"], f"{1e3 * layer['seconds']:.1f}", share, speed, f"{limit / layer['seconds']:.0%}", which)
        )
    headers = ("layer", "ms", "of all", "GFLOP/s", "of its limit", "which is")
    caption = f"Forward and backward of {costs['batch']} images in {costs['type']}: {_machine(bench)}."
    return numbered(rows, headers, caption, "tbl-layers-time")


def profile_table() -> Markdown:
    """Return the operations that a training step spends most of its time in."""
    bench = profiled()
    if bench is None or "profile" not in bench:
        return Markdown(f"The profile of a step: {NOT_MEASURED}.")
    step = bench["profile"]
    rows = []
    for top in step["operations"]:
        share = f"{top['seconds'] / step['seconds']:.1%}"
        rows.append((f"`{top['operation']}`", f"{top['calls']:g}", f"{1e3 * top['seconds']:.0f}", share))
    caption = f"A step on {step['batch']} images in {step['type']}, {1e3 * step['seconds']:.0f} ms: {_machine(bench)}."
    return numbered(rows, ("operation", "calls", "ms", "of all"), caption, "tbl-profile")


def _limit(layer: dict[str, Any], limits: dict[str, float]) -> tuple[float, str]:
    """Return the least seconds that a layer can take, and what sets them."""
    arithmetic, memory = layer["operations"] / limits["gflops"] / 1e9, layer["bytes"] / limits["gb_per_second"] / 1e9
    return (arithmetic, "arithmetic") if arithmetic > memory else (memory, "memory")


def draw_roofline() -> Figure | Markdown:
    """Draw the speed of every layer against its operations for each byte, under the machine's two limits."""
    bench = profiled()
    if bench is None:
        return Markdown(f"The roofline: {NOT_MEASURED}.")
    figures.use_style()
    layers, limits = bench["layers"]["layers"], bench["layers"]["limits"]
    figure, axes = plt.subplots()
    intensity = np.array([layer["operations"] / layer["bytes"] for layer in layers])
    speed = np.array([layer["operations"] / layer["seconds"] / 1e9 for layer in layers])
    x = np.geomspace(intensity.min() / 2, intensity.max() * 2, 200)
    axes.plot(x, np.minimum(limits["gflops"], x * limits["gb_per_second"]), color=GREY, label="the machine's limits")
    axes.plot(intensity, speed, "o", color=BLUE, label="layers, forward and backward")
    for i, (names, at, height) in enumerate(_apart([layer["layer"] for layer in layers], intensity, speed)):
        # Why to the left, but for the first: the next dot is to the right, and the first has the slope on its left.
        side, shift = ("right", -2) if i else ("left", 6)
        axes.annotate(names, (at, height), xytext=(shift, -14), textcoords="offset points", fontsize=9, ha=side)
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte that has to move", ylabel="GFLOP/s")
    axes.legend(frameon=False)
    figures.stamp(figure, "any", _machine(bench))
    plt.close(figure)
    return figure


def _apart(names: list[str], x: np.ndarray, y: np.ndarray, factor: float = 1.6) -> list[tuple[str, float, float]]:
    """Return labels with their places; neighbours within `factor` of each other share one, under the lowest of them."""
    labels: list[tuple[str, float, float]] = []
    for i in np.argsort(x):
        if labels and x[i] < factor * labels[-1][1] and 1 / factor < y[i] / labels[-1][2] < factor:
            name, at, height = labels[-1]
            labels[-1] = (f"{name}, {names[i]}", at, min(height, y[i]))
        else:
            labels.append((names[i], x[i], y[i]))
    return labels


def parity_table() -> Markdown:
    """Return the errors of the two trainings in fp32 and bf16 after each epoch, and whether the last ones differ."""
    pair = parity.recorded(runs.read)
    if pair is None:
        return Markdown(f"bf16 against fp32: {NOT_MEASURED}.")
    rows = [
        (epoch, *(f"{pair.errors[precision][epoch]:.2%}" for precision in ("fp32", "bf16")), _points(*difference))
        for epoch, difference in enumerate(pair.differences())
    ]
    where = " and ".join(pair.machines)
    caption = f"One-view validation errors on {pair.fp32.data} ({pair.images:,} images), seed {pair.fp32.seed}: {where}."
    table = numbered(rows, ("epoch", "fp32", "bf16", "bf16 - fp32, points"), caption, "tbl-parity")
    difference, half = pair.differences()[-1]
    found = "no larger than" if abs(difference) <= half else "larger than"
    return Markdown(
        f"{table.data}\n\nAfter {pair.fp32.epochs} epochs the difference is {_points(difference, half)} points: {found} "
        f"what counting errors on {pair.images:,} images leaves open (95 %). What another seed would change is not in it."
    )


def _points(difference: float, half: float) -> str:
    return f"{100 * difference:+.2f} ± {100 * half:.2f}"


def growth_table(widths: tuple[float, ...] = (0.25, 0.5, 1.0), classes: tuple[int, ...] = (20, 1000, 10184)) -> Markdown:
    """Return how the work of an image and the parameters grow with the width of the net and the number of classes."""
    rows = []
    for num_classes in classes:
        for width in widths:
            config = net_config(ColumnNet("source2012", width, num_classes))
            weights, work = sum(count_parameters(config).values()), sum(operations(config).values())
            rows.append(
                (f"{num_classes:,}", f"{width:g}", f"{weights / 1e6:.1f}", f"{work / 1e9:.2f}", f"{4 * weights / 1e6:.0f}")
            )
    headers = ("classes", "width", "million parameters", "GFLOP for an image and step", "MB of gradients")
    return numbered(rows, headers, "How the cost of training grows. It grows with the images of a set in proportion.",
                    "tbl-growth")  # fmt: skip


def measured_growth_table() -> Markdown:
    """Return the time of an image in a step as it was measured at several widths, batches and numbers of classes."""
    bench = next((bench for bench in reversed(recorded()) if "growth" in bench), None)
    if bench is None:
        return Markdown(f"The time of an image in a step: {NOT_MEASURED}.")
    base, *_ = bench["growth"]
    rows = [
        (
            f"{line['width']:g}",
            f"{line['batch']}",
            f"{line['classes']:,}",
            f"{1e3 * line['seconds']:.2f}",
            f"{line['seconds'] / base['seconds']:.2f}",
        )
        for line in bench["growth"]
    ]
    caption = f"Measured time of an image in a training step: {_machine(bench)}."
    headers = ("width", "batch", "classes", "ms for an image", "of the first row")
    return numbered(rows, headers, caption, "tbl-growth-measured")


def two_gpus(peak_tflops: float, link: float) -> dict[str, str]:
    """Return what the paper's training time says of its GPUs, in texts: the check of the model.

    `peak_tflops` is one GPU's in fp32, `link` the GB/s between them each way. Paper 1 and 5.
    """
    time, passes = (paper.get("s1-training-time").value(name) for name in ("training time", "passes"))
    slow, fast = (_images_per_second(time.paper + sign * time.margin) for sign in (1, -1))
    work, sent = sum(operations(source2012()).values()), sum(bytes_per_image(source2012()).values())
    return {
        "work": f"{work / 1e9:.2f}",
        "days": f"{time.paper - time.margin:g} to {time.paper + time.margin:g}",
        "epochs": f"{passes.paper:g}",
        "images": f"{_images() / 1e6:g}",
        "images-per-second": f"{slow:.0f} to {fast:.0f}",
        "sustained": f"{slow * work / 1e12:.2f} to {fast * work / 1e12:.2f}",
        "efficiency": f"{slow * work / 2e12 / peak_tflops:.0%} to {fast * work / 2e12 / peak_tflops:.0%}",
        "batch": f"{BATCH}",
        "sent": f"{sent * BATCH / 1e6:.0f}",
        "sent-time": f"{1e3 * sent * BATCH / 1e9 / link:.0f}",
        "step-time": f"{1e3 * BATCH / fast:.0f} to {1e3 * BATCH / slow:.0f}",
    }


def _images() -> float:
    return paper.get("s2-ilsvrc").value("images", split="train").paper


def _images_per_second(days: float) -> float:
    """Return the speed of a training of the paper's length in so many days."""
    return _images() * paper.get("s1-training-time").value("passes").paper / (86400 * days)


def pairs_table(link: float, pairs: tuple[int, ...] = (1, 2, 4, 8)) -> Markdown:
    """Return a model of N pairs of GPUs, 128 images a step for each pair: nothing in it was measured.

    One pair has the paper's speed, its exchange included; gradients of all weights are averaged over pairs by a ring, in
    fp32, over links of `link` GB/s each way, without overlap.
    """
    images_per_second = _images_per_second(paper.get("s1-training-time").value("training time").paper)
    exchange = sum(bytes_per_image(source2012()).values()) * BATCH / 1e9 / link  # both columns send at once
    gradients = 4 * sum(count_parameters(source2012()).values()) / 2 / 1e9 / link  # of one column, on each GPU
    compute, rows = BATCH / images_per_second - exchange, []
    for n in pairs:
        averaging = 2 * (n - 1) / n * gradients
        step = compute + exchange + averaging
        speeds = f"{n * BATCH / step:.0f}", f"{n * BATCH / step / images_per_second:.1f}"
        rows.append((n, *(f"{1e3 * t:.0f}" for t in (compute, exchange, averaging)), *speeds))
    headers = ("pairs", "compute, ms", "exchange, ms", "averaging, ms", "images/s", "times one pair")
    return numbered(rows, headers, "A model of several pairs of the paper's GPUs. Not measured.", "tbl-pairs")
