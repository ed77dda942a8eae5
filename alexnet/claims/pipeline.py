"""The images' chapter: tables and figures of sections 2 and 4.1, on whichever photographs are here.

At scale toy, and where no photographs are prepared, the images are those of the stand-in, and every figure says so.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor

from alexnet.claims import figures, paper
from alexnet.claims.ledger import ROWS, grey_levels
from alexnet.claims.scales import ILSVRC_SETS
from alexnet.claims.tables import numbered
from alexnet.config import Scale
from alexnet.preprocessing import datasets, fall, formula, store
from alexnet.preprocessing.cutting import augment, cut, fixed_views
from alexnet.preprocessing.store import PreparedSet
from alexnet.preprocessing.views import PAPER, Augmentation, Views, colour_axes, draw_colours

STAND_IN = "formula256"
# The sets that show a scale, the first that is prepared; without any the stand-in does.
SHOWN: dict[Scale, tuple[str, ...]] = {"toy": (), "cpu": ("imagenet20",), "paper": (*ILSVRC_SETS, "imagenet20")}
NAMES = {
    "ilsvrc2010": "ILSVRC-2010",
    "ilsvrc2012": "ILSVRC-2012",
    "fall2009": "ImageNet, fall 2009",
    "fall2011": "ImageNet, fall 2011",
    "imagenet20": "ImageNet-20",
    "cifar10": "CIFAR-10",
    STAND_IN: "the stand-in for ILSVRC (images computed from a formula)",
    "formula32": "the stand-in for CIFAR-10 (images computed from a formula)",
}
NUM_CLASSES = {"imagenet20": 20, "cifar10": 10, **{f"fall{year}": n for year, n in fall.PUBLISHED_CLASSES.items()}}
NUM_CLASSES |= dict.fromkeys(ILSVRC_SETS, round(paper.get("s2-ilsvrc").value("categories").paper))
NUM_CLASSES |= {spec.name: len(spec.classes) for spec in (formula.SMALL, formula.LARGE)}
CORNERS = ("top left", "top right", "centre", "bottom left", "bottom right")  # in the order of `fixed_views`
CIFAR_CROP, CIFAR_SIDE = 24, 32  # pixels, of the nets of section 3.3
INPUT_FILES = ("convdata", "fix-big-imgnet")  # of the 2012 source, those that handle images


@dataclass(frozen=True)
class Chapter:
    """What the chapter shows: a prepared set, the scale that it stands for, and which images are looked at closely."""

    scale: Scale
    data: PreparedSet
    place: int  # in the training split, of the image that is changed
    seed: int

    @property
    def name(self) -> str:
        """The set's name for readers; a stand-in is called one."""
        return NAMES.get(self.data.name, self.data.name)

    @property
    def image(self) -> np.ndarray:
        """The image that is changed, (H, W, 3) uint8."""
        return self.data.splits["train"].images[self.place]

    def axes(self, literal: bool = False) -> np.ndarray:
        """Return the principal components of the training pixels' colours as `colour_axes` does, main one last."""
        return colour_axes(self.data.covariance, literal)

    def noise(self, literal: bool = False) -> list[float]:
        """Return the deviation of the noise along each component in grey levels, main one first."""
        return [float(PAPER.noise * np.linalg.norm(axis)) for axis in self.axes(literal).T[::-1]]


def load(scale: Scale, class_shown: int = 0, seed: int = 0) -> Chapter:
    """Open the set that shows `scale`; the stand-in is computed first where it is missing. A few seconds at most."""
    name = next(filter(store.is_prepared, SHOWN[scale]), STAND_IN)
    data = datasets.prepare(STAND_IN) if name == STAND_IN else store.open_set(name)
    place = int(np.flatnonzero(data.splits["train"].labels == class_shown % len(data.classes))[0])
    return Chapter(scale, data, place, seed)


def counts_table() -> Markdown:
    """Return the images of every data set, by split, as published, and which sets are prepared on this machine."""
    short = {name: words.replace(" (images computed from a formula)", "") for name, words in NAMES.items()}
    rows = [(short[name], f"{NUM_CLASSES[name]:,}", *_counts(name)) for name in NAMES]
    here = ", ".join(short[name] for name in NAMES if store.is_prepared(name))
    caption = f"Images of each set; for fall 2009 and 2011 the paper's round numbers. Prepared on this machine: {here}."
    return numbered(rows, ("set", "classes", "train", "val", "test"), caption, "tbl-sets")


