"""What this machine is: processor, cores, devices, versions, commit. Manifests carry it, and `alexnet doctor` prints it."""

import os
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from alexnet.config import PROJECT_DIR, UserError, home_dir

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pandas", "matplotlib", "jupyter-book", "papermill")
# What decides results; `runs/` is left out because a run writes there itself.
SOURCES = ("alexnet", "book", "pyproject.toml", "constraints.txt")


def hardware() -> dict[str, Any]:
    """Return processor, cores, memory (GB), the instructions that torch uses, and the CUDA devices."""
    import torch

    cpuinfo = _read(Path("/proc/cpuinfo")).splitlines()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": (models or [platform.processor() or platform.machine()])[0],
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
    }


def use_device(word: str) -> None:
    """Show torch only the device `word`, before it looks for any. Raises UserError for one that is not here."""
    if word == "auto":
        return
    seen, number = os.environ.get("CUDA_VISIBLE_DEVICES"), word.removeprefix("cuda").lstrip(":") or "0"
    if number.isdecimal() and seen:  # the user shows us some only
        number = dict(enumerate(seen.split(","))).get(int(number), "")
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if word == "cpu" else number
    import torch

    if word != "cpu" and not torch.cuda.is_available():
        raise UserError(f"--device {word} is not here (alexnet doctor). It is auto, cpu, cuda, or cuda:1 and so on.")


def name_of(device: Any) -> str:
    """Return the name of a torch device that is a CUDA device, or "cpu"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def available_cores() -> int:
    """Return the number of cores that this process may use: by its affinity and by the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(cgroup_cores(Path("/")))))


def cgroup_cores(root: Path) -> float:
    """Return how many cores' time this process's control group (version 2), and those around it, allow; or a million."""
    limits, top = [10.0**6], root / "sys/fs/cgroup"
    own = next((line[3:] for line in _read(root / "proc/self/cgroup").splitlines() if line.startswith("0::")), "")
    for folder in (group := top / own.lstrip("/"), *group.parents):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits)


def _read(file: Path) -> str:
    with suppress(OSError):
        return file.read_text()
    return ""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result or its looks."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def git_state() -> dict[str, Any]:
    """Return this project's commit and whether its sources differ from it; both None in none, or somebody else's."""
    # Why: inside a hook git names the hook's repository in variables, which win over the folder.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    asked = (("rev-parse", "--show-toplevel"), ("rev-parse", "HEAD"), ("status", "--porcelain", "--", *SOURCES))
    how = {"capture_output": True, "text": True, "timeout": 30, "env": env, "check": True}
    with suppress(OSError, subprocess.SubprocessError):
        top, commit, changes = (subprocess.run(["git", "-C", PROJECT_DIR, *words], **how).stdout.strip() for words in asked)
        if Path(top).resolve() == PROJECT_DIR:
            return {"commit": commit, "dirty": bool(changes)}
    return {"commit": None, "dirty": None}


def details() -> list[tuple[str, str]]:
    """Return (title, text) of what `alexnet doctor` prints of the machine itself."""
    import torch

    has, found = hardware(), versions()
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    on_macos, away = platform.system() == "Darwin", f"installed without a checkout: data and results are in {home_dir()}"
    cores = f"{available_cores()} of {has['cores']} cores usable"
    return [
        ("processor", f"{has['processor']}, {cores}, {has['memory_gb']} GB, {has['cpu_capability']}"),
        ("threads", str(torch.get_num_threads())),
        ("torch", f"{found['torch']} ({build}), torchvision {found['torchvision']}, Python {found['python']}"),
        ("devices", ", ".join(has["devices"]) or "no CUDA device" + ": the CPU computes, not Apple's GPU" * on_macos),
        *[("package", f"{away}; the book is in the checkout")] * (home_dir() != PROJECT_DIR),
    ]
