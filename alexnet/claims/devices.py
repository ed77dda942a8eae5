"""`alexnet doctor --devices`: do the devices of this machine compute one and the same net, and how fast do they exchange?

A small net is trained for ten steps by one rank that has both columns, by one that runs them merged, by two ranks and by
two pairs. In float64 every tensor must agree to 1e-12, which only the same function can. In fp32 logits, gradients and
weights must agree to 1e-6, each kind taken as one vector: a single tensor can miss that by rounding alone. The gradients of
conv1's biases are sums in which terms 20 to 30 times as large cancel; those of one rank are 0.8e-6 from their float64
values. The worst tensor is printed, with its name, and decides nothing. Then the exchanges of the full net are timed.

`python -m alexnet.claims.devices FOLDER` is the process whose children are the ranks.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F
from torch import Tensor

from alexnet.config import Optimiser
from alexnet.model.alexnet import build_alexnet
from alexnet.model.columns import Layout, bytes_per_image, exchanged_shapes, gathered_plain_state
from alexnet.model.layers import Moment
from alexnet.model.presets import NetConfig, paper, source2012, with_classes, with_width
from alexnet.training.optimiser import build_optimiser
from alexnet.training.ranks import Rank, any_rank, average_gradients, backend, joined

SEED, SIDE, CLASSES = 0, 99, 5
BATCHES = (6,) * 8 + (5, 1)  # images of each step: also batches that replicas cannot halve
KINDS = ("logits", "gradients", "weights")
LIMITS = {"fp32": 1e-6, "fp64": 1e-12}  # Euclidean norm of a difference, relative to that of the values
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
ALONE, PAIR, PAIRS = Layout(), Layout(2, 1), Layout(2, 2)
NAMES = {ALONE: "1 rank", PAIR: "2 ranks", PAIRS: "2x2 ranks"}
IMAGES, REPEATS = 128, 10  # of a timed exchange

Work = Callable[[Rank, Path], None]
Trial = dict[str, dict[str, Tensor]]  # fp32 and fp64 -> name -> values


def as_text() -> tuple[str, bool]:
    """Return the report, which ends with PASS or FAIL, and whether it is PASS."""
    count = torch.cuda.device_count()
    layouts = [ALONE, PAIR] + [PAIRS] * (count < 2 or count >= 4)
    env = os.environ | {"OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if count < 2 else {})
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __name__, folder, *[str(layout.replicas) for layout in layouts[1:]]]
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
    return f"{found} Ranks on the processor, one thread each, joined by gloo."


def report_agreement(trials: dict[str, Trial]) -> tuple[list[str], bool]:
    """Return lines that compare every trial with that of one rank, and whether all agree."""
    lines = [
        "Ten steps of source2012 at 1/16 of its width against one rank that has both columns, relative differences:",
        f"{'':16}" + "".join(f"{kind:>11}" for kind in KINDS) + f"{'float64':>11}   worst tensor in fp32 (no limit)",
        f"{'limit':16}" + f"{LIMITS['fp32']:>11g}" * 3 + f"{LIMITS['fp64']:>11g}",
    ]
    reference, agree = trials["1 rank"], True
    for name in sorted(set(trials) - {"1 rank"}):
        short, long = (differences(reference[dtype], trials[name][dtype]) for dtype in DTYPES)
        whole = [short.pop(kind) for kind in KINDS]
        agree = agree and all(d <= LIMITS["fp32"] for d in whole) and all(d <= LIMITS["fp64"] for d in long.values())
        worst = max((key for key in short if "/" in key), key=lambda key: short[key])
        cells = "".join(f"{_said(d):>11}" for d in [*whole, max(long.values())])
        lines.append(f"{name:16}{cells}   " + (f"{worst} {_said(short[worst])}" if short[worst] else "equal"))
    return lines, agree


def _said(difference: float) -> str:
    return f"{difference:.1e}" if difference else "equal"


def report_times(times: dict[str, tuple[float, float]], carrier: str) -> list[str]:
    """Return lines with the seconds of each exchange, forward and backward, and the GB/s that one rank sends."""
    sent = bytes_per_image(paper())
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


def trial_net() -> NetConfig:
    """Return the small net that is trained: both normalisations, dropout, 3 to 12 kernels and 128 units a column."""
    return replace(with_classes(with_width(source2012(), 1 / 16), CLASSES), image_side=SIDE)


def trial(rank: Rank, grouped: bool = False, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Train the small net as one of several ranks and return the same results on each.

    They are the logits and the gradients of the first step and the weights and velocities after the last one, under the
    names of a plain state.
    """
    config, device = trial_net(), rank.device
    net = build_alexnet(config, SEED, rank.names(config), rank.exchange(config), grouped).to(device, dtype)
    optimiser = build_optimiser(net, Optimiser(rate=0.01, weight_decay=5e-4))
    found: dict[str, Tensor] = {}
    for step, size in enumerate(BATCHES):
        images, labels = trial_batch(step, size)
        rows = rank.rows(size)
        logits = net(images[rows].to(device, dtype), Moment(SEED, 0, step, first_image=rows.start))
        loss = F.cross_entropy(logits, labels[rows].to(device))
        optimiser.zero_grad()
        loss.backward()
        average_gradients(net, rank.replica_group, (rows.stop - rows.start) / size)
        if step == 0:
            found["logits/all"] = _all_rows(logits.detach(), rows, size, rank)
            found |= _plain("gradients", {name: p.grad for name, p in net.named_parameters()}, net, rank)
        optimiser.step()
    found |= _plain("weights", None, net, rank)
    found |= _plain("velocities", {name: optimiser.state[p]["velocity"] for name, p in net.named_parameters()}, net, rank)
    return {key: value.cpu() for key, value in found.items()}


