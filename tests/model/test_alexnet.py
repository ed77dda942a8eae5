import queue
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model.nets import images, on_meta, small

from alexnet.config import UserError
from alexnet.model import StepKey, build
from alexnet.model.alexnet import AlexNet
from alexnet.model.column_parallel import Exchange
from alexnet.model.presets import (
    ABLATIONS,
    LAYERS,
    one_column,
    paper,
    source2012,
    with_sixth_layer,
)

PRESETS = {"paper": paper(), "source2012": source2012()}
CONFIGS = {**PRESETS, **{name: change(source2012()) for name, change in ABLATIONS.items()}}
KEY = StepKey(seed=0, epoch=2, step=17)


@pytest.mark.parametrize("name", CONFIGS)
def test_merged_columns_compute_what_the_columns_compute(name):
    """Outputs, dropout masks and every gradient, in float64, for both presets and every ablation of the second."""
    config = small(CONFIGS[name])
    x, results = images(2), []
    for names in ((), (config.column_names,)):
        net = build(config, seed=1, names=names).double()
        logits = net(x, KEY)
        F.cross_entropy(logits, torch.tensor([0, 3])).backward()
        for parameter in net.parameters():
            parameter.data = parameter.grad
        results.append((logits, net.plain_state(), net.eval()(x)))
    (logits, gradients, _), (merged_logits, merged_gradients, _) = results
    torch.testing.assert_close(merged_logits, logits)
    assert gradients.keys() == merged_gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(merged_gradients[key], gradient, rtol=1e-8, atol=1e-10 * gradient.abs().max().item())
        assert gradient.any(), key


class RecordingExchange(Exchange):
    """Notes what columns tell each other."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def concatenate(self, own):
        self.seen.append([tuple(x.shape[1:]) for x in own])
        return super().concatenate(own)

    def add(self, own_NK):
        self.seen.append([tuple(x.shape[1:]) for x in own_NK])
        return super().add(own_NK)


def test_columns_meet_four_times():
    """Before conv3, before fc6, before fc7, and at the logits."""
    exchange = RecordingExchange()
    net = on_meta(paper(), exchange=exchange).eval()
    assert net(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)
    assert exchange.seen == [[(128, 13, 13)] * 2, [(128, 6, 6)] * 2, [(2048,)] * 2, [(1000,)] * 2]


class ThreadExchange:
    """The exchange of a column with one in another thread, which knows nothing else of it."""

    def __init__(self, first, mine, theirs):
        self.first, self.mine, self.theirs = first, mine, theirs

    def both(self, own):
        (x,) = own
        self.theirs.put(x)
        other = self.mine.get(timeout=60)
        return [x, other] if self.first else [other, x]

    def concatenate(self, own):
        return torch.cat(self.both(own), dim=1)

    def add(self, own_NK):
        return sum(self.both(own_NK))


def test_each_column_can_run_elsewhere_with_its_own_exchange():
    config, x, logits = small(source2012()), images(2).float(), {}
    boxes = queue.Queue(), queue.Queue()

    def run(letter):
        first = letter == "a"
        exchange = ThreadExchange(first, *(boxes if first else boxes[::-1]))
        with torch.no_grad():
            logits[letter] = build(config, 4, names=(letter,), exchange=exchange)(x, KEY)

    threads = [threading.Thread(target=run, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    with torch.no_grad():
        together = build(config, 4)(x, KEY)
    assert torch.equal(logits["a"], together)
    assert torch.equal(logits["b"], together)


def test_any_layout_starts_from_the_same_weights():
    config = small(source2012())
    columns, merged = build(config, seed=3), build(config, seed=3, names=("ab",))
    for key, value in columns.plain_state().items():
        assert torch.equal(merged.plain_state()[key], value), key
    alone = build(config, seed=3, names=("b",))
    for key, value in alone.state_dict().items():
        assert torch.equal(columns.state_dict()[key], value), key
    assert not torch.equal(columns.columns.a.conv4.weight, columns.columns.b.conv4.weight)
    assert not torch.equal(columns.columns.a.conv4.weight, build(config, seed=4).columns.a.conv4.weight)


def test_building_a_net_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    build(small(paper()), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_column_of_a_seed_starts_as_column_a_where_they_agree():
    alone, pair = build(small(one_column(paper())), seed=0), build(small(paper()), seed=0)
    assert torch.equal(alone.columns.a.conv1.weight, pair.columns.a.conv1.weight)


@pytest.mark.parametrize("names", [(), ("ab",)])
def test_a_plain_state_goes_into_every_layout(names):
    config = small(paper())
    state = build(config, seed=5, names=names).plain_state()
    assert state["conv2.weight"].shape == (16, 3, 5, 5)
    assert state["conv3.weight"].shape == (24, 16, 3, 3)
    assert state["fc8.weight"].shape == (5, 256)
    original = build(config, seed=5)
    for others in ((), ("ab",), ("a",), ("b",)):
        net = build(config, seed=6, names=others)
        net.load_plain_state(state)
        if len("".join(net.columns)) == 2:
            assert all(torch.equal(value, state[key]) for key, value in net.plain_state().items())
        for key, value in net.state_dict().items():
            if "ab" not in key:
                assert torch.equal(value, original.state_dict()[key]), key


def test_a_plain_state_that_does_not_fit_is_refused_and_nothing_is_copied():
    net, other = build(small(paper()), seed=5), build(small(paper(), num_classes=6), seed=6)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"fc8.weight has shape \(6, 256\), the net has \(5, 256\)"):
        net.load_plain_state(other.plain_state())
    state = build(small(with_sixth_layer(paper())), seed=6).plain_state()
    with pytest.raises(ValueError, match="conv6"):
        net.load_plain_state({key: state[key] for key in net.plain_state()} | {"conv6.bias": state["conv6.bias"]})
    with pytest.raises(ValueError, match=r"no 'fc8.bias'"):
        net.load_plain_state({key: value for key, value in net.plain_state().items() if key != "fc8.bias"})
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    with pytest.raises(ValueError, match="column b of ab"):
        build(small(paper()), seed=5, names=("b",)).plain_state()


def test_parameters_are_named_by_column_and_layer():
    names = [name for name, _ in on_meta(paper()).named_parameters()]
    layers = [f"{layer}.{kind}" for layer in LAYERS if layer != "conv6" for kind in ("weight", "bias")]
    assert names == [f"columns.a.{name}" for name in layers] + [f"columns.b.{name}" for name in layers[:-1]]


SD = {"paper": dict.fromkeys(LAYERS, 0.01), "source2012": dict.fromkeys(LAYERS, 0.01)}
SD["source2012"] |= dict.fromkeys(("conv3", "conv4", "conv5"), 0.03)


@pytest.mark.parametrize("preset", PRESETS)
def test_initial_sds_and_biases_are_those_of_the_preset(preset):
    """Fewer units than the paper's, so that drawing them is quick; sds do not depend on that."""
    config = PRESETS[preset]
    net = build(replace(config, fc6=replace(config.fc6, units=64), fc7=replace(config.fc7, units=64)), seed=0)
    for column in net.columns.values():
        for name, layer in column.named_children():
            error = 4 / np.sqrt(2 * layer.weight.numel())
            assert layer.weight.std().item() == pytest.approx(SD[preset][name], rel=error), name
            if layer.bias is not None:
                assert (layer.bias == (name in ("conv2", "conv4", "conv5", "fc6", "fc7"))).all(), name


