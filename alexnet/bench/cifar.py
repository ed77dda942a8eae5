"""The nets of Figure 1: how well the training loop uses this machine."""

from itertools import cycle, islice

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from alexnet.bench.rows import Place, Row, both, compare, kind_of_machine, share_of_matmul
from alexnet.config import CifarNet, RunConfig, Topology
from alexnet.model.cifar import LocallyConnected2d, build_cifar_net
from alexnet.preprocessing.batches import Batches
from alexnet.preprocessing.workers import available
from alexnet.training.evaluate import num_wrong
from alexnet.training.learner import Learner
from alexnet.training.precision import autocast

BATCH, STEPS = 128, 4


def bare_steps(learner: Learner, images: Tensor, labels: Tensor) -> None:
    """Forward, backward and update on one batch that lies in memory, nothing else."""
    for _ in range(STEPS):
        learner.optimiser.zero_grad()
        with autocast(learner.precision):
            logits = learner.net(images)
        F.cross_entropy(logits.float(), labels).backward()
        learner.optimiser.step()


def _learner(topology: Topology) -> Learner:
    """Return the net in the type that this machine is fast in."""
    return Learner(RunConfig(net=CifarNet(topology=topology)), kind_of_machine())


def loop_against_bare(topology: Topology, batches: Batches) -> Row:
    """Compare the training loop's steps, with loading and counting, with bare steps on a batch in memory."""
    looped, bare = _learner(topology), _learner(topology)
    images, labels = batches.take(slice(0, BATCH))
    stream = cycle(range(1000))

    def loop_steps() -> None:
        for x, y in islice(batches.epoch(0, next(stream), BATCH), STEPS):
            loss, logits = looped.step(x, y)
            loss.item(), num_wrong(logits, y)

    ratio, ours, theirs = compare(loop_steps, lambda: bare_steps(bare, images, labels))
    speeds = f"{STEPS * BATCH / ours:.0f} against {STEPS * BATCH / theirs:.0f} images/s"
    return Row(f"{topology}: training loop", "bare step on one batch in memory", ratio, speeds, both(0.70))


def layout_against_contiguous(topology: Topology, batches: Batches) -> Row:
    """Compare channels_last, which the nets use, with contiguous images and weights."""
    last, plain = _learner(topology), _learner(topology)
    images, labels = batches.take(slice(0, BATCH))
    plain.net.to(memory_format=torch.contiguous_format)
    contiguous = images.contiguous()
    ratio, _, _ = compare(lambda: bare_steps(last, images, labels), lambda: bare_steps(plain, contiguous, labels))
    return Row(f"{topology}: channels_last", "contiguous", ratio, "")


def step_against_matmul(topology: Topology, batches: Batches) -> Row:
    """Compare the floating point operations a second of a step with those of a product of matrices."""
    learner = _learner(topology)
    images, labels = batches.take(slice(0, BATCH))
    operations = STEPS * BATCH * operations_per_image(learner.net)
    share, figures = share_of_matmul(
        lambda: bare_steps(learner, images, labels), operations, Place(learner.precision, BATCH)
    )
    what, against = f"{topology}: FLOP/s of the step", f"matmul of 2048^3, {learner.precision}"
    return Row(what, against, share, figures, both(0.5, 0.25), both(0.75, 0.5))


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
    net = build_cifar_net(CifarNet(topology=topology), seed=0).to(memory_format=torch.contiguous_format)
    for name, layer in net.named_children():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
        if isinstance(layer, LocallyConnected2d):
            setattr(net, name, PlainLocal(layer))
    return net


class _Pictures(Dataset):
    """CIFAR-10 as the field reads it: Pillow images, turned into tensors one by one."""

    def __init__(self, batches: Batches, count: int) -> None:
        self.images = [Image.fromarray(pixels) for pixels in batches.images_NHWC[:count].numpy()]
        self.labels, self.mean = batches.labels[:count].tolist(), batches.mean_HWC.numpy()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.asarray(self.images[i]) - self.mean).permute(2, 0, 1).contiguous(), self.labels[i]


def loop_against_obvious(topology: Topology, batches: Batches) -> Row:
    """Compare the training loop with the usual one: fp32, contiguous, a DataLoader worker on each core, torch's SGD."""
    looped, count = _learner(topology), STEPS * BATCH * 4
    plain = plain_net(topology)
    optimiser = torch.optim.SGD(plain.parameters(), 0.001, 0.9)
    loader = DataLoader(_Pictures(batches, count), BATCH, shuffle=True, num_workers=available(), drop_last=True)
    stream = cycle(range(1000))

    def ours() -> None:
        for x, y in islice(batches.epoch(0, next(stream), BATCH), count // BATCH):
            looped.step(x, y)

    def theirs() -> None:
        for x, y in loader:
            optimiser.zero_grad()
            F.cross_entropy(plain(x), y).backward()
            optimiser.step()

    ratio, own, other = compare(ours, theirs, repeats=5)
    speeds = f"{count / own:.0f} against {count / other:.0f} images/s"
    against = "plain modules, fp32, contiguous, DataLoader on Pillow images"
    return Row(f"{topology}: training", against, ratio, speeds, both(1.5, 5), both(2, 10))


def operations_per_image(net: nn.Sequential) -> int:
    """Count 2 operations for each multiplication of a training step: forward, and backward to weights and inputs.

    The first layer has no gradient to its input.
    """
    total, x = 0, torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        for name, layer in net.named_children():
            x = layer(x)
            weight = getattr(layer, "weight", None)
            if weight is None:
                continue
            # A shared kernel works once at every place, a local or full one has each weight work once.
            times = x.shape[2] * x.shape[3] if isinstance(layer, nn.Conv2d) else 1
            total += 2 * weight.numel() * times * (2 if name == "conv1" else 3)
    return total


MEASURES = (loop_against_bare, loop_against_obvious, step_against_matmul, layout_against_contiguous)