def _counts(name: str) -> tuple[str, str, str]:
    """Return the images of the three splits of a set, as its publishers or the paper count them."""
    if name == "fall2009":
        value = paper.get("s6-fall2009").value
        half = f"{value('images').paper * value('test share').paper / 1e6:.2f} million"
        return half, "", half
    if name == "fall2011":
        return f"over {paper.get('s2-imagenet').value('images').paper / 1e6:.0f} million", "", ""
    counts = {split: f"{count:,}" for split, count in datasets.expected_counts(name).items()}
    return counts["train"], counts.get("val", ""), counts.get("test", "no labels" if name == "ilsvrc2012" else "")


def views_table() -> Markdown:
    """Return how many different views an image has, by the paper and by counting."""
    printed = paper.get("s4.1-patches").value("factor")
    offsets = round((printed.paper / 2) ** 0.5)
    cifar = replace(PAPER, crop_side=CIFAR_CROP)
    rows = [
        ("printed in section 4.1", f"{offsets} x {offsets} x 2", f"{printed.paper:,.0f}"),
        (f"{PAPER.crop_side} of 256 pixels", _product(PAPER, 256), f"{PAPER.num_views(256):,}"),
        (f"{CIFAR_CROP} of {CIFAR_SIDE} pixels (3.3)", _product(cifar, CIFAR_SIDE), f"{cifar.num_views(CIFAR_SIDE):,}"),
    ]
    caption = "Views of an image: offsets down, offsets across, mirrored or not."
    return numbered(rows, ("views", "product", "number"), caption, "tbl-views")


def _product(augmentation: Augmentation, side: int) -> str:
    offsets = augmentation.margin(side) + 1
    return f"{offsets} x {offsets} x 2"


def axes_table(chapter: Chapter) -> Markdown:
    """Return the principal colours of the set's training pixels and the noise along each, in both readings, and ILSVRC's."""
    columns = zip(chapter.axes().T[::-1], chapter.noise(), chapter.noise(True), grey_levels(False), strict=True)
    rows = []
    for number, (axis, ours, absurd, ilsvrc) in enumerate(columns, start=1):
        direction = axis / max(np.linalg.norm(axis), 1e-12)
        colour = ", ".join(f"{part + 0:.2f}" for part in direction)
        rows.append((number, colour, f"{ours / PAPER.noise:.1f}", f"{ours:.1f}", f"{absurd:,.0f}", f"{ilsvrc:.1f}"))
    headers = ("axis", "red, green, blue", "pixels", "noise", "by eigenvalues", "noise on ILSVRC")
    caption = f"Principal colours of {chapter.name}: deviations of pixels and of the noise, in grey levels of 0 to 255."
    return numbered(rows, headers, caption, "tbl-axes")


def source_table() -> Markdown:
    """Return what the 2012 source does with images that the paper does not say, or says otherwise: rows of the ledger."""
    chosen = [row for row in ROWS if row.section in ("2", "4.1") or row.source_file.startswith(INPUT_FILES)]
    rows = [(f"{row.paper} ({row.section})" if row.section else row.paper, row.source2012, row.ours) for row in chosen]
    headers = ("the paper (section)", "the 2012 source", "we")
    return numbered(rows, headers, "Images in the paper, in the 2012 source and here.", "tbl-images-2012")


def samples(chapter: Chapter, count: int = 8) -> Figure:
    """Draw one training image of each of `count` classes, as they are stored."""
    split, classes = chapter.data.splits["train"], chapter.data.words
    labels = np.linspace(0, len(classes) - 1, min(count, len(classes))).round().astype(int)
    shown = [split.images[int(np.flatnonzero(split.labels == label)[0])] for label in labels]
    return _grid(chapter, shown, [classes[label].split(",")[0] for label in labels], columns=4)


def mean_image(chapter: Chapter) -> Figure:
    """Draw an image, the mean image, and their difference around grey (paper 2)."""
    difference = chapter.image.astype(np.float64) - chapter.data.mean
    shown = [chapter.image, chapter.data.mean, difference / 2 + 127.5]
    return _grid(chapter, shown, ["an image", "the mean image", "their difference"], columns=3)


def training_views(chapter: Chapter, count: int = 8) -> Figure:
    """Draw the image as the net sees it in `count` epochs of the preset `paper`, with the mean's average colour back."""
    images, index, mean, place = chapter.image[None], np.zeros(1, np.int64), chapter.data.mean, np.array([chapter.place])
    shown = []
    for epoch in range(count):
        x_NCHW = augment(images, index, mean, chapter.axes(), PAPER, chapter.seed, epoch, place)
        shown.append(_visible(x_NCHW, mean.mean((0, 1))))
    return _grid(chapter, shown, [f"epoch {epoch}" for epoch in range(count)], columns=4)


