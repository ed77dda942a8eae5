"""The network's chapter: tables and a figure of section 3, which follow from the presets.

Nothing here depends on a training.
"""

from dataclasses import asdict

import matplotlib.pyplot as plt
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from alexnet.claims import figures, paper
from alexnet.claims.arithmetic import computed, count_parameters, maps_seen, word
from alexnet.claims.figures import BLUE, GREY, ORANGE
from alexnet.claims.paper import Value
from alexnet.claims.tables import numbered
from alexnet.config import Scale, differing_fields
from alexnet.model import presets
from alexnet.model.alexnet import count_neurons, sides
from alexnet.model.columns import bytes_per_image, exchanged_shapes
from alexnet.model.presets import ABLATIONS, CONV, NetConfig

WORDS = {"norm": "normalise", "map_norm": "normalise within maps", "pool": "pool"}
BATCH = 128  # images of a step (paper 5)


def layers_table() -> Markdown:
    """Return every layer of one column, and what follows it and how it begins in both presets."""
    ours, theirs = presets.paper(), presets.source2012()
    rows = []
    for name in filter(ours.learns, ours.layer_names):
        follows = [_follows(config, name) for config in (ours, theirs)]
        rows.append((f"{name}: {_size(ours, name)}", follows[0], "the same" if follows[0] == follows[1] else follows[1]))
    headers = ("layer of one column", "`paper`", "`source2012`")
    return numbered(rows, headers, "The layers of one column in both presets: size, then what follows and how it begins.",
                    "tbl-layers")  # fmt: skip


def _size(config: NetConfig, name: str) -> str:
    layer, seen = getattr(config, name), maps_seen(config)[name]
    if name not in CONV:
        return f"{layer.units:,} {'classes' if name == 'fc8' else 'units'} that see {seen:,} values"
    details = f"stride {layer.stride}, " + (f"padding {layer.padding}" if layer.padding else "no padding")
    return f"{layer.kernels} kernels of {layer.side}x{layer.side}x{seen}, {details}"


def _follows(config: NetConfig, name: str) -> str:
    layer = getattr(config, name)
    activation = {"relu": "ReLU"}.get(config.activation, config.activation)
    if name in CONV:
        steps = ", ".join(WORDS.get(step, activation) for step in layer.then.split())
    else:
        steps = "sum over columns, softmax" if name == "fc8" else f"{activation}, dropout {config.dropout:g}"
    return f"{steps}; weights of deviation {layer.sd:g}, biases {layer.bias:g}"


def sides_table() -> Markdown:
    """Return the maps of every layer and its neurons, beside the caption of Figure 2."""
    config = presets.paper()
    side, neurons = sides(config), count_neurons(config)
    caption = paper.get("fig2-neurons")
    rows = []
    for name, count in neurons.items():
        printed = caption.value("neurons", name)
        after = side.get(f"pool{name[-1]}")
        shape = f"{getattr(config, name).kernels * config.columns} maps of {side[name]}x{side[name]}" if name in side else ""
        pooled = f", pooled to {after}x{after}" if after else ""
        rows.append((name, shape + pooled, f"{count:,}", f"{printed.paper:,.0f}: {word(printed, count)}"))
    rows.append(("all", "", f"{sum(neurons.values()):,}", f"{sum(v.paper for v in _captions()):,.0f}"))
    headers = ("layer", "both columns", "neurons", "caption: ours are")
    return numbered(rows, headers, "Maps and neurons, and the caption of Figure 2.", "tbl-neurons")


def _captions() -> list[Value]:
    return [value for value in paper.get("fig2-neurons").values if value.name == "neurons"]


def parameters_table() -> Markdown:
    """Return the parameters of every layer with their share, and those of the one-column net."""
    two, one = count_parameters(presets.paper()), count_parameters(presets.one_column(presets.paper()))
    rows = [(name, f"{count:,}", f"{count / sum(two.values()):.2%}", f"{one[name]:,}") for name, count in two.items()]
    rows.append(("all", f"{sum(two.values()):,}", "", f"{sum(one.values()):,}"))
    headers = ("layer", "two columns", "share", "one column")
    return numbered(rows, headers, "Weights and biases of the net and of its half for one GPU.", "tbl-parameters")


