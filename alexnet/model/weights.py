"""Trained weights as one safetensors file that says what it is and is refused when it is not that; and those of Caffe.

The file holds the plain state of a net (`Net.plain_state`), whatever its layout was. Of the network of Figure 2 that is

    conv1.weight ... conv5.weight    (kernels of all columns, maps that each sees, side, side); conv6 where the net has one
    fc6.weight, fc7.weight           (units of all columns, inputs that each sees); fc6 sees map after map, row after row
    fc8.weight                       (classes, units of fc7)
    <layer>.bias                     one for each kernel, unit or class

with column a first along every first dimension (along the second in fc8.weight), that is, the names and shapes of
`torch.nn.Conv2d(groups=2)` and `torch.nn.Linear` in a single stream. With them are `mean_image` (H, W, 3), the mean of the
training images, so that a loaded net can be used on raw pixels (`LoadedNet.as_seen`), and a mini-batch to check the net by:
`check.images`, made by formula, and `check.logits` in float64. The file's metadata has one entry, `alexnet`: the model card
as JSON, with the version of this format and a sha256 of the card and of every tensor.

The digest finds accidents and tampering; it is no signature, since whoever changes a file can renew it.

`load_caffe` reads the grouped AlexNet that Caffe's authors trained (bvlc_alexnet) from an .npz file of `conv1.weight`,
`conv1.bias` ... `fc8.bias`. `CONVERSION` is the line that makes it of bvlc_alexnet.npy, for who trusts that file. Arrays are
in one of two orders, told apart by conv1:

    Caffe's own     kernels (out, in, side, side), fully-connected (out, in), fc6 sees map after map
    TensorFlow's    kernels (side, side, in, out), fully-connected (in, out), fc6 sees pixel after pixel, all maps of each:
                    as caffe-tensorflow writes them, for example bvlc_alexnet.npy

How that net differs from the paper's, and what becomes of it here:

- It was shown BGR images; conv1's kernels are turned round, so that the imported net is shown RGB as all of ours. Its mean
  was subtracted in BGR, a mean image in training, mostly the mean pixel since; here it is an image of one colour.
- Its input has 227 pixels, which 55 windows of conv1 cover exactly. The paper's 224 need 3 zeros to the right and below.
  Photographs were warped to 256 x 256 for it, not cropped (section 2).
- Response normalisation follows ReLU, alpha is divided by n, and k is 1 where the paper has 2. Its window crosses from one
  half of the maps to the other, as no window of two columns does.
- Caffe doubles the outputs that dropout keeps in training, where the paper halves all outputs at test time. The weights of
  fc7 and fc8 are doubled, which is exact: logits are the same at test time, and in training under the same masks (but a
  learning rate moves the doubled weights a quarter as far, relative to their size). Features of fc6 and fc7 are half of
  Caffe's.
- Initial sds and biases in the config are the paper's: they say nothing of weights that are there.

Shapes: N images, H, W pixels, K classes.
"""

import hashlib
import json
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from alexnet import files, randomness
from alexnet.config import CifarNet, UserError, from_dict, to_dict
from alexnet.model.net import Net, blank
from alexnet.model.presets import COLUMN_NAMES, CONV, ConvLayer, FullLayer, NetConfig, ResponseNorm, num_columns_of, sides

FORMAT_VERSION = 1
METADATA = "alexnet"
MEAN, IMAGES, LOGITS = "mean_image", "check.images", "check.logits"
NUM_CHECKED = 4  # images in the stored mini-batch, 2.4 of 246 MB
# Why: fp32 logits of both presets at full size were within 1.6e-6 of the largest logit from those in float64, with AVX-512,
# AVX2 or neither. Some sixty times that admits any CPU's order of addition, but no other reading of the paper.
TOLERANCE = 1e-4
ADVICE = "Fetch the file again, or export the net again with alexnet.model.weights.save."

GROUPS = {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2, "fc6": 1, "fc7": 1, "fc8": 1}  # of the inputs
MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)  # of Caffe's ilsvrc_2012_mean.npy, over all pixels
CONVERSION = (  # Why by the user: to load the pickles of an .npy file is to execute what is in it
    'np.savez("bvlc_alexnet.npz", **{f"{layer}.{kind}": array for layer, both in np.load("bvlc_alexnet.npy", '
    'allow_pickle=True, encoding="latin1").item().items() for kind, array in zip(("weight", "bias"), both)})'
)
CROSSING = (
    "The imported net normalises across the border between its halves; two columns do not. Activities of the two maps on "
    "each side of it in layers 1 and 2 come out larger, so logits differ from Caffe's. With columns=1 they do not."
)
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class ModelCard:
    """What a file of weights says of itself."""

    preset: str  # which reading of the paper (paper, source2012), a topology, or where imported weights come from
    net: NetConfig | CifarNet
    run_hash: str  # `config_hash` of the run that trained the weights
    classes: tuple[str, ...]  # names, in the order of the logits


