"""What a CUDA device computes, against the CPU. One device is enough; without one there is nothing to test."""

from dataclasses import replace

import pytest
import torch

from alexnet.config import ColumnNet, Optimiser, RunConfig, Schedule
from alexnet.model import StepKey, kernels
from alexnet.preprocessing.augment import SOURCE2012
from alexnet.training import evaluate, loop
from alexnet.training.checkpoint import weights_digest
from alexnet.training.distributed import Group
from alexnet.training.evaluate import batches_for
from alexnet.training.optimizer import build_optimiser
from alexnet.training.precision import decide, use_kernels
from alexnet.training.step import GraphedStep, Learner

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
CONFIG = RunConfig(
    data="formula256",
    net=ColumnNet("source2012", width=1 / 16, num_classes=20),
    optimiser=Optimiser(rate=0.0002, weight_decay=5e-4, batch_size=10),
    epochs=2,
    precision="fp32",
    schedule=Schedule(),
    augmentation=SOURCE2012,
)
STEPS = 8


@pytest.fixture(autouse=True)
def _plain_afterwards():
    yield
    kernels.use(False)


def losses(data, device, dtype=torch.float32, wanted=False):
    """The losses of some steps of the narrow net, and its weights after them."""
    group = Group(device)
    assert use_kernels(wanted, group) == wanted
    learner = Learner(CONFIG, "fp32", group)
    learner.net.to(dtype)
    learner.optimiser = build_optimiser(learner.net, CONFIG.optimiser)
    batches, found = batches_for(CONFIG, data, "train", device), []
    for epoch in range(STEPS // 4):
        for step, batch in enumerate(batches.epoch(0, epoch, 10)):
            images, labels = (tensor.to(device) for tensor in batch)
            found.append(learner.step(images.to(dtype), labels, StepKey(0, epoch, step))[0].item())
    return found, {name: weight.double().cpu() for name, weight in learner.weights().items()}


def test_in_float64_a_device_trains_the_same_net(photographs):
    (ours, weights), (theirs, expected) = (losses(photographs, device, torch.float64) for device in (CUDA, CPU))
    assert ours == pytest.approx(theirs, rel=1e-10)
    for name, weight in weights.items():
        assert (weight - expected[name]).norm() <= 1e-9 * expected[name].norm()


@pytest.mark.parametrize("wanted", [False, True], ids=["plain", "kernels"])
def test_in_fp32_it_has_the_losses_of_the_cpu(photographs, wanted):
    """Also with kernels by Triton: each differs from float64 in the last digits of fp32, which the steps amplify."""
    (ours, _), (theirs, _) = losses(photographs, CUDA, wanted=wanted), losses(photographs, CPU)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_training_that_was_stopped_ends_with_the_same_bits(photographs, tmp_path):
    group = Group(CUDA)
    use_kernels(True, group)
    whole, _ = loop.train(CONFIG, photographs, tmp_path / "whole", group=group, bar=False)
    loop.train(CONFIG, photographs, tmp_path / "parts", group=group, epoch_limit=1, bar=False)
    again, _ = loop.train(CONFIG, photographs, tmp_path / "parts", group=group, bar=False)
    assert again.progress == whole.progress
    assert weights_digest(again.weights()) == weights_digest(whole.weights())


def test_a_graphed_step_has_the_bits_of_an_eager_one(photographs, monkeypatch, tmp_path):
    """Twelve epochs of four steps, of which the last has another size; rates change at the drops of the schedule."""
    group, config = Group(CUDA), replace(CONFIG, epochs=12)
    use_kernels(True, group)
    graphed, _ = loop.train(config, photographs, tmp_path / "graphed", group=group, bar=False)
    assert graphed.graph.graph is not None
    monkeypatch.setattr(GraphedStep, "__call__", lambda self, step, *batch: step(*batch))
    eager, _ = loop.train(config, photographs, tmp_path / "eager", group=group, bar=False)
    assert eager.progress == graphed.progress
    assert weights_digest(eager.weights()) == weights_digest(graphed.weights())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "tf32", "auto"])
def test_nets_of_photographs_are_trained_in_each_precision(photographs, tmp_path, precision):
    choice = decide(precision, "cuda")["choice"]
    assert choice in ({"fp32", "bf16"} if precision == "auto" else {precision})
    config = replace(CONFIG, precision=precision)
    training, outcome = loop.train(config, photographs, tmp_path, precision=choice, group=Group(CUDA), bar=False)
    assert outcome == "epochs"
    top1, top5 = evaluate.count_split(training, photographs, config, "test", "ten")
    assert 0 <= top5["wrong"] <= top1["wrong"] <= top1["total"] == 12


def test_nets_of_figure_1_are_trained_too(tiny, config, tmp_path):
    ours, _ = loop.train(config, tiny, tmp_path / "cuda", group=Group(CUDA), bar=False)
    theirs, _ = loop.train(config, tiny, tmp_path / "cpu", bar=False)
    expected = [line["loss"] for line in theirs.progress.history[1:]]
    assert [line["loss"] for line in ours.progress.history[1:]] == pytest.approx(expected, rel=1e-4)