# Claim, name and subject of a value, and its sentence in words.
STATEMENTS = (
    ("abstract-size", "parameters", "", "The net has 60 million parameters."),
    ("abstract-size", "neurons", "", "It has 650,000 neurons."),
    ("fig2-neurons", "dimensions", "input", "The input has 150,528 dimensions."),
    ("fig2-neurons", "neurons", "conv1", "The first layer has 253,440 neurons."),
    ("s1-depth", "largest share of a convolutional layer", "",
     "No convolutional layer has more than 1 % of the parameters."),
    ("s4.1-patches", "factor", "", "Crops and reflections multiply the training set by 2048."),
    ("s4-ten-bits", "bits of a label", "", "A label of 1000 classes is worth ten bits."),
)  # fmt: skip


def statements_table() -> Markdown:
    """Return the statements of the text that are arithmetic, and whether they are true."""
    rows = []
    for claim, name, subject, sentence in STATEMENTS:
        value, number = paper.get(claim).value(name, subject), computed(claim)[name, subject]
        text = f"{number:.2f}%" if value.unit.startswith("%") else f"{number:,.6g}" if number < 1000 else f"{number:,.0f}"
        rows.append((f"{sentence} ({paper.get(claim).section})", text, word(value, number)))
    headers = ("the paper says", "arithmetic", "verdict")
    return numbered(rows, headers, "What of the text is arithmetic, and whether it holds.", "tbl-statements")


def exchange_table() -> Markdown:
    """Return the bytes that one GPU sends the other, for an image and for a step, in fp32."""
    config, counts = presets.paper(), bytes_per_image(presets.paper())
    rows = []
    for layer, shape in exchanged_shapes(config).items():
        what = f"{layer}: " + ("x".join(map(str, shape)) if len(shape) > 1 else f"{shape[0]:,}")
        rows.append((what, *(f"{counts.get((layer, way), 0):,}" for way in ("forward", "backward"))))
    sums = [sum(n for (_, way), n in counts.items() if way == wanted) for wanted in ("forward", "backward")]
    rows.append(("an image", *(f"{n:,}" for n in sums)))
    rows.append((f"a step of {BATCH} images", *(f"{n * BATCH / 1e6:.1f} MB" for n in sums)))
    headers = ("before", "forward", "backward")
    return numbered(rows, headers, "Bytes that a column sends the other in training, in fp32.", "tbl-exchange")


def ablations_table() -> Markdown:
    """Return what each ablation changes in the preset `source2012`, and the parameters that it has."""
    base = presets.source2012()
    rows = []
    for name, ablation in ABLATIONS.items():
        changed = differing_fields(asdict(base), asdict(ablation(base)))
        words = "; ".join(f"{field} {_plain(old)} → {_plain(new)}" for field, old, new in changed)
        rows.append((f"`{name}`", words, f"{sum(count_parameters(ablation(base)).values()):,}"))
    headers = ("change", "in the config of `source2012`", "parameters")
    return numbered(rows, headers, "Changed nets, each as a change of the config.", "tbl-ablations")


def _plain(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) or "nothing"


