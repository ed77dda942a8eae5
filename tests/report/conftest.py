"""Records written by hand into an empty folder for runs."""

import pytest
import records

from alexnet.experiments import results


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty folder for runs."""
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    results.family.cache_clear()
    return tmp_path / "runs"


@pytest.fixture
def record():
    """Write a finished run as on disk."""
    return records.record
