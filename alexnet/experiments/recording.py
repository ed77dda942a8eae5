"""One run trained and recorded: resumed if it is half finished, measured when it is finished."""

import os
import sys
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
from alexnet.files import Rows
from alexnet.model import weights
from alexnet.model.column_parallel import Layout
from alexnet.model.net import blank
from alexnet.preprocessing import PreparedSet, open_set, prepare
from alexnet.training import checkpoint, loop
from alexnet.training.checkpoint import Progress
from alexnet.training.distributed import STOPPED, Group, StopRequests, columns_here, launch
from alexnet.training.loop import Training
from alexnet.training.precision import CHOICES, decide, use_kernels, use_threads
from alexnet.training.step import Learner

CHECKPOINT_SECONDS = 120.0


@files.disk_errors_named()
def train_run(
    config: RunConfig,
    *,
    epoch_limit: int | None = None,
    threads: int | None = None,
    measured: Iterable[str] = (),
    group: Group | None = None,
    stop: StopRequests | None = None,
) -> Run:
    """Return the run of `config`, trained as far as it is missing, with the artefacts `measured` if its weights are here.

    With `epoch_limit` a run that has not ended by that epoch is recorded as "overtaken" and returned. `threads` is for a run
    that begins; one that resumes keeps its own number, precision and kernels, for the sake of equal bits. Raises UserError
    when another process has the run or something is missing, KeyboardInterrupt when `stop` was asked for.
    """
    group = group or Group()
    busy = f"Another process is training {runs.name_of(config)}. Wait for it, or stop it; nothing is lost either way."
    with files.locked(runs.lock_of(config), busy) if group.is_main else nullcontext():
        run = runs.read(config)
        if run is None or not run.is_done(epoch_limit):
            _train(config, threads, group, epoch_limit=epoch_limit, stop=stop)
            run = runs.read(config)
        assert run is not None
        lacking = [name for name in measured if not artefacts.is_measured(run.folder, name)]
        is_whole = run.status == "finished" and group.num_ranks == 1
        if is_whole and lacking and checkpoint.read_weights(run.folder) is not None:
            use_threads(threads)
            trained = load(run, group)
            for name in lacking:
                artefacts.measure(trained, name)
    return run


def _train(config: RunConfig, threads: int | None, group: Group, **how: Any) -> None:
    folder = runs.folder_of(config)
    found = checkpoint.read(folder)
    initial = _initial(config) if found is None else None  # Why first: before a set is downloaded in vain
    data = prepare(config.data) if group.is_main else None
    group.any(False)  # the others wait until the set is there
    data = data or open_set(config.data)
    kept: dict[str, Any] = found.kept if found else {}
    if kept and kept["fingerprint"] != data.fingerprint:
        ours = f"({config.data} {kept['fingerprint']}, now {data.fingerprint})"
        raise UserError(f"{runs.name_of(config)} was begun on other images {ours}. Move {folder} away to start again.")
    cores = os.cpu_count() or 1
    if kept and kept["threads"] > cores and group.is_main:
        print(f"{runs.name_of(config)} resumes with {cores} of its threads: sums round otherwise.", file=sys.stderr)
    threads = use_threads(min(kept["threads"], cores) if kept else threads)
    precision = kept["precision"] if kept else (decide(config.precision, group.device.type) if group.is_main else {})
    choice = CHOICES[group.any(*(precision.get("choice") == c for c in CHOICES)).index(True)]  # one decides for all
    kernels = use_kernels(kept["kernels"] if kept else True, group)
    kept = {"threads": threads, "precision": precision, "kernels": kernels, "fingerprint": data.fingerprint}
    record = Record(config, data, group, kept, found is not None) if group.is_main else None
    if record is not None:
        how["on_epoch"] = record.note
    how |= {"precision": choice, "group": group, "checkpoint_seconds": CHECKPOINT_SECONDS, "initial": initial, "kept": kept}
    training, outcome = loop.train(config, data, folder, **how)
    weights = training.weights()
    if record is not None:
        record.close(training, checkpoint.weights_digest(weights), outcome)
        if record.manifest["status"] in runs.FINAL:
            checkpoint.keep_weights(folder)
    group.any(False)  # the others read the finished record after it is written
    if outcome == "stopped":
        raise KeyboardInterrupt(f"{runs.name_of(config)} was stopped; the same command resumes it.")


def _initial(config: RunConfig) -> dict[str, Any] | None:
    """Return the weights that a training begins with, all but the last layer's; None where they are drawn."""
    if config.start_file is not None:
        return initial_of_file(config, Path((run.facts if (run := runs.read(config)) else {}).get("start_file", "")))
    if config.start_from is None:
        return None
    before = runs.read(config.start_from)
    is_over = before is not None and before.status == "finished"  # Why: weights are in the checkpoints of others too
    if not is_over or (found := checkpoint.read_weights(before.folder)) is None:
        first = f"Train them first: {runs.command_of(config.start_from)}"
        whose = f"the weights of {runs.name_of(config.start_from)}, which are not on this machine"
        raise UserError(f"{runs.name_of(config)} begins with {whose}. {first}")
    last = list(found)[-1].split(".")[0]
    return {name: weight for name, weight in found.items() if not name.startswith(f"{last}.")}


