"""One run trained and recorded: resumed if it is half finished, measured when it is finished."""

import os
import time
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from alexnet import files, machine
from alexnet.config import RunConfig, UserError, config_hash, file_digest, to_dict
from alexnet.experiments import artefacts, runs
from alexnet.experiments.runs import Run
from alexnet.model import weights
from alexnet.model.net import blank
from alexnet.preprocessing import PreparedSet, open_set, prepare
from alexnet.training import checkpoint, loop
from alexnet.training.checkpoint import Progress
from alexnet.training.distributed import Group, StopRequests
from alexnet.training.loop import Outcome
from alexnet.training.precision import CHOICES, decide, use_kernels, use_threads
from alexnet.training.step import Learner

CHECKPOINT_SECONDS = 120.0

# How a training's end is called in the manifest; the first four are final.
STATUS = {
    "reached": "finished",
    "epochs": "finished",
    "settled": "finished",
    "diverged": "diverged",
    "limit": "overtaken",
    "stopped": "stopped",
}


def train_run(
    config: RunConfig,
    *,
    epoch_limit: int | None = None,
    threads: int | None = None,
    measured: Iterable[str] = (),
    group: Group | None = None,
    stop: StopRequests | None = None,
    bar: bool | None = None,
) -> Run:
    """Return the run of `config`, trained as far as it is missing, with the artefacts `measured`.

    With `epoch_limit` a run that has not ended by that epoch is recorded as "overtaken" and returned. `threads` is for a run
    that begins; one that resumes keeps its own number, precision and kernels, for the sake of equal bits. Raises UserError
    when another process has the run or something is missing, KeyboardInterrupt when `stop` was asked for.
    """
    group = group or Group()
    run = runs.read(config)
    busy = f"Another process is training {runs.name_of(config)}. Wait for it, or stop it; nothing is lost either way."
    if run is None or not run.is_done(epoch_limit):
        with (
            files.disk_errors_named(runs.runs_dir(), "ALEXNET_RUNS"),
            files.locked(runs.lock_of(config), busy) if group.is_main else nullcontext(),
        ):
            again = runs.read(config)  # Why: another process may have finished it while this one waited for the lock
            if again is None or not again.is_done(epoch_limit):
                _train(config, epoch_limit, threads, group, stop, bar)
        run = runs.read(config)
        assert run is not None
    if run.status == "finished" and group.num_ranks == 1:
        with files.disk_errors_named(runs.runs_dir(), "ALEXNET_RUNS"), files.locked(runs.lock_of(config), busy):
            measure(run, measured, group, threads)
    return run


def _train(
    config: RunConfig,
    epoch_limit: int | None,
    threads: int | None,
    group: Group,
    stop: StopRequests | None,
    bar: bool | None,
) -> None:
    folder = runs.folder_of(config)
    found = checkpoint.read(folder)
    initial = _initial(config) if found is None else None  # Why first: before a set is downloaded in vain
    data = prepare(config.data) if group.is_main else None
    group.any(False)  # the others wait until the set is there
    data = data or open_set(config.data)
    kept: dict[str, Any] = found.kept if found else {}
    if kept and kept["fingerprint"] != data.fingerprint:
        raise UserError(
            f"{runs.name_of(config)} was begun on other images ({config.data} {kept['fingerprint']}, now "
            f"{data.fingerprint}). Move {folder} away to start again."
        )
    threads = use_threads(min(kept["threads"], os.cpu_count() or 1) if kept else threads)
    precision = kept["precision"] if kept else (decide(config.precision, group.device.type) if group.is_main else {})
    choice = CHOICES[group.any(*(precision.get("choice") == c for c in CHOICES)).index(True)]  # one decides for all
    kernels = use_kernels(kept["kernels"] if kept else True, group)
    segment = new_segment(threads, precision, kernels, group)
    record = Record(config, data, segment) if group.is_main else None

    def note(progress: Progress, times: dict[str, float]) -> None:
        if record is not None:
            record.note(progress, times)

    training, outcome = loop.train(
        config,
        data,
        folder,
        precision=choice,
        group=group,
        epoch_limit=epoch_limit,
        on_epoch=note,
        checkpoint_seconds=CHECKPOINT_SECONDS,
        bar=bar,
        initial=initial,
        kept={"threads": threads, "precision": precision, "kernels": kernels, "fingerprint": data.fingerprint},
        stop=stop,
    )
    weights = training.weights()
    if record is not None:
        record.close(training.progress, checkpoint.weights_digest(weights), outcome)
        if STATUS[outcome.kind] in runs.FINAL:
            checkpoint.keep_weights(folder)
    group.any(False)  # the others read the finished record after it is written
    if outcome.kind == "stopped":
        raise KeyboardInterrupt(f"{runs.name_of(config)} was stopped; the same command resumes it.")


