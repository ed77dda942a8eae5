"""A golden curve: the same twenty losses again and again, for one rank and for several."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from alexnet.model import kernels
from alexnet.model.column_parallel import Layout
from alexnet.preprocessing import prepared_set, synthetic
from alexnet.training import checkpoint, loop
from alexnet.training.distributed import launch

SCRIPT = Path(__file__).with_name("golden.py")
GOLDEN = [
    3.089042,
    3.319303,
    3.299152,
    3.338842,
    3.017428,
    3.278469,
    3.223297,
    3.565254,
    3.272946,
    3.001033,
    3.032758,
    3.088912,
    3.023736,
    3.103991,
    2.892715,
    3.228763,
    3.07073,
    3.172259,
    2.984335,
    3.384439,
]


@pytest.fixture(scope="module")
def golden():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("golden", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def curves(golden, tmp_path_factory):
    """The losses of one process, twice, and of ranks; "whole" and "parts" are trainings by one rank, and by one and two."""
    folder, threads = tmp_path_factory.mktemp("golden"), torch.get_num_threads()
    for split, count in (("train", 34), ("test", 2)):
        images, labels = synthetic.generate(synthetic.LARGE, split, count)
        prepared_set.write_split(folder / "data" / "golden" / split, images, labels)
    prepared_set.finish_set(folder / "data" / "golden", synthetic.LARGE.classes, ("train", "test"), stand_in=True)
    (folder / "whole").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_DATA", str(folder / "data"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("OMP_NUM_THREADS", "1")
        kinds = ("float32", "float32", "float64", "kernels", str(folder / "whole"))
        golden.main(folder / "one", 1, 1, *kinds)
        kernels.use(False)
        loop.train(golden.CONFIG, prepared_set.open_set("golden"), folder / "parts", epoch_limit=1, bar=False)
        torch.set_num_threads(threads)
        jobs = {"two": (2, 1, "float32", "kernels", folder / "parts"), "replicas": (1, 2, "float64")}
        for name, words in jobs.items():
            status = launch([str(folder / name), *map(str, words)], Layout(*words[:2]), program=(str(SCRIPT),))
            assert status == 0
    one, again, exact, fast, _ = json.loads((folder / "one").read_text())
    two, two_fast, _ = json.loads((folder / "two").read_text())
    (replicas,) = json.loads((folder / "replicas").read_text())
    found = {"one": one, "again": again, "one in float64": exact, "one with kernels": fast}
    found |= {"two": two, "two with kernels": two_fast, "replicas in float64": replicas}
    return found | {name: checkpoint.read(folder / name) for name in ("whole", "parts")}


def test_twenty_losses_repeat_bit_for_bit(curves):
    assert len(curves["one"]) == 20
    assert curves["again"] == curves["one"]


def test_two_ranks_have_the_losses_of_one_bit_for_bit(curves):
    """Each column does the same operations on the same numbers wherever it is; sums of two do not depend on their order."""
    assert curves["two"] == curves["one"]


def test_replicas_have_them_but_for_the_order_of_sums(curves):
    """A product over half the rows adds in another order; 34 images in batches of 10 leave one of 4.

    In float64, because twenty steps in fp32 amplify the last bit: with inputs of up to 255, a maximum that moves to another
    pixel of its window changes conv1's gradient by a visible part.
    """
    assert curves["replicas in float64"] == pytest.approx(curves["one in float64"], rel=1e-12)


def test_they_are_those_recorded(curves):
    """Recorded with AVX-512; with torch's own kernels or oneDNN's for SSE4.1 the largest difference is 2e-7."""
    assert curves["one"] == pytest.approx(GOLDEN, rel=1e-5)


def test_kernels_have_them_too_and_two_ranks_those_of_one_bit_for_bit(curves):
    """As exact as the plain path: each differs from float64 in the last digits of fp32, which twenty steps amplify."""
    if curves["one with kernels"] is None:
        pytest.skip("nothing can be compiled here")
    assert curves["two with kernels"] == curves["one with kernels"]
    assert curves["one with kernels"] == pytest.approx(curves["one"], rel=1e-4)
    assert curves["one with kernels"] != curves["one"]  # else they were not used


def test_a_training_begun_on_one_rank_resumes_on_two_bit_for_bit(curves):
    """One epoch in this process, and the other on a rank for each column."""
    whole, parts = curves["whole"], curves["parts"]
    assert parts.progress == whole.progress
    assert parts.progress.epoch == 2
    for ours, theirs in ((parts.weights, whole.weights), (parts.velocities, whole.velocities)):
        assert checkpoint.weights_digest(ours) == checkpoint.weights_digest(theirs)
