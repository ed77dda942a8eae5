"""Imports the grouped AlexNet that Caffe's authors trained (bvlc_alexnet), from an .npy file of its arrays.

`{layer: [weights, biases]}` with the layers conv1 ... conv5, fc6, fc7, fc8, in one of two orders, told apart by conv1:

    Caffe's own     kernels (out, in, side, side), fully-connected (out, in), fc6 sees map after map
    TensorFlow's    kernels (side, side, in, out), fully-connected (in, out), fc6 sees pixel after pixel, all maps of each:
                    as caffe-tensorflow writes them, for example bvlc_alexnet.npy

How that net differs from the paper's, and what becomes of it here:

- It was shown BGR images; conv1's kernels are turned round, so that the imported net is shown RGB as all of ours.
- Its input has 227 pixels, which 55 windows of conv1 cover exactly. The paper's 224 need 3 zeros to the right and below.
- Response normalisation follows ReLU, alpha is divided by n, and k is 1 where the paper has 2. Its window crosses from one
  half of the maps to the other, as no window of two columns does: see `columns` below.
- Caffe doubles the outputs that dropout keeps in training, where the paper halves all outputs at test time. The weights of
  fc7 and fc8 are doubled, which is exact: logits are the same at test time, and in training under the same masks (but a
  rate moves the doubled weights a quarter as far, relative to their size). Features of fc6 and fc7 are half of Caffe's.
- Its mean was subtracted in BGR, a mean image in training, mostly the mean pixel since; here it is an image of one colour.
- Photographs were warped to 256 x 256 for it, not cut (section 2).

Initial deviations and biases in the config are the paper's: they say nothing of weights that are there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from alexnet.config import UserError
from alexnet.model.alexnet import sides
from alexnet.model.npy import read_layers
from alexnet.model.presets import CONV, ConvLayer, FullLayer, NetConfig, ResponseNorm

LAYERS = (*CONV[:5], "fc6", "fc7", "fc8")
GROUPS = {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}
MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)  # of Caffe's ilsvrc_2012_mean.npy, over all pixels
CROSSING = (
    "The imported net normalises across the border between its halves; two columns do not. Activities of the two maps on "
    "each side of it in layers 1 and 2 come out larger, so logits differ from Caffe's. With columns=1 they do not."
)

Fc6Order = Literal["maps first", "pixels first"]


@dataclass(frozen=True)
class Imported:
    """A net from elsewhere: `load_plain_state(build_alexnet(config, 0, grouped=True), state)`, or `weights.save`."""

    config: NetConfig
    state: dict[str, Tensor]
    mean_image: Tensor  # (H, W, 3), RGB
    warning: str | None  # what this net computes differently from the one imported


def import_caffe(
    path: Path,
    columns: Literal[1, 2] = 1,
    fc6_order: Fc6Order | None = None,
    mean_bgr: tuple[float, float, float] = MEAN_BGR,
    image_side: int = 227,
    pool_first: bool = False,
) -> Imported:
    """Read a grouped AlexNet in one of Caffe's layouts as a plain state and the config that runs it.

    One column computes what Caffe computes: conv2, conv4 and conv5 become kernels over all maps, with zeros for those of
    the other half, which takes twice the products there and keeps the normalisation window that crosses the border. (The
    zeros do not stay zero if the net is trained on.) Two columns are the nearest net of the paper's form; `warning` says
    what differs. `fc6_order` is what fc6 sees first, for a file that mixes both layouts (kernels transposed, say, and fc6
    left alone); None is the layout's own. `pool_first` is for CaffeNet, which pools before it normalises.

    Raises UserError for a file that is not such a net, and never executes anything in it.
    """
    if fc6_order not in (None, *get_args(Fc6Order)) or columns not in (1, 2):
        raise ValueError(
            f"`fc6_order` (={fc6_order!r}) must be one of {get_args(Fc6Order)} and `columns` (={columns}) 1 or 2."
        )
    arrays = read_layers(path)
    try:
        weights, biases = _split(arrays)
        tensorflow = _is_tensorflow(weights["conv1"])
        weights = {name: _turned(name, array, tensorflow) for name, array in weights.items()}
        config = _config(weights, columns, image_side, pool_first)
        _check_inputs(weights, biases, config)
    except ValueError as error:
        raise UserError(
            f"{path} is no grouped AlexNet: {error}. Give import_caffe a file with the arrays of bvlc_alexnet or "
            "bvlc_reference_caffenet, in one of the orders that alexnet.model.caffe describes."
        ) from error
    order = fc6_order or ("pixels first" if tensorflow else "maps first")
    side = sides(config)["pool5"]
    state = _state(weights, biases, columns, side if order == "pixels first" else None)
    mean_image = torch.tensor(mean_bgr[::-1]).expand(image_side, image_side, 3).contiguous()
    return Imported(config, state, mean_image, CROSSING if columns == 2 else None)


def _split(arrays: dict[str, list[np.ndarray]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    if absent := [name for name in LAYERS if len(arrays.get(name, ())) != 2]:
        raise ValueError(f"it has no weights and biases for {absent[0]}")
    return {name: arrays[name][0] for name in LAYERS}, {name: arrays[name][1].reshape(-1) for name in LAYERS}


def _is_tensorflow(conv1: np.ndarray) -> bool:
    shape = conv1.shape
    if len(shape) == 4 and (shape[2] == 3 and shape[0] == shape[1]) != (shape[1] == 3 and shape[2] == shape[3]):
        return shape[2] == 3
    raise ValueError(f"conv1's weights {shape} are square kernels over 3 colours in neither order")


def _turned(name: str, array: np.ndarray, tensorflow: bool) -> np.ndarray:
    """Return weights in Caffe's and torch's order."""
    if name in CONV:
        array = array.transpose(3, 2, 0, 1) if tensorflow and array.ndim == 4 else array
        if array.ndim != 4 or array.shape[2] != array.shape[3]:
            raise ValueError(f"{name}'s weights are not square kernels in the order of conv1's: {array.shape}")
        return array
    # Why: old Caffe files have four dimensions everywhere, the first two of them 1.
    array = array.reshape(array.shape[-2:]) if array.ndim > 2 and set(array.shape[:-2]) == {1} else array
    if array.ndim != 2:
        raise ValueError(f"{name}'s weights are not a matrix: {array.shape}")
    return array.T if tensorflow else array


def _config(weights: dict[str, np.ndarray], columns: int, image_side: int, pool_first: bool) -> NetConfig:
    kernels = {name: _share(name, len(weights[name]), columns) for name in GROUPS}
    units = {name: _share(name, len(weights[name]), columns) for name in ("fc6", "fc7")}
    normed = "activation pool norm" if pool_first else "activation norm pool"
    then = {"conv1": normed, "conv2": normed, "conv5": "activation pool"}
    layers: dict[str, ConvLayer] = {}
    for name in GROUPS:
        side = weights[name].shape[2]
        stride, padding = (4, 0) if name == "conv1" else (1, side // 2)
        layers[name] = ConvLayer(kernels[name], side, stride, padding, then=then.get(name, "activation"))
    return NetConfig(
        columns=columns,
        image_side=image_side,
        **layers,
        **{name: FullLayer(count) for name, count in units.items()},
        fc8=FullLayer(len(weights["fc8"]), bias=0.0),
        norm=ResponseNorm(k=1.0, alpha_per_window=True),
    )


def _share(name: str, count: int, columns: int) -> int:
    if count % columns:
        raise ValueError(f"{name}'s {count} kernels or units cannot be shared by {columns} columns")
    return count // columns


def _check_inputs(weights: dict[str, np.ndarray], biases: dict[str, np.ndarray], config: NetConfig) -> None:
    seen = 3
    for name in LAYERS:
        if name == "fc6":
            seen *= sides(config)["pool5"] ** 2
        expected = seen // GROUPS.get(name, 1)
        if weights[name].shape[1] != expected:
            found = weights[name].shape[1]
            raise ValueError(f"{name} sees {found} inputs, not {expected} as for images of {config.image_side} pixels")
        seen = len(weights[name])
        if len(biases[name]) != seen:
            raise ValueError(f"{name} has {len(biases[name])} biases for {seen} kernels or units")


def _state(
    weights: dict[str, np.ndarray], biases: dict[str, np.ndarray], columns: int, pixels_first: int | None
) -> dict[str, Tensor]:
    """Return the plain state; `pixels_first` is the side of the maps that fc6 sees pixel after pixel."""
    found = dict(weights)
    found["conv1"] = found["conv1"][:, ::-1]
    if pixels_first is not None:
        out = len(found["fc6"])
        by_pixel = found["fc6"].reshape(out, pixels_first, pixels_first, -1)
        found["fc6"] = by_pixel.transpose(0, 3, 1, 2).reshape(out, -1)
    found["fc7"], found["fc8"] = 2 * found["fc7"], 2 * found["fc8"]
    if columns == 1:
        found |= {name: _over_all_maps(found[name]) for name, groups in GROUPS.items() if groups == 2}
    both = {f"{name}.weight": found[name] for name in LAYERS} | {f"{name}.bias": biases[name] for name in LAYERS}
    return {key: torch.from_numpy(np.array(array, np.float32, order="C")) for key, array in both.items()}


def _over_all_maps(kernels: np.ndarray) -> np.ndarray:
    """Return kernels of two groups as kernels over the maps of both, with zeros for the other group's."""
    half, seen = len(kernels) // 2, kernels.shape[1]
    wide = np.zeros((len(kernels), 2 * seen, *kernels.shape[2:]), kernels.dtype)
    wide[:half, :seen], wide[half:, seen:] = kernels[:half], kernels[half:]
    return wide