def _initial(config: RunConfig) -> dict[str, Any] | None:
    """Return the weights that a training begins with, all but the last layer's; None where they are drawn."""
    if config.start_file is not None:
        return initial_of_file(config, Path((run.facts if (run := runs.read(config)) else {}).get("start_file", "")))
    if config.start_from is None:
        return None
    before = runs.read(config.start_from)
    # Why: the checkpoint of a training that is not over has weights too.
    is_over = before is not None and before.status == "finished"
    found = checkpoint.read_weights(before.folder) if is_over else None
    if found is None:
        raise UserError(
            f"{runs.name_of(config)} begins with the weights of {runs.name_of(config.start_from)}, which are not on this "
            f"machine. Train them first: {runs.command_of(config.start_from)}"
        )
    last = list(found)[-1].split(".")[0]
    return {name: weight for name, weight in found.items() if not name.startswith(f"{last}.")}


def initial_of_file(config: RunConfig, file: Path) -> dict[str, Any]:
    """Return the weights that a training begins with from an exported file, all but the last layer's.

    Raises UserError for a file that is not the one that the run's config names, or that holds another net.
    """
    if not file.is_file() or file_digest(file) != config.start_file:
        raise UserError(f"{runs.name_of(config)} begins with weights that are not in {file}. Say where: --from FILE.")
    found = weights.load(file).net.plain_state()
    with torch.device("meta"):
        ours = blank(config.net)
    last = {name: weight for name, weight in ours.plain_state().items() if name.startswith(f"{ours.layer_names[-1]}.")}
    try:
        ours.load_plain_state(found | last)  # Why: on meta it compares names and shapes, and copies nothing
    except ValueError as error:
        raise UserError(f"{file} holds another net than this run's: {error} Choose an arm like it.") from error
    return {name: weight for name, weight in found.items() if name not in last}


class Record:
    """Keeps manifest, metrics, history and timing of a training in its folder as it proceeds."""

    def __init__(self, config: RunConfig, data: PreparedSet, segment: dict[str, Any]) -> None:
        self.folder, self.segment, self.began = runs.folder_of(config), segment, time.perf_counter()
        earlier = runs.read(config)
        segments = earlier.manifest["segments"] if earlier is not None and checkpoint.read(self.folder) else []
        self.manifest = new_manifest(config, data) | {"segments": [*segments, segment]}
        self.manifest |= {"facts": earlier.facts} if earlier is not None and earlier.facts else {}
        self.manifest["command"] = runs.command_of(config, self.manifest["segments"][0]["threads"])
        if segments:
            self.manifest["epochs"] = max((s["epochs"] or [0])[-1] for s in segments)
        # Why now: a training killed in its first epoch leaves a segment too.
        files.write_json(self.folder / "manifest.json", self.manifest)

    def note(self, progress: Progress, times: dict[str, float]) -> None:
        """Write what is known after an epoch, and what it took."""
        last = progress.history[-1]
        epoch, segments = last["epoch"], self.manifest["segments"]
        self.segment["seconds"] = round(time.perf_counter() - self.began, 1)
        self.segment["epochs"] = [(self.segment["epochs"] or [epoch])[0], epoch]
        self.manifest |= {"epochs": epoch, "images_seen": last["images_seen"]}
        self.manifest["seconds"] = round(sum(segment["seconds"] for segment in segments), 1)
        files.write_lines(self.folder / "metrics.jsonl", progress.metrics)
        files.write_lines(self.folder / "history.jsonl", progress.history)
        if times:
            mend = f"Delete {self.folder / 'timing.jsonl'}; only times are in it."
            earlier = [line for line in files.read_lines(self.folder / "timing.jsonl", mend) if line["epoch"] < epoch]
            files.write_lines(self.folder / "timing.jsonl", [*earlier, {"epoch": epoch, **times}])
        files.write_json(self.folder / "manifest.json", self.manifest)

    def close(self, progress: Progress, weights_sha256: str, outcome: Outcome) -> None:
        """Write how it ended."""
        self.manifest |= {"status": STATUS[outcome.kind], "outcome": outcome.kind, "warning": outcome.warning}
        self.manifest["weights_sha256"] = weights_sha256
        self.note(progress, {})


