import pytest
import torch

from alexnet.training import precision
from alexnet.training.learner import Learner
from alexnet.training.parity import parity_of


def speeds(monkeypatch, fp32, bf16):
    monkeypatch.setattr(precision, "matmul_speed", lambda dtype: fp32 if dtype == torch.float32 else bf16)


def test_tf32_is_off_unless_asked_for(config):
    """torch's own default has it on in convolutions."""
    for asked in (True, False):
        Learner(config, "tf32" if asked else "fp32")
        assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is asked


def test_a_machine_that_emulates_bf16_trains_in_fp32_and_says_why(monkeypatch):
    speeds(monkeypatch, fp32=68.0, bf16=0.7)
    record = precision.decide("auto", parity=lambda: pytest.fail("no need to train for this"))
    assert record["choice"] == "fp32"
    assert "not fast enough" in record["why"]
    assert record["matmul_gflops"] == {"fp32": 68.0, "bf16": 0.7}


@pytest.mark.parametrize(("difference", "choice"), [(0.001, "bf16"), (0.2, "fp32")])
def test_a_machine_that_multiplies_bf16_uses_it_only_when_parity_holds(monkeypatch, difference, choice):
    speeds(monkeypatch, fp32=240.0, bf16=1200.0)
    record = precision.decide("auto", parity=lambda: {"relative_difference": difference})
    assert record["choice"] == choice
    assert record["parity"]["relative_difference"] == difference


def test_without_a_parity_check_bf16_is_not_taken(monkeypatch):
    speeds(monkeypatch, fp32=240.0, bf16=1200.0)
    assert precision.decide("auto")["choice"] == "fp32"


def test_what_is_asked_for_is_taken_unmeasured():
    assert precision.decide("bf16") == {"choice": "bf16", "why": "asked for"}


def test_the_parity_check_trains_both_types_from_the_same_start(tiny, config, monkeypatch):
    monkeypatch.setattr(precision, "PARITY_STEPS", 6)
    monkeypatch.setattr("alexnet.training.parity.PARITY_STEPS", 6)
    record = parity_of(config, tiny)()
    assert record["steps"] == 6
    assert record["mean_loss"]["fp32"] != record["mean_loss"]["bf16"], "bf16 was not used"
    assert record["relative_difference"] < 0.05


def test_matmul_speed_is_two_n_cubed_over_the_time(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(ticks) * 0.1)
    assert precision.matmul_speed(torch.float32, side=64) == pytest.approx(2 * 64**3 / 0.1 / 1e9)
