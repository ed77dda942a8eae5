import sys

import pytest
import torch

from alexnet.bench import agreement
from alexnet.bench.agreement import as_text, differences, report_agreement, report_times


def a_trial(change=0.0, kind="weights", dtype="fp64"):
    """A made-up trial, in which one tensor of one kind is changed by a fraction."""
    trial = {
        short: {f"{kind}/{name}": torch.arange(1, 6, dtype=torch.float64) for kind in agreement.KINDS for name in "ab"}
        for short in agreement.DTYPES
    }
    trial[dtype][f"{kind}/b"] *= 1 + change
    return trial


@pytest.mark.parametrize("name", ["2 ranks", "2x2 ranks"])
def test_equal_trials_agree_and_the_report_says_equal(name):
    lines, agree = report_agreement({"1 rank": a_trial(), name: a_trial()})
    assert agree
    assert lines[-1].split()[-5:] == ["equal"] * 5


@pytest.mark.parametrize("kind", agreement.KINDS)
@pytest.mark.parametrize(
    ("dtype", "change"), [("fp32", 2e-5), ("fp64", 1e-11), ("fp32", float("nan")), ("fp64", float("nan"))]
)
def test_one_tensor_beyond_the_limit_of_its_type_is_a_failure(kind, dtype, change):
    trials = {"1 rank": a_trial(), "2 ranks": a_trial(), "2x2 ranks": a_trial(change, kind, dtype)}
    assert not report_agreement(trials)[1]


def test_rounding_of_one_tensor_is_named_and_passes():
    lines, agree = report_agreement({"1 rank": a_trial(), "2x2 ranks": a_trial(1e-7, "gradients", "fp32")})
    assert agree
    assert lines[-1].endswith("gradients/b 1.0e-07")


def test_a_difference_is_relative_to_the_norm_of_a_tensor_and_of_its_kind():
    expected = {"weights/a": torch.tensor([3.0, 4.0]), "weights/b": torch.tensor([12.0])}
    found = differences(expected, {"weights/a": torch.tensor([3.0, 4.5]), "weights/b": torch.tensor([12.0])})
    assert found == pytest.approx({"weights/a": 0.1, "weights/b": 0.0, "weights": 0.5 / 13})


def test_times_are_given_with_the_bytes_they_move():
    """conv3: 128 images of 128 x 13 x 13 maps of 4 bytes are 11.08 MB; in 10 ms that is 1.11 GB/s, in 20 ms 0.55."""
    line = report_times({"conv3": (0.01, 0.02), "fc8": (0.001, 0.0)}, "gloo")[-2:]
    assert line[0].split() == ["conv3", "11.08", "10.00", "ms", "1.11", "20.00", "ms", "0.55"]
    assert line[1].split() == ["fc8", "0.51", "1.00", "ms", "0.51"]


def test_the_check_passes_on_this_machine_and_claims_nothing_of_absent_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    text, passed = as_text()
    assert passed, text
    assert text.startswith("No CUDA device: not measured here.")
    assert text.endswith("\nPASS")
    rows = {line[:12].strip(): line for line in text.splitlines()}
    assert rows["2 ranks"].split()[2:] == ["equal"] * 5
    assert "2x2 ranks" in rows
    assert all(any(line.startswith(layer) for line in text.splitlines()) for layer in ("conv3", "fc6", "fc7", "fc8"))
    assert "nccl" not in text


def test_ranks_that_cannot_run_are_a_failure(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    text, passed = as_text()
    assert not passed
    assert text.startswith("One CUDA device, and two are needed: not measured here.")
    assert "status 1: no message" in text
    assert text.endswith("\nFAIL")
