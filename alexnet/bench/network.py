"""The two-column net at full width (section 3), against plain ways of writing it: what faithfulness costs.

`python -m alexnet.bench.network KIND KERNELS` starts two ranks and prints the images/s of their steps.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.bench.rows import Kind, Row, Setting, both, compare, compared, here, in_turn, seconds_of, share_of_matmul
from alexnet.config import ColumnNet, Optimiser, RunConfig
from alexnet.model import StepKey, kernels
from alexnet.model.column_parallel import Layout
from alexnet.model.layers import normalise_within_maps, response_normalise
from alexnet.model.presets import MapNorm, ResponseNorm, source2012
from alexnet.paper.arithmetic import operations
from alexnet.training.distributed import Group, is_rank, joined, launch
from alexnet.training.precision import autocast
from alexnet.training.step import Learner

NORM_SHAPES = ((48, 55, 55), (128, 27, 27))  # of one column's layers 1 and 2
REPEATS = 3
STEPS = 7  # a step at full width takes seconds, and what is compared differs by a tenth
PAIR, PAIR_BATCH, PAIR_STEPS = Layout(columns=2), 128, 5


def rows() -> Iterator[Row]:
    """Measure the normalisations, the training step, two ranks, and memory."""
    at = here()
    yield response_norm_row(at)
    yield map_norm_row(at)
    yield from step_rows(at)
    yield pair_row(at.kind)
    yield memory_row(at)


def _forward_and_backward(function: Callable[[Tensor], Tensor], x_NCHW: Tensor) -> Callable[[], None]:
    """Return a call that runs `function` forward and backward, often enough to be timed."""
    gradient = torch.ones_like(x_NCHW)

    def work() -> None:
        for _ in range(_times(x_NCHW.device)):
            x = x_NCHW.detach().requires_grad_()
            function(x).backward(gradient)

    return work


def _milliseconds(own: float, other: float, at: Setting) -> str:
    own, other = (1e3 * seconds / _times(at.device) for seconds in (own, other))
    return f"{own:.3g} against {other:.3g} ms, batch {at.batch}"


def _times(device: torch.device) -> int:
    """Return how often a normalisation is done in a go: on a device a single one is over before it is timed."""
    return 1 if device.type == "cpu" else 50


def maps(at: Setting, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return noise of the scale of pixels, in channels_last layout."""
    noise = torch.randn(at.batch, *shape, device=at.device) * 50
    return noise.to(dtype).to(memory_format=torch.channels_last)


def response_norm_row(at: Setting) -> Row:
    """Compare response normalisation of both layers with torch's in fp32, forward and backward."""
    norm = ResponseNorm(alpha_per_window=True)
    ours = [_forward_and_backward(lambda x: response_normalise(x, norm), maps(at, s, at.dtype)) for s in NORM_SHAPES]
    plain = [
        _forward_and_backward(lambda x: F.local_response_norm(x, 5, 1e-4, 0.75, 2.0), maps(at, s).contiguous())
        for s in NORM_SHAPES
    ]
    ratio, own, other = compare(lambda: [f() for f in ours], lambda: [f() for f in plain], REPEATS)
    speeds = _milliseconds(own, other, at)
    return Row("response normalisation", "F.local_response_norm in fp32", ratio, speeds, both(5, 10))


def map_norm_row(at: Setting) -> Row:
    """Compare the normalisation within maps with its obvious form, forward and backward."""
    norm, shape = MapNorm(), NORM_SHAPES[1]

    def plain(x: Tensor) -> Tensor:
        return x * (norm.k + norm.alpha * F.avg_pool2d(x * x, norm.size, 1, norm.size // 2)).pow(-norm.beta)

    ours = _forward_and_backward(lambda x: normalise_within_maps(x, norm), maps(at, shape, at.dtype))
    ratio, own, other = compare(ours, _forward_and_backward(plain, maps(at, shape).contiguous()), REPEATS)
    speeds = _milliseconds(own, other, at)
    return Row("normalisation within maps", "x (1 + alpha avg_pool2d(x^2))^-beta in fp32", ratio, speeds, both(3))


class ObviousAlexNet(nn.Sequential):
    """The same architecture as the field writes it: groups=2 and F.local_response_norm, one stream, no presets."""

    def __init__(self, num_classes: int) -> None:
        norm = nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)
        super().__init__(
            nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, 4), nn.ReLU(), norm, nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), norm, nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, num_classes),
        )  # fmt: skip


