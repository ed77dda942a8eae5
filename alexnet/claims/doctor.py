"""What this machine has, and what each scale lacks on it."""

import shutil

import torch

from alexnet.claims import machine, scales
from alexnet.preprocessing import store
from alexnet.preprocessing.datasets import PREPARERS
from alexnet.training.compiling import why_not
from alexnet.training.precision import decide


def as_text() -> str:
    """Return the report of `alexnet doctor`."""
    has, versions = machine.hardware(), machine.versions()
    precision = decide("auto")
    speeds = precision.get("matmul_gflops", {})
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    existing = next(path for path in (store.data_dir(), *store.data_dir().parents) if path.exists())
    lines = [
        f"processor    {has['processor']}, {has['cores']} cores, {has['memory_gb']} GB, {has['cpu_capability']}",
        f"threads      {torch.get_num_threads()}",
        f"matmul       fp32 {speeds['fp32']} GFLOP/s, bf16 {speeds['bf16']} GFLOP/s",
        f"loops in C   {_loops('cpu')}",
        f"torch        {versions['torch']} ({build}), torchvision {versions['torchvision']}, Python {versions['python']}",
        f"devices      {_devices()}",
        *([f"in Triton    {_loops('cuda')}"] if torch.cuda.is_available() else []),
        f"disk         {shutil.disk_usage(existing).free / 1e9:.0f} GB free for prepared sets in {store.data_dir()}",
        f"prepared     {', '.join(name for name in PREPARERS if store.is_prepared(name)) or 'none'}",
        "",
    ]
    for state in scales.readiness():
        lacks = "ready" if not state.lacks else f"lacks {'; '.join(state.lacks)}"
        lines.append(f"scale {state.scale:6} {lacks}")
    return "\n".join(lines)


def _loops(device: str) -> str:
    why = why_not(torch.device(device))
    return "compiled" if why is None else f"not compiled, so the slower plain paths are used: {why}"


def _devices() -> str:
    count = torch.cuda.device_count()
    if count == 0:
        return "no CUDA device"
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    if count == 1:
        return names[0]
    pairs = [f"{i}-{j}" for i in range(count) for j in range(i + 1, count) if torch.cuda.can_device_access_peer(i, j)]
    return f"{', '.join(names)}; peer access between {', '.join(pairs) or 'none of them'}"
