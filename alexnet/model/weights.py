"""Trained weights as one safetensors file that says what it is and is refused when it is not that.

The file holds the plain state of a net (`Net.plain_state`). Of the network of Figure 2 that is

    conv1.weight ... conv5.weight    (kernels of all columns, maps that each sees, side, side); conv6 where the net has one
    fc6.weight, fc7.weight           (units of all columns, inputs that each sees); fc6 sees map after map, row after row
    fc8.weight                       (classes, units of fc7)
    <layer>.bias                     one for each kernel, unit or class

with column a first, the names and shapes of `torch.nn.Conv2d(groups=2)` and `torch.nn.Linear`. With them are `mean_image`
(H, W, 3) and a mini-batch to check the net by: `check.images`, made by formula, and `check.logits` in float64. The metadata
has one entry, `alexnet`: the model card as JSON, with the version of this format and a sha256 of the card and every tensor.

Shapes: N images, H, W pixels, K classes.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from alexnet import files, randomness
from alexnet.config import Augmentation, CifarNet, UserError, from_dict, to_dict
from alexnet.model.net import Net, blank
from alexnet.model.presets import NetConfig

FORMAT_VERSION = 1
METADATA = "alexnet"
MEAN, IMAGES, LOGITS = "mean_image", "check.images", "check.logits"
NUM_CHECKED = 4  # images in the stored mini-batch, 2.4 of 246 MB
# Why: fp32 logits of both presets at full size were within 1.6e-6 of the largest logit from those in float64, with AVX-512,
# AVX2 or neither. Some sixty times that admits any CPU's order of addition, but no other reading of the paper.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ModelCard:
    """What a file of weights says of itself."""

    preset: str  # which reading of the paper (paper, source2012), or a topology
    net: NetConfig | CifarNet
    run_hash: str  # `config_hash` of the run that trained the weights
    classes: tuple[str, ...]  # names, in the order of the logits
    words: tuple[str, ...] = ()  # what people call the classes, where that differs
    shown: Augmentation | None = None  # how the net is shown images; None: whole, or as the paper's text says if it crops


class LoadedNet(nn.Module):
    """A net read from a file with what belongs to it; `net` has its columns merged: grouped convolutions, on one device."""

    def __init__(self, net: Net, card: ModelCard, mean_HWC: Tensor) -> None:
        super().__init__()
        self.net, self.card = net, card
        self.words = card.words or card.classes
        crops = net.image_side < len(mean_HWC)
        self.shown = card.shown or (Augmentation(crop_side=net.image_side) if crops else None)
        self.register_buffer("mean_image", mean_HWC.clone(), persistent=False)

    def as_seen(self, pixels_NHWC: Tensor) -> Tensor:
        """Return raw RGB images (0-255) as the net sees them (paper 2): centre minus mean. ValueError for others."""
        side, whole, (H, W) = self.net.image_side, len(self.mean_image), pixels_NHWC.shape[1:3]
        if not side <= min(H, W) <= whole:
            raise ValueError(f"`pixels_NHWC` ({H} x {W}) must be {side} to {whole} wide or high, whichever is less.")
        pixels = _centre(pixels_NHWC.to(self.mean_image.device), side).float()
        return (pixels - _centre(self.mean_image[None], side)).permute(0, 3, 1, 2)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the (N, K) logits of what `as_seen` gives."""
        return self.net(images_NCHW)


