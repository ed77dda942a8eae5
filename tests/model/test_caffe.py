import numpy as np
import pytest
import torch

from alexnet.config import UserError
from alexnet.model import weights
from alexnet.model.alexnet import build, load_plain_state, sides
from alexnet.model.caffe import MEAN_BGR, _check_inputs, _config, import_caffe
from alexnet.model.weights import ModelCard

SIDE = 99  # 23 after conv1, 11, 5 and 2 after the poolings
SHAPES = {
    "conv1": (8, 3, 11, 11),
    "conv2": (12, 4, 5, 5),
    "conv3": (16, 12, 3, 3),
    "conv4": (16, 8, 3, 3),
    "conv5": (12, 8, 3, 3),
    "fc6": (10, 12 * 2 * 2),
    "fc7": (10, 10),
    "fc8": (6, 10),
}
GROUPS = {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}


@pytest.fixture(scope="module")
def arrays():
    """A small net of that layout in Caffe's order. Layers 1 and 2 are so active that their normalisation says something."""
    draws = np.random.default_rng(0)
    made = {}
    for name, shape in SHAPES.items():
        gain = {"conv1": 4.0, "conv2": 0.5, "fc6": 0.1}.get(name, 1.5)
        kernels = draws.normal(0, gain / np.sqrt(np.prod(shape[1:])), shape)
        made[name] = [kernels.astype(np.float32), draws.normal(0, 0.1, shape[0]).astype(np.float32)]
    return made


def conv(x, kernels, biases, groups, stride=1, pad=0):
    """Convolve one image (C, H, W) window by window."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    out, seen, k, _ = kernels.shape
    side = (x.shape[1] - k) // stride + 1
    y = np.empty((out, side, side))
    for o in range(out):
        first = o // (out // groups) * seen
        for i in range(side):
            for j in range(side):
                window = x[first : first + seen, i * stride : i * stride + k, j * stride : j * stride + k]
                y[o, i, j] = np.sum(window * kernels[o]) + biases[o]
    return y


def normalise(x, crossing=True):
    """Divide by (1 + 1e-4 / 5 * energy of five maps)^0.75."""
    y = np.empty_like(x)
    maps, half = len(x), len(x) // 2
    for i in range(maps):
        near = [j for j in range(maps) if abs(i - j) <= 2 and (crossing or i // half == j // half)]
        y[i] = x[i] / (1 + 1e-4 / 5 * sum(x[j] ** 2 for j in near)) ** 0.75
    return y


def pool(x):
    side = (x.shape[1] - 3) // 2 + 1
    return np.array([[[m[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max() for j in range(side)] for i in range(side)] for m in x])


def logits_of_caffe(arrays, image_bgr, crossing=True, pool_first=False, fc6="maps first"):
    """What Caffe's deploy.prototxt computes of one image (3, H, W), in float64."""
    w = {name: [part.astype(np.float64) for part in parts] for name, parts in arrays.items()}
    x = image_bgr
    for name in ("conv1", "conv2"):
        x = conv(x, *w[name], GROUPS[name], *((4, 0) if name == "conv1" else (1, 2)))
        x = np.maximum(x, 0)
        x = normalise(pool(x), crossing) if pool_first else pool(normalise(x, crossing))
    for name in ("conv3", "conv4", "conv5"):
        x = np.maximum(conv(x, *w[name], GROUPS[name], pad=1), 0)
    x = pool(x)
    x = x.reshape(-1) if fc6 == "maps first" else x.transpose(1, 2, 0).reshape(-1)
    for name in ("fc6", "fc7"):
        x = np.maximum(w[name][0] @ x + w[name][1], 0)
    return w["fc8"][0] @ x + w["fc8"][1]


@pytest.fixture(scope="module")
def images_bgr():
    return np.random.default_rng(1).normal(0, 60, (2, 3, SIDE, SIDE))


def saved(path, layers):
    np.save(path, np.array(layers, dtype=object), allow_pickle=True)
    return path


def as_tensorflow(arrays):
    """Kernels (side, side, in, out), matrices (in, out), and fc6 over rows, columns, maps: the rule of caffe-tensorflow."""
    turned = {}
    for name, (kernels, biases) in arrays.items():
        if name == "fc6":
            kernels = kernels.reshape(10, 12, 2, 2).transpose(2, 3, 1, 0).reshape(48, 10)
        else:
            kernels = kernels.transpose(2, 3, 1, 0) if kernels.ndim == 4 else kernels.T
        turned[name] = [kernels, biases]
    return turned