def begin(config: RunConfig, **facts: Any) -> None:
    """Leave the config of a run in its folder, where processes that are told its name find it, and `Run.facts`."""
    run = runs.read(config)
    manifest = run.manifest if run is not None else new_manifest(config, prepare(config.data)) | {"segments": []}
    if run is None or (facts and not run.is_done()):
        files.write_json(runs.folder_of(config) / "manifest.json", manifest | ({"facts": facts} if facts else {}))


def new_segment(threads: int, precision: dict[str, Any], kernels: bool, group: Group) -> dict[str, Any]:
    """Describe one segment of a training: a run that is stopped and resumes elsewhere has several."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "epochs": None,
        "threads": threads,
        "device": machine.name_of(group.device),
        "ranks": group.num_ranks,
        "kernels": kernels,
        "precision": precision,
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "git": machine.git_state(),
    }


def new_manifest(config: RunConfig, data: PreparedSet) -> dict[str, Any]:
    """Describe a run that begins."""
    return {
        "version": runs.VERSION,
        "name": runs.name_of(config),
        "status": "running",
        "outcome": None,
        "warning": None,
        "command": runs.command_of(config),
        "config_hash": config_hash(config),
        "config": to_dict(config),
        "data": {"set": data.name, "fingerprint": data.fingerprint, "stand_in": data.stand_in},
        "epochs": 0,
        "images_seen": 0,
        "seconds": 0.0,
        "weights_sha256": None,
    }


def measure(run: Run, names: Iterable[str], group: Group | None = None, threads: int | None = None) -> None:
    """Measure what a finished run lacks of the artefacts `names`, if its weights are on this machine."""
    missing = [name for name in names if not artefacts.is_measured(run.folder, name)]
    if not missing or checkpoint.read_weights(run.folder) is None:
        return
    use_threads(threads)
    trained = load(run, group)
    for name in missing:
        artefacts.measure(trained, name)


def load(run: Run, group: Group | None = None) -> artefacts.Trained:
    """Return a run with its weights and the set it was trained on, verified to be the same images.

    Raises UserError when the weights are not on this machine (they are never committed), are not those that the manifest
    names, or the prepared set holds other images.
    """
    name = run.name
    if run.status not in runs.FINAL:
        raise UserError(f"{name} is half finished. Finish it with: {runs.command_of(run.config)}")
    weights = checkpoint.read_weights(run.folder)
    if weights is None or checkpoint.weights_digest(weights) != run.manifest["weights_sha256"]:
        raise UserError(
            f"The weights of {name} are not on this machine, only its results. To have them, train it again elsewhere: "
            f"ALEXNET_RUNS=DIR {runs.command_of(run.config)}"
        )
    data = prepare(run.config.data)
    if data.fingerprint != run.manifest["data"]["fingerprint"]:
        raise UserError(f"{name} was trained on other images than the {data.name} in {data.folder}.")
    segment = run.manifest["segments"][-1]
    learner = Learner(run.config, segment["precision"]["choice"], group or Group())
    use_kernels(segment["kernels"], learner.group)
    learner.net.load_plain_state(weights)
    return artefacts.Trained(run.config, learner, data, Path(run.folder))
