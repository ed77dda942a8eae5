"""Which type a machine should train in: measured, never assumed.

The 2012 code is fp32 throughout. Processors differ a hundredfold in bf16: some multiply it natively, others emulate it.
`decide` times a product of matrices in both types and answers with its measurements, for the run's manifest.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

WORTHWHILE = 1.5  # bf16 must multiply this many times faster than fp32
PARITY_STEPS = 60
PARITY_BOUND = 0.03  # relative difference of the mean loss over the last third of the parity steps


CHOICES = ("fp32", "bf16", "tf32")  # what a run can be trained in


def autocast(precision: str, device: str = "cpu") -> AbstractContextManager:
    """Return the context in which a net runs in `precision`: "bf16", or none (weights and losses are fp32 always)."""
    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def settle_cuda(tf32: bool) -> None:
    """Have CUDA devices give the same bits each time; `tf32` lets them round factors of fp32 products to 10 bits.

    Why: torch rounds them in convolutions unasked, and takes algorithms that add in any order where they are faster.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.deterministic = True


def matmul_speed(dtype: torch.dtype, side: int = 512, repeats: int = 5, device: str = "cpu") -> float:
    """Return the GFLOP/s of a square matrix product, the best of `repeats` after one to warm up."""
    a = torch.ones(side, side, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        product = a @ a
        if product.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if seconds > 0.2:  # Why: emulated bf16 can take a second; one look is enough.
            return 2 * side**3 / min(best, seconds) / 1e9
        best = min(best, seconds)
    return 2 * side**3 / best / 1e9


def decide(wanted: str, parity: Callable[[], dict[str, Any]] | None = None, device: str = "cpu") -> dict[str, Any]:
    """Choose the precision of a run on a type of device and return {"choice", "why", and what was measured}.

    `wanted` is "auto" or one of `CHOICES`. "auto" takes bf16 only where it multiplies `WORTHWHILE` times faster and
    `parity` (see `compare_losses`) finds the losses of both types equal within `PARITY_BOUND`.
    """
    if wanted != "auto":
        return {"choice": wanted, "why": "asked for"}
    # Why: a product that a processor needs milliseconds for is over on a GPU before it is timed.
    size = {"side": 4096, "device": device} if device == "cuda" else {}
    fp32, bf16 = matmul_speed(torch.float32, **size), matmul_speed(torch.bfloat16, **size)
    record: dict[str, Any] = {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "matmul_gflops": {"fp32": round(fp32, 1), "bf16": round(bf16, 1)},
    }
    if bf16 < WORTHWHILE * fp32:
        return {"choice": "fp32", "why": "bf16 is not fast enough on this processor to be worth it", **record}
    if parity is None:
        return {"choice": "fp32", "why": "no parity check of bf16 for this net", **record}
    record["parity"] = parity()
    if record["parity"]["relative_difference"] > PARITY_BOUND:
        return {"choice": "fp32", "why": "the losses in bf16 differ from those in fp32", **record}
    return {"choice": "bf16", "why": "bf16 is faster and its losses agree with fp32", **record}


def compare_losses(losses_of: Callable[[str], Iterable[float]], steps: int = PARITY_STEPS) -> dict[str, Any]:
    """Return how far the first losses of a training in bf16 are from those in fp32.

    `losses_of(precision)` trains from the same weights on the same batches and gives `steps` losses.
    """
    tail = steps // 3
    means = {p: float(Tensor(list(losses_of(p)))[-tail:].mean()) for p in ("fp32", "bf16")}
    difference = abs(means["bf16"] - means["fp32"]) / means["fp32"]
    return {"steps": steps, "mean_loss": means, "relative_difference": difference}