def initial_of_file(config: RunConfig, file: Path) -> dict[str, Any]:
    """Return the weights of an exported file, all but the last layer's. Raises UserError for another file or net."""
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
    """Keeps manifest, metrics, history and timing of a training in its folder; a run that resumes has several segments."""

    def __init__(self, config: RunConfig, data: PreparedSet, group: Group, kept: dict[str, Any], resumes: bool) -> None:
        self.folder, self.began = runs.folder_of(config), time.perf_counter()
        segment = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": 0.0, "epochs": None}
        segment |= {"threads": kept["threads"], "device": machine.name_of(group.device), "ranks": group.num_ranks}
        segment |= {"kernels": kept["kernels"], "precision": kept["precision"], "hardware": machine.hardware()}
        self.segment = segment | {"versions": machine.versions(), "git": machine.git_state()}
        earlier = runs.read(config)
        segments = earlier.manifest["segments"] if earlier is not None and resumes else []
        self.manifest = _new_manifest(config, data, earlier.facts if earlier is not None else {}, [*segments, self.segment])
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
            timing = self.folder / "timing.jsonl"
            lines = files.read_lines(timing, f"Delete {timing}; only times are in it.")
            files.write_lines(timing, [*(line for line in lines if line["epoch"] < epoch), {"epoch": epoch, **times}])
        files.write_json(self.folder / "manifest.json", self.manifest)

    def close(self, training: Training, weights_sha256: str, outcome: str) -> None:
        """Write how it ended."""
        status = {"diverged": "diverged", "limit": "overtaken", "stopped": "stopped"}.get(outcome, "finished")
        self.manifest |= {"status": status, "outcome": outcome, "warning": training.warning()}
        self.manifest["weights_sha256"] = weights_sha256
        self.note(training.progress, {})


def begin(config: RunConfig, **facts: Any) -> None:
    """Leave the config of a run in its folder, where processes that are told its name find it, and `Run.facts`."""
    run = runs.read(config)
    if run is None or (facts and not run.is_done()):
        manifest = _new_manifest(config, prepare(config.data), facts, []) if run is None else run.manifest | {"facts": facts}
        files.write_json(runs.folder_of(config) / "manifest.json", manifest)


def train_by_ranks(config: RunConfig, layout: Layout, threads: int | None = None, stop: Any = None, **facts: Any) -> None:
    """Have ranks of this machine train a run; raises as `train_run` does, and UserError for a layout that does not fit."""
    columns_here(config.net, layout)  # Why first: what is wrong should be said once, and not by every rank.
    begin(config, **facts)
    words = [runs.name_of(config), "--devices", layout.columns, "--replicas", layout.replicas]
    status = launch(["train", *map(str, words + (["--threads", threads] if threads else []))], layout, stop=stop)
    if status == STOPPED:
        raise KeyboardInterrupt("The same command resumes it.")
    if status and files.is_locked(runs.lock_of(config)):
        raise files.BusyError("Another process was faster.")
    if status:
        raise UserError(f"The ranks of {runs.name_of(config)} ended with status {status}; what they said is above.")


def _new_manifest(config: RunConfig, data: PreparedSet, facts: dict[str, Any], segments: Rows) -> dict[str, Any]:
    said = {"version": runs.VERSION, "name": runs.name_of(config), "status": "running", "outcome": None, "warning": None}
    said |= {"command": runs.command_of(config, segments[0]["threads"] if segments else None)}
    said |= {"config_hash": config_hash(config), "config": to_dict(config)}
    said |= {"data": {"set": data.name, "fingerprint": data.fingerprint, "stand_in": data.stand_in}}
    said |= {"epochs": max([0, *(segment["epochs"][-1] for segment in segments if segment["epochs"])])}
    said |= {"images_seen": 0, "seconds": 0.0, "weights_sha256": None, "segments": segments}
    return said | ({"facts": facts} if facts else {})


def load(run: Run, group: Group | None = None) -> artefacts.Trained:
    """Return a run with its weights and the set it was trained on. Raises UserError for those that are missing or others."""
    if run.status not in runs.FINAL:
        raise UserError(f"{run.name} is half finished. Finish it with: {runs.command_of(run.config)}")
    weights = checkpoint.read_weights(run.folder)
    if weights is None or checkpoint.weights_digest(weights) != run.manifest["weights_sha256"]:
        again = f"To have them, train it again elsewhere: ALEXNET_RUNS=DIR {runs.command_of(run.config)}"
        raise UserError(f"The weights of {run.name} are not on this machine, only its results. {again}")
    data = prepare(run.config.data)
    if data.fingerprint != run.manifest["data"]["fingerprint"]:
        raise UserError(f"{run.name} was trained on other images than the {data.name} in {data.folder}.")
    segment = run.manifest["segments"][-1]
    learner = Learner(run.config, segment["precision"]["choice"], group or Group())
    use_kernels(segment["kernels"], learner.group)
    learner.net.load_plain_state(weights)
    return artefacts.Trained(run.config, learner, data, Path(run.folder))
