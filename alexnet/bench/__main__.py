"""`make bench`: how well this machine is used, as ratios within one run; written under runs/bench. Never a test.

python -m alexnet.bench [figure1] [loading] [network] [costs] [device]      all parts; those named are printed only
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from alexnet import machine
from alexnet.bench import costs, figure1, loading, network
from alexnet.bench.rows import Kind, Row, Setting, kind_of_machine
from alexnet.config import nearest
from alexnet.experiments.runs import runs_dir
from alexnet.files import write_json
from alexnet.model import kernels
from alexnet.preprocessing import synthetic
from alexnet.training.precision import use_threads

ROWS: dict[str, Callable[[], Iterator[Row]]] = {"figure1": figure1.rows, "loading": loading.rows, "network": network.rows}
PARTS = (*ROWS, "costs", "device")
DEVICE_BATCH = 128  # images of a step on a CUDA device (paper 5)


def main(words: list[str]) -> None:
    """Measure, print the table, and write it under runs/bench."""
    for part in words:
        if part not in PARTS:
            sys.exit(f"error: the bench has no part {part!r}{nearest(part, PARTS)}. Parts: {', '.join(PARTS)}.")
    parts = words or PARTS
    threads, kind = use_threads(None), kind_of_machine()
    if not (on := kernels.use(True)):
        print(f"no kernels, so the plain paths are measured: {kernels.why_not()}", file=sys.stderr)
    rows = [row for part in parts if part in ROWS for row in _shown(part, ROWS[part]())]
    print(as_text(rows, kind))
    more: dict[str, Any] = costs.measured() if "costs" in parts else {}
    if not words:  # Why already: what is measured is not lost, should a device fail.
        write(rows, kind, threads, on, more)
    if "device" in parts:
        more["devices"] = on_devices()
    if words:
        print(json.dumps(more, indent=1) if "costs" in parts else "not written: a record has all parts")
    else:
        print(f"written to {write(rows, kind, threads, on, more)}")


def _shown(part: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Say what is measured while it is."""
    print(f"measuring: {part} ...", file=sys.stderr)
    for row in rows:
        print(f"  {row.what}: {row.ratio:.2f}", file=sys.stderr)
        yield row


def on_devices() -> list[dict[str, Any]]:
    """Measure the first CUDA device, if there is one, in both dtypes, and print a table for each. There are no targets."""
    if not torch.cuda.is_available():
        print("CUDA device: not measured here.")
        return []
    if not kernels.use(True, "cuda"):
        print(f"no kernels, so the plain paths are measured: {kernels.why_not('cuda')}", file=sys.stderr)
    found = []
    for kind in ("fp32", "bf16"):
        at = Setting(kind, DEVICE_BATCH, torch.device("cuda", 0))
        rows = [replace(row, at_least={}) for row in _shown(f"device in {kind}", device_rows(at))]
        print(f"{machine.name_of(at.device)}, {kind}\n{as_text(rows, kind)}")
        part = {"device": machine.name_of(at.device), "type": kind, "batch": at.batch}
        found.append(part | {"rows": [asdict(row) for row in rows]})
    return found


def device_rows(at: Setting) -> Iterator[Row]:
    """Measure the normalisations, the training step, its memory, and training with the loader."""
    yield network.response_norm_row(at)
    yield network.map_norm_row(at)
    yield from network.step_rows(at)
    yield network.memory_row(at)
    pixels, labels = synthetic.generate(synthetic.LARGE, "train", loading.NUM_IMAGES)
    with loading.small_set(pixels, labels, "raw") as (data, _):
        yield loading.training_against_one_batch(data, at, 1.0)


def as_text(rows: list[Row], kind: Kind) -> str:
    """Return the table: the targets of this kind of machine are judged, the other kind's are shown."""
    other: Kind = "fp32" if kind == "bf16" else "bf16"
    table = []
    for row in rows:
        target, elsewhere = (f"{row.at_least[k]:g}" if k in row.at_least else "" for k in (kind, other))
        table.append((row.what, row.against, f"{row.ratio:.2f}", target, row.met(kind), elsewhere, row.figures))
    headers = ("what", "against", "ratio", f"at least ({kind} machine)", "met",
               f"at least ({other} machine, not measured here)", "speeds")  # fmt: skip
    return tabulate(table, headers=headers, disable_numparse=True, maxcolwidths=[38, 38, None, 9, None, 12, None])


def write(rows: list[Row], kind: Kind, threads: int, compiled: bool, more: dict[str, Any]) -> Path:
    """Write rows with this machine's description under runs/bench; return the file."""
    hardware = machine.hardware()
    name = hashlib.sha256(repr(sorted(hardware.items())).encode()).hexdigest()[:8]
    file = runs_dir() / "bench" / f"{hardware['cpu_capability'].lower()}-{name}.json"
    judged = [{**asdict(row), "met": row.met(kind)} for row in rows]
    record = {"hardware": hardware, "fast_in": kind, "threads": threads, "compiled": compiled, "rows": judged}
    record |= {"date": time.strftime("%Y-%m-%d"), "versions": machine.versions(), "git": machine.git_state()} | more
    write_json(file, record)
    return file


if __name__ == "__main__":
    main(sys.argv[1:])
