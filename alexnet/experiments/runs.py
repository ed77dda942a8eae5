"""The store of runs: `runs/<data>/<readable name>-<6 hex of the config>/seed-<n>/`.

    manifest.json   what was run (config and hash), on what (segments: commit, versions, hardware), and how it ended
    metrics.jsonl   exact counts of errors, a row for each (epoch, split, views, k); a function of the config alone
    history.jsonl   images seen and mean loss of each epoch, likewise
    timing.jsonl    seconds of each epoch
    errors.csv ...  what was measured of the finished run (`artefacts.py`)
    checkpoint.pt   to resume from, and weights.pt of a finished run; never committed

Equal trainings share a folder, whichever claim wants them.
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from alexnet import files
from alexnet.config import PROJECT_DIR, Augmentation, RunConfig, UserError, config_hash, from_dict, home_dir, to_dict
from alexnet.model import label

VERSION = 2  # of the manifest; 1 had no version, and named a run after its claim
FINAL = ("finished", "diverged")
CAME_ALONG = Path(__file__).resolve().parents[1] / "recorded"  # the recorded runs in an installed package; a link to `runs/`


def _rows(stem: str) -> Any:
    return cached_property(lambda run: files.read_lines(run.folder / f"{stem}.jsonl", mending(run.name)))


@dataclass(frozen=True)
class Run:
    """A run as it stands on disk."""

    folder: Path
    manifest: dict[str, Any]

    status = property(lambda run: run.manifest["status"])  # finished, diverged, overtaken by another rate, stopped, running
    name = property(lambda run: run.manifest["name"])  # the folder below `runs/`: data, readable name with hash, seed
    seed = property(lambda run: run.manifest["config"]["seed"])
    # Of a training of one's own: whose arm it changes ("arm_of"), and the file that it begins with ("start_file").
    facts = property(lambda run: run.manifest.get("facts", {}))
    config = cached_property(lambda run: from_dict(RunConfig, run.manifest["config"]))
    metrics = _rows("metrics")  # epoch, split, views, k, wrong, total
    history = _rows("history")  # epoch, images_seen, loss (nats, mean over the epoch)
    timing = _rows("timing")  # epoch, seconds, images_per_second, waiting: of this machine, not of the config

    @property
    def device(self) -> str:
        """What it was trained on: "cpu", the name of a CUDA device, or both where it was resumed elsewhere."""
        return ", ".join(dict.fromkeys(segment["device"] for segment in self.manifest["segments"]))

    @property
    def kind(self) -> tuple[Any, ...]:
        """What runs in one comparison have in common: CPUs or GPUs, the precision a machine chose, images, counting."""
        chosen = {s["precision"]["choice"] for s in self.manifest["segments"] if self.config.precision == "auto"}
        counted_from = self.manifest.get("counted_from", "")  # of the first runs: errors from logits in bf16
        return self.device == "cpu", *sorted(chosen), self.manifest["data"].get("fingerprint", ""), counted_from

    def is_done(self, epoch_limit: int | None = None) -> bool:
        """Return whether there is nothing left to train, for a caller who wants no more than `epoch_limit` epochs."""
        return self.status in FINAL or (epoch_limit is not None and self.manifest["epochs"] >= epoch_limit)


def runs_dir() -> Path:
    """Return the folder of all runs: `$ALEXNET_RUNS`, else `runs` in `home_dir()`."""
    return Path(os.environ.get("ALEXNET_RUNS") or home_dir() / "runs").expanduser().absolute()


def _shelves() -> list[Path]:
    """Return the folders in which runs are read: `runs_dir()`, and those that came along where there is no checkout."""
    return [runs_dir()] + [CAME_ALONG] * (home_dir() != PROJECT_DIR and not os.environ.get("ALEXNET_RUNS"))


def name_of(config: RunConfig) -> str:
    """Return the name of the run of `config`: its folder below `runs/`."""
    return f"{config.data}/{readable(config)}-{config_hash(config, seed=False)[:6]}/seed-{config.seed}"


def readable(config: RunConfig) -> str:
    """Return what a person wants to know of a config in a few words; the hash tells the rest apart."""
    words = [config.name] * (config.name is not None) + [label(config.net), f"rate-{config.optimiser.rate:g}"]
    words += [f"{config.epochs}-epochs"] * (config.stop_at_train_error is None)
    views = config.augmentation
    if views is not None and views.crop_side == Augmentation.crop_side:
        words += ["central-view"] * (not views.random) + ["no-colour-noise"] * (views.random and not views.noise)
        words += ["no-decay"] * (not config.optimiser.weight_decay)
    words += [config.precision] * (config.precision != "auto")
    return "-".join(words + ["fine-tuned"] * bool(config.start_from or config.start_file))


def folder_of(config: RunConfig) -> Path:
    """Return the folder of the run of `config`."""
    return runs_dir() / name_of(config)


def lock_of(config: RunConfig) -> Path:
    """Return the lock that a process holds while it trains or measures the run."""
    return folder_of(config) / ".lock"


def command_of(config: RunConfig, threads: int | None = None) -> str:
    """Return the command that trains the run, or repeats it with as many threads: sums are split among them."""
    return shlex.join(["alexnet", "train", name_of(config)] + (["--threads", str(threads)] if threads else []))


def mending(name: str) -> str:
    """Return what mends a damaged record."""
    return f"Restore the file (git checkout), or move {runs_dir() / name} away and train it again: alexnet train {name}"


def read(which: RunConfig | str) -> Run | None:
    """Return the run of a config, or of a name, or None. Raises UserError for a damaged record or a later version's."""
    name = which if isinstance(which, str) else name_of(which)
    folder = next((shelf / name for shelf in _shelves() if (shelf / name / "manifest.json").is_file()), None)
    if folder is None:
        return None
    manifest = files.read_json(folder / "manifest.json", mending(name))
    try:
        run = Run(folder, upgraded(manifest))
        parts = run.kind, run.manifest["segments"] or run.status not in FINAL, len(run.facts.get("arm_of", "123")) == 3
        if not (isinstance(run.status, str) and isinstance(run.manifest["epochs"], int) and all(parts)):
            raise TypeError("status, epochs, segments or facts")
        return run
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{folder / 'manifest.json'} is not a run's manifest ({error!r}). {mending(name)}") from error


