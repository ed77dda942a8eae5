"""Real ranks joined by gloo: this file run as a program is the ranks, and its tests read what they found."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh

from alexnet.model import StepKey, build
from alexnet.model.column_parallel import Exchange, Layout, bytes_per_image, exchanged_shapes
from alexnet.model.presets import ABLATIONS, one_column, paper, source2012, with_classes, with_sixth_layer, with_width
from alexnet.preprocessing.loader import rows_of

ALONE, PAIR, PAIRS = Layout(), Layout(columns=2), Layout(columns=2, replicas=2)
FOUND = {ALONE: "one", PAIR: "two", PAIRS: "four"}
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
# Both normalisations, dropout, 3 to 12 kernels and 128 units a column.
BASE = replace(with_classes(with_width(source2012(), 1 / 16), 5), image_side=99)
NETS = {"base": BASE, "conv6": with_sixth_layer(BASE), "no-exchange": ABLATIONS["no-exchange"](BASE)}
KEY = StepKey(seed=0, epoch=0, step=0)
STEPS = 4


class Rank:
    """One process of a layout, and the groups that it is in."""

    def __init__(self, index, layout):
        self.index, self.layout = index, layout
        self.replica, self.column = divmod(index, layout.columns)
        self.columns = self.replicas = None
        if layout.ranks > 1:
            mesh = init_device_mesh("cpu", (layout.replicas, layout.columns), mesh_dim_names=("replica", "column"))
            self.columns = mesh.get_group("column") if layout.columns > 1 else None
            self.replicas = mesh.get_group("replica") if layout.replicas > 1 else None

    def build(self, config, seed):
        return (
            build(config, seed, ("ab"[self.column],), Exchange(lambda: self.columns))
            if self.columns
            else build(config, seed)
        )


def batch(step, size):
    draws = torch.Generator().manual_seed(step)
    return torch.randn(size, 3, 99, 99, generator=draws, dtype=torch.float64) * 60, torch.arange(size) % 5


def trial(rank, dtype, names=()):
    """Train a few steps by the rule of section 5; the second batch has an odd number of images."""
    net = (build(BASE, 0, names) if names else rank.build(BASE, 0)).to(dtype)
    velocities, found = {p: torch.zeros_like(p) for p in net.parameters()}, {}
    for step in range(STEPS):
        images, labels = batch(step, 4 + step % 2)
        rows = rows_of(len(images), (rank.replica, rank.layout.replicas))
        logits = net(images[rows].to(dtype), StepKey(0, 0, step, first_image=rows.start))
        (F.cross_entropy(logits, labels[rows], reduction="sum") / len(images)).backward()
        if rank.replicas:
            for p in net.parameters():
                dist.all_reduce(p.grad, group=rank.replicas)
        if step == 0:
            gradients = net.plain_state(lambda p: p.grad)
            found |= {"gradients/" + key: value for key, value in gradients.items()}
        for p, v in velocities.items():
            v.mul_(0.9).sub_(0.01 * (p.grad + 5e-4 * p.detach()))
            p.data += v
            p.grad = None
    found |= {"weights/" + key: value for key, value in net.plain_state().items()}
    return found | {"velocities/" + key: value for key, value in net.plain_state(velocities.get).items()}


def work(index, layout, folder):
    torch.set_num_threads(1)
    if layout.ranks > 1:
        store = f"file://{folder}/store-{FOUND[layout]}"
        dist.init_process_group("gloo", init_method=store, rank=index, world_size=layout.ranks)
    rank = Rank(index, layout)
    found = {name: trial(rank, dtype) for name, dtype in DTYPES.items()}
    if layout == ALONE:
        found |= {f"merged {name}": trial(rank, dtype, ("ab",)) for name, dtype in DTYPES.items()}
    if layout == PAIR:
        found |= exchange_by_hand(rank) | {name: count_bytes(rank, config, name) for name, config in NETS.items()}
        found["bf16"] = count_bytes(rank, BASE, "bf16")
    if layout != ALONE:
        found["states"] = move_states(rank)
    torch.save(found, folder / f"{FOUND[layout]}-{index}.pt")
    if layout.ranks > 1:
        dist.destroy_process_group()


def exchange_by_hand(rank):
    """Rank r has maps of 10 r + 1, 10 r + 2 ... and a loss in which what it receives counts r + 1 times its place."""
    exchange, found = Exchange(lambda: rank.columns), {}
    for name in ("contiguous_format", "channels_last"):
        x = (torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4) + 100 * rank.index).to(memory_format=getattr(torch, name))
        whole = exchange.concatenate([x.requires_grad_()])
        (whole * torch.arange(whole.numel()).view(whole.shape) * (rank.index + 1)).sum().backward()
        found[name] = {"whole": whole.detach(), "gradient": x.grad}
    x = torch.tensor([[1.0, 2.0]]) * (rank.index + 1)
    total = exchange.add([x.requires_grad_()])
    (total * torch.tensor([[3.0, 5.0]])).sum().backward()
    return {**found, "sum": {"whole": total.detach(), "gradient": x.grad}}


def count_bytes(rank, config, name):
    """Train one step and look at the net once; return the bytes that each call of torch.distributed sends, in order."""
    net, sent = rank.build(config, 0), {"all_gather": [], "all_to_all_single": [], "all_reduce": []}
    real = {call: getattr(dist, call) for call in sent}

    def counted(call, given, share):
        def count(*tensors, **how):
            sent[call].append(share * tensors[given].numel() * tensors[given].element_size())
            return real[call](*tensors, **how)

        return count

    # Of two ranks each sends its maps to the other, half of the gradients, and half a sum twice.
    for call, given, share in (("all_gather", 1, 1), ("all_to_all_single", 1, 0.5), ("all_reduce", 0, 1)):
        setattr(dist, call, counted(call, given, share))
    images, labels = batch(0, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bf16"):
        logits = net(images.float(), KEY)
    F.cross_entropy(logits, labels).backward()
    for call, function in real.items():
        setattr(dist, call, function)
    return {call: torch.tensor(counts) for call, counts in sent.items()}


def move_states(rank):
    """Load a plain state and plain velocities into this rank's share of another net, and gather them again."""
    given = build(BASE, seed=7).plain_state()
    net = rank.build(BASE, 8)
    net.load_plain_state(given)
    velocities = {p: torch.zeros_like(p) for p in net.parameters()}
    net.load_plain_state({key: -value for key, value in given.items()}, into=velocities.get)
    return {"weights": net.plain_state(), "velocities": net.plain_state(velocities.get)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank of one, two and two times two found, by layout and index."""
    folder = tmp_path_factory.mktemp("ranks")
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, folder], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {file.stem: torch.load(file, weights_only=True) for file in folder.glob("*.pt")}


def differences(reference, other):
    """The relative difference of each tensor, and of all tensors of a kind as one vector."""
    groups = {key: [key] for key in reference}
    groups |= {kind: [key for key in reference if key.startswith(kind)] for kind in ("gradients", "weights", "velocities")}
    found = {}
    for name, keys in groups.items():
        expected, got = (torch.cat([values[key].flatten().double() for key in keys]) for values in (reference, other))
        found[name] = ((got - expected).norm() / expected.norm()).item()
        assert found[name] == found[name], name
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [0, 1])
def test_two_ranks_compute_what_one_rank_with_both_columns_does_bit_for_bit(ranks, dtype, index):
    """Every product is of the same tensors, and a sum of two does not depend on their order."""
    expected, found = ranks["one-0"][dtype], ranks[f"two-{index}"][dtype]
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("other", ["merged", "four-0"])
def test_merged_columns_and_replicas_agree_with_one_rank_in_fp32(ranks, other):
    """Merged convolutions and halves of a batch add in another order; dropout, normalisations and decay are all in.

    Each kind as one vector agrees to 1e-6. A single tensor may differ by twice what one rank is itself from its float64
    values, if that is more: the gradients of biases are sums in which terms 20 to 30 times as large cancel, so that on any
    processor some tensor is 0.5 to 1e-6 from the truth in either order.
    """
    one = ranks["one-0"]
    found = one["merged fp32"] if other == "merged" else ranks[other]["fp32"]
    rounding = differences(one["fp64"], one["fp32"])
    for key, difference in differences(one["fp32"], found).items():
        assert difference <= (max(1e-6, 2 * rounding[key]) if "/" in key else 1e-6), key
        assert rounding[key] <= 2e-6, key


@pytest.mark.parametrize("other", ["merged", "four-0"])
def test_merged_columns_and_replicas_agree_with_one_rank_in_float64(ranks, other):
    """Without exception: what rounding did in fp32 is a thousand million times smaller here, a mistake would not be."""
    found = ranks["one-0"]["merged fp64"] if other == "merged" else ranks[other]["fp64"]
    for key, difference in differences(ranks["one-0"]["fp64"], found).items():
        assert difference <= 1e-12, key


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_replica_and_every_column_ends_with_the_same_state(ranks, dtype):
    for index in (1, 2, 3):
        for key, value in ranks["four-0"][dtype].items():
            assert torch.equal(ranks[f"four-{index}"][dtype][key], value), key


def test_the_steps_move_every_tensor_a_hundred_times_beyond_the_limit(ranks):
    """Or agreement after them would say little."""
    for key, value in build(BASE, 0).plain_state().items():
        moved = (ranks["one-0"]["fp32"][f"weights/{key}"] - value).norm()
        assert moved > 100 * 1e-6 * value.norm(), key


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("memory", ["contiguous_format", "channels_last"])
def test_maps_are_gathered_in_order_of_column_and_gradients_are_summed(ranks, index, memory):
    found = ranks[f"two-{index}"][memory]
    maps = torch.arange(96.0).view(2, 3, 4, 4)
    assert torch.equal(found["whole"], torch.cat([maps, maps + 100], dim=1))
    assert found["whole"].is_contiguous(memory_format=getattr(torch, memory))
    own = torch.arange(192.0).view(2, 6, 4, 4)[:, 3 * index : 3 * index + 3]
    assert torch.equal(found["gradient"], own * (1 + 2))


@pytest.mark.parametrize("index", [0, 1])
def test_logits_are_added_and_their_gradient_is_not(ranks, index):
    """Both ranks compute the one loss of the sum, so adding their gradients would count it twice."""
    found = ranks[f"two-{index}"]["sum"]
    assert found["whole"].tolist() == [[3.0, 6.0]]
    assert found["gradient"].tolist() == [[3.0, 5.0]]


def test_bytes_of_the_paper_net_by_hand():
    assert exchanged_shapes(paper()) == {"conv3": (128, 13, 13), "fc6": (128, 6, 6), "fc7": (2048,), "fc8": (1000,)}
    conv3, fc6, fc7 = 128 * 13 * 13 * 4, 128 * 6 * 6 * 4, 2048 * 4
    assert bytes_per_image(source2012()) == {
        **{("conv3", "forward"): conv3, ("conv3", "backward"): conv3},
        **{("fc6", "forward"): fc6, ("fc6", "backward"): fc6},
        **{("fc7", "forward"): fc7, ("fc7", "backward"): fc7},
        ("fc8", "forward"): 1000 * 4,
    }
    assert set(bytes_per_image(one_column(paper())).values()) == {0}


@pytest.mark.parametrize("name", [*NETS, "bf16"])
@pytest.mark.parametrize("index", [0, 1])
def test_bytes_sent_are_those_of_the_formula(ranks, name, index):
    """One step of three images. In bf16 maps are half as many bytes."""
    formula = bytes_per_image(NETS.get(name, BASE), itemsize=2 if name == "bf16" else 4)
    logits = 3 * formula.pop(("fc8", "forward"))
    forward = [3 * count for (_, way), count in formula.items() if way == "forward"]
    found = {call: counts.tolist() for call, counts in ranks[f"two-{index}"][name].items()}
    assert found == {"all_gather": forward, "all_to_all_single": forward[::-1], "all_reduce": [logits]}


@pytest.mark.parametrize("rank", ["two-0", "two-1", "four-0", "four-3"])
def test_a_state_goes_through_ranks_unchanged(ranks, rank):
    """So a checkpoint of any layout is one of all: each rank takes its share, and what they gather is what was given."""
    given, found = build(BASE, seed=7).plain_state(), ranks[rank]["states"]
    for key, value in given.items():
        assert torch.equal(found["weights"][key], value), key
        assert torch.equal(found["velocities"][key], -value), key


def test_logits_are_four_bytes_also_in_bf16():
    short, long = bytes_per_image(source2012(), itemsize=2), bytes_per_image(source2012())
    assert short["fc8", "forward"] == long["fc8", "forward"] == 1000 * 4
    assert short["conv3", "forward"] == long["conv3", "forward"] / 2


if __name__ == "__main__":
    from torch.multiprocessing import start_processes

    for layout in FOUND:
        start_processes(work, (layout, Path(sys.argv[1])), nprocs=layout.ranks, start_method="fork")
