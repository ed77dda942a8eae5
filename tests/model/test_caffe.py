import numpy as np
import pytest
import torch

from alexnet.config import UserError
from alexnet.model import build, weights
from alexnet.model.presets import sides
from alexnet.model.weights import MEAN_BGR, _caffe_config, _check_inputs, load_caffe

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
KINDS = ("weight", "bias")
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
    """The .npz file that `weights.CONVERSION` makes of bvlc_alexnet.npy."""
    np.savez(path, **{f"{layer}.{kind}": array for layer, both in layers.items() for kind, array in zip(KINDS, both)})  # noqa: B905
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


def logits_of(net, images_bgr, grouped=True):
    if not grouped:
        apart = build(net.card.net, seed=0).eval()
        apart.load_plain_state(net.net.plain_state())
        net = apart
    with torch.no_grad():
        return net.double()(torch.from_numpy(images_bgr[:, ::-1].copy())).numpy()


@pytest.mark.parametrize("layout", ["Caffe's own", "TensorFlow's", "old Caffe's"])
def test_both_layouts_compute_what_caffe_computes(arrays, images_bgr, tmp_path, layout):
    """Also the normalisation over the border between the halves, which is in logits here: see the next test."""
    layers = as_tensorflow(arrays) if "TensorFlow" in layout else arrays
    if layout == "old Caffe's":
        layers = {n: [w.reshape((1,) * (4 - w.ndim) + w.shape), b.reshape(1, 1, 1, -1)] for n, (w, b) in layers.items()}
    imported = load_caffe(saved(tmp_path / "net.npz", layers), image_side=SIDE)
    expected = [logits_of_caffe(arrays, image) for image in images_bgr]
    np.testing.assert_allclose(logits_of(imported, images_bgr), expected, rtol=1e-9)
    assert imported.net.num_columns == 1


def test_two_columns_differ_from_caffe_only_by_the_window_and_say_so(arrays, images_bgr, tmp_path):
    with pytest.warns(UserWarning, match="across the border"):
        imported = load_caffe(saved(tmp_path / "net.npz", arrays), columns=2, image_side=SIDE)
    within = np.array([logits_of_caffe(arrays, image, crossing=False) for image in images_bgr])
    for grouped in (False, True):
        np.testing.assert_allclose(logits_of(imported, images_bgr, grouped), within, rtol=1e-9)
    crossing = np.array([logits_of_caffe(arrays, image) for image in images_bgr])
    assert np.abs(within - crossing).max() > 1e-3 * np.abs(crossing).max()
    assert imported.net.plain_state()["conv2.weight"].shape == SHAPES["conv2"]
    config = imported.card.net
    assert (config.columns, config.conv1.kernels, config.fc6.units) == (2, 4, 5)


def test_caffenet_pools_before_it_normalises(arrays, images_bgr, tmp_path):
    imported = load_caffe(saved(tmp_path / "net.npz", arrays), image_side=SIDE, pool_first=True)
    expected = np.array([logits_of_caffe(arrays, image, pool_first=True) for image in images_bgr])
    np.testing.assert_allclose(logits_of(imported, images_bgr), expected, rtol=1e-9)
    assert np.abs(expected[0] - logits_of_caffe(arrays, images_bgr[0])).max() > 1e-3 * np.abs(expected).max()


def test_the_order_of_fc6_can_be_given(arrays, images_bgr, tmp_path):
    """Kernels transposed and fc6 left to see maps first, or the other way round."""
    mixed = as_tensorflow(arrays) | {"fc6": [arrays["fc6"][0].T, arrays["fc6"][1]]}
    imported = load_caffe(saved(tmp_path / "a.npz", mixed), fc6_order="maps first", image_side=SIDE)
    expected = [logits_of_caffe(arrays, image) for image in images_bgr]
    np.testing.assert_allclose(logits_of(imported, images_bgr), expected, rtol=1e-9)
    imported = load_caffe(saved(tmp_path / "b.npz", arrays), fc6_order="pixels first", image_side=SIDE)
    expected = [logits_of_caffe(arrays, image, fc6="pixels first") for image in images_bgr]
    np.testing.assert_allclose(logits_of(imported, images_bgr), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="fc6_order"):
        load_caffe(tmp_path / "a.npz", fc6_order="rows first")


