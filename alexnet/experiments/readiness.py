"""Which scale this machine is ready for, and what the next one would need."""

import shutil
from typing import Any

from tabulate import tabulate

from alexnet.experiments import runs
from alexnet.experiments.scales import SCALES, Scale, table
from alexnet.preprocessing import SETS, data_dir, is_prepared
from alexnet.preprocessing.prepared_set import MANIFEST, read_manifest

RARE = ("fall2009", "fall2011")  # few have these sets; the scale `paper` is run without what needs them


def device() -> Any:
    """Return the device that a single training takes: the first CUDA device, else the CPU."""
    import torch

    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def lacks(scale: Scale) -> list[str]:
    """Return what this machine lacks for a scale; it is ready when nothing."""
    import torch

    sets = {"toy": "", "small": "cifar10 imagenet20 imagenette", "paper": "cifar10 ilsvrc2010 ilsvrc2012"}[scale].split()
    missing = [f"{name} ({SETS[name].how}: alexnet prepare {name})" for name in sets if not is_prepared(name)]
    if scale == "paper" and not torch.cuda.device_count():
        missing.append("a CUDA device")
    return missing


def choose(wanted: str) -> tuple[Scale, str]:
    """Return the scale to run (auto: `paper` if nothing lacks, else `toy`), why, and what the next larger one needs."""
    whys = {"toy": "this machine lacks what the scale paper needs", "paper": "a CUDA device and ImageNet are here"}
    scale: Scale = table(wanted).name if wanted != "auto" else "toy" if lacks("paper") else "paper"
    sentence = f"Scale {scale} ({table(scale).words}): {whys[scale] if wanted == 'auto' else 'asked for'}."
    if scale != SCALES[-1]:
        larger = SCALES[SCALES.index(scale) + 1]
        needs = "; ".join(lacks(larger)) or "nothing that is not here, only time"
        sentence += f" The next larger one, SCALE={larger} ({table(larger).words}), would need: {needs}."
    return scale, sentence


def details() -> list[tuple[str, str]]:
    """Return (title, text) of what trainings will find here: speeds, kernels, disk, sets; and what each scale lacks."""
    from alexnet.model import kernels
    from alexnet.training.precision import decide

    chosen = decide("auto", device().type)
    speeds = ", ".join(f"{word} {speed:g} GFLOP/s" for word, speed in chosen["matmul_gflops"].items())
    data = data_dir()
    data_disk = next(folder for folder in (data, *data.parents) if folder.is_dir())
    sets = ", ".join(name for name in SETS if is_prepared(name)) or "none"
    return [
        ("matmul", f"{speeds}: --precision auto is {chosen['choice']}"),
        ("kernels", kernels.why_not(device().type) or "response normalisation is compiled"),
        ("disk", f"{shutil.disk_usage(data_disk).free / 1e9:.0f} GB free for {data}"),
        ("sets", f"{sets} prepared"),
        *((f"scale {scale}", "; ".join(lacks(scale)) or "ready") for scale in SCALES),
    ]


def sets_as_text() -> str:
    """Return the sets: what is in those that are prepared, and how one gets the others."""
    lines = {name: f"not prepared: {info.how}" for name, info in SETS.items()}
    for file in sorted(data_dir().glob(f"*/{MANIFEST}")):
        name, _, beside = file.parent.name.partition(".")
        if beside in ("", "new") and (said := runs.whole(read_manifest, file.parent)) is not None:
            counts = ", ".join(f"{sum(of_class.values()):,} {split}" for split, of_class in said["counts"].items())
            lines[name] = f"{counts}; {len(said['classes']):,} classes"
    return tabulate(lines.items(), headers=("set", "images"), disable_numparse=True)
