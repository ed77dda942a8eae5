"""What a result was made on: processor, devices, versions, commit. Every run's manifest carries this."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from alexnet.config import PROJECT_DIR

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pandas", "matplotlib", "jupyter-book", "papermill")
# What decides results; `runs/` is left out because a run writes there itself.
SOURCES = ("alexnet", "book", "pyproject.toml", "constraints.txt")


def hardware() -> dict[str, Any]:
    """Return processor, cores, memory (GB), the kind of arithmetic torch uses on it, and the CUDA devices."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
    }


def name_of(device: torch.device) -> str:
    """Return the name of a CUDA device, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result or its looks."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def git_state() -> dict[str, Any]:
    """Return the commit of the project and whether its sources differ from it; both None outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--", *SOURCES))}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(PROJECT_DIR), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
