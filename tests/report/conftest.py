"""Records written by hand into an empty folder for runs."""

import pytest

from alexnet import files
from alexnet.config import to_dict
from alexnet.experiments import artefacts, results, runs
from alexnet.preprocessing import SETS


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty folder for runs."""
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    results.family.cache_clear()
    return tmp_path / "runs"


@pytest.fixture
def record():
    """Write a finished run as on disk: `errors` are (split, views, k, wrong, total), `curve` errors on training images."""

    def write(config, errors=(), curve=()):
        folder = runs.folder_of(config)
        hardware = {"processor": "A", "cpu_capability": "AVX2"}
        segment = {
            "device": "cpu",
            "hardware": hardware,
            "precision": {"choice": "fp32"},
            "git": {"commit": "0123456789", "dirty": True},
        }
        manifest = {"version": 2, "name": runs.name_of(config), "status": "finished", "config": to_dict(config), "epochs": 1}
        manifest |= {"seconds": 120.0, "segments": [segment], "data": {"stand_in": SETS[config.data].stand_in}}
        files.write_json(folder / "manifest.json", manifest)
        rows = [
            {"epoch": epoch, "split": "train", "views": "whole", "k": 1, "wrong": round(1000 * e), "total": 1000}
            for epoch, e in enumerate(curve)
        ]
        files.write_lines(folder / "metrics.jsonl", rows)
        if errors:
            artefacts.write_errors(folder, [dict(zip(artefacts.COLUMNS, row, strict=True)) for row in errors])

    return write