def logits_of(imported, images_bgr, grouped=True):
    net = build(imported.config, seed=0, grouped=grouped).eval()
    net.load_plain_state(imported.state)
    with torch.no_grad():
        return net.double()(torch.from_numpy(images_bgr[:, ::-1].copy())).numpy()


@pytest.mark.parametrize("layout", ["Caffe's own", "TensorFlow's", "old Caffe's", "TensorFlow's in dictionaries"])
def test_both_layouts_compute_what_caffe_computes(arrays, images_bgr, tmp_path, layout):
    """Also the normalisation over the border between the halves, which is in logits here: see the next test."""
    layers = as_tensorflow(arrays) if "TensorFlow" in layout else arrays
    if "dictionaries" in layout:
        layers = {name: {"weights": w, "biases": b} for name, (w, b) in layers.items()}
    if layout == "old Caffe's":
        layers = {n: [w.reshape((1,) * (4 - w.ndim) + w.shape), b.reshape(1, 1, 1, -1)] for n, (w, b) in layers.items()}
    imported = import_caffe(saved(tmp_path / "net.npy", layers), image_side=SIDE)
    expected = [logits_of_caffe(arrays, image) for image in images_bgr]
    np.testing.assert_allclose(logits_of(imported, images_bgr), expected, rtol=1e-9)
    assert imported.warning is None
    assert imported.config.columns == 1


def test_two_columns_differ_from_caffe_only_by_the_window_and_say_so(arrays, images_bgr, tmp_path):
    imported = import_caffe(saved(tmp_path / "net.npy", arrays), columns=2, image_side=SIDE)
    within = np.array([logits_of_caffe(arrays, image, crossing=False) for image in images_bgr])
    for grouped in (True, False):
        np.testing.assert_allclose(logits_of(imported, images_bgr, grouped), within, rtol=1e-9)
    crossing = np.array([logits_of_caffe(arrays, image) for image in images_bgr])
    assert np.abs(within - crossing).max() > 1e-3 * np.abs(crossing).max()
    assert "across the border" in imported.warning
    assert imported.state["conv2.weight"].shape == SHAPES["conv2"]
    assert (imported.config.columns, imported.config.conv1.kernels, imported.config.fc6.units) == (2, 4, 5)


def test_caffenet_pools_before_it_normalises(arrays, images_bgr, tmp_path):
    imported = import_caffe(saved(tmp_path / "net.npy", arrays), image_side=SIDE, pool_first=True)
    expected = np.array([logits_of_caffe(arrays, image, pool_first=True) for image in images_bgr])
    np.testing.assert_allclose(logits_of(imported, images_bgr), expected, rtol=1e-9)
    assert np.abs(expected[0] - logits_of_caffe(arrays, images_bgr[0])).max() > 1e-3 * np.abs(expected).max()


def test_the_order_of_fc6_can_be_given(arrays, images_bgr, tmp_path):
    """Kernels transposed and fc6 left to see maps first, or the other way round."""
    mixed = as_tensorflow(arrays) | {"fc6": [arrays["fc6"][0].T, arrays["fc6"][1]]}
    imported = import_caffe(saved(tmp_path / "a.npy", mixed), fc6_order="maps first", image_side=SIDE)
    expected = [logits_of_caffe(arrays, image) for image in images_bgr]
    np.testing.assert_allclose(logits_of(imported, images_bgr), expected, rtol=1e-9)
    imported = import_caffe(saved(tmp_path / "b.npy", arrays), fc6_order="pixels first", image_side=SIDE)
    expected = [logits_of_caffe(arrays, image, fc6="pixels first") for image in images_bgr]
    np.testing.assert_allclose(logits_of(imported, images_bgr), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="fc6_order"):
        import_caffe(tmp_path / "a.npy", fc6_order="rows first")


