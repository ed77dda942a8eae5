"""What a CUDA device computes, against the processor. One device is enough; without one there is nothing to test."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet import compiled
from alexnet.claims import runs
from alexnet.claims.record import weights_digest
from alexnet.config import ColumnNet, Optimiser, RunConfig, Schedule
from alexnet.model.layers import Moment
from alexnet.preprocessing import cutting, views
from alexnet.training import loop
from alexnet.training.compiling import compile_loops
from alexnet.training.crew import Crew
from alexnet.training.learner import Learner, to_device
from alexnet.training.measure import batches_of
from alexnet.training.optimiser import build_optimiser

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
CONFIG = RunConfig(
    claim="s3.5-architecture",
    variant="source2012-eighth",
    data="formula256",
    net=ColumnNet("source2012", width=1 / 16, num_classes=20),
    optimiser=Optimiser(rate=0.0002, weight_decay=5e-4, batch_size=10),
    epochs=2,
    precision="fp32",
    schedule=Schedule(),
    augmentation="source2012",
)
STEPS = 8


@pytest.fixture(autouse=True)
def _plain_afterwards():
    yield
    compiled.use(False)


def losses(data, device, dtype=torch.float32, loops=False):
    """The losses of some steps of the narrow net, and its weights after them."""
    crew = Crew(device)
    assert compile_loops(CONFIG.net, loops, crew) == loops
    learner = Learner(CONFIG, "fp32", crew)
    learner.net.to(dtype)
    learner.optimiser = build_optimiser(learner.net, CONFIG.optimiser)
    batches, found = batches_of(CONFIG, data, "train", device), []
    for epoch in range(STEPS // 4):
        for step, batch in enumerate(batches.epoch(0, epoch, 10)):
            images, labels = to_device(batch, device)
            found.append(learner.step(images.to(dtype), labels, Moment(0, epoch, step))[0].item())
    return found, {name: weight.double().cpu() for name, weight in learner.weights().items()}


def test_in_float64_a_device_trains_the_same_net(photographs):
    (ours, weights), (theirs, expected) = (losses(photographs, device, torch.float64) for device in (CUDA, CPU))
    assert ours == pytest.approx(theirs, rel=1e-10)
    for name, weight in weights.items():
        assert (weight - expected[name]).norm() <= 1e-9 * expected[name].norm()


@pytest.mark.parametrize("loops", [False, True], ids=["plain", "compiled"])
def test_in_fp32_it_has_the_losses_of_the_processor(photographs, loops):
    """Also with loops by Triton: each differs from float64 in the last digits of fp32, which the steps amplify."""
    (ours, _), (theirs, _) = losses(photographs, CUDA, loops=loops), losses(photographs, CPU)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("reading", ["paper", "source2012"])
def test_views_made_on_a_device_have_the_bits_of_the_processors(photographs, reading):
    how, places = views.READINGS[reading], np.arange(34)
    axes, images = views.colour_axes(photographs.covariance), photographs.splits["train"].images
    arguments = (images, places, photographs.mean, axes, how, 0, 0, places)
    on_device = cutting.augment(*arguments, device=CUDA)
    assert on_device.is_cuda
    assert on_device.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(on_device.cpu(), cutting.augment(*arguments))


def test_a_training_that_was_stopped_ends_with_the_same_bits(photographs, tmp_path):
    crew = Crew(CUDA)
    compile_loops(CONFIG.net, True, crew)
    whole, _ = loop.train(CONFIG, photographs, tmp_path / "whole", crew=crew)
    loop.train(CONFIG, photographs, tmp_path / "parts", crew=crew, epoch_limit=1)
    again, _ = loop.train(CONFIG, photographs, tmp_path / "parts", crew=crew)
    assert again.progress == whole.progress
    assert weights_digest(again.weights()) == weights_digest(whole.weights())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "tf32", "auto"])
def test_runs_of_photographs_are_trained_in_each_type(photographs, precision):
    run = runs.get(replace(CONFIG, precision=precision), crew=Crew(CUDA))
    assert run.status == "finished"
    assert 0 <= run.metrics[-1]["test_error_ten_views"] <= 1
    part = run.manifest["parts"][-1]
    assert part["device"] == torch.cuda.get_device_name()
    assert part["precision"]["choice"] in ({"fp32", "bf16"} if precision == "auto" else {precision})


def test_runs_of_figure_1_are_trained_too(tiny, config):
    run = runs.get(config, crew=Crew(CUDA))
    assert run.status == "finished"
    on_processor = runs.get(replace(config, seed=1)).metrics[-1]
    assert run.metrics[-1].keys() == on_processor.keys()