def noisy(chapter: Chapter, literal: bool, count: int = 3) -> list[np.ndarray]:
    """Return the whole image without noise and under `count` draws of it, (H, W, 3), unclipped and with the mean back.

    `literal` multiplies the same draws by eigenvalues in place of deviations.
    """
    whole, axes = replace(PAPER, crop_side=len(chapter.data.mean)), chapter.axes(literal)
    images, zero, mean, place = chapter.image[None], np.zeros(1, np.int64), chapter.data.mean, np.array([chapter.place])
    shown = [chapter.image.astype(np.float64)]
    for epoch in range(count):
        colours = draw_colours(axes, whole, chapter.seed, epoch, place)
        shown.append(_visible(cut(images, zero, Views(zero, zero, zero == 1), mean, whole, colours), mean))
    return shown


def noise_draws(chapter: Chapter, count: int = 3) -> Figure:
    """Draw one image under `count` draws of colour noise: above by deviations, below by the paper's eigenvalues."""
    shown = [*noisy(chapter, False, count), *noisy(chapter, True, count)]
    titles = [title for by in ("deviations", "eigenvalues") for title in ("no noise", *[f"by {by}"] * count)]
    return _grid(chapter, shown, titles, columns=count + 1)


def ten_views(chapter: Chapter) -> Figure:
    """Draw the ten views of a test image, in the order in which the net is shown them (paper 4.1)."""
    name = next(reversed(chapter.data.splits))
    split, mean = chapter.data.splits[name], chapter.data.mean
    label = chapter.data.splits["train"].labels[chapter.place]
    index = np.flatnonzero(split.labels == label)[:1]
    middle = mean.mean((0, 1))
    shown = [_visible(x_NCHW, middle) for x_NCHW in fixed_views(split.images, index, mean, PAPER)]
    return _grid(chapter, shown, [*CORNERS, *["mirrored"] * len(CORNERS)], columns=5)


def _visible(x_NCHW: Tensor, mean: np.ndarray) -> np.ndarray:
    """Return the one image of a batch with the mean added back, (H, W, 3)."""
    return x_NCHW[0].permute(1, 2, 0).double().numpy() + mean


def _grid(chapter: Chapter, images: Sequence[np.ndarray], titles: Sequence[str], columns: int) -> Figure:
    """Draw images (H, W, 3) of 0 to 255, a line or two of text above each, and under all of them what they are."""
    figures.use_style()
    titles = [textwrap.fill(title, 17) for title in titles]
    num_rows, side, above = -(-len(images) // columns), 6 / columns, 0.2 * (1 + max(title.count("\n") for title in titles))
    figure, panels = plt.subplots(num_rows, columns, figsize=(6, num_rows * (side + above)), squeeze=False)
    for axes, image, title in zip(panels.flat, images, titles, strict=False):
        axes.imshow(np.asarray(image).clip(0, 255).round().astype(np.uint8))
        axes.set_title(title, fontsize=10, pad=3)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=figures.GREY, linewidth=0.5)
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.04, hspace=above / side)
    figures.stamp(figure, chapter.scale, chapter.name)
    plt.close(figure)
    return figure


def numbers(chapter: Chapter) -> dict[str, str]:
    """Return the texts that the chapter's prose takes its numbers from."""
    side, data = len(chapter.data.mean), chapter.data
    absurd = np.stack(noisy(chapter, True, count=40)[1:])
    gone = ((absurd <= 0) | (absurd >= 255)).all(axis=(1, 2, 3))
    return {
        "scale": chapter.scale,
        "data": chapter.name,
        "num-train": f"{len(data.splits['train']):,}",
        "num-classes": str(len(data.classes)),
        "side": str(side),
        "crop-side": str(PAPER.crop_side),
        "offsets": str(PAPER.margin(256) + 1),
        "views": f"{PAPER.num_views():,}",
        "paper-views": f"{paper.get('s4.1-patches').value('factor').paper:.0f}",
        "noise-factor": f"{PAPER.noise:g}",
        "noise": f"{chapter.noise()[0]:.1f}",
        "noise-literal": f"{chapter.noise(True)[0]:,.0f}",
        "noise-ilsvrc": f"{grey_levels(False)[0]:.1f}",
        "noise-ilsvrc-literal": f"{grey_levels(True)[0]:,.0f}",
        "gone": f"{gone.mean():.0%}",
        "main-share": f"{np.linalg.eigvalsh(data.covariance)[-1] / data.covariance.trace():.0%}",
    }