def plain_step(net: nn.Module, images: Tensor, labels: Tensor, kind: Kind) -> Callable[[], None]:
    """Return a training step as it is usually written, with torch's SGD."""
    net.to(images.device)
    optimiser = torch.optim.SGD(net.parameters(), 0.001, 0.9, weight_decay=5e-4)

    def work() -> None:
        optimiser.zero_grad()
        with autocast(kind, images.device.type):
            logits = net(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimiser.step()

    return work


def our_step(
    at: Setting, width: float = 1.0, classes: int = 1000, ablation: str = "", group: Group | None = None
) -> tuple[Callable[[], object], Learner]:
    """Return a training step of the preset source2012 on a batch of noise, and the learner that makes it."""
    config = RunConfig(
        net=ColumnNet("source2012", width, classes, ablation), optimiser=Optimiser(rate=0.001, weight_decay=5e-4)
    )
    learner, steps = Learner(config, at.kind, group or Group(at.device)), count()
    images, labels = maps(at, (3, 224, 224)), torch.arange(at.batch, device=at.device) % classes
    return lambda: learner.step(images, labels, StepKey(0, 0, next(steps))), learner


def step_rows(at: Setting) -> Iterator[Row]:
    """Compare the training step at full width with the same without normalisation, two plain nets, and a matmul."""
    from torchvision.models import alexnet as torchvision_alexnet

    kind, batch = at.kind, at.batch
    images, labels = maps(at, (3, 224, 224)), torch.arange(batch, device=at.device)
    faithful, without_norms = our_step(at)[0], our_step(at, ablation="no-norm")[0]
    obvious = plain_step(ObviousAlexNet(1000), images.contiguous(), labels, "fp32")
    torchvisions = plain_step(torchvision_alexnet().to(memory_format=torch.channels_last), images, labels, kind)
    # Why in rounds of all four: a step takes seconds, and ours is the same in each comparison.
    own, *others = in_turn((faithful, without_norms, obvious, torchvisions), STEPS)
    targets = {
        "the same without its three normalisations": both(0.85, 0.75),
        "the obvious net: groups=2, F.local_response_norm, fp32, contiguous": both(1.5, 5),
        "torchvision's alexnet, same type, channels_last": both(0.85, 0.65),
    }
    for (name, at_least), other in zip(targets.items(), others, strict=True):
        ratio, seconds, theirs = compared(own, other)
        speeds = f"{batch / seconds:.1f} against {batch / theirs:.1f} images/s, batch {batch}"
        yield Row("training step, full width", name, ratio, speeds, at_least)
    share, figures = share_of_matmul(faithful, sum(operations(source2012()).values()) * batch, at)
    yield Row("FLOP/s of the step", f"matmul of {at.side}^3, {kind}", share, figures, both(0.7, 0.4))


def pair_row(kind: Kind) -> Row:
    """Compare training at half width on two ranks, one column each, with training in this process; neither sees a loader."""
    command = [sys.executable, "-m", "alexnet.bench.network", kind, str(int(kernels.is_on()))]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # both on the CPU, also where there are devices
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    pair, alone = float(done.stdout.split()[-1]), _images_per_second(kind, Group())
    what = f"two ranks with {max(1, torch.get_num_threads() // 2)} thread each, half width"
    against = f"one process with {torch.get_num_threads()} threads"
    return Row(what, against, pair / alone, f"{pair:.0f} against {alone:.0f} images/s")


def _images_per_second(kind: Kind, group: Group) -> float:
    """Return the speed of the fastest of some steps."""
    step, _ = our_step(Setting(kind, PAIR_BATCH), 0.5, 20, group=group)
    return PAIR_BATCH / min(seconds_of(step) for _ in range(PAIR_STEPS))


def memory_row(at: Setting) -> Row:
    """Compare the peak memory of a step with that of the obvious net, each in a process of its own."""

    def peak(is_ours: bool) -> float:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            return process.submit(_peak_megabytes, is_ours, at, kernels.is_on()).result()

    ours, plain = peak(True), peak(False)
    figures = f"{ours:.0f} against {plain:.0f} MB, batch {at.batch}"
    return Row("memory of the step, smaller by", "the obvious net", plain / ours, figures, both(1 / 0.8))


def _peak_megabytes(is_ours: bool, at: Setting, use_kernels: bool) -> float:
    """Return by how many megabytes two training steps raise this process's peak of resident memory, or of a device's."""
    kernels.use(use_kernels, at.device.type)
    images, labels = maps(at, (3, 224, 224)), torch.arange(at.batch, device=at.device)
    before = _peak_kilobytes()
    step = our_step(at)[0] if is_ours else plain_step(ObviousAlexNet(1000), images.contiguous(), labels, "fp32")
    seconds_of(step), seconds_of(step)
    is_cpu = at.device.type == "cpu"
    return (_peak_kilobytes() - before) / 1024 if is_cpu else torch.cuda.max_memory_allocated() / 2**20


def _peak_kilobytes() -> int:
    # Why not ru_maxrss on Linux: there it begins at the peak of the process that started this one.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def main(words: list[str]) -> None:
    """Be one of two ranks, of which the main one prints the speed; or start them."""
    if not is_rank():
        sys.exit(launch(words, PAIR, program=("-m", "alexnet.bench.network")))
    with joined(PAIR) as group:
        kernels.use(words[1] == "1")
        speed = _images_per_second(cast(Kind, words[0]), group)
        if group.is_main:
            print(speed)


if __name__ == "__main__":
    main(sys.argv[1:])