def test_a_mask_depends_on_the_step_key_and_outputs_are_halved_at_test_time():
    net = build(small(paper()), seed=0)
    x = images(2).float()
    with torch.no_grad():
        assert torch.equal(net(x, KEY), net(x, KEY))
        for other in (StepKey(1, 2, 17), StepKey(0, 3, 17), StepKey(0, 2, 18)):
            assert not torch.equal(net(x, KEY), net(x, other))
        first_row = net(x[1:], replace(KEY, first_image=1))
        torch.testing.assert_close(first_row, net(x, KEY)[1:])
        net.eval()
        undropped = AlexNet(replace(net.config, dropout=0.0))
        undropped.load_state_dict(net.state_dict())
        torch.testing.assert_close(net.features(x, "fc6"), undropped.features(x, "fc6") / 2)
    with pytest.raises(ValueError, match="StepKey"):
        net.train()(x)


def test_features_are_every_columns_outputs_side_by_side():
    net = build(small(source2012()), seed=0).eval()
    x = images(2).float()
    with torch.no_grad():
        assert net.features(x, "conv1").shape == (2, 6, 11, 11)
        fc7 = net.features(x, "fc7")
        weight = net.plain_state()["fc8.weight"]
        torch.testing.assert_close(F.linear(fc7, weight, net.columns.a.fc8.bias), net(x))
    with pytest.raises(UserError, match="'fc8'"):
        net.features(x, "fc8")


def test_a_plain_state_can_be_of_what_belongs_to_the_weights():
    """Velocities, for example: split and joined as weights are, in any layout."""
    config = small(source2012())
    given = {key: -value for key, value in build(config, seed=5).plain_state().items()}
    for names in ((), ("ab",)):
        net = build(config, seed=6, names=names)
        velocities = {parameter: torch.zeros_like(parameter) for parameter in net.parameters()}
        net.load_plain_state(given, into=velocities.get)
        assert all(torch.equal(value, given[key]) for key, value in net.plain_state(of=velocities.get).items())
        before = build(config, seed=6, names=names).plain_state()
        assert all(torch.equal(value, before[key]) for key, value in net.plain_state().items())


@pytest.mark.parametrize("names", [(), ("ab",)])
def test_a_net_runs_in_bf16_and_stays_near_fp32(names):
    net = build(small(source2012()), seed=0, names=names).eval()
    x = images(2).float()
    with torch.no_grad():
        expected = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = net(x)
            hidden = net.features(x, "fc7")
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    assert logits.dtype == torch.float32
    assert hidden.dtype == torch.bfloat16


def test_in_bf16_logits_are_the_fp32_products_of_the_last_layer_and_do_not_tie():
    """Classes whose weights differ by less than bf16 can tell: its product has ties at the top, where ours has none."""
    net = build(small(source2012(), num_classes=50), seed=0).eval()
    with torch.no_grad():
        for column in net.columns.values():
            column.fc8.weight[1:] = column.fc8.weight[0] * (
                1 + 2e-4 * torch.randn(49, 1, generator=torch.Generator().manual_seed(1))
            )
    x = images(8).float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, hidden = net(x), net.features(x, "fc7")
        short = sum(F.linear(h, c.fc8.weight) for h, c in zip(hidden.chunk(2, 1), net.columns.values(), strict=True))
    state = net.plain_state()
    expected = F.linear(hidden.double(), state["fc8.weight"].double(), state["fc8.bias"].double())
    torch.testing.assert_close(logits.double(), expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())
    best_in_bf16 = (short == short.amax(1, keepdim=True)).sum(1)
    assert short.dtype == torch.bfloat16
    assert (best_in_bf16 > 1).all()  # top-1 would depend on the order of the classes
    assert ((logits == logits.amax(1, keepdim=True)).sum(1) == 1).all()
    assert torch.equal(logits.argmax(1), expected.argmax(1))
