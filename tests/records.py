"""Runs as they would stand on disk, written by hand."""

from alexnet import files
from alexnet.config import to_dict
from alexnet.experiments import artefacts, runs
from alexnet.preprocessing import SETS


def record(config, errors=(), curve=(), device="cpu", status="finished", precision="fp32", ranks=1):
    """Write a run: `errors` are (split, views, k, wrong, total), `curve` errors on training images. Return its folder."""
    folder = runs.folder_of(config)
    segment = {
        "device": device,
        "hardware": {"processor": "A", "cpu_capability": "AVX2"},
        "precision": {"choice": precision},
        "ranks": ranks,
        "git": {"commit": "0123456789", "dirty": True},
    }
    manifest = {"version": 2, "name": runs.name_of(config), "status": status, "config": to_dict(config)}
    manifest |= {"epochs": max(1, len(curve)), "seconds": 120.0, "segments": [segment]}
    files.write_json(folder / "manifest.json", manifest | {"data": {"stand_in": SETS[config.data].stand_in}})
    rows = [
        {"epoch": epoch, "split": "train", "views": "whole", "k": 1, "wrong": round(1000 * e), "total": 1000}
        for epoch, e in enumerate(curve)
    ]
    files.write_lines(folder / "metrics.jsonl", rows)
    if errors:
        artefacts.write_errors(folder, [dict(zip(artefacts.COLUMNS, row, strict=True)) for row in errors])
    return folder
