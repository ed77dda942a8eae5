"""Real ranks joined by gloo: this file run as a program is the ranks, and its tests read what they found."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from alexnet.model.columns import Layout, bytes_per_image, exchanged_shapes, gathered_plain_state, standing_in

from alexnet.claims.devices import ALONE, DTYPES, PAIR, PAIRS, differences, run_ranks, trial, trial_batch, trial_net
from alexnet.config import UserError
from alexnet.model.alexnet import build, load_plain_state, plain_state
from alexnet.model.layers import StepKey
from alexnet.model.presets import ABLATIONS, one_column, paper, source2012, with_sixth_layer

FOUND = {ALONE: "one", PAIR: "two", PAIRS: "four"}
NETS = {"base": trial_net(), "conv6": with_sixth_layer(trial_net()), "no-exchange": ABLATIONS["no-exchange"](trial_net())}
AT = StepKey(seed=0, epoch=0, step=0)


def work(rank, folder):
    found = {name: trial(rank, dtype=dtype) for name, dtype in DTYPES.items()}
    if rank.layout == ALONE:
        found |= {f"merged {name}": trial(rank, True, dtype) for name, dtype in DTYPES.items()}
    if rank.layout == PAIR:
        found |= exchange_by_hand(rank) | {name: count_bytes(rank, config, name) for name, config in NETS.items()}
        found["bf16"] = count_bytes(rank, NETS["base"], "bf16")
    if rank.layout != ALONE:
        found["states"] = move_states(rank)
    torch.save(found, folder / f"{FOUND[rank.layout]}-{rank.index}.pt")


def exchange_by_hand(rank):
    """Rank r has maps of 10 r + 1, 10 r + 2 ... and a loss in which what it receives counts r + 1 times its place."""
    exchange, found = rank.exchange(trial_net()), {}
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
    """Train two steps and look at the net once; return the bytes by place and the images."""
    exchange = rank.exchange(config)
    net = build(config, 0, rank.names(config), exchange)
    images, labels = trial_batch(0, 3)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bf16"):
            logits = net(images, AT)
        F.cross_entropy(logits.float(), labels).backward()
    with torch.no_grad():
        net.eval()(images)
    return {" ".join(place): torch.tensor(sent) for place, sent in exchange.sent.items()} | {
        "images": torch.tensor(exchange.images)
    }


def move_states(rank):
    """Load a plain state and plain velocities into this rank's share of another net, and gather them again."""
    config = trial_net()
    given = plain_state(build(config, seed=7))
    net = build(config, 8, rank.names(config))
    net.load_plain_state(given)
    velocities = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    load_plain_state(standing_in(net, velocities), {key: -value for key, value in given.items()})
    group = rank.column_group
    return {"weights": gathered_plain_state(net, group), "velocities": gathered_plain_state(net, group, velocities)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank of one, two and two times two found, by layout and index."""
    folder = tmp_path_factory.mktemp("ranks")
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, folder], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return {file.stem: torch.load(file, weights_only=True) for file in folder.glob("*.pt")}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [0, 1])
def test_two_ranks_compute_what_one_rank_with_both_columns_does_to_the_bit(ranks, dtype, index):
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


def test_ten_steps_move_every_tensor_a_hundred_times_beyond_the_limit(ranks):
    """Or agreement after them would say little."""
    start = plain_state(build(trial_net(), 0))
    for key, value in start.items():
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
    """Two steps of three images; a pass that records no gradients is not counted. In bf16 half as many bytes are sent."""
    sent = dict(ranks[f"two-{index}"][name])
    assert sent.pop("images") == 2 * 3
    formula = bytes_per_image(NETS.get(name, NETS["base"]), itemsize=2 if name == "bf16" else 4)
    assert {place: int(count) for place, count in sent.items()} == {
        " ".join(place): count * 6 for place, count in formula.items()
    }


@pytest.mark.parametrize("rank", ["two-0", "two-1", "four-0", "four-3"])
def test_a_state_goes_through_ranks_unchanged(ranks, rank):
    """So a checkpoint of any layout is one of all: each rank takes its share, and what they gather is what was given."""
    given, found = plain_state(build(trial_net(), seed=7)), ranks[rank]["states"]
    for key, value in given.items():
        assert torch.equal(found["weights"][key], value), key
        assert torch.equal(found["velocities"][key], -value), key


@pytest.mark.parametrize("grouped", [False, True])
def test_a_net_with_all_columns_needs_no_group_to_give_its_state(grouped):
    net = build(trial_net(), seed=7, grouped=grouped)
    expected = net.plain_state()
    assert all(torch.equal(value, expected[key]) for key, value in gathered_plain_state(net).items())
    doubled = gathered_plain_state(net, values={name: 2 * p.detach() for name, p in net.named_parameters()})
    assert all(torch.equal(value, 2 * expected[key]) for key, value in doubled.items())


def test_replicas_share_out_every_image_once():
    for replicas in (1, 2, 3, 8):
        for size in (1, 2, 7, 128):
            rows = [range(size)[Layout(2, replicas).rows(r, size)] for r in range(replicas)]
            assert [image for part in rows for image in part] == list(range(size))
            assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_net_that_cannot_be_shared_out_is_refused():
    with pytest.raises(UserError, match=r"--devices 2 .* this net has 1: .* --replicas 2"):
        PAIR.names(one_column(paper()), 0)
    assert ALONE.names(one_column(paper()), 0) == ()
    assert [PAIR.names(paper(), column) for column in (0, 1)] == [("a",), ("b",)]
    with pytest.raises(UserError, match="has 3"):
        PAIR.names(replace(paper(), columns=3), 0)


if __name__ == "__main__":
    run_ranks(work, [ALONE, PAIR, PAIRS], Path(sys.argv[1]))
