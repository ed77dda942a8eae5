"""What is said of bf16 against fp32, from two run folders written by hand."""

import json
from dataclasses import replace

import pytest
from IPython.display import Markdown

from alexnet.claims import parity, performance, runs
from alexnet.claims.experiments import PARITY, architecture_runs, parity_runs
from alexnet.config import ColumnNet, RunConfig, differing_fields, to_dict

PARTS = [{"device": "a GPU"}, {"hardware": {"processor": "a CPU", "cpu_capability": "AVX2"}}]
ERRORS = {"fp32": [0.95, 0.5], "bf16": [0.94, 0.51]}


@pytest.fixture
def record(tiny, tmp_path):
    """Write the run of the scale cpu in one type."""

    def write(precision, status="finished", **changes):
        (config,) = (config for config in parity_runs("cpu") if config.precision == precision)
        config = replace(config, **changes)
        folder = tmp_path / "runs" / "cpu" / config.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps({"status": status, "config": to_dict(config), "parts": PARTS}))
        lines = [json.dumps({"epoch": epoch, "val_error": error}) for epoch, error in enumerate(ERRORS[precision])]
        (folder / "metrics.jsonl").write_text("\n".join(lines))

    return write


@pytest.mark.parametrize("scale", ["toy", "cpu", "paper"])
def test_the_two_trainings_differ_in_their_precision_alone(scale):
    fp32, bf16 = (to_dict(config) for config in parity_runs(scale))
    assert [name for name, *_ in differing_fields(fp32, bf16)] == ["precision", "variant"]
    changed = [name for name, *_ in differing_fields(to_dict(architecture_runs(scale)[0]), fp32)]
    assert changed == ["claim", "epochs", "precision", "variant"]


def test_the_interval_of_a_difference_by_hand():
    """Two rates of 1/2 on 100 images: variances of 0.0025 each, so 1.96 times 0.0707."""
    assert parity.half_width((0.5, 0.5), 100) == pytest.approx(1.959964 * 0.005**0.5, rel=1e-6)
    assert parity.half_width((0.0, 1.0), 7) == 0.0


def test_a_recorded_pair_is_told_with_its_difference(record):
    record("fp32")
    record("bf16")
    words = parity.in_words(parity.recorded(runs.read))
    pair = "cpu/bf16-parity/fp32/seed-0 has 50.00% and bf16-parity/bf16/seed-0 51.00%"
    half = 100 * parity.half_width((0.5, 0.51), 7854)  # validation images of ImageNet-20
    assert words == f"{pair} after 5 epochs, a difference of +1.00 +- {half:.2f} points (on a GPU and a CPU, AVX2)"
    table = performance.parity_table().data
    assert "95.00% | 94.00% | -1.00 ± 0.71" in table
    assert "+1.00 ± 1.56 points: no larger than what counting errors on 7,854 images" in table


@pytest.mark.parametrize("spoilt", [{"status": "running"}, {"epochs": 4}])
def test_a_training_unfinished_or_of_another_config_is_no_evidence(record, spoilt):
    record("fp32")
    assert parity.recorded(runs.read) is None
    record("bf16", **spoilt)
    assert parity.recorded(runs.read) is None
    assert "no training in both types is recorded" in parity.in_words(None)
    shown = performance.parity_table()
    assert isinstance(shown, Markdown)
    assert "not measured" in shown.data


def test_a_run_in_bf16_says_in_its_manifest_what_that_relies_on(tiny, monkeypatch):
    """The training itself is left out: what it begins with is written before."""
    trial = {"choice": "bf16", "parity": {"relative_difference": 0.0}}
    monkeypatch.setattr(runs, "decide", lambda *_: dict(trial))
    monkeypatch.setattr(runs.loop, "train", lambda *_, **__: pytest.fail("trained"))
    config = RunConfig(claim=PARITY, variant="bf16", net=ColumnNet("source2012", width=1 / 16, num_classes=20))
    with pytest.raises(pytest.fail.Exception, match="trained"):
        runs.get(config)
    precision = json.loads((runs.folder_of(config) / "manifest.json").read_text())["parts"][0]["precision"]
    assert precision == trial | {"trainings": parity.in_words(None)}
