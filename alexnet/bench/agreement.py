"""`alexnet doctor --devices`: do the devices of this machine train one and the same net, and how fast do they exchange?

A small net is trained for six steps by one rank that has both columns, by two ranks and by two pairs. In float64 every
tensor must agree to 1e-12, which only the same function can. In fp32 logits, gradients and weights must agree to 1e-5, each
kind taken as one vector: rounding to fp32 makes a tenth of that, rounding to TF32 a hundred times as much. A single tensor
can miss it by rounding alone: gradients of conv1's biases are sums in which terms 20 to 30 times as large cancel. So the
worst one is printed, with its name, and decides nothing. Then the exchanges of the full net are timed.

`python -m alexnet.bench.agreement FOLDER [2x1] [2x2]` is the process that starts the ranks (columns x replicas).
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alexnet.config import ColumnNet, Optimiser, RunConfig
from alexnet.model import StepKey, layers_of
from alexnet.model.column_parallel import Layout, bytes_per_image, exchanged_shapes
from alexnet.preprocessing.loader import rows_of
from alexnet.training.distributed import Group, device_of_rank, is_rank, joined, launch
from alexnet.training.step import Learner

CLASSES = 5
BATCHES = (4,) * 4 + (3, 1)  # images of each step: also batches that replicas cannot halve
# Both normalisations and dropout; 3 to 12 kernels and 128 units a column.
TRIAL = RunConfig(net=ColumnNet("source2012", 1 / 16, CLASSES), optimiser=Optimiser(rate=0.01, weight_decay=5e-4))
FULL = ColumnNet("paper")
KINDS = ("logits", "gradients", "weights")
LIMITS = {"fp32": 1e-5, "fp64": 1e-12}  # Euclidean norm of a difference, relative to that of the values
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
ALONE, PAIR, PAIRS = Layout(), Layout(2, 1), Layout(2, 2)
NAMES = {ALONE: "1 rank", PAIR: "2 ranks", PAIRS: "2x2 ranks"}
IMAGES, REPEATS = 128, 10  # of a timed exchange

Trial = dict[str, dict[str, Tensor]]  # fp32 and fp64 -> name -> values


def as_text() -> tuple[str, bool]:
    """Return the report, which ends with PASS or FAIL, and whether it is PASS."""
    count = torch.cuda.device_count()
    layouts = [PAIR] + [PAIRS] * (count < 2 or count >= 4)
    env = os.environ | {"OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if count < 2 else {})
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __name__, folder, *(f"{layout.columns}x{layout.replicas}" for layout in layouts)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        trials = {file.stem: torch.load(file, weights_only=True) for file in Path(folder).glob("*.pt")}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        lines, agree = [f"The ranks ended with status {done.returncode}: {last[0]}"], False
    else:
        times = report_times(trials.pop("times"), "nccl" if count >= 2 else "gloo")
        agreement, agree = report_agreement(trials)
        lines = [*agreement, "", *times, ""]
    return "\n".join([_devices(count), "", *lines, "PASS" if agree else "FAIL"]), agree


def _devices(count: int) -> str:
    if count >= 2:
        return f"{count} CUDA devices, joined by nccl."
    found = "No CUDA device: not measured here." if count == 0 else "One CUDA device, and two are needed: not measured here."
    return f"{found} Ranks on the CPU, one thread each, joined by gloo."


def report_agreement(trials: dict[str, Trial]) -> tuple[list[str], bool]:
    """Return lines that compare every trial with that of one rank, and whether all agree."""
    lines = [
        "Six steps of source2012 at 1/16 of its width against one rank that has both columns, relative differences:",
        f"{'':12}" + "".join(f"{kind:>11}" for kind in KINDS) + f"{'float64':>11}   worst tensor in fp32 (no limit)",
        f"{'limit':12}" + f"{LIMITS['fp32']:>11g}" * 3 + f"{LIMITS['fp64']:>11g}",
    ]
    reference, agree = trials["1 rank"], True
    for name in sorted(set(trials) - {"1 rank"}):
        short, long = (differences(reference[dtype], trials[name][dtype]) for dtype in DTYPES)
        whole = [short.pop(kind) for kind in KINDS]
        agree = agree and all(d <= LIMITS["fp32"] for d in whole) and all(d <= LIMITS["fp64"] for d in long.values())
        worst = max((key for key in short if "/" in key), key=lambda key: short[key])
        cells = "".join(f"{_said(d):>11}" for d in [*whole, max(long.values())])
        lines.append(f"{name:12}{cells}   " + (f"{worst} {_said(short[worst])}" if short[worst] else "equal"))
    return lines, agree


def _said(difference: float) -> str:
    return f"{difference:.1e}" if difference else "equal"


def report_times(times: dict[str, tuple[float, float]], carrier: str) -> list[str]:
    """Return lines with the seconds of each exchange, forward and backward, and the GB/s that one rank sends."""
    sent = bytes_per_image(layers_of(FULL))
    lines = [
        f"Exchanges of the full net between two ranks, {IMAGES} images, fp32, {carrier}, median of {REPEATS}:",
        f"{'':8}{'MB each way':>12}{'forward':>12}{'GB/s':>8}{'backward':>12}{'GB/s':>8}",
    ]
    for layer, seconds in times.items():
        megabytes = sent[layer, "forward"] * IMAGES / 1e6
        line = f"{layer:8}{megabytes:12.2f}"
        for direction, taken in zip(("forward", "backward"), seconds, strict=True):
            if (layer, direction) in sent:
                line += f"{taken * 1e3:9.2f} ms{megabytes / 1e3 / taken:8.2f}"
        lines.append(line)
    return lines


def differences(reference: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    """Return the relative difference of every tensor ("weights/conv1.bias") and of each kind as one vector ("weights")."""
    groups = {key: [key] for key in reference}
    for key in reference:
        groups.setdefault(key.partition("/")[0], []).append(key)
    found = {}
    for name, keys in groups.items():
        expected, got = (torch.cat([values[key].flatten().double() for key in keys]) for values in (reference, other))
        difference = ((got - expected).norm() / expected.norm()).item()
        found[name] = difference if difference == difference else float("inf")  # Why: max() overlooks what is no number.
    return found


def trial(group: Group, dtype: torch.dtype) -> dict[str, Tensor]:
    """Train the small net as this rank of its group, and return the same on each rank.

    That are the logits and the gradients of the first step, and the weights and velocities after the last one.
    """
    learner, found = Learner(TRIAL, "fp32", group), {}
    learner.net.to(dtype)
    for state in learner.optimiser.state.values():
        state["velocity"] = state["velocity"].to(dtype)
    for step, size in enumerate(BATCHES):
        rows, (images, labels) = rows_of(size, group.part), trial_batch(step, size)
        images, labels = images[rows].to(group.device, dtype), labels[rows].to(group.device)
        share = (rows.stop - rows.start) / size
        _, logits_NK = learner.step(images, labels, StepKey(TRIAL.seed, 0, step, rows.start), share)
        if step == 0:
            whole_NK = logits_NK.new_zeros(size, CLASSES)
            whole_NK[rows] = logits_NK
            if group.replica_group is not None:
                dist.all_reduce(whole_NK, group=group.replica_group)
            gradients = learner.net.plain_state(_gradient)
            found = {"logits/all": whole_NK} | {f"gradients/{name}": value.clone() for name, value in gradients.items()}
    for kind, values in (("weights", learner.weights()), ("velocities", learner.velocities())):
        found |= {f"{kind}/{name}": value for name, value in values.items()}
    return {key: value.cpu() for key, value in found.items()}


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def trial_batch(step: int, size: int) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, 224, 224) with the sd of photographs' pixels, and labels; both depend on the step alone."""
    draws = torch.Generator().manual_seed(step)
    images = torch.randn(size, 3, 224, 224, generator=draws) * 70
    labels = torch.randint(CLASSES, (size,), generator=draws)
    return images.to(memory_format=torch.channels_last), labels


