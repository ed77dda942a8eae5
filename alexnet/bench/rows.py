"""Rows of the bench: two ways of doing the same work, timed in turn so that both see the machine in the same mood."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from alexnet.training.precision import WORTHWHILE, matmul_speed

REPEATS = 7
Kind = Literal["fp32", "bf16"]  # the dtype in which a machine is fast
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """One comparison: what, against what, the median ratio of their speeds, and the target on each kind of machine."""

    what: str
    against: str
    ratio: float
    figures: str  # the absolute speeds, for the curious
    at_least: dict[Kind, float] = field(default_factory=dict)  # "bf16": on a machine that multiplies bf16 natively

    def met(self, kind: Kind) -> str:
        """Whether the target of this kind of machine is met, in a word; nothing where there is none."""
        return "" if kind not in self.at_least else "yes" if self.ratio >= self.at_least[kind] else "no"


def both(fp32: float, bf16: float | None = None) -> dict[Kind, float]:
    """Return a target for each kind of machine: the same for both, unless bf16's is given."""
    return {"fp32": fp32, "bf16": fp32 if bf16 is None else bf16}


@dataclass(frozen=True)
class Setting:
    """On what, in which dtype, and on how many images a step is measured."""

    kind: Kind
    batch: int
    device: torch.device = CPU

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the maps between layers."""
        return torch.bfloat16 if self.kind == "bf16" else torch.float32

    @property
    def side(self) -> int:
        """The side of the matrices whose product is the measure of the machine: so large that it is busy for a while."""
        return 2048 if self.device.type == "cpu" else 8192


def kind_of_machine() -> Kind:
    """Return in which dtype this machine multiplies matrices fast: measured, never assumed."""
    return "bf16" if matmul_speed(torch.bfloat16) >= WORTHWHILE * matmul_speed(torch.float32) else "fp32"


def here() -> Setting:
    """Return what this machine's CPU is measured at."""
    kind = kind_of_machine()
    return Setting(kind, 128 if kind == "bf16" else 64)


def share_of_matmul(work: Callable[[], object], operations: float, at: Setting, repeats: int = REPEATS) -> tuple[float, str]:
    """Return which part of the speed of a matmul `work` has, timed in turn, and both speeds in words."""
    work()
    how = {"side": at.side, "repeats": 1, "device": at.device.type}
    speeds = [(operations / seconds_of(work) / 1e9, matmul_speed(at.dtype, **how)) for _ in range(repeats)]
    step, product = (statistics.median(column) for column in zip(*speeds, strict=True))
    return statistics.median(a / b for a, b in speeds), f"{step:.0f} against {product:.0f} GFLOP/s"


def seconds_of(work: Callable[[], object]) -> float:
    """Time one call, and what it asked of a CUDA device."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(ours: Callable[[], object], theirs: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float, float]:
    """Return (median of theirs / ours, median seconds of ours, of theirs), timed alternately after a warm-up."""
    return compared(*in_turn([ours, theirs], repeats))


def in_turn(works: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Return the seconds of each work, `repeats` of them, timed one after the other in rounds after a warm-up."""
    for work in works:
        work()
    rounds = [[seconds_of(work) for work in works] for _ in range(repeats)]
    return [list(column) for column in zip(*rounds, strict=True)]


def compared(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return (median of theirs / ours, median of ours, of theirs), seconds of the same rounds."""
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return ratio, statistics.median(ours), statistics.median(theirs)
