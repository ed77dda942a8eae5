"""The two-column net on a CUDA device, in both types, against plain ways of writing it. Nothing where there is none."""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from alexnet import compiled
from alexnet.bench import loader, network
from alexnet.bench.rows import Kind, Place, Row
from alexnet.preprocessing import datasets, formula
from alexnet.training.compiling import why_not

BATCH = 128  # images of a step (paper 5)
KINDS: tuple[Kind, ...] = ("fp32", "bf16")


def measured() -> Iterator[tuple[Place, Iterator[Row]]]:
    """Return the rows of each type, where there is a CUDA device."""
    if torch.cuda.is_available():
        if (why := why_not(torch.device("cuda"))) is not None:
            print(f"not compiled, so the plain paths are measured: {why}", file=sys.stderr)
            compiled.use(False)
        for kind in KINDS:
            at = Place(kind, BATCH, torch.device("cuda", 0))
            yield at, rows(at)


def rows(at: Place) -> Iterator[Row]:
    """Measure the normalisations, the training step, its memory, and training with the loader. There are no targets."""
    yield network.response_norm_row(at)
    yield network.map_norm_row(at)
    yield from network.step_rows(at)
    yield network.memory_row(at)
    pixels, labels = formula.generate(formula.LARGE, "train", loader.NUM_IMAGES)
    with tempfile.TemporaryDirectory() as name, loader.data_in(Path(name) / "data"):
        loader.write_jpegs(Path(name) / "jpegs", pixels, labels)
        data = datasets.prepare("folders", Path(name) / "jpegs", force=True, codec="raw")
        yield loader.training_against_one_batch(data, at, 1.0)


def described(at: Place, found: list[Row]) -> dict[str, Any]:
    """Return what was measured as it is recorded: targets are for processors."""
    free = [asdict(replace(row, at_least={}, aim={})) for row in found]
    return {"device": torch.cuda.get_device_name(at.device), "type": at.kind, "batch": at.batch, "rows": free}
