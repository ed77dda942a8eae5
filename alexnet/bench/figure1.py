"""The nets of Figure 1: how well the training loop uses this machine."""

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from alexnet.bench.rows import Row, Setting, both, compare, kind_of_machine, share_of_matmul
from alexnet.config import CifarNet, RunConfig, Topology
from alexnet.machine import available_cores
from alexnet.model import build
from alexnet.model.cifar import CifarStack, LocallyConnected2d
from alexnet.preprocessing import PreparedSet, is_prepared, prepare
from alexnet.preprocessing.loader import Batches
from alexnet.training.evaluate import num_wrong
from alexnet.training.step import Learner

BATCH, STEPS = 128, 4


def rows() -> Iterator[Row]:
    """Measure the nets on CIFAR-10, or on its stand-in."""
    data = prepare("cifar10" if is_prepared("cifar10") else "formula32")
    shown = Batches(data, "train", None)
    for topology in ("19pct", "conv-local-13pct"):
        yield loop_against_bare(topology, shown)
        yield loop_against_obvious(topology, shown, data)
        yield step_against_matmul(topology, shown)
        yield layout_against_contiguous(topology, shown)


def _learner(topology: Topology) -> Learner:
    """Return the net in the dtype that this machine is fast in."""
    return Learner(RunConfig(net=CifarNet(topology=topology)), kind_of_machine())


def _one_batch(shown: Batches) -> tuple[Tensor, Tensor]:
    (images,), labels = next(shown.in_order(BATCH, "whole"))
    return images, labels


def bare_steps(learner: Learner, images: Tensor, labels: Tensor) -> None:
    """Forward, backward and update on one batch that lies in memory, nothing else."""
    for _ in range(STEPS):
        learner.step(images, labels)


def loop_against_bare(topology: Topology, shown: Batches) -> Row:
    """Compare the training loop's steps, with loading and counting, with bare steps on a batch in memory."""
    looped, bare, epochs = _learner(topology), _learner(topology), count()
    images, labels = _one_batch(shown)

    def loop_steps() -> None:
        for x, y in islice(shown.epoch(0, next(epochs), BATCH), STEPS):
            loss, logits = looped.step(x, y)
            loss.item(), num_wrong(logits, y)

    ratio, ours, theirs = compare(loop_steps, lambda: bare_steps(bare, images, labels))
    speeds = f"{STEPS * BATCH / ours:.0f} against {STEPS * BATCH / theirs:.0f} images/s"
    return Row(f"{topology}: training loop", "bare step on one batch in memory", ratio, speeds, both(0.70))


def layout_against_contiguous(topology: Topology, shown: Batches) -> Row:
    """Compare channels_last, which the nets use, with contiguous images and weights."""
    last, plain = _learner(topology), _learner(topology)
    images, labels = _one_batch(shown)
    plain.net.to(memory_format=torch.contiguous_format)
    contiguous = images.contiguous()
    ratio, _, _ = compare(lambda: bare_steps(last, images, labels), lambda: bare_steps(plain, contiguous, labels))
    return Row(f"{topology}: channels_last", "contiguous", ratio, "")


def step_against_matmul(topology: Topology, shown: Batches) -> Row:
    """Compare the floating point operations a second of a step with those of a matmul."""
    learner = _learner(topology)
    images, labels = _one_batch(shown)
    operations = STEPS * BATCH * operations_per_image(learner.net)
    at = Setting(learner.precision, BATCH)
    share, figures = share_of_matmul(lambda: bare_steps(learner, images, labels), operations, at)
    what, against = f"{topology}: FLOP/s of the step", f"matmul of 2048^3, {learner.precision}"
    return Row(what, against, share, figures, both(0.5, 0.25))


