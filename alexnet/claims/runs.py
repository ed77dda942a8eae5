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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alexnet.claims import experiments, machine
from alexnet.config import PROJECT_DIR, RunConfig, UserError, config_hash, differing_fields, from_dict, to_dict
from alexnet.preprocessing import datasets
from alexnet.preprocessing.store import PreparedSet, write_json
from alexnet.training import checkpoint, loop
from alexnet.training.loop import Outcome
from alexnet.training.parity import parity_of
from alexnet.training.precision import decide
from alexnet.training.process import use_processor

# How a training's end is called in the manifest; the first three are final.
STATUS = {
    "reached": "finished",
    "epochs": "finished",
    "diverged": "diverged",
    "limit": "overtaken",
    "stopped": "stopped",
}


Metrics = list[dict[str, Any]]
OnEpoch = Callable[[Metrics, float], None]


class MissingRunError(UserError):
    """A run that is asked for is not there, and training is switched off."""


@dataclass(frozen=True)
class Run:
    """A run as it stands on disk."""

    folder: Path
    manifest: dict[str, Any]
    metrics: Metrics

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
    return Path(os.environ.get("ALEXNET_RUNS", PROJECT_DIR / "runs"))


def training_allowed() -> bool:
    """Return whether a missing run may be trained: not when `$ALEXNET_TRAIN` is 0."""
    return os.environ.get("ALEXNET_TRAIN") != "0"


def folder_of(config: RunConfig) -> Path:
    """Return the folder of the run that `config` describes."""
    return runs_dir() / config.scale / config.name


def can_go_on(config: RunConfig) -> bool:
    """Return whether there is a checkpoint to continue the run of `config` from."""
    return (folder_of(config) / checkpoint.CURRENT).is_file()


def read(config: RunConfig) -> Run | None:
    """Return the run of `config` as it stands, or None. Raises UserError when it was recorded under another config."""
    folder = folder_of(config)
    if not (folder / "manifest.json").is_file():
        return None
    manifest = json.loads((folder / "manifest.json").read_text())
    checkpoint.refuse_other_config(config.name, manifest["config"], to_dict(config))
    return Run(folder, manifest, read_lines(folder / "metrics.jsonl"))


def get(
    config: RunConfig,
    *,
    epoch_limit: int | None = None,
    threads: int | None = None,
    bar: bool | None = None,
    on_epoch: OnEpoch = lambda metrics, seconds: None,
) -> Run:
    """Return the run of `config`, training what is missing.

    With `epoch_limit` a run that has not ended by that epoch is recorded as "overtaken" and returned. `bar` and `on_epoch`
    are as in `loop.train`. Raises UserError when the folder holds another config's run, another process is working on it,
    or something is missing and `$ALEXNET_TRAIN` is 0; KeyboardInterrupt when a signal stopped the training, after a
    checkpoint.
    """
    run = read(config)
    if run is not None and run.is_done(epoch_limit):
        return run
    if not training_allowed():
        raise MissingRunError(f"run {config.name} is missing at scale {config.scale}. Make it with: {command_of(config)}")
    folder = folder_of(config)
    with _lock(folder):
        outcome = _continue(config, folder, run, epoch_limit, use_processor(threads), bar, on_epoch)
    if outcome.warning:
        warnings.warn(f"{config.name}: {outcome.warning}", stacklevel=2)
    if outcome.kind == "stopped":
        raise KeyboardInterrupt(f"{config.name} was stopped; the same command goes on from there.")
    finished = read(config)
    assert finished is not None
    return finished


def _continue(
    config: RunConfig,
    folder: Path,
    run: Run | None,
    epoch_limit: int | None,
    threads: int,
    bar: bool | None,
    on_epoch: OnEpoch,
) -> Outcome:
    data = datasets.prepare(config.data)
    earlier = run.manifest["parts"] if run and can_go_on(config) else []
    if earlier and run.manifest["data"]["fingerprint"] != data.fingerprint:
        raise UserError(
            f"run {config.name} was begun on other images ({config.data} {run.manifest['data']['fingerprint']}, now "
            f"{data.fingerprint}). Delete {folder} to start again."
        )
    # Why: a run keeps the precision it began with; only a new one measures.
    precision = earlier[0]["precision"] if earlier else decide(config.precision, parity_of(config, data))
    record = _Record(config, data, folder, earlier, _new_part(threads, precision))

    def note(metrics: Metrics, seconds: float) -> None:
        record.note(metrics, seconds)
        on_epoch(metrics, seconds)

    training, outcome = loop.train(
        config, data, folder, precision=precision["choice"], epoch_limit=epoch_limit, on_epoch=note, bar=bar
    )
    record.close(training, outcome)
    return outcome