def _centre(pixels_NHWC: Tensor, side: int) -> Tensor:
    top, left = ((length - side) // 2 for length in pixels_NHWC.shape[1:3])
    return pixels_NHWC[:, top : top + side, left : left + side]


def save(path: Path, net: Net, card: ModelCard, mean_HWC: Tensor) -> None:
    """Write a net's weights, card, mean image and a mini-batch to check it by; UserError for weights that are not finite."""
    # Why: channels_last kernels of a training become contiguous, which the format requires.
    state = {key: value.detach().float().cpu().contiguous() for key, value in net.plain_state().items()}
    if broken := [key for key, value in state.items() if not value.isfinite().all()]:
        why = f"{broken[0]} has values that are not finite, so the training diverged"
        raise UserError(f"{path} is not written: {why}. Train it at a lower learning rate (alexnet train --help).")
    tensors = {**state, MEAN: mean_HWC.float().cpu().contiguous(), IMAGES: check_images(net.image_side)}
    with torch.no_grad():
        tensors[LOGITS] = _built(card, tensors).double()(tensors[IMAGES].double())
    written = {"format_version": FORMAT_VERSION, **to_dict(card)}
    written["sha256"] = _digest(written, tensors)
    with files.replacing(path) as stream:
        stream.write(to_bytes(tensors, {METADATA: json.dumps(written)}))


def load(path: Path | str, device: torch.device | str = "cpu") -> LoadedNet:
    """Return the net of a file that `save` wrote, in evaluation mode, checked by its stored mini-batch on the CPU in fp32.

    Raises UserError for a file that is missing, damaged, of another format, or not what its card says.
    """
    path = Path(path)
    written, tensors = _read(path)
    if (version := written.get("format_version")) != FORMAT_VERSION:
        raise _refused(path, f"its format is version {version!r}, and this library reads version {FORMAT_VERSION}")
    if written.pop("sha256", None) != _digest(written, tensors):
        raise _refused(path, "its contents have changed since it was written (sha256)")
    try:
        del written["format_version"]
        loaded = _built(from_dict(ModelCard, written), tensors)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            difference = (loaded(tensors[IMAGES]) - tensors[LOGITS]).abs().max().item()
        allowed = TOLERANCE * tensors[LOGITS].abs().max().item()
    except Exception as error:  # Why all: a card that somebody made up may ask for anything.
        raise _refused(path, f"its card and its tensors do not fit ({error})") from error
    if not difference <= allowed:
        raise _refused(path, f"its logits of the stored images are off by {difference:.2g}, where {allowed:.2g} is allowed")
    return loaded.to(device)


def check_images(side: int) -> Tensor:
    """Return the mini-batch (N, 3, side, side) to check a net by: like photographs it has most energy in large patterns."""
    coarse = torch.from_numpy(randomness.normal(0, "check-images/coarse", (NUM_CHECKED, 3, 8, 8)))
    fine = torch.from_numpy(randomness.normal(0, "check-images/fine", (NUM_CHECKED, 3, side, side)))
    return F.interpolate(60 * coarse, side, mode="bilinear") + 20 * fine


def _built(card: ModelCard, tensors: dict[str, Tensor]) -> LoadedNet:
    """Return the net in evaluation mode with copies of these tensors as weights; ValueError if they do not fit."""
    state = {key: value for key, value in tensors.items() if key not in (MEAN, IMAGES, LOGITS)}
    names = (card.net.column_names,) if isinstance(card.net, NetConfig) else ()
    with torch.device("meta"):
        net = blank(card.net, names)
    net.load_plain_state(state)  # Why: on meta it compares names and shapes, and allocates and copies nothing.
    net.to_empty(device="cpu")
    net.load_plain_state(state)
    return LoadedNet(net, card, tensors[MEAN]).eval().to(memory_format=torch.channels_last)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if path.exists() and not path.is_file():  # Why: opening a pipe waits for ever
        raise UserError(f"{path} cannot be read (it is no plain file). Give the path of an exported net.")
    tensors: dict[str, Any] = {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return dict(json.loads(file.metadata()[METADATA])), tensors
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Give the path of an exported net.") from error
    except SafetensorError as error:
        why = f"it is not a whole safetensors file ({error})"
    except (KeyError, TypeError, ValueError):
        why = "it has no model card of this library in its metadata"
    with suppress(Exception):  # Why all: a file of another kind raises whatever its first bytes lead to.
        if not tensors:
            tensors = dict.fromkeys(torch.load(path, map_location="cpu", weights_only=True).keys())  # executes nothing
            why = "it is a file of torch.save, such as a run's own, without a model card"
    if {"features.0.weight", "classifier.6.weight"} <= set(tensors):
        why = "it is torchvision's AlexNet, another net: one column, 64 kernels in conv1, no response normalisation"
    raise _refused(path, why)


def _digest(written: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256(json.dumps(written, sort_keys=True).encode())
    for key in sorted(tensors):
        found.update(f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)}".encode())
        found.update(tensors[key].reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _refused(path: Path, why: str) -> UserError:
    return UserError(f"{path} is refused: {why}. Fetch the file again, or export the net again (alexnet export).")