class PlainLocal(nn.Module):
    """A layer of local kernels as one writes it from torch's own functions, with the weights of another one."""

    def __init__(self, layer: LocallyConnected2d) -> None:
        super().__init__()
        places, inputs, outputs = layer.weight.shape
        weight = layer.weight.detach().view(places, 9, inputs // 9, outputs).transpose(1, 2)  # as F.unfold has them
        self.weight = nn.Parameter(weight.reshape(places, inputs, outputs))
        self.bias = nn.Parameter(layer.bias.detach()[:, 0].T.contiguous())

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the (N, C_out, H, W) products of each place's own kernels."""
        N, _, H, W = x_NCHW.shape
        patches = F.unfold(x_NCHW, 3, padding=1)
        return (torch.einsum("nip,pio->nop", patches, self.weight) + self.bias).view(N, -1, H, W)


def plain_net(topology: Topology) -> nn.Sequential:
    """Return the net in contiguous layout and of torch's own modules and functions only."""
    net = build(CifarNet(topology=topology), seed=0).to(memory_format=torch.contiguous_format)
    steps = {
        "activation": nn.ReLU, "max": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
        "average": lambda: nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False),
    }  # fmt: skip
    modules: list[nn.Module] = []
    for name, (_, _, then) in net.topology.items():
        layer = net.get_submodule(name)
        modules += [nn.Flatten()] if name.startswith("fc") else []
        modules += [PlainLocal(layer) if isinstance(layer, LocallyConnected2d) else layer]
        modules += [steps[step]() for step in then.split()]
    return nn.Sequential(*modules)


class _Pictures(Dataset):
    """CIFAR-10 as the field reads it: Pillow images, turned into tensors one by one."""

    def __init__(self, data: PreparedSet, count: int) -> None:
        train = data.splits["train"]
        self.images = [Image.fromarray(pixels) for pixels in train.images[:count]]
        self.labels, self.mean = train.labels[:count].tolist(), data.mean.astype(np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.asarray(self.images[i]) - self.mean).permute(2, 0, 1).contiguous(), self.labels[i]


def loop_against_obvious(topology: Topology, shown: Batches, data: PreparedSet) -> Row:
    """Compare the training loop with the usual one: fp32, contiguous, a DataLoader worker on each core, torch's SGD."""
    looped, images = _learner(topology), STEPS * BATCH * 4
    plain = plain_net(topology)
    optimiser = torch.optim.SGD(plain.parameters(), 0.001, 0.9)
    pictures = _Pictures(data, images)
    loader = DataLoader(pictures, BATCH, shuffle=True, num_workers=available_cores(), drop_last=True)
    epochs = count()

    def ours() -> None:
        for x, y in islice(shown.epoch(0, next(epochs), BATCH), images // BATCH):
            looped.step(x, y)

    def theirs() -> None:
        for x, y in loader:
            optimiser.zero_grad()
            F.cross_entropy(plain(x), y).backward()
            optimiser.step()

    ratio, own, other = compare(ours, theirs, repeats=5)
    speeds = f"{images / own:.0f} against {images / other:.0f} images/s"
    against = "plain modules, fp32, contiguous, DataLoader on Pillow images"
    return Row(f"{topology}: training", against, ratio, speeds, both(1.5, 5))


def operations_per_image(net: CifarStack) -> int:
    """Count 2 operations for each multiplication of a training step: forward, and backward to weights and inputs.

    The first layer has no gradient to its input.
    """
    total = 0

    def add(layer: nn.Module, inputs: object, out: Tensor) -> None:
        nonlocal total
        # A shared kernel works once at every place, a local or full one has each weight work once.
        times = out.shape[2] * out.shape[3] if isinstance(layer, nn.Conv2d) else 1
        total += 2 * layer.weight.numel() * times * (2 if layer is net.conv1 else 3)

    hooks = [layer.register_forward_hook(add) for layer in net.children()]
    with torch.no_grad():
        net(torch.zeros(1, 3, net.image_side, net.image_side))
    for hook in hooks:
        hook.remove()
    return total
