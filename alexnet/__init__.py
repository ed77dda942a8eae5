"""A reproduction of AlexNet, and a trained net for use.

net = alexnet.load("alexnet.safetensors")               a torch module; `net.card` says what it is
alexnet.predict(net, ["dog.jpg", picture, array])       for each the top five: [("English springer", 0.71), ...]
alexnet.features(net, "dog.jpg", "fc7")                 (1, 4096)
net(net.as_seen(alexnet.pixels("dog.jpg")))             logits (1, 1000), from (1, 256, 256, 3) pixels
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from alexnet.model.weights import LoadedNet
    from alexnet.pictures import features, pixels, predict

__all__ = ["features", "load", "pixels", "predict"]


def load(path: Path | str, device: str = "cpu") -> LoadedNet:
    """Return the net of an exported file, checked and ready to use; see `alexnet.model.weights.load`.

    Its `card` says what it is, `as_seen` turns raw pixels into its input: `net(net.as_seen(pixels_NHWC))`.
    """
    from alexnet.model import weights  # Why here: `import alexnet` stays free of torch.

    return weights.load(path, device)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from alexnet import pictures

    return getattr(pictures, name)