class _Record:
    """Keeps manifest, metrics and timing of a training in its folder as it goes on."""

    def __init__(
        self, config: RunConfig, data: PreparedSet, folder: Path, earlier: list[dict[str, Any]], part: dict[str, Any]
    ) -> None:
        self.folder, self.part, self.began = folder, part, time.perf_counter()
        self.manifest = _new_manifest(config, data) | {"parts": [*earlier, part]}

    def note(self, metrics: Metrics, seconds: float) -> None:
        """Write what is known after an epoch."""
        epoch, parts = metrics[-1]["epoch"], self.manifest["parts"]
        self.part["seconds"] = round(time.perf_counter() - self.began, 1)
        self.part["epochs"] = [(self.part["epochs"] or [epoch])[0], epoch]
        self.manifest |= {"epochs": epoch, "images_seen": metrics[-1]["images_seen"]}
        self.manifest["seconds"] = round(sum(part["seconds"] for part in parts), 1)
        write_lines(self.folder / "metrics.jsonl", metrics)
        if seconds:
            times = [line for line in read_lines(self.folder / "timing.jsonl") if line["epoch"] < epoch]
            write_lines(self.folder / "timing.jsonl", [*times, {"epoch": epoch, "seconds": round(seconds, 2)}])
        write_json(self.folder / "manifest.json", self.manifest)

    def close(self, training: loop.Training, outcome: Outcome) -> None:
        """Write how it ended."""
        self.manifest |= {"status": STATUS[outcome.kind], "outcome": outcome.kind, "warning": outcome.warning}
        self.manifest["weights_sha256"] = weights_digest(training.net)
        self.note(training.progress.metrics, 0.0)


def _new_part(threads: int, precision: dict[str, Any]) -> dict[str, Any]:
    """Describe one sitting of a training: a run that is stopped and goes on elsewhere has several."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "epochs": None,
        "threads": threads,
        "precision": precision,
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "git": machine.git_state(),
    }


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


def manifests(scale: str) -> list[dict[str, Any]]:
    """Return the manifests of all runs recorded at `scale`, in the order of their names."""
    files = sorted((runs_dir() / scale).glob("*/*/seed-*/manifest.json"))
    return [json.loads(file.read_text()) for file in files]


def load_net(run: Run) -> tuple[nn.Module, PreparedSet]:
    """Return the net of a run from its checkpoint, and the set it was trained on, verified to be the same images.

    Raises UserError when the checkpoint is not on this machine (it is never committed), is not the one that the manifest
    describes, or the prepared set holds other images.
    """
    config, manifest = from_dict(RunConfig, run.manifest["config"]), run.manifest
    data = datasets.prepare(config.data)
    learner = loop.Learner(config)
    checkpoint.load(run.folder, manifest["config"], learner.net, learner.optimiser)
    if weights_digest(learner.net) != manifest["weights_sha256"]:
        raise UserError(
            f"The weights of {config.name} are not on this machine, only its results. Train it again: delete {run.folder}, "
            f"then: {manifest['command']}"
        )
    if data.fingerprint != manifest["data"]["fingerprint"]:
        raise UserError(f"{config.name} was trained on other images than the {config.data} in {data.folder}.")
    return learner.net, data


def command_of(config: RunConfig) -> str:
    """Return the command that repeats a run, with every option in which it departs from its variant's config."""
    words = f"alexnet train {config.claim} --scale {config.scale} --variant {config.variant} --seed {config.seed}"
    base = experiments.config_named(config.claim, config.scale, config.variant, config.seed)
    changes = differing_fields(to_dict(base), to_dict(config))
    return " ".join([words, *(f"--{name.split('.')[-1].replace('_', '-')} {value}" for name, _, value in changes)])


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
