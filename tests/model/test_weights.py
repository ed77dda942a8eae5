import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import alexnet
from alexnet.config import CifarNet, UserError
from alexnet.model import build, weights
from alexnet.model.presets import one_column, paper, source2012, with_classes, with_sixth_layer, with_width
from alexnet.model.weights import ModelCard

CLASSES = ("tench", "chain saw", "church")


def small(config):
    return replace(with_classes(with_width(config, 1 / 16), 3), image_side=99)


def trained(config, **layout):
    """A net whose weights are larger than at the start, so that its logits and normalisations say something."""
    net = build(config, seed=0, **layout)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("weight") and "conv1" not in name:
                weight.mul_(3)
    return net


def mean_image(side=110):
    return torch.linspace(80, 140, side * side * 3).view(side, side, 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A net of two columns and the file that it was written to."""
    net = trained(small(source2012()))
    path = tmp_path_factory.mktemp("weights") / "made" / "net.safetensors"
    weights.save(path, net, ModelCard("source2012", net.config, "0123456789ab", CLASSES), mean_image())
    return net, path


def parts_of(path):
    """The tensors of a file and its card as a dictionary."""
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["alexnet"])


def rewritten(path, tensors, card, renew=False):
    """Write a file as `save` does, from changed parts; `renew` gives it the digest of what it holds now."""
    if renew:
        card = {key: value for key, value in card.items() if key != "sha256"}
        card["sha256"] = weights._digest(card, tensors)
    save_file(tensors, path, {"alexnet": json.dumps(card)})
    return path


def refusal(path):
    with pytest.raises(UserError) as caught:
        weights.load(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert "export" in text  # what mends it
    return text


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (paper(), {}),
        (source2012(), {"names": ("ab",)}),
        (one_column(paper()), {}),
        (with_sixth_layer(source2012()), {}),
        (replace(paper(), activation="tanh", dropout=0.0), {}),
    ],
)
def test_a_net_of_any_layout_comes_back_grouped_with_the_same_function(config, layout, tmp_path):
    net = trained(small(config), **layout).eval()
    card = ModelCard("paper", net.config, "0123456789ab", CLASSES)
    weights.save(tmp_path / "net.safetensors", net, card, mean_image())
    loaded = alexnet.load(str(tmp_path / "net.safetensors"))
    assert loaded.card == card
    assert not loaded.training
    assert list(loaded.net.columns) == [net.config.column_names]
    assert all(torch.equal(value, net.plain_state()[key]) for key, value in loaded.net.plain_state().items())
    x = torch.randn(2, 3, 99, 99, generator=torch.Generator().manual_seed(0)) * 60
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), net(x), rtol=1e-5, atol=1e-5)
    assert (net(x).std(dim=1) > 0.05).all()


@pytest.mark.parametrize("topology", ["19pct", "conv-local-11pct"])
def test_the_nets_of_cifar_10_come_back_too(topology, tmp_path):
    net = build(CifarNet(topology, first_sd=0.01, num_classes=3, width=0.25, image_side=24), seed=0).eval()
    card = ModelCard(topology, net.config, "0123456789ab", CLASSES)
    weights.save(tmp_path / "net.safetensors", net, card, mean_image(32))
    loaded = alexnet.load(tmp_path / "net.safetensors")
    assert loaded.card == card
    x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 60
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))
        assert torch.equal(loaded.net.features(x, "conv2"), net.features(x, "conv2"))
    assert loaded.as_seen(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)).shape == (1, 3, 24, 24)


def test_the_names_in_the_file_are_those_of_a_single_stream(exported):
    tensors, card = parts_of(exported[1])
    layers = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    state = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert tensors.keys() == state | {"mean_image", "check.images", "check.logits"}
    assert tensors["conv2.weight"].shape == (16, 3, 5, 5)
    assert {key: card[key] for key in ("format_version", "preset", "run_hash", "classes")} == {
        "format_version": 1, "preset": "source2012", "run_hash": "0123456789ab", "classes": list(CLASSES)
    }  # fmt: skip
    assert card["net"]["norm"]["alpha_per_window"] is True


def test_the_same_net_is_written_as_the_same_bytes_and_nothing_else_is_left(exported, tmp_path):
    net, path = exported
    again = tmp_path / "again.safetensors"
    weights.save(again, net, ModelCard("source2012", net.config, "0123456789ab", CLASSES), mean_image())
    assert again.read_bytes() == path.read_bytes()
    assert list(tmp_path.iterdir()) == [again]


def test_of_raw_pixels_the_centre_is_shown_minus_that_of_the_mean_image(exported):
    net = weights.load(exported[1])
    draws = np.random.default_rng(0)
    for side in (110, 99):
        pixels = draws.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
        first = (side - 99) // 2
        central = pixels[:, first : first + 99, first : first + 99].astype(np.float32) - mean_image()[5:104, 5:104].numpy()
        assert np.array_equal(net.as_seen(torch.from_numpy(pixels)), central.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match="98 x 200"):
        net.as_seen(torch.zeros(1, 98, 200, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"256 x 300\) must be 99 to 110 wide or high"):
        net.as_seen(torch.zeros(1, 256, 300, 3, dtype=torch.uint8))


def test_weights_do_not_follow_a_file_that_is_overwritten(exported, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(exported[1].read_bytes())
    net = weights.load(path)
    before = net.net.columns.ab.fc8.weight.clone()
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    assert torch.equal(net.net.columns.ab.fc8.weight, before)


@pytest.mark.parametrize("kept", [0, 5, 100, 3000, -1])
def test_a_file_cut_short_is_refused(exported, tmp_path, kept):
    path = tmp_path / "short.safetensors"
    path.write_bytes(exported[1].read_bytes()[:kept])
    assert "not a whole safetensors file" in refusal(path)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none.safetensors", tmp_path, tmp_path / "pipe"):
        assert "cannot be read" in refusal(path)


def test_a_file_of_something_else_is_refused(exported, tmp_path):
    tensors, _ = parts_of(exported[1])
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "pt"}, {"alexnet": "{"}, {"alexnet": "[1]"}):
        save_file(tensors, path, metadata)
        assert "no model card" in refusal(path)


def test_another_version_of_the_format_is_refused(exported, tmp_path):
    tensors, card = parts_of(exported[1])
    assert "version 2" in refusal(rewritten(tmp_path / "x", tensors, card | {"format_version": 2}, renew=True))
    del card["format_version"]
    assert "version None" in refusal(rewritten(tmp_path / "x", tensors, card, renew=True))


@pytest.mark.parametrize("missing", ["conv4.weight", "fc8.bias", "mean_image", "check.images", "check.logits"])
def test_a_missing_tensor_is_named(exported, tmp_path, missing):
    tensors, card = parts_of(exported[1])
    del tensors[missing]
    assert f"'{missing}'" in refusal(rewritten(tmp_path / "x", tensors, card, renew=True))


CHANGES = {
    "a weight": lambda t: t["conv3.weight"].view(-1)[7:8].add_(1e-3),
    "the last bit of a bias": lambda t: t["fc7.bias"].view(torch.int32)[0:1].bitwise_xor_(1),
    "the mean": lambda t: t["mean_image"].add_(1),
    "a stored image": lambda t: t["check.images"][0, 0, 0, 0].add_(1e-2),
    "the logits": lambda t: t["check.logits"].add_(1e-9),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_after_the_export_is_noticed(exported, tmp_path, change):
    tensors, card = parts_of(exported[1])
    CHANGES[change](tensors)
    assert "have changed" in refusal(rewritten(tmp_path / "x", tensors, card))


def test_a_changed_card_is_noticed(exported, tmp_path):
    tensors, card = parts_of(exported[1])
    for key, value in {"classes": list(CLASSES[::-1]), "run_hash": "ba9876543210", "preset": "paper"}.items():
        assert "have changed" in refusal(rewritten(tmp_path / "x", tensors, card | {key: value}))


LIES = {
    "kernels exchanged": lambda t, card: t["conv3.weight"].copy_(t["conv3.weight"].flip(0)),
    "other weights": lambda t, card: t["fc7.weight"].mul_(1.01),
    "not a number": lambda t, card: t["fc7.weight"][0, 0].fill_(float("nan")),
    "alpha not divided by the window": lambda t, card: card["net"]["norm"].update(alpha_per_window=False),
    "no normalisation within maps": lambda t, card: card["net"]["conv2"].update(then="activation norm pool"),
    "no dropout in training": lambda t, card: card["net"].update(dropout=0.0),
    "tanh": lambda t, card: card["net"].update(activation="tanh"),
}


@pytest.mark.parametrize("lie", LIES)
def test_weights_that_are_not_what_they_claim_are_refused_even_with_a_renewed_digest(exported, tmp_path, lie):
    """The stored mini-batch shows it: the net of the card gives other logits."""
    tensors, card = parts_of(exported[1])
    LIES[lie](tensors, card)
    assert "logits of the stored images are off" in refusal(rewritten(tmp_path / "x", tensors, card, renew=True))


MISFITS = {
    "a shape": lambda t, card: t.update({"fc7.weight": t["fc7.weight"][1:].clone()}),
    "bf16 images": lambda t, card: t.update({"check.images": t["check.images"].bfloat16()}),
    "no images": lambda t, card: t.update({"check.images": t["check.images"][:0], "check.logits": t["check.logits"][:0]}),
    "a tensor too many": lambda t, card: t.update({"conv6.weight": t["conv5.weight"].clone()}),
    "an unknown field": lambda t, card: card["net"].update(batch_norm=True),
    "no net": lambda t, card: card.pop("net"),
    "a number for the net": lambda t, card: card.update(net=3),
    "a word for a number": lambda t, card: card["net"]["conv1"].update(kernels="48"),
    "a net beyond memory": lambda t, card: card["net"]["fc7"].update(units=10**9),
    "no side left": lambda t, card: card["net"].update(image_side=5),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_card_that_does_not_fit_its_tensors_is_refused_even_with_a_renewed_digest(exported, tmp_path, misfit):
    tensors, card = parts_of(exported[1])
    MISFITS[misfit](tensors, card)
    assert "do not fit" in refusal(rewritten(tmp_path / "x", tensors, card, renew=True))


def test_a_net_that_diverged_is_not_exported(tmp_path):
    net = trained(small(paper()))
    card, path = ModelCard("paper", net.config, "0123456789ab", CLASSES), tmp_path / "net.safetensors"
    with torch.no_grad():
        net.columns.b.fc6.bias[3] = float("inf")
    with pytest.raises(UserError, match=r"fc6.bias has values that are not finite"):
        weights.save(path, net, card, mean_image())
    assert not list(tmp_path.iterdir())


def test_the_stored_images_wake_every_layer_as_photographs_do():
    """An sd of about 60 grey levels, most of it in large patterns."""
    images = weights.check_images(64)
    assert images.std().item() == pytest.approx(50, abs=15)
    assert torch.nn.functional.avg_pool2d(images, 4).std() > 0.8 * images.std()


def test_importing_the_package_does_not_import_torch():
    code = "import sys, alexnet; alexnet.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
