"""Run folders: `runs/<scale>/<claim>/<variant>/seed-<n>/`.

    manifest.json   what was run (config and hash), on what (parts: commit, versions, hardware), and how it ended
    metrics.jsonl   one line for each epoch; a function of the config alone, equal to the bit however often it was stopped
    timing.jsonl    seconds of each epoch (of its last part, where it was stopped in between)
    kernels.npy     conv1's kernels of the two-column net, when a sitting has ended
    checkpoint.pt   to go on from; never committed

Notebooks ask for runs with `get`: a finished one is read, a half-finished one goes on, a missing one is trained.
"""

import fcntl
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.claims import parity
from alexnet.claims.experiments import config_named
from alexnet.claims.record import Metrics, Record, command_of, new_part, read_lines, weights_digest
from alexnet.config import PROJECT_DIR, ColumnNet, RunConfig, Scale, UserError, from_dict, to_dict
from alexnet.preprocessing import datasets
from alexnet.preprocessing.store import PreparedSet, open_set
from alexnet.training import checkpoint, loop
from alexnet.training.compiling import compile_loops
from alexnet.training.crew import Crew
from alexnet.training.learner import Learner
from alexnet.training.loop import OnEpoch, Outcome
from alexnet.training.parity import parity_of
from alexnet.training.precision import CHOICES, decide
from alexnet.training.process import use_processor


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
        return epoch_limit is not None and self.manifest["epochs"] >= epoch_limit


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


def read_named(claim: str, scale: Scale, variant: str, seed: int) -> Run | None:
    """Return the run of this name as it stands, whatever its config, or None. Raises UserError for an unknown variant."""
    named = config_named(claim, scale, variant, seed)
    file = folder_of(named) / "manifest.json"
    return read(from_dict(RunConfig, json.loads(file.read_text())["config"])) if file.is_file() else None


def get(
    config: RunConfig,
    *,
    epoch_limit: int | None = None,
    threads: int | None = None,
    bar: bool | None = None,
    on_epoch: OnEpoch = lambda metrics, times: None,
    checkpoint_seconds: float = 60.0,
    crew: Crew | None = None,
) -> Run:
    """Return the run of `config`, training what is missing.

    With `epoch_limit` a run that has not ended by that epoch is recorded as "overtaken" and returned. `bar`, `on_epoch`,
    `checkpoint_seconds` and `crew` are as in `loop.train`; `threads` is for a run that begins, one that goes on keeps its
    own number. Raises UserError when the folder holds another config's run, another process is working on it, or something
    is missing and `$ALEXNET_TRAIN` is 0; KeyboardInterrupt when a signal stopped the training, after a checkpoint.
    """
    run = read(config)
    if run is not None and run.is_done(epoch_limit):
        return run
    if not training_allowed():
        raise MissingRunError(f"run {config.name} is missing at scale {config.scale}. Make it with: {command_of(config)}")
    crew = crew or Crew()
    folder = folder_of(config)
    with _lock(folder) if crew.writes else nullcontext():
        options = {"epoch_limit": epoch_limit, "bar": bar, "checkpoint_seconds": checkpoint_seconds, "crew": crew}
        outcome = _continue(config, folder, run, threads, on_epoch, options)
    if outcome.warning and crew.writes:
        warnings.warn(f"{config.name}: {outcome.warning}", stacklevel=2)
    if outcome.kind == "stopped":
        raise KeyboardInterrupt(f"{config.name} was stopped; the same command goes on from there.")
    finished = read(config)
    assert finished is not None
    return finished


def _continue(
    config: RunConfig, folder: Path, run: Run | None, threads: int | None, on_epoch: OnEpoch, options: dict[str, Any]
) -> Outcome:
    crew = options["crew"]
    data = datasets.prepare(config.data) if crew.writes else None
    crew.any(False)  # the others wait until the set is there
    data = data or open_set(config.data)
    earlier = run.manifest["parts"] if run and can_go_on(config) else []
    if earlier and run.manifest["data"]["fingerprint"] != data.fingerprint:
        raise UserError(
            f"run {config.name} was begun on other images ({config.data} {run.manifest['data']['fingerprint']}, now "
            f"{data.fingerprint}). Delete {folder} to start again."
        )
    # Why: a run keeps what it began with, precision, number of threads and compiled loops, for the sake of equal bits.
    if earlier:
        threads = min(earlier[0]["threads"], os.cpu_count() or 1)
    threads = use_processor(threads)
    # Why not at toy: a training is over in less time than compiling takes.
    compiled = compile_loops(config.net, earlier[0].get("compiled", False) if earlier else config.scale != "toy", crew)
    precision: dict[str, Any] = {"choice": None}
    if crew.writes:
        check = parity_of(config, data, crew.device)
        precision = earlier[0]["precision"] if earlier else decide(config.precision, check, crew.device.type)
        if isinstance(config.net, ColumnNet) and "parity" in precision and not earlier:
            precision["trainings"] = parity.in_words(parity.recorded(read))
    chosen = CHOICES[crew.any(*(precision["choice"] == choice for choice in CHOICES)).index(True)]  # one decides for all
    part = new_part(threads, precision, crew.num_ranks, compiled, crew.device)
    record = Record(config, data, folder, earlier, part) if crew.writes else None

    def note(metrics: Metrics, times: dict[str, float]) -> None:
        if record:
            record.note(metrics, times)
        on_epoch(metrics, times)

    training, outcome = loop.train(config, data, folder, precision=chosen, on_epoch=note, **options)
    weights = training.weights()
    if record:
        record.close(training, weights, outcome)
    crew.any(False)  # the others read the finished record after it is written
    return outcome


def manifests(scale: str) -> list[dict[str, Any]]:
    """Return the manifests of all runs recorded at `scale`, in the order of their names."""
    files = sorted((runs_dir() / scale).glob("*/*/seed-*/manifest.json"))
    return [json.loads(file.read_text()) for file in files]


def load_learner(run: Run) -> tuple[Learner, PreparedSet]:
    """Return the learner of a run from its checkpoint, and the set it was trained on, verified to be the same images.

    Raises UserError when the checkpoint is not on this machine (it is never committed), is not the one that the manifest
    describes, or the prepared set holds other images.
    """
    config, manifest = from_dict(RunConfig, run.manifest["config"]), run.manifest
    data = datasets.prepare(config.data)
    learner = Learner(config)
    checkpoint.load(run.folder, manifest["config"], learner.restore)
    if weights_digest(learner.weights()) != manifest["weights_sha256"]:
        raise UserError(
            f"The weights of {config.name} are not on this machine, only its results. Train it again: delete {run.folder}, "
            f"then: {manifest['command']}"
        )
    if data.fingerprint != manifest["data"]["fingerprint"]:
        raise UserError(f"{config.name} was trained on other images than the {config.data} in {data.folder}.")
    return learner, data


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
