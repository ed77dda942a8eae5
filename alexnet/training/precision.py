"""In which dtype and how fast this process computes: precision, threads, kernels.

The 2012 code is fp32 throughout. CPUs differ a hundredfold in bf16: some multiply it natively, others emulate it.
"""

import ctypes
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from alexnet.model import kernels
from alexnet.training.distributed import Group

WORTHWHILE = 1.5  # bf16 must multiply this many times faster than fp32
CHOICES = ("fp32", "bf16", "tf32")  # what a run can be trained in


def autocast(precision: str, device: str = "cpu") -> AbstractContextManager:
    """Return the context in which a net runs in `precision`: "bf16", or none (weights and losses are fp32 always)."""
    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def settle_cuda(tf32: bool) -> None:
    """Have CUDA devices give the same bits each time; `tf32` lets them round factors of fp32 products to 10 bits."""
    # Why: torch rounds them in convolutions unasked, and takes algorithms that add in any order where they are faster.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.deterministic = True


def matmul_speed(dtype: torch.dtype, side: int = 512, repeats: int = 5, device: str = "cpu") -> float:
    """Return the GFLOP/s of a square matmul, the best of `repeats` after one to warm up."""
    a = torch.ones(side, side, dtype=dtype, device=device)
    times: list[float] = []
    while len(times) <= repeats and not (times and times[-1] > 0.2):  # Why: emulated bf16 can take a second; one is enough.
        start = time.perf_counter()
        product = a @ a
        if product.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times) / 1e9


def decide(wanted: str, device: str = "cpu") -> dict[str, Any]:
    """Return {"choice", "why", and what was measured} for one of `CHOICES`, or "auto": bf16 where it is fast enough."""
    if wanted != "auto":
        return {"choice": wanted, "why": "asked for"}
    # Why: a matmul that a CPU needs milliseconds for is over on a GPU before it is timed.
    size = {"side": 4096, "device": device} if device == "cuda" else {}
    fp32, bf16 = matmul_speed(torch.float32, **size), matmul_speed(torch.bfloat16, **size)
    choice, why = "bf16", f"bf16 is more than {WORTHWHILE} times as fast here"
    if bf16 < WORTHWHILE * fp32:
        choice, why = "fp32", "bf16 is not fast enough on this device to be worth it"
    gflops = {"fp32": round(fp32, 1), "bf16": round(bf16, 1)}
    return {"choice": choice, "why": why, "cpu_capability": torch.backends.cpu.get_cpu_capability(), "matmul_gflops": gflops}


def use_threads(num_threads: int | None) -> int:
    """Set the number of threads of torch's operations (None leaves torch's choice) and return it."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    # Why: glibc gives every large buffer back to the system and asks for it again at the next step. Keeping them
    # (M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD) makes a step of the small nets 5 to 20 % faster.
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):
            libc.mallopt(option, value)
    return torch.get_num_threads()


def use_kernels(wanted: bool, group: Group) -> bool:
    """Switch the compiled kernels on or off as the main rank wants; return whether they are on.

    Where they cannot be compiled all ranks take the plain path, and one line says so; $ALEXNET_COMPILE=0 says no for all.
    """
    (wanted,) = group.any(wanted and group.is_main and os.environ.get("ALEXNET_COMPILE") != "0")
    why = kernels.why_not(group.device.type) if wanted else None
    (missing,) = group.any(why is not None)
    if missing and group.is_main:
        print(f"no kernels, so the slower plain path is used: {why or 'another rank has none'}", file=sys.stderr)
    return kernels.use(wanted and not missing, group.device.type)
