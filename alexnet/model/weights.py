"""Trained weights as one safetensors file that says what it is and is refused when it is not that.

The file holds the plain state of a net (`alexnet.model.alexnet.plain_state`), whatever its layout was:

    conv1.weight ... conv5.weight    (kernels of all columns, maps that each sees, side, side); conv6 where the net has one
    fc6.weight, fc7.weight           (units of all columns, inputs that each sees); fc6 sees map after map, row after row
    fc8.weight                       (classes, units of fc7)
    <layer>.bias                     one for each kernel, unit or class

with column a first along every first dimension (along the second in fc8.weight), that is, the names and shapes of
`torch.nn.Conv2d(groups=2)` and `torch.nn.Linear` in a single stream. Beside them are `mean_image` (H, W, 3), the mean of the
training images, so that a loaded net can be used on raw pixels (`LoadedNet.as_seen`), and a mini-batch to check the net by:
`check.images`, made by formula, and `check.logits` in float64. The file's metadata has one entry, `alexnet`: the model card
as JSON, with the version of this format and a sha256 of the card and of every tensor.

The digest finds accidents and tampering; it is no signature, since whoever changes a file can renew it.

Shapes: N images, H, W pixels, K classes.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alexnet import randomness
from alexnet.config import UserError, from_dict, to_dict
from alexnet.model.alexnet import AlexNet
from alexnet.model.presets import NetConfig

FORMAT_VERSION = 1
METADATA = "alexnet"
MEAN, IMAGES, LOGITS = "mean_image", "check.images", "check.logits"
NUM_CHECKED = 4  # images in the stored mini-batch, 2.4 MB beside 244
# Why: fp32 logits of both presets at full size were within 1.6e-6 of the largest logit from those in float64, with AVX-512,
# AVX2 or neither. Some sixty times that admits any processor's order of addition, but no other reading of the paper.
TOLERANCE = 1e-4
ADVICE = "Fetch the file again, or export the net again with alexnet.model.weights.save."


@dataclass(frozen=True)
class ModelCard:
    """What a file of weights says of itself."""

    preset: str  # which reading of the paper: paper, source2012, or where imported weights come from
    net: NetConfig
    run_hash: str  # `config_hash` of the run that trained the weights
    classes: tuple[str, ...]  # names, in the order of the logits


class LoadedNet(AlexNet):
    """A net read from a file, its columns merged: grouped convolutions, on one device."""

    def __init__(self, card: ModelCard, mean_HWC: Tensor) -> None:
        super().__init__(card.net, (card.net.column_names,))
        self.card = card
        self.register_buffer("mean_image", mean_HWC, persistent=False)

    def as_seen(self, pixels_NHWC: Tensor) -> Tensor:
        """Return what the net is to be shown of raw RGB images (0-255): their centre minus the mean image's, NCHW.

        The images are squares at least as large as the net's input: 256 pixels, prepared as in section 2. Paper 2 and 6.
        """
        side = self.config.image_side
        seen = _centre(pixels_NHWC.to(self.mean_image.device), side).float() - _centre(self.mean_image[None], side)
        return seen.permute(0, 3, 1, 2)


def save(path: Path, net: AlexNet, card: ModelCard, mean_HWC: Tensor) -> None:
    """Write the weights of a net with all its columns, its card, its mean image and a mini-batch to check it by.

    Written whole or not at all, and the same bytes each time. Raises ValueError where card or mean do not fit the net, and
    UserError for weights that are not finite, such as those of a run that diverged.
    """
    _check_fit(net.config, card, mean_HWC)
    # Why: channels_last kernels of a training become contiguous, which the format requires.
    state = {key: value.detach().float().cpu().contiguous() for key, value in plain_state(net).items()}
    if broken := [key for key, value in state.items() if not value.isfinite().all()]:
        raise UserError(
            f"{path} is not written: {broken[0]} has values that are not finite, so the training diverged. Train the net "
            "at a lower rate (alexnet train --help shows how) and export that."
        )
    tensors = {**state, MEAN: mean_HWC.float().cpu().contiguous(), IMAGES: check_images(net.config.image_side)}
    exact = _built(card, state, tensors[MEAN]).double()
    with torch.no_grad():
        tensors[LOGITS] = exact(tensors[IMAGES].double())
    written = {"format_version": FORMAT_VERSION, **to_dict(card)}
    written["sha256"] = _digest(written, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, {METADATA: json.dumps(written)})
    partial.replace(path)


def load(path: Path | str, device: torch.device | str = "cpu") -> LoadedNet:
    """Return the net of a file that `save` wrote, in evaluation mode, after it has scored the stored mini-batch again.

    Its `card` says what it is; `as_seen` turns raw pixels into its input. It is checked on the processor, in fp32, and
    moved to `device` afterwards, where faster arithmetic may be less exact. Raises UserError for a file that is missing,
    damaged, of another format, or not what its card says.
    """
    path = Path(path)
    written, tensors = _read(path)
    if (version := written.get("format_version")) != FORMAT_VERSION:
        raise _refused(path, f"its format is version {version!r}, and this library reads version {FORMAT_VERSION}")
    digest = written.pop("sha256", None)
    try:
        card = from_dict(ModelCard, {key: value for key, value in written.items() if key != "format_version"})
        state = {key: value for key, value in tensors.items() if key not in (MEAN, IMAGES, LOGITS)}
        _check_batch(card.net, tensors)
        _check_fit(card.net, card, tensors[MEAN])
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


def _check_fit(config: NetConfig, card: ModelCard, mean_HWC: Tensor) -> None:
    if card.net != config:
        raise ValueError("`card.net` must be the config of the net")
    if len(card.classes) != config.fc8.units:
        raise ValueError(f"`classes` ({len(card.classes)} of them) must be as many as the logits ({config.fc8.units})")
    shape = tuple(mean_HWC.shape)
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3 or shape[0] < config.image_side:
        raise ValueError(f"the mean image {shape} must be a square of RGB pixels, at least {config.image_side} wide")


def _check_batch(config: NetConfig, tensors: dict[str, Tensor]) -> None:
    if absent := [key for key in (MEAN, IMAGES, LOGITS) if key not in tensors]:
        raise ValueError(f"the tensor {absent[0]} is missing")
    count, side = max(1, len(tensors[IMAGES])), config.image_side
    shapes = {IMAGES: (count, 3, side, side), LOGITS: (count, config.fc8.units), MEAN: tuple(tensors[MEAN].shape)}
    for key, shape in shapes.items():
        dtype = torch.float64 if key == LOGITS else torch.float32
        if (tensors[key].dtype, tuple(tensors[key].shape)) != (dtype, shape):
            raise ValueError(f"{key} is {tensors[key].dtype} {tuple(tensors[key].shape)}, not {dtype} {shape}")


def _built(card: ModelCard, state: dict[str, Tensor], mean_HWC: Tensor) -> LoadedNet:
    """Return the net in evaluation mode with these very tensors as weights; ValueError if they do not fit."""
    if other := [key for key, value in state.items() if value.dtype != torch.float32]:
        raise ValueError(f"{other[0]} is {state[other[0]].dtype}, not torch.float32")
    with torch.device("meta"):
        net = LoadedNet(card, mean_HWC)
    prefix = f"columns.{card.net.column_names}."
    if absent := [key for key in net.state_dict() if key.removeprefix(prefix) not in state]:
        raise ValueError(f"the tensor {absent[0].removeprefix(prefix)} is missing")
    load_plain_state(net, state)  # Why: on meta it compares names and shapes, and allocates and copies nothing.
    net.load_state_dict({prefix + key: value for key, value in state.items()}, assign=True)
    return net.eval().to(memory_format=torch.channels_last)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            # Why: tensors of the file are views of it and would follow it where it is overwritten.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
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