def test_the_mean_pixel_becomes_an_image_in_rgb(arrays, tmp_path):
    imported = load_caffe(saved(tmp_path / "net.npz", arrays), image_side=SIDE)
    assert imported.mean_image.shape == (SIDE, SIDE, 3)
    torch.testing.assert_close(imported.mean_image[5, 7], torch.tensor(MEAN_BGR[::-1]), rtol=0, atol=0)
    other = load_caffe(tmp_path / "net.npz", image_side=SIDE, mean_bgr=(1.0, 2.0, 3.0))
    assert other.mean_image[0, 0].tolist() == [3, 2, 1]


def test_in_training_the_doubled_weights_do_what_caffes_dropout_does(arrays, tmp_path):
    """Kept outputs are doubled there, and the weights that see them here."""
    imported = load_caffe(saved(tmp_path / "net.npz", arrays), image_side=SIDE)
    for name in ("fc7", "fc8"):
        assert torch.equal(imported.net.plain_state()[f"{name}.weight"], torch.from_numpy(2 * arrays[name][0]))
        assert torch.equal(imported.net.plain_state()[f"{name}.bias"], torch.from_numpy(arrays[name][1]))
    assert imported.card.net.dropout == 0.5


def test_an_imported_net_is_exported_like_one_of_ours(arrays, tmp_path):
    imported = load_caffe(saved(tmp_path / "net.npz", arrays), image_side=SIDE)
    weights.save(tmp_path / "net.safetensors", imported.net, imported.card, imported.mean_image)
    assert weights.load(tmp_path / "net.safetensors").card == imported.card
    assert imported.card.classes[-1] == "class 5"


def test_the_conversion_makes_the_file_and_nothing_is_executed_that_is_in_one(arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("bvlc_alexnet.npy", as_tensorflow(arrays), allow_pickle=True)
    with pytest.raises(UserError, match="allow_pickle=False") as caught:
        load_caffe("bvlc_alexnet.npy", image_side=SIDE)
    exec(str(caught.value).partition("made by: ")[2], {"np": np})
    assert load_caffe("bvlc_alexnet.npz", image_side=SIDE).card.preset == "bvlc_alexnet"


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"not an archive",
        b"PK\x03\x04 cut",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }".ljust(128),
    ],
)
def test_no_file_and_no_archive_are_refused_in_a_line(tmp_path, content):
    path = tmp_path / "net.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="no grouped AlexNet") as caught:
        load_caffe(path)
    assert "\n" not in str(caught.value)


def test_the_real_net_has_its_layers_where_the_paper_has_them():
    """The shapes of bvlc_alexnet, without its weights: 227 pixels give the sides of Figure 2."""
    real = {"conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (384, 192, 3, 3)}
    real |= {"conv5": (256, 192, 3, 3), "fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096)}
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in real.items()}
    for columns in (1, 2):
        config = _caffe_config(empty, columns, 227, pool_first=False)
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
        load_caffe(saved(tmp_path / "net.npz", layers), image_side=SIDE)
    assert "\n" not in str(caught.value)


def test_an_odd_number_of_kernels_cannot_be_two_columns(arrays, tmp_path):
    layers = arrays | {
        "fc7": [np.zeros((9, 10), "f4"), np.zeros(9, "f4")],
        "fc8": [np.zeros((6, 9), "f4"), arrays["fc8"][1]],
    }
    saved(tmp_path / "net.npz", layers)
    assert load_caffe(tmp_path / "net.npz", image_side=SIDE).card.net.fc7.units == 9
    with pytest.raises(UserError, match="fc7's 9 kernels or units cannot be shared"):
        load_caffe(tmp_path / "net.npz", columns=2, image_side=SIDE)