def time_exchanges(group: Group) -> dict[str, tuple[float, float]]:
    """Return the median seconds of each exchange of the full net, forward and backward."""
    exchange, times = group.shared_out(FULL)["exchange"], {}
    for layer, shape in exchanged_shapes(layers_of(FULL)).items():
        x = torch.randn(IMAGES, *shape, device=group.device)
        x = (x.to(memory_format=torch.channels_last) if x.ndim == 4 else x).requires_grad_()
        taken = []
        for _ in range(REPEATS + 2):
            start = _now(group)
            y = exchange.add([x]) if layer == "fc8" else exchange.concatenate([x])
            between = _now(group)
            torch.autograd.grad(y, x, torch.ones_like(y))
            taken.append((between - start, _now(group) - between))
        times[layer] = tuple(statistics.median(column) for column in zip(*taken[2:], strict=True))
    return times


def _now(group: Group) -> float:
    group.any(False)  # Why: both ranks start together, and a device has done what it was asked.
    if group.device.type == "cuda":
        torch.cuda.synchronize(group.device)
    return time.perf_counter()


def check(group: Group, folder: Path) -> None:
    """Do the part of one rank; the main one writes what was found into `folder`."""
    found = {NAMES[group.layout]: {name: trial(group, dtype) for name, dtype in DTYPES.items()}}
    if group.layout == PAIR:
        found["times"] = time_exchanges(group)
    for name, content in found.items() if group.is_main else ():
        torch.save(content, folder / f"{name}.pt")


def main(words: list[str]) -> None:
    """Be a rank of the one layout that is named; or be alone, and then start the ranks of each."""
    folder, layouts = Path(words[0]), [Layout(*map(int, word.split("x"))) for word in words[1:]]
    if is_rank():
        with joined(layouts[0]) as group:
            check(group, folder)
        return
    check(Group(device_of_rank(0)), folder)
    for layout, word in zip(layouts, words[1:], strict=True):
        if status := launch([words[0], word], layout, ("-m", "alexnet.bench.agreement")):
            sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