class LoadedNet(nn.Module):
    """A net read from a file with what belongs to it; `net` has its columns merged: grouped convolutions, on one device."""

    def __init__(self, net: Net, card: ModelCard, mean_HWC: Tensor) -> None:
        super().__init__()
        self.net, self.card = net, card
        self.register_buffer("mean_image", mean_HWC.clone(), persistent=False)

    def as_seen(self, pixels_NHWC: Tensor) -> Tensor:
        """Return what the net is to be shown of raw RGB images (0-255): their centre minus the mean image's, NCHW.

        The images are squares at least as large as the net's input: 256 pixels, prepared as in section 2. Paper 2 and 6.
        """
        side = self.net.image_side
        pixels = _centre(pixels_NHWC.to(self.mean_image.device), side).float()
        return (pixels - _centre(self.mean_image[None], side)).permute(0, 3, 1, 2)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the (N, K) logits of what `as_seen` gives."""
        return self.net(images_NCHW)


def save(path: Path, net: Net, card: ModelCard, mean_HWC: Tensor) -> None:
    """Write the weights of a net with all its columns, its card, its mean image and a mini-batch to check it by.

    Written whole or not at all, and the same bytes each time. Raises ValueError where card or mean do not fit the net, and
    UserError for weights that are not finite, such as those of a run that diverged.
    """
    if card.net != net.config:
        raise ValueError("`card.net` must be the config of the net")
    _check_card(card, mean_HWC)
    # Why: channels_last kernels of a training become contiguous, which the format requires.
    state = {key: value.detach().float().cpu().contiguous() for key, value in net.plain_state().items()}
    if broken := [key for key, value in state.items() if not value.isfinite().all()]:
        raise UserError(
            f"{path} is not written: {broken[0]} has values that are not finite, so the training diverged. Train the net "
            "at a lower learning rate (alexnet train --help shows how) and export that."
        )
    tensors = {**state, MEAN: mean_HWC.float().cpu().contiguous(), IMAGES: check_images(net.image_side)}
    exact = _built(card, state, tensors[MEAN]).double()
    with torch.no_grad():
        tensors[LOGITS] = exact(tensors[IMAGES].double())
    written = {"format_version": FORMAT_VERSION, **to_dict(card)}
    written["sha256"] = _digest(written, tensors)
    with files.replacing(path) as stream:
        stream.write(to_bytes(tensors, {METADATA: json.dumps(written)}))


def load(path: Path | str, device: torch.device | str = "cpu") -> LoadedNet:
    """Return the net of a file that `save` wrote, in evaluation mode, after it has scored the stored mini-batch again.

    Its `card` says what it is; `as_seen` turns raw pixels into its input. It is checked on the CPU, in fp32, and moved to
    `device` afterwards, where faster arithmetic may be less exact. Raises UserError for a file that is missing, damaged, of
    another format, or not what its card says.
    """
    path = Path(path)
    written, tensors = _read(path)
    if (version := written.get("format_version")) != FORMAT_VERSION:
        raise _refused(path, f"its format is version {version!r}, and this library reads version {FORMAT_VERSION}")
    digest = written.pop("sha256", None)
    try:
        card = from_dict(ModelCard, {key: value for key, value in written.items() if key != "format_version"})
        state = {key: value for key, value in tensors.items() if key not in (MEAN, IMAGES, LOGITS)}
        _check_batch(card, tensors)
        _check_card(card, tensors[MEAN])
        net = _built(card, state, tensors[MEAN])
    except (TypeError, AttributeError, ValueError) as error:
        raise _refused(path, f"its card and its tensors do not fit ({error})") from error
    if _digest(written, tensors) != digest:
        raise _refused(path, "its contents have changed since it was written (sha256)")
    _score_again(path, net, tensors)
    return net.to(device)


def check_images(side: int) -> Tensor:
    """Return the mini-batch (N, 3, side, side) by which a net is checked: soft colours and noise, no photograph.

    Like photographs minus their mean they have most energy in large patterns, so that every layer is at work.
    """
    coarse = torch.from_numpy(randomness.normal(0, "check-images/coarse", (NUM_CHECKED, 3, 8, 8)))
    fine = torch.from_numpy(randomness.normal(0, "check-images/fine", (NUM_CHECKED, 3, side, side)))
    return F.interpolate(60 * coarse, side, mode="bilinear") + 20 * fine


def _check_card(card: ModelCard, mean_HWC: Tensor) -> None:
    if len(card.classes) != card.net.num_classes:
        raise ValueError(f"`classes` ({len(card.classes)} of them) must be as many as the logits ({card.net.num_classes})")
    shape, side = tuple(mean_HWC.shape), card.net.image_side
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3 or shape[0] < side:
        raise ValueError(f"the mean image {shape} must be a square of RGB pixels, at least {side} wide")


def _check_batch(card: ModelCard, tensors: dict[str, Tensor]) -> None:
    if absent := [key for key in (MEAN, IMAGES, LOGITS) if key not in tensors]:
        raise ValueError(f"the tensor {absent[0]} is missing")
    count, side = max(1, len(tensors[IMAGES])), card.net.image_side
    shapes = {IMAGES: (count, 3, side, side), LOGITS: (count, card.net.num_classes), MEAN: tuple(tensors[MEAN].shape)}
    for key, shape in shapes.items():
        dtype = torch.float64 if key == LOGITS else torch.float32
        if (tensors[key].dtype, tuple(tensors[key].shape)) != (dtype, shape):
            raise ValueError(f"{key} is {tensors[key].dtype} {tuple(tensors[key].shape)}, not {dtype} {shape}")


def _built(card: ModelCard, state: dict[str, Tensor], mean_HWC: Tensor) -> LoadedNet:
    """Return the net in evaluation mode with copies of these tensors as weights; ValueError if they do not fit."""
    if other := [key for key, value in state.items() if value.dtype != torch.float32]:
        raise ValueError(f"{other[0]} is {state[other[0]].dtype}, not torch.float32")
    with torch.device("meta"):
        net = blank(card.net, (COLUMN_NAMES[: num_columns_of(card.net)],))
    net.load_plain_state(state)  # Why: on meta it compares names and shapes, and allocates and copies nothing.
    net.to_empty(device="cpu")
    net.load_plain_state(state)
    return LoadedNet(net, card, mean_HWC).eval().to(memory_format=torch.channels_last)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            written = json.loads((file.metadata() or {})[METADATA])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Give the path of an exported net.") from error
    except SafetensorError as error:
        raise _refused(path, f"it is not a whole safetensors file ({error})") from error
    except (KeyError, ValueError) as error:
        raise _refused(path, "it has no model card of this library in its metadata") from error
    if not isinstance(written, dict):
        raise _refused(path, "its model card is not a dictionary")
    return written, tensors


def _score_again(path: Path, net: LoadedNet, tensors: dict[str, Tensor]) -> None:
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        logits = net(tensors[IMAGES])
    difference = (logits - tensors[LOGITS]).abs().max().item()
    allowed = TOLERANCE * tensors[LOGITS].abs().max().item()
    if not difference <= allowed:
        raise _refused(path, f"its logits of the stored images are off by {difference:.2g}, where {allowed:.2g} is allowed")


def _digest(written: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256(json.dumps(written, sort_keys=True).encode())
    for key in sorted(tensors):
        found.update(f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)}".encode())
        found.update(tensors[key].numpy())
    return found.hexdigest()


def _centre(pixels_NHWC: Tensor, side: int) -> Tensor:
    _, H, W, _ = pixels_NHWC.shape
    if min(H, W) < side:
        raise ValueError(f"`pixels_NHWC` ({H} x {W}) must be at least {side} wide and high.")
    top, left = (H - side) // 2, (W - side) // 2
    return pixels_NHWC[:, top : top + side, left : left + side]


def _refused(path: Path, why: str) -> UserError:
    return UserError(f"{path} is refused: {why}. {ADVICE}")


def load_caffe(
    path: Path | str,
    columns: Literal[1, 2] = 1,
    fc6_order: Literal["maps first", "pixels first"] | None = None,
    mean_bgr: tuple[float, float, float] = MEAN_BGR,
    image_side: int = 227,
    pool_first: bool = False,
) -> LoadedNet:
    """Read the grouped AlexNet of Caffe's authors, columns merged, as the docstring of this module describes it.

    One column computes what Caffe computes: conv2, conv4 and conv5 become kernels over all maps, with zeros for those of
    the other half, which takes twice the products there and keeps the normalisation window that crosses the border. (The
    zeros do not stay zero if the net is trained on.) Two columns are the nearest net of the paper's form, and a warning says
    what differs. `fc6_order` is what fc6 sees first, for a file that mixes both orders; None is the order's own.
    `pool_first` is for CaffeNet, which pools before it normalises. Raises UserError for a file that is not such a net, and
    never executes anything in it.
    """
    if fc6_order not in (None, "maps first", "pixels first") or columns not in (1, 2):
        raise ValueError(f"`fc6_order` (={fc6_order!r}) is None or what comes first, and `columns` (={columns}) 1 or 2.")
    try:
        weights, biases = _read_arrays(Path(path))
        is_tensorflow = _is_tensorflow(weights["conv1"])
        weights = {name: _in_caffes_order(name, array, is_tensorflow) for name, array in weights.items()}
        config = _caffe_config(weights, columns, image_side, pool_first)
        _check_inputs(weights, biases, config)
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is no grouped AlexNet: {reason}. Give an .npz file with the arrays of bvlc_alexnet or "
            f"bvlc_reference_caffenet, made by: {CONVERSION}"
        ) from error
    is_pixels_first = is_tensorflow if fc6_order is None else fc6_order == "pixels first"
    state = _state(weights, biases, columns, sides(config)["pool5"] if is_pixels_first else None)
    if columns == 2:
        warnings.warn(CROSSING, stacklevel=2)
    mean_image = torch.tensor(mean_bgr[::-1]).expand(image_side, image_side, 3)
    card = ModelCard("bvlc_alexnet", config, "imported", tuple(f"class {k}" for k in range(config.num_classes)))
    return _built(card, state, mean_image)


def _read_arrays(path: Path) -> tuple[Arrays, Arrays]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    if absent := [name for name in GROUPS if not {f"{name}.weight", f"{name}.bias"} <= arrays.keys()]:
        raise ValueError(f"it has no weights and biases for {absent[0]}")
    return {n: arrays[f"{n}.weight"] for n in GROUPS}, {n: arrays[f"{n}.bias"].reshape(-1) for n in GROUPS}


def _is_tensorflow(conv1: np.ndarray) -> bool:
    shape = conv1.shape
    if len(shape) == 4 and (shape[2] == 3 and shape[0] == shape[1]) != (shape[1] == 3 and shape[2] == shape[3]):
        return shape[2] == 3
    raise ValueError(f"conv1's weights {shape} are square kernels over 3 colours in neither order")


def _in_caffes_order(name: str, array: np.ndarray, is_tensorflow: bool) -> np.ndarray:
    if name in CONV:
        array = array.transpose(3, 2, 0, 1) if is_tensorflow and array.ndim == 4 else array
        if array.ndim != 4 or array.shape[2] != array.shape[3]:
            raise ValueError(f"{name}'s weights are not square kernels in the order of conv1's: {array.shape}")
        return array
    # Why: old Caffe files have four dimensions everywhere, the first two of them 1.
    array = array.reshape(array.shape[-2:]) if array.ndim > 2 and set(array.shape[:-2]) == {1} else array
    if array.ndim != 2:
        raise ValueError(f"{name}'s weights are not a matrix: {array.shape}")
    return array.T if is_tensorflow else array


def _caffe_config(weights: Arrays, columns: int, image_side: int, pool_first: bool) -> NetConfig:
    for name in GROUPS:
        if len(weights[name]) % columns and name != "fc8":
            raise ValueError(f"{name}'s {len(weights[name])} kernels or units cannot be shared by {columns} columns")
    normed = "activation pool norm" if pool_first else "activation norm pool"
    then = {"conv1": normed, "conv2": normed, "conv5": "activation pool"}
    layers: dict[str, ConvLayer] = {}
    for name in CONV[:5]:
        side = weights[name].shape[2]
        stride, padding = (4, 0) if name == "conv1" else (1, side // 2)
        layers[name] = ConvLayer(len(weights[name]) // columns, side, stride, padding, then=then.get(name, "activation"))
    return NetConfig(
        columns=columns,
        image_side=image_side,
        **layers,
        fc6=FullLayer(len(weights["fc6"]) // columns),
        fc7=FullLayer(len(weights["fc7"]) // columns),
        fc8=FullLayer(len(weights["fc8"]), bias=0.0),
        norm=ResponseNorm(k=1.0, alpha_per_window=True),
    )


def _check_inputs(weights: Arrays, biases: Arrays, config: NetConfig) -> None:
    seen = 3
    for name, groups in GROUPS.items():
        if name == "fc6":
            seen *= sides(config)["pool5"] ** 2
        if (found := weights[name].shape[1]) != seen // groups:
            raise ValueError(f"{name} sees {found} inputs, not {seen // groups} as for images of {config.image_side} pixels")
        seen = len(weights[name])
        if len(biases[name]) != seen:
            raise ValueError(f"{name} has {len(biases[name])} biases for {seen} kernels or units")


def _state(weights: Arrays, biases: Arrays, columns: int, pixels_first: int | None) -> dict[str, Tensor]:
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
    both = {f"{name}.weight": found[name] for name in GROUPS} | {f"{name}.bias": biases[name] for name in GROUPS}
    return {key: torch.from_numpy(np.array(array, np.float32, order="C")) for key, array in both.items()}


def _over_all_maps(kernels: np.ndarray) -> np.ndarray:
    """Return kernels of two groups as kernels over the maps of both, with zeros for the other group's."""
    half, seen = len(kernels) // 2, kernels.shape[1]
    over_all = np.zeros((len(kernels), 2 * seen, *kernels.shape[2:]), kernels.dtype)
    over_all[:half, :seen], over_all[half:, seen:] = kernels[:half], kernels[half:]
    return over_all