def _plain(kind: str, values: dict[str, Tensor] | None, net, rank: Rank) -> dict[str, Tensor]:
    plain = gathered_plain_state(net, rank.column_group, values)
    return {f"{kind}/{key}": value for key, value in plain.items()}


def _all_rows(own_NK: Tensor, rows: slice, size: int, rank: Rank) -> Tensor:
    whole_NK = own_NK.new_zeros(size, own_NK.shape[1])
    whole_NK[rows] = own_NK
    if rank.replica_group is not None:
        dist.all_reduce(whole_NK, group=rank.replica_group)
    return whole_NK


def trial_batch(step: int, size: int) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, H, W) with the deviation of photographs' pixels, and labels, which depend on the step alone."""
    draws = torch.Generator().manual_seed(step)
    images = torch.randn(size, 3, SIDE, SIDE, generator=draws) * 70
    labels = torch.randint(CLASSES, (size,), generator=draws)
    return images.to(memory_format=torch.channels_last), labels


def time_exchanges(rank: Rank) -> dict[str, tuple[float, float]]:
    """Return the median seconds of each exchange of the full net, forward and backward."""
    config, times = paper(), {}
    exchange = rank.exchange(config)
    assert exchange is not None
    for layer, shape in exchanged_shapes(config).items():
        x = torch.randn(IMAGES, *shape, device=rank.device)
        x = (x.to(memory_format=torch.channels_last) if x.ndim == 4 else x).requires_grad_()
        taken = []
        for _ in range(REPEATS + 2):
            moments = [_now(rank)]
            y = exchange.add([x]) if layer == "fc8" else exchange.concatenate([x])
            moments.append(_now(rank))
            torch.autograd.grad(y, x, torch.ones_like(y))
            moments.append(_now(rank))
            taken.append((moments[1] - moments[0], moments[2] - moments[1]))
        times[layer] = tuple(statistics.median(column) for column in zip(*taken[2:], strict=True))
    return times


def _now(rank: Rank) -> float:
    any_rank(False, rank)  # Why: both ranks start together, and a device has done what it was asked.
    if rank.device.type == "cuda":
        torch.cuda.synchronize(rank.device)
    return time.perf_counter()


def check(rank: Rank, folder: Path) -> None:
    """Do the part of one rank and write what rank 0 found into `folder`."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    layout, found = rank.layout, {}
    found[NAMES[layout]] = {short: trial(rank, dtype=dtype) for short, dtype in DTYPES.items()}
    if layout == ALONE:
        found["1 rank, merged"] = {short: trial(rank, True, dtype) for short, dtype in DTYPES.items()}
    if layout == PAIR:
        found["times"] = time_exchanges(rank)
    for name, content in found.items() if rank.speaks else ():
        torch.save(content, folder / f"{name}.pt")


def run_ranks(work: Work, layouts: Sequence[Layout], folder: Path) -> None:
    """Call `work(rank, folder)` as every rank of each layout on this machine, one layout after the other.

    On processors the ranks are forks of this process, which should have computed nothing yet.
    """
    with_ports = [(layout, _free_port()) for layout in layouts]
    method = "fork" if backend() == "gloo" else "spawn"
    ranks = max(layout.ranks for layout in layouts)
    torch.multiprocessing.start_processes(_be_ranks, (work, with_ports, folder), nprocs=ranks, start_method=method)


def _be_ranks(index: int, work: Work, layouts: list[tuple[Layout, int]], folder: Path) -> None:
    torch.set_num_threads(1)
    for layout, port in layouts:
        if index >= layout.ranks:
            continue
        place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": layout.ranks, "MASTER_ADDR": "localhost"}
        os.environ |= {name: str(value) for name, value in (place | {"MASTER_PORT": port}).items()}
        with joined(layout) as rank:
            work(rank, folder)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


if __name__ == "__main__":
    run_ranks(check, [ALONE, *[Layout(2, int(word)) for word in sys.argv[2:]]], Path(sys.argv[1]))
