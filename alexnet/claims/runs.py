"""Run folders: `runs/<scale>/<claim>/<variant>/seed-<n>/`.

    manifest.json   what was run (config and hash), on what (parts: commit, versions, hardware), and how it ended
    metrics.jsonl   one line for each epoch; a function of the config alone, equal to the bit however often it was stopped
    timing.jsonl    seconds and images a second of each epoch
    checkpoint.pt   to go on from; never committed

Notebooks ask for runs with `get`: a finished one is read, a half-finished one goes on, a missing one is trained.
"""

import fcntl
import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alexnet.claims import machine
from alexnet.config import RunConfig, UserError, config_hash, to_dict
from alexnet.preprocessing import datasets
from alexnet.preprocessing.store import PreparedSet, write_json
from alexnet.training import checkpoint, loop
from alexnet.training.loop import Outcome
from alexnet.training.parity import parity_of
from alexnet.training.precision import decide

# How a training's end is called in the manifest; the first three are final.
STATUS = {
    "reached": "finished",
    "epochs": "finished",
    "diverged": "diverged",
    "limit": "overtaken",
    "stopped": "stopped",
}


@dataclass(frozen=True)
class Run:
    """A run as it stands on disk."""

    folder: Path
    manifest: dict[str, Any]
    metrics: list[dict[str, Any]]

    @property
    def status(self) -> str:
        """One of "finished", "diverged", "overtaken" (ended because another run was faster), "stopped", "running"."""
        return self.manifest["status"]

    def is_done(self, epoch_limit: int | None = None) -> bool:
        """Return whether there is nothing left to do, for a caller who wants no more than `epoch_limit` epochs."""
        if self.status in ("finished", "diverged"):
            return True
        return epoch_limit is not None and self.metrics[-1]["epoch"] >= epoch_limit


def runs_dir() -> Path:
    """Return the folder of all runs: `$ALEXNET_RUNS`, else `runs` in the project."""
    return Path(os.environ.get("ALEXNET_RUNS", machine.PROJECT_DIR / "runs"))


def folder_of(config: RunConfig) -> Path:
    """Return the folder of the run that `config` describes."""
    return runs_dir() / config.scale / config.name


def read(config: RunConfig) -> Run | None:
    """Return the run of `config` as it stands, or None. Raises UserError when it was recorded under another config."""
    folder = folder_of(config)
    if not (folder / "manifest.json").is_file():
        return None
    manifest = json.loads((folder / "manifest.json").read_text())
    checkpoint.refuse_other_config(config.name, manifest["config"], to_dict(config))
    return Run(folder, manifest, read_lines(folder / "metrics.jsonl"))


def get(
    config: RunConfig, *, epoch_limit: int | None = None, threads: int | None = None, bar: bool | None = None
) -> Run:
    """Return the run of `config`, training what is missing.

    With `epoch_limit` a run that has not ended by that epoch is recorded as "overtaken" and returned. Raises UserError
    when the folder holds another config's run or another process is working on it; KeyboardInterrupt when a signal
    stopped the training, after a checkpoint.
    """
    run = read(config)
    if run is not None and run.is_done(epoch_limit):
        return run
    folder = folder_of(config)
    with _lock(folder):
        outcome = _continue(config, folder, run, epoch_limit, loop.use_processor(threads), bar)
    if outcome.warning:
        warnings.warn(f"{config.name}: {outcome.warning}", stacklevel=2)
    if outcome.kind == "stopped":
        raise KeyboardInterrupt(f"{config.name} was stopped; the same command goes on from there.")
    finished = read(config)
    assert finished is not None
    return finished


def _continue(
    config: RunConfig, folder: Path, run: Run | None, epoch_limit: int | None, threads: int, bar: bool | None
) -> Outcome:
    data = datasets.prepare(config.data)
    earlier = run.manifest["parts"] if run and (folder / checkpoint.CURRENT).exists() else []
    if earlier and run.manifest["data"]["fingerprint"] != data.fingerprint:
        raise UserError(
            f"run {config.name} was begun on other images ({config.data} {run.manifest['data']['fingerprint']}, now "
            f"{data.fingerprint}). Delete {folder} to start again."
        )
    # Why: a run keeps the precision it began with; only a new one measures.
    precision = earlier[0]["precision"] if earlier else decide(config.precision, parity_of(config, data))
    manifest = _new_manifest(config, data)
    part = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "epochs": None,
        "threads": threads,
        "precision": precision,
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "git": machine.git_state(),
    }
    manifest["parts"] = [*earlier, part]
    began = time.perf_counter()

    def on_epoch(metrics: list[dict[str, Any]], seconds: float) -> None:
        last = metrics[-1]
        part["seconds"] = round(time.perf_counter() - began, 1)
        part["epochs"] = [part["epochs"][0] if part["epochs"] else last["epoch"], last["epoch"]]
        manifest.update(epochs=last["epoch"], images_seen=last["images_seen"])
        manifest["seconds"] = round(sum(p["seconds"] for p in manifest["parts"]), 1)
        write_lines(folder / "metrics.jsonl", metrics)
        _note_time(folder / "timing.jsonl", last["epoch"], seconds)
        write_json(folder / "manifest.json", manifest)

    training, outcome = loop.train(
        config, data, folder, precision=precision["choice"], epoch_limit=epoch_limit, on_epoch=on_epoch, bar=bar
    )
    manifest.update(status=STATUS[outcome.kind], outcome=outcome.kind, warning=outcome.warning)
    manifest["weights_sha256"] = weights_digest(training.net)
    on_epoch(training.progress.metrics, 0.0)
    return outcome


def _new_manifest(config: RunConfig, data: PreparedSet) -> dict[str, Any]:
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
    """Return the command that repeats a run."""
    return f"alexnet train {config.claim} --scale {config.scale} --variant {config.variant} --seed {config.seed}"


def weights_digest(net: nn.Module) -> str:
    """Return the sha256 over all weights in the order of their names: equal only when every bit is."""
    digest = hashlib.sha256()
    for name, weight in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; an absent one is empty."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def write_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    """Write a JSON-lines file whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    partial.replace(file)


def _note_time(file: Path, epoch: int, seconds: float) -> None:
    if seconds:
        kept = [line for line in read_lines(file) if line["epoch"] < epoch]
        write_lines(file, [*kept, {"epoch": epoch, "seconds": round(seconds, 2)}])


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another process is training {folder}. Wait for it, or stop it; nothing is lost either way."
            ) from None
        yield