def test_the_mean_pixel_becomes_an_image_in_rgb(arrays, tmp_path):
    imported = import_caffe(saved(tmp_path / "net.npy", arrays), image_side=SIDE)
    assert imported.mean_image.shape == (SIDE, SIDE, 3)
    torch.testing.assert_close(imported.mean_image[5, 7], torch.tensor(MEAN_BGR[::-1]), rtol=0, atol=0)
    other = import_caffe(tmp_path / "net.npy", image_side=SIDE, mean_bgr=(1.0, 2.0, 3.0))
    assert other.mean_image[0, 0].tolist() == [3, 2, 1]


def test_in_training_the_doubled_weights_do_what_caffes_dropout_does(arrays, tmp_path):
    """Kept outputs are doubled there, and the weights that see them here."""
    imported = import_caffe(saved(tmp_path / "net.npy", arrays), image_side=SIDE)
    for name in ("fc7", "fc8"):
        assert torch.equal(imported.state[f"{name}.weight"], torch.from_numpy(2 * arrays[name][0]))
        assert torch.equal(imported.state[f"{name}.bias"], torch.from_numpy(arrays[name][1]))
    assert imported.config.dropout == 0.5


def test_an_imported_net_is_exported_like_one_of_ours(arrays, tmp_path):
    imported = import_caffe(saved(tmp_path / "net.npy", arrays), image_side=SIDE)
    net = build(imported.config, seed=0)
    net.load_plain_state(imported.state)
    card = ModelCard("bvlc_alexnet", imported.config, "imported", tuple("abcdef"))
    weights.save(tmp_path / "net.safetensors", net, card, imported.mean_image)
    assert weights.load(tmp_path / "net.safetensors").card == card


def test_the_real_net_has_its_layers_where_the_paper_has_them():
    """The shapes of bvlc_alexnet, without its weights: 227 pixels give the sides of Figure 2."""
    real = {"conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (384, 192, 3, 3)}
    real |= {"conv5": (256, 192, 3, 3), "fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096)}
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in real.items()}
    for columns in (1, 2):
        config = _config(empty, columns, 227, pool_first=False)
        _check_inputs(empty, {name: np.zeros(shape[0]) for name, shape in real.items()}, config)
        assert [sides(config)[n] for n in ("conv1", "pool1", "pool2", "pool5")] == [55, 27, 13, 6]


WRONG = {
    "no fc7": (lambda a: a.pop("fc7"), "no weights and biases for fc7"),
    "no biases": (lambda a: a["conv2"].pop(), "no weights and biases for conv2"),
    "too few biases": (lambda a: a["conv2"].append(a["conv2"].pop()[1:]), "conv2 has 11 biases"),
    "no groups": (lambda a: a.update(conv2=[np.zeros((12, 8, 5, 5), "f4"), a["conv2"][1]]), "conv2 sees 8 inputs, not 4"),
    "another size": (lambda a: a.update(fc6=[np.zeros((10, 108), "f4"), a["fc6"][1]]), "fc6 sees 108 inputs, not 48"),
    "grey": (lambda a: a.update(conv1=[np.zeros((8, 1, 11, 11), "f4"), a["conv1"][1]]), "in neither order"),
    "oblong kernels": (lambda a: a.update(conv4=[np.zeros((16, 8, 3, 1), "f4"), a["conv4"][1]]), "not square kernels"),
    "kernels in fc7": (lambda a: a.update(fc7=[np.zeros((10, 10, 2), "f4"), a["fc7"][1]]), "fc7's weights are not a matrix"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_another_net_is_refused_with_its_first_difference(arrays, tmp_path, wrong):
    layers = {name: list(parts) for name, parts in arrays.items()}
    spoil, what = WRONG[wrong]
    spoil(layers)
    with pytest.raises(UserError, match=what) as caught:
        import_caffe(saved(tmp_path / "net.npy", layers), image_side=SIDE)
    assert "\n" not in str(caught.value)


def test_an_odd_number_of_kernels_cannot_be_two_columns(arrays, tmp_path):
    layers = arrays | {
        "fc7": [np.zeros((9, 10), "f4"), np.zeros(9, "f4")],
        "fc8": [np.zeros((6, 9), "f4"), arrays["fc8"][1]],
    }
    saved(tmp_path / "net.npy", layers)
    assert import_caffe(tmp_path / "net.npy", image_side=SIDE).config.fc7.units == 9
    with pytest.raises(UserError, match="fc7's 9 kernels or units cannot be shared"):
        import_caffe(tmp_path / "net.npy", columns=2, image_side=SIDE)
