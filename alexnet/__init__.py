"""A reproduction of AlexNet. `alexnet.load(path)` gives a trained net from a file of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from alexnet.model.weights import LoadedNet


def load(path: Path | str, device: str = "cpu") -> LoadedNet:
    """Return the net of an exported file, checked and ready to use; see `alexnet.model.weights.load`.

    Its `card` says what it is, `as_seen` turns raw pixels into its input: `net(net.as_seen(pixels_NHWC))`.
    """
    from alexnet.model import weights  # Why here: `import alexnet` stays free of torch.

    return weights.load(path, device)
