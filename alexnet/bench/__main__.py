"""`make bench`: how well this machine is used, as ratios within one run; written under runs/bench. Never a test.

python -m alexnet.bench [cifar] [loader] [network] [device]      all parts; those named are printed only
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from alexnet import compiled
from alexnet.bench import cifar, device, growth, layers, loader, network, profile
from alexnet.bench.rows import Kind, Row, kind_of_machine
from alexnet.claims import machine
from alexnet.claims.runs import runs_dir
from alexnet.config import nearest
from alexnet.preprocessing import datasets
from alexnet.preprocessing.batches import Batches
from alexnet.preprocessing.store import is_prepared, write_json
from alexnet.training.process import use_processor


def cifar_rows() -> Iterator[Row]:
    """Measure the nets of Figure 1."""
    batches = Batches(datasets.prepare("cifar10" if is_prepared("cifar10") else "formula32"), "train")
    for topology in ("19pct", "conv-local-13pct"):
        for measure in cifar.MEASURES:
            yield measure(topology, batches)


PARTS: dict[str, Callable[[], Iterator[Row]]] = {"cifar": cifar_rows, "loader": loader.rows, "network": network.rows}


def main() -> None:
    """Measure, print the table, and write it under runs/bench."""
    known = (*PARTS, "device")
    parts = sys.argv[1:] or known
    for part in parts:
        if part not in known:
            sys.exit(f"error: the bench has no part {part!r}{nearest(part, known)}. Parts: {', '.join(known)}.")
    threads, kind = use_processor(None), kind_of_machine()
    loops = compiled.use(True)
    if not loops:
        print(f"not compiled, so the plain paths are measured: {compiled.why_not()}", file=sys.stderr)
    rows = [row for part in parts if part in PARTS for row in _shown(part, PARTS[part]())]
    print(as_text(rows, kind))
    costs = {}
    if "network" in parts:
        costs = {
            "layers": layers.costs(kind), "profile": profile.operations(kind), "growth": growth.seconds_per_image(kind)
        }  # fmt: skip
    whole = set(parts) == set(known)
    if whole:  # Why already: what is measured is not lost, should a device fail.
        write(rows, kind, threads, loops, costs)
    if "device" in parts:
        costs["devices"] = _on_devices()
    print(f"written to {write(rows, kind, threads, loops, costs)}" if whole else "not written: a record has all parts")


def _shown(part: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Say what is measured while it is."""
    print(f"measuring: {part} ...", file=sys.stderr)
    for row in rows:
        print(f"  {row.what}: {row.ratio:.2f}", file=sys.stderr)
        yield row


def _on_devices() -> list[dict[str, Any]]:
    """Measure the CUDA device, if there is one, and print a table for each type."""
    found = [device.described(at, list(_shown(f"device in {at.kind}", rows))) for at, rows in device.measured()]
    for part in found:
        table = [(row["what"], row["against"], f"{row['ratio']:.2f}", row["figures"]) for row in part["rows"]]
        print(f"{part['device']}, {part['type']}")
        print(tabulate(table, headers=("what", "against", "ratio", "speeds"), disable_numparse=True))
    if not found:
        print("CUDA device: not measured here.")
    return found


def as_text(rows: list[Row], kind: Kind) -> str:
    """Return the table: the targets of this kind of machine are judged, the other kind's are shown."""
    other: Kind = "fp32" if kind == "bf16" else "bf16"
    table = []
    for row in rows:
        target, aim, elsewhere = (_number(numbers.get(k)) for numbers, k in
                                  ((row.at_least, kind), (row.aim, kind), (row.at_least, other)))  # fmt: skip
        table.append((row.what, row.against, f"{row.ratio:.2f}", target, aim, row.met(kind), elsewhere, row.figures))
    headers = ("what", "against", "ratio", f"at least ({kind} machine)", "aim", "met",
               f"at least ({other} machine, not measured here)", "speeds")  # fmt: skip
    return tabulate(table, headers=headers, disable_numparse=True, maxcolwidths=[38, 38, None, 9, None, None, 12, None])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def write(rows: list[Row], kind: Kind, threads: int, loops: bool, costs: dict[str, Any]) -> Path:
    """Write rows with this machine's description under runs/bench; return the file."""
    hardware = machine.hardware()
    name = hashlib.sha256(repr(sorted(hardware.items())).encode()).hexdigest()[:8]
    file = runs_dir() / "bench" / f"{hardware['cpu_capability'].lower()}-{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    judged = [{**asdict(row), "met": row.met(kind)} for row in rows]
    record = {"hardware": hardware, "fast_in": kind, "threads": threads, "compiled": loops, "rows": judged}
    record |= {"date": time.strftime("%Y-%m-%d"), "versions": machine.versions(), "git": machine.git_state()} | costs
    write_json(file, record)
    return file


if __name__ == "__main__":
    main()