# What later versions write and earlier ones did not, with what was true then.
SEGMENT = {"device": "cpu", "ranks": 1, "kernels": False, "precision": {"choice": "fp32"}}


def upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest in the form of this version. Raises UserError for one that a later version of the code wrote."""
    version = manifest.get("version", 1)
    if version > VERSION:
        raise UserError(f"{manifest.get('name')} is of later code (version {version}): update the code (git pull).")
    segments = manifest["segments"] if "segments" in manifest else manifest["parts"]  # version 1: parts
    try:
        config = from_dict(RunConfig, manifest["config"])
    except UserError as error:
        raise KeyError(str(error)) from error
    said = {"config": to_dict(config), "name": name_of(config), "segments": [SEGMENT | segment for segment in segments]}
    data = {"set": config.data, "fingerprint": "", "stand_in": False}
    return {"version": VERSION, "outcome": None, "warning": None, "epochs": 0, "data": data} | manifest | said


def recorded(pattern: str = "*/*") -> Iterator[Run]:
    """Yield every run, or those in folders `<set>/<run>`, in the order of their names; damaged ones are left out."""
    found = (file.parent.relative_to(s) for s in _shelves() for file in s.glob(f"{pattern}/seed-*/manifest.json"))
    for name in sorted({folder.as_posix() for folder in found}):
        if (run := read_whole(name)) is not None and run.name == name:  # not a copy under another name
            yield run


def read_whole(which: RunConfig | str) -> Run | None:
    """Return a run as `read` does, None also for one whose manifest or metrics are damaged."""
    run = whole(read, which)
    return run if run is not None and whole(lambda: run.metrics) is not None else None


def whole(reader: Callable[..., Any], *what: Any) -> Any:
    """Return `reader(*what)`; None, told once, where it ends at damage: one bad run does not stop what is about many."""
    try:
        return reader(*what)
    except UserError as error:
        _tell(f"left out: {error}")
    return None


_tell = cache(lambda line: print(line, file=sys.stderr))  # once
