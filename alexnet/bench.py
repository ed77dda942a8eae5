"""`make bench`: how well the training loop uses this machine, as ratios within one run.

Each row compares two ways of doing the same work, timed in turn so that both see the machine in the same mood: the median
of the ratios, the target, and whether it is met. Figures of the machine at hand only; never a test.
"""

import hashlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn

from alexnet.claims import machine
from alexnet.claims.runs import runs_dir
from alexnet.config import CifarNet, RunConfig, Topology
from alexnet.preprocessing import datasets
from alexnet.preprocessing.batches import Batches
from alexnet.preprocessing.store import is_prepared, write_json
from alexnet.training.evaluate import num_wrong
from alexnet.training.learner import Learner
from alexnet.training.precision import matmul_speed
from alexnet.training.process import use_processor

BATCH, STEPS, REPEATS = 128, 4, 7


@dataclass(frozen=True)
class Row:
    """One comparison: what, against what, the median ratio of their speeds, and the least that it should be (if any)."""

    what: str
    against: str
    ratio: float
    target: float | None
    figures: str  # the absolute speeds, for the curious

    @property
    def met(self) -> str:
        """Whether the target is met, in a word."""
        return "" if self.target is None else "yes" if self.ratio >= self.target else "no"


def seconds_of(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """Return (median of theirs / ours, median seconds of ours, of theirs), timed alternately after a warm-up."""
    ours(), theirs()
    pairs = [(seconds_of(ours), seconds_of(theirs)) for _ in range(REPEATS)]
    ratio = statistics.median(b / a for a, b in pairs)
    return ratio, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def bare_steps(learner: Learner, images: Tensor, labels: Tensor) -> None:
    """Forward, backward and update on one batch that lies in memory, nothing else."""
    for _ in range(STEPS):
        learner.optimiser.zero_grad()
        F.cross_entropy(learner.net(images), labels).backward()
        learner.optimiser.step()


def loop_against_bare(topology: Topology, batches: Batches) -> Row:
    """Compare the training loop's steps, with loading and counting, with bare steps on a batch in memory."""
    looped = Learner(RunConfig(net=CifarNet(topology=topology)))
    bare = Learner(RunConfig(net=CifarNet(topology=topology)))
    images, labels = batches.take(slice(0, BATCH))
    stream = cycle(range(1000))

    def loop_steps() -> None:
        for x, y in islice(batches.epoch(0, next(stream), BATCH), STEPS):
            loss, logits = looped.step(x, y)
            loss.item(), num_wrong(logits, y)

    ratio, ours, theirs = compare(loop_steps, lambda: bare_steps(bare, images, labels))
    speeds = f"{STEPS * BATCH / ours:.0f} against {STEPS * BATCH / theirs:.0f} images/s"
    return Row(f"{topology}: training loop", "bare step on one batch in memory", ratio, 0.70, speeds)


def layout_against_contiguous(topology: Topology, batches: Batches) -> Row:
    """Compare channels_last, which the nets use, with contiguous images and weights."""
    last, plain = Learner(RunConfig(net=CifarNet(topology=topology))), Learner(RunConfig(net=CifarNet(topology=topology)))
    images, labels = batches.take(slice(0, BATCH))
    plain.net.to(memory_format=torch.contiguous_format)
    contiguous = images.contiguous()
    ratio, _, _ = compare(lambda: bare_steps(last, images, labels), lambda: bare_steps(plain, contiguous, labels))
    return Row(f"{topology}: channels_last", "contiguous", ratio, None, "")


def step_against_matmul(topology: Topology, batches: Batches) -> Row:
    """Compare the floating point operations a second of a step with those of a product of matrices."""
    learner = Learner(RunConfig(net=CifarNet(topology=topology)))
    images, labels = batches.take(slice(0, BATCH))
    operations = STEPS * BATCH * operations_per_image(learner.net)
    bare_steps(learner, images, labels)
    shares, speeds = [], []
    for _ in range(REPEATS):
        step = operations / seconds_of(lambda: bare_steps(learner, images, labels)) / 1e9
        product = matmul_speed(torch.float32, side=2048, repeats=1)
        shares.append(step / product)
        speeds.append((step, product))
    step, product = (statistics.median(column) for column in zip(*speeds, strict=True))
    figures = f"{step:.0f} against {product:.0f} GFLOP/s"
    return Row(f"{topology}: FLOP/s of the step", "matmul of 2048^3, fp32", statistics.median(shares), 0.50, figures)


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


def main() -> None:
    """Measure, print the table, and write it under runs/bench."""
    threads = use_processor(None)
    data = "cifar10" if is_prepared("cifar10") else "formula32"
    batches = Batches(datasets.prepare(data), "train")
    measures = (loop_against_bare, step_against_matmul, layout_against_contiguous)
    rows = []
    for topology in ("19pct", "conv-local-13pct"):
        for measure in measures:
            print(f"measuring {topology}, {measure.__name__.replace('_', ' ')} ...", file=sys.stderr)
            rows.append(measure(topology, batches))
    table = [
        (r.what, r.against, f"{r.ratio:.2f}", "" if r.target is None else f"{r.target:.2f}", r.met, r.figures) for r in rows
    ]
    print(tabulate(table, headers=("what", "against", "ratio", "at least", "met", "speeds")))
    hardware = machine.hardware()
    record = {
        "hardware": hardware,
        "threads": threads,
        "versions": machine.versions(),
        "git": machine.git_state(),
        "data": data,
        "batch": BATCH,
        "rows": [asdict(row) for row in rows],
    }
    name = hashlib.sha256(repr(sorted(hardware.items())).encode()).hexdigest()[:8]
    file = runs_dir() / "bench" / f"{hardware['cpu_capability'].lower()}-{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, record)
    print(f"written to {file}")


if __name__ == "__main__":
    main()
