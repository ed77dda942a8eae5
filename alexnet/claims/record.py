"""What a training leaves in its run folder: manifest, metrics and timing, and the first kernels of a net of photographs."""

import hashlib
import json
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.claims import experiments, machine
from alexnet.config import ColumnNet, RunConfig, config_hash, differing_fields, to_dict
from alexnet.preprocessing.store import PreparedSet, write_json
from alexnet.training import loop
from alexnet.training.loop import Outcome

# How a training's end is called in the manifest; the first four are final.
STATUS = {
    "reached": "finished",
    "epochs": "finished",
    "settled": "finished",
    "diverged": "diverged",
    "limit": "overtaken",
    "stopped": "stopped",
}

KERNELS = "kernels.npy"
Metrics = list[dict[str, Any]]


class Record:
    """Keeps manifest, metrics and timing of a training in its folder as it goes on."""

    def __init__(
        self, config: RunConfig, data: PreparedSet, folder: Path, earlier: list[dict[str, Any]], part: dict[str, Any]
    ) -> None:
        self.folder, self.part, self.began = folder, part, time.perf_counter()
        self.manifest = new_manifest(config, data) | {"parts": [*earlier, part]}
        # Why: sums are split among threads, so another number of them has other last bits.
        self.manifest["command"] += f" --threads {self.manifest['parts'][0]['threads']}"
        if earlier:
            self.manifest["epochs"] = max((part["epochs"] or [0])[-1] for part in earlier)
        # Why now: a training killed in its first epoch leaves a part too.
        write_json(folder / "manifest.json", self.manifest)

    def note(self, metrics: Metrics, times: dict[str, float]) -> None:
        """Write what is known after an epoch, and what it took."""
        epoch, parts = metrics[-1]["epoch"], self.manifest["parts"]
        self.part["seconds"] = round(time.perf_counter() - self.began, 1)
        self.part["epochs"] = [(self.part["epochs"] or [epoch])[0], epoch]
        self.manifest |= {"epochs": epoch, "images_seen": metrics[-1]["images_seen"]}
        self.manifest["seconds"] = round(sum(part["seconds"] for part in parts), 1)
        write_lines(self.folder / "metrics.jsonl", metrics)
        if times:
            earlier = [line for line in read_lines(self.folder / "timing.jsonl") if line["epoch"] < epoch]
            write_lines(self.folder / "timing.jsonl", [*earlier, {"epoch": epoch, **times}])
        write_json(self.folder / "manifest.json", self.manifest)

    def close(self, training: loop.Training, weights: dict[str, Tensor], outcome: Outcome) -> None:
        """Write how it ended."""
        self.manifest |= {"status": STATUS[outcome.kind], "outcome": outcome.kind, "warning": outcome.warning}
        self.manifest["weights_sha256"] = weights_digest(weights)
        if isinstance(training.config.net, ColumnNet):
            write_kernels(self.folder, weights["conv1.weight"])
        self.note(training.progress.metrics, {})


def new_part(
    threads: int, precision: dict[str, Any], ranks: int = 1, compiled: bool = False, device: torch.device | None = None
) -> dict[str, Any]:
    """Describe one sitting of a training: a run that is stopped and goes on elsewhere has several."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "epochs": None,
        "threads": threads,
        "device": machine.name_of(device or torch.device("cpu")),
        "ranks": ranks,
        "compiled": compiled,
        "precision": precision,
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "git": machine.git_state(),
    }


def new_manifest(config: RunConfig, data: PreparedSet) -> dict[str, Any]:
    """Describe a run that begins."""
    return {
        "name": config.name,
        "status": "running",
        "outcome": None,
        "warning": None,
        "command": command_of(config),
        "config_hash": config_hash(config),
        "config": to_dict(config),
        "data": {"set": data.name, "fingerprint": data.fingerprint, "stand_in": data.stand_in},
        "epochs": 0,
        "images_seen": 0,
        "seconds": 0.0,
        "weights_sha256": None,
    }


def command_of(config: RunConfig) -> str:
    """Return the command that repeats a run, with every option in which it departs from its variant's config."""
    words = f"alexnet train {config.claim} --scale {config.scale} --variant {config.variant} --seed {config.seed}"
    base = experiments.config_named(config.claim, config.scale, config.variant, config.seed)
    changes = differing_fields(to_dict(base), to_dict(config))
    options = []
    for name, _, value in changes:
        values = map(str, value) if isinstance(value, list) else [str(value)]
        options += [f"--{name.split('.')[-1].replace('_', '-')}", *values]
    return f"{words} {shlex.join(options)}".rstrip()


def weights_digest(weights: dict[str, Tensor]) -> str:
    """Return the sha256 over all weights in the order of their names: equal only when every bit is."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(weight.to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_kernels(folder: Path, kernels_KCHW: Tensor) -> None:
    """Write conv1's kernels (fp32, 140 kB at full width): all that Figure 3 needs of a net whose weights are not kept."""
    partial = folder / "kernels.partial"
    with partial.open("wb") as stream:
        np.save(stream, kernels_KCHW.detach().to("cpu", torch.float32).contiguous().numpy(), allow_pickle=False)
    partial.replace(folder / KERNELS)


def read_kernels(folder: Path) -> np.ndarray | None:
    """Return conv1's kernels (all columns' kernels, colours, side, side) of a run, or None where it has none."""
    file = folder / KERNELS
    return np.load(file, allow_pickle=False) if file.is_file() else None


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; an absent one is empty."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def write_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    """Write a JSON-lines file whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    partial.replace(file)
