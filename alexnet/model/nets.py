"""From what a run's config says of its net to the net."""

from torch import nn

from alexnet.config import CifarNet, ColumnNet, Net, UserError, nearest
from alexnet.model.alexnet import build_alexnet
from alexnet.model.cifar import build_cifar_net
from alexnet.model.presets import ABLATIONS, NetConfig, paper, source2012, with_classes, with_width

PRESETS = {"paper": paper, "source2012": source2012}


def net_config(net: ColumnNet) -> NetConfig:
    """Return the layers that `net` names: its preset, changed, at its width. Raises UserError for an unknown change."""
    config = PRESETS[net.preset]()
    for name in net.ablation.split():
        if name not in ABLATIONS:
            raise UserError(f"There is no ablation {name!r}{nearest(name, ABLATIONS)}. Known: {', '.join(ABLATIONS)}.")
        config = ABLATIONS[name](config)
    return with_classes(with_width(config, net.width), net.num_classes)


def build_net(net: Net, seed: int, **layout) -> nn.Module:
    """Build the net with its initial weights for `seed`; `layout` goes to `build_alexnet`. Takes channels_last images."""
    if isinstance(net, CifarNet):
        return build_cifar_net(net, seed)
    return build_alexnet(net_config(net), seed, **layout)
