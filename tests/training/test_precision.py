import pytest
import torch

from alexnet.model import kernels
from alexnet.training import precision
from alexnet.training.distributed import Group
from alexnet.training.step import Learner


def speeds(monkeypatch, fp32, bf16):
    monkeypatch.setattr(precision, "matmul_speed", lambda dtype: fp32 if dtype == torch.float32 else bf16)


def test_tf32_is_off_unless_asked_for(config):
    """torch's own default has it on in convolutions."""
    for asked in (True, False):
        Learner(config, "tf32" if asked else "fp32")
        assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is asked


def test_a_machine_that_emulates_bf16_trains_in_fp32_and_says_why(monkeypatch):
    speeds(monkeypatch, fp32=68.0, bf16=0.7)
    record = precision.decide("auto")
    assert record["choice"] == "fp32"
    assert "not fast enough" in record["why"]
    assert record["matmul_gflops"] == {"fp32": 68.0, "bf16": 0.7}


def test_a_machine_that_multiplies_bf16_faster_uses_it(monkeypatch):
    speeds(monkeypatch, fp32=240.0, bf16=1200.0)
    record = precision.decide("auto")
    assert record["choice"] == "bf16"
    assert record["matmul_gflops"] == {"fp32": 240.0, "bf16": 1200.0}


def test_what_is_asked_for_is_taken_unmeasured():
    assert precision.decide("bf16") == {"choice": "bf16", "why": "asked for"}


def test_matmul_speed_is_two_n_cubed_over_the_time(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(ticks) * 0.1)
    assert precision.matmul_speed(torch.float32, side=64) == pytest.approx(2 * 64**3 / 0.1 / 1e9)


def test_kernels_are_off_unless_wanted_and_possible(monkeypatch, capsys):
    assert not precision.use_kernels(False, Group())
    monkeypatch.setattr(kernels.build, "why_not", lambda device_type="cpu": "no C compiler cc")
    monkeypatch.setattr(kernels, "why_not", lambda device_type="cpu": "no C compiler cc")
    assert not precision.use_kernels(True, Group())
    assert capsys.readouterr().err == "no kernels, so the slower plain path is used: no C compiler cc\n"
    monkeypatch.setenv("ALEXNET_COMPILE", "0")
    assert not precision.use_kernels(True, Group())
    assert not capsys.readouterr().err
