"""What a trained net says of anybody's pictures: files, PIL images or arrays, of any size (examples: alexnet/__init__.py).

They are made squares as training images were (paper 2), for nets of crops in ten views (4.1, 6). N pictures, K classes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet import files
from alexnet.config import CifarNet, ColumnNet, RunConfig, UserError
from alexnet.model.weights import LoadedNet
from alexnet.preprocessing import PreparedSet, Split, photograph
from alexnet.training import evaluate
from alexnet.training.distributed import Group
from alexnet.training.precision import settle_cuda

Picture = Path | str | Image.Image | np.ndarray
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm")


def pixels(pictures: Picture | Sequence[Picture], side: int = 256) -> Tensor:
    """Return pictures (N, side, side, 3), uint8, as nets expect them: upright, RGB, the shorter side scaled, the centre.

    Arrays are uint8, (H, W) or (H, W, 3) or, with transparency, (H, W, 4). Raises UserError for what is no picture. Paper 2.
    """
    some = [pictures] if _is_one(pictures) else pictures
    return torch.from_numpy(np.stack([_square(each, side) for each in some]))


def _is_one(pictures: Picture | Sequence[Picture]) -> bool:
    return isinstance(pictures, str | Path | Image.Image) or getattr(pictures, "ndim", 4) < 4


def _square(picture: Picture, side: int) -> np.ndarray:
    first = b""
    try:
        if isinstance(picture, str | Path):
            with Path(picture).open("rb") as stream:
                first = stream.peek(16)
                return photograph.read(stream, side)
        image = picture.copy() if isinstance(picture, Image.Image) else Image.fromarray(_checked(np.asarray(picture)))
        return photograph.square(photograph.to_rgb(image), side)
    except photograph.UNREADABLE as error:
        what = picture if isinstance(picture, str | Path) else "A picture"
        why = getattr(error, "strerror", None) or photograph.why_not(error, first)
        raise UserError(f"{what} cannot be read: {why}. Pictures are JPEG, PNG, GIF, BMP, TIFF, WebP or PPM.") from error


def _checked(array: np.ndarray) -> np.ndarray:
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.dtype != np.uint8 or not array.size or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(f"an array must be uint8, (H, W) or (H, W, 3), and this one is {array.dtype}, {array.shape}")
    return array


def predict(net: LoadedNet, pictures: Picture | Sequence[Picture], top: int = 5) -> list[list[tuple[str, float]]]:
    """Return for each picture the `top` most probable classes, as words with probabilities, the first first."""
    views = "ten" if net.shown else "whole"
    each_NK = _run(net, pictures, lambda *shown: evaluate.predict_split(*shown, "", views)[0])
    most = each_NK.topk(min(top, len(net.words)))
    rows = zip(most.values.tolist(), most.indices.tolist(), strict=True)
    return [[(net.words[k], p) for p, k in zip(values, classes, strict=True)] for values, classes in rows]


def features(net: LoadedNet, pictures: Picture | Sequence[Picture], layer: str = "fc7") -> np.ndarray:
    """Return a layer's outputs (N, D) float32 for each picture's centre. Raises UserError for no such layer, no pictures."""
    return _run(net, pictures, lambda *shown: evaluate.features_split(*shown, "", layer)).numpy()


def ready(net: LoadedNet) -> tuple[SimpleNamespace, RunConfig]:
    """Return what `evaluate` needs of a learner, and the config of its run as far as that says how it is shown images."""
    shape = net.card.net if isinstance(net.card.net, CifarNet) else ColumnNet(num_classes=len(net.card.classes))
    settle_cuda(tf32=False)
    learner = SimpleNamespace(net=net.net, group=Group(net.mean_image.device), precision="fp32")
    return learner, RunConfig(net=shape, augmentation=net.shown)


def _run(net: LoadedNet, pictures: Picture | Sequence[Picture], measure: Callable[..., Tensor]) -> Tensor:
    (learner, config), mean = ready(net), net.mean_image.cpu().numpy()
    some, found = [pictures] if _is_one(pictures) else pictures, []
    if not len(some):
        raise UserError("There are no pictures.")
    for start in range(0, len(some), evaluate.CHUNK):  # Why: a folder's pictures need not fit into memory
        images = pixels(some[start : start + evaluate.CHUNK], len(mean)).numpy()
        split = Split(images, np.zeros(len(images), np.int64))
        data = PreparedSet("pictures", Path(), net.card.classes, {"": split}, mean, np.eye(3), "", False, net.words)
        found.append(measure(learner, data, config))
    return torch.cat(found)


def draw(pictures: Sequence[Picture], found: Sequence[list[tuple[str, float]]], to: Path) -> None:
    """Draw each picture with bars of its classes' probabilities into a file. Raises UserError for a kind that is none."""
    from matplotlib.figure import Figure  # Why here: only drawing needs it.

    count = len(found)
    figure = Figure((7, 2.4 * count), layout="constrained")
    if to.suffix.lower()[1:] not in (kinds := figure.canvas.get_supported_filetypes()):
        raise UserError(f"{to} is no picture that can be drawn: end its name in .svg, .png or .pdf ({', '.join(kinds)}).")
    axes = figure.subplots(count, 2, squeeze=False, width_ratios=(1, 2))
    for (left, right), picture, rows in zip(axes, pictures, found, strict=True):
        left.imshow(pixels(picture)[0].numpy())
        left.axis("off")
        words, probabilities = zip(*reversed(rows), strict=True)
        right.barh(range(len(rows)), probabilities, color="#0072b2")
        right.set(xlim=(0, 1), xlabel="probability", yticks=range(len(rows)), yticklabels=words)
        right.spines[["top", "right"]].set_visible(False)
    with files.replacing(to) as stream:
        figure.savefig(stream, format=to.suffix.lower()[1:])


def files_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder and the folders in it, by name. Raises UserError where there are none."""
    found = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not found:
        what = "has no pictures in it" if folder.is_dir() else "is no folder"
        raise UserError(f"{folder} {what} ({', '.join(SUFFIXES)}).")
    return found
