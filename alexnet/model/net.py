"""What every net can do, and from a config to a net with its initial weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from alexnet import config
from alexnet.config import UserError
from alexnet.model.column_parallel import Exchange
from alexnet.model.layers import StepKey
from alexnet.model.presets import NetConfig, layers_of

Of = Callable[[nn.Parameter], Tensor]


class Net(nn.Module):
    """A net as training, evaluation and files of weights see it; what is inside is nobody else's business.

    A *plain state* has the tensors of the whole net under names that do not depend on where its columns live, such as
    `conv2.weight`. The tensors are the weights, or whatever belongs to each of them, such as velocities.
    """

    image_side: int  # pixels
    layer_names: tuple[str, ...]  # in order; the last one gives the logits
    has_dropout: bool = False  # if so, training needs a step key

    def forward(self, images_NCHW: Tensor, key: StepKey | None = None) -> Tensor:
        """Return the (N, K) logits, never below fp32, of 0-255 pixels minus the mean; training with dropout needs `key`."""
        return self._run(images_NCHW, self.layer_names[-1], key)

    def features(self, images_NCHW: Tensor, layer: str) -> Tensor:
        """Return the outputs of a layer below the last, columns side by side along dim 1; UserError for no such layer."""
        if layer not in self.layer_names[:-1]:
            raise UserError(f"`layer` (={layer!r}) must be one of {', '.join(self.layer_names[:-1])}.")
        return self._run(images_NCHW, layer)

    def _run(self, images_NCHW: Tensor, last: str, key: StepKey | None = None) -> Tensor:
        raise NotImplementedError

    def initialise(self, seed: int) -> None:
        """Fill the weights and biases with their initial values for `seed` (paper 5)."""
        raise NotImplementedError

    def plain_state(self, of: Of = Tensor.detach) -> dict[str, Tensor]:
        """Return the plain state of the weights, or of what `of` gives for each; ranks that share the columns all call."""
        return {name: of(parameter) for name, parameter in self.named_parameters()}

    def load_plain_state(self, state: dict[str, Tensor], into: Of = Tensor.detach) -> None:
        """Copy a plain state into the weights, or into what `into` gives for each; a net takes its own columns' part.

        Raises ValueError, before anything is copied, if a tensor is missing, is left over or has another shape.
        """
        check_state(state, self)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                into(parameter).copy_(state[name])


def check_state(state: dict[str, Tensor], whole: nn.Module) -> None:
    """Raise ValueError unless a plain state has tensors of just the names and shapes of the parameters of `whole`."""
    shapes = {name: parameter.shape for name, parameter in whole.named_parameters()}
    if differing := sorted(state.keys() ^ shapes.keys()):
        raise ValueError(f"The {'net' if differing[0] in state else 'state'} has no {differing[0]!r}.")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}, the net has {tuple(shape)}.")


def blank(net: config.Net | NetConfig, names: Sequence[str] = (), exchange: Exchange | None = None) -> Net:
    """Return the net without initial weights: the one dispatch over the classes of configs."""
    # Why here: both modules have a subclass of `Net`.
    from alexnet.model.alexnet import AlexNet
    from alexnet.model.cifar import CifarStack

    if isinstance(net, config.CifarNet):
        return CifarStack(net)
    return AlexNet(net if isinstance(net, NetConfig) else layers_of(net), names, exchange)


def build(net: config.Net | NetConfig, seed: int, names: Sequence[str] = (), exchange: Exchange | None = None) -> Net:
    """Build the net, for channels_last images, with its initial weights for `seed`, the same in any layout.

    `names` and `exchange` say which columns live here and how they reach the others (`AlexNet`).
    """
    with torch.device("meta"):
        made = blank(net, names, exchange)
    made.to_empty(device="cpu")
    made.initialise(seed)
    # Why: channels_last makes pooling four times faster, the CIFAR nets' conv1 twice, and no convolution slower.
    return made.to(memory_format=torch.channels_last)


def count_parameters(net: nn.Module) -> int:
    """Return the number of learned values, biases included."""
    return sum(parameter.numel() for parameter in net.parameters())