def figure2(config: NetConfig) -> Figure:
    """Draw the columns of a net from the image down to the softmax, with what crosses between them (paper, figure 2).

    Upright, unlike the paper's, so that a phone can show it. Solid arrows stay in a column; dashed ones cross.
    """
    figures.use_style()
    names = [name for name in config.layer_names if config.learns(name) and name != "fc8"]
    figure, axes = plt.subplots(figsize=(4.6, 0.95 * (len(names) + 2)))
    centres = [2.0 * i for i in range(config.columns)]
    middle, bottom = sum(centres) / len(centres), -len(names) - 1
    _box(axes, middle, 0, f"image\n{config.image_side}x{config.image_side}x3", width=centres[-1] + 1.7)
    for place, name in enumerate(names, start=1):
        for here in centres:
            _box(axes, here, -place, _contents(config, name))
            for there in centres if place > 1 and name in config.shared else [here]:
                _arrow(axes, (there, 1 - place), (here, -place), crosses=there != here)
    for here, letter in zip(centres, config.column_names, strict=True):
        axes.text(here + 0.12, -0.5, f"column {letter}", va="center", color=GREY, fontsize=9.5)
        _arrow(axes, (here, bottom + 1), (here, bottom), crosses=config.columns > 1)
    summed = "fc8: columns add their shares\n" if config.columns > 1 else "fc8\n"
    _box(axes, middle, bottom, f"{summed}softmax over {config.fc8.units:,} classes", width=centres[-1] + 1.7)
    axes.set(xlim=(-1, centres[-1] + 1), ylim=(bottom - 0.45, 0.45))
    axes.axis("off")
    plt.close(figure)
    return figure


def _contents(config: NetConfig, name: str) -> str:
    layer, side = getattr(config, name), sides(config)
    if name not in CONV:
        return f"{name}\n{layer.units:,} units"
    after = [side[at] for at in (name, f"pool{name[-1]}") if at in side]
    return f"{name}: {layer.kernels} of {layer.side}x{layer.side}\n{', then '.join(f'{n}x{n}' for n in after)}"


def _box(axes: Axes, x: float, y: float, text: str, width: float = 1.7) -> None:
    low = (x - width / 2, y - 0.28)
    axes.add_patch(FancyBboxPatch(low, width, 0.56, boxstyle="round,pad=0,rounding_size=0.06", fc="white", ec=GREY))
    axes.text(x, y, text, ha="center", va="center", fontsize=10.5, linespacing=1.15)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], crosses: bool) -> None:
    look = {"color": ORANGE, "linestyle": "--"} if crosses else {"color": BLUE, "linestyle": "-"}
    tip, tail = (end[0], end[1] + 0.28), (start[0], start[1] - 0.28)
    axes.annotate("", tip, tail, arrowprops={"arrowstyle": "-|>", "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0, **look})


def numbers(scale: Scale) -> dict[str, str]:
    """Return the texts that the chapter's prose takes its numbers from."""
    ours, one, first = presets.paper(), presets.one_column(presets.paper()), presets.paper().conv1
    two, single = (sum(count_parameters(config).values()) for config in (ours, one))
    large = {name: count / two for name, count in count_parameters(ours).items() if name in CONV and count > 0.01 * two}
    slip, size = paper.get("fig2-neurons").value("neurons", "conv1"), paper.get("abstract-size").value("neurons")
    sent = sum(n for (_, way), n in bytes_per_image(ours).items() if way == "forward")
    side, share = sides(ours)["conv1"], paper.get("s1-depth").values[0]
    counts = {"side": side, "image-side": ours.image_side, "kernel-side": first.side, "kernel-stride": first.stride}
    counts |= {"kernels": first.kernels, "pool-side": ours.pooling.side, "pool-stride": ours.pooling.stride}
    counts |= {"parameters": two, "one-parameters": single, "neurons": sum(count_neurons(ours).values())}
    counts |= {"conv1-neurons": count_neurons(ours)["conv1"], "kept-side": sides(presets.without_overlap(ours))["pool5"]}
    return {name: f"{count:,}" for name, count in counts.items()} | {
        "scale": scale,
        "one-share": f"{single / two:.0%}",
        "fc6-share": f"{count_parameters(ours)['fc6'] / two:.0%}",
        "large": " and ".join(f"{name} ({part:.2%})" for name, part in large.items()),
        "places": f"{(ours.image_side - first.side) / first.stride + 1:g}",
        "paper-neurons": f"{size.paper:,.0f}",
        "paper-share": f"{share.paper:g}%",
        "slip": f"{slip.paper:,.0f} = {side} x {first.kernels} x {first.kernels * ours.columns}",
        "sent": f"{sent / 1000:.0f}",
        "whole": f"{side**2 * first.kernels * 4 / 1000:.0f}",
    }
