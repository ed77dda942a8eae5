"""What `alexnet.pixels` and `alexnet.predict` take and give; the net here is small and random."""

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.config import Augmentation, UserError
from alexnet.model import build, weights
from alexnet.model.presets import source2012, with_classes, with_width
from alexnet.model.weights import LoadedNet, ModelCard
from alexnet.preprocessing import photograph
from alexnet.preprocessing.augment import SOURCE2012, fixed_views

WORDS = ("tench", "chain saw", "church")


@pytest.fixture(scope="module")
def net():
    config = with_classes(with_width(source2012(), 1 / 16), 3)
    made = build(config, seed=0)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.mul_(3 if name.endswith("weight") and "conv1" not in name else 1)
    card = ModelCard("source2012", config, "0123456789ab", ("n1", "n2", "n3"), WORDS, SOURCE2012)
    mean = torch.linspace(80, 140, 256 * 256 * 3).view(256, 256, 3)
    return LoadedNet(made, card, mean).eval()


def picture(width=300, height=420, mode="RGB"):
    draws = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(draws).convert(mode)


def test_files_images_and_arrays_of_any_size_become_the_same_pixels(tmp_path):
    image = picture()
    image.save(tmp_path / "a.png")
    found = alexnet.pixels([tmp_path / "a.png", str(tmp_path / "a.png"), image, np.asarray(image)])
    assert (found.shape, found.dtype) == ((4, 256, 256, 3), torch.uint8)
    assert all(each.equal(found[0]) for each in found)
    with (tmp_path / "a.png").open("rb") as stream:
        assert np.array_equal(found[0].numpy(), photograph.read(stream)), "as `alexnet prepare` makes it"
    assert alexnet.pixels(image).equal(found[:1]), "one picture needs no list"
    assert alexnet.pixels(np.stack([image, image])).equal(found[:2])
    for other in (picture(1, 7), picture(3000, 10), picture(mode="L"), picture(mode="CMYK"), picture(mode="RGBA")):
        assert alexnet.pixels(other).shape == (1, 256, 256, 3)
    for array in (np.zeros((5, 9), np.uint8), np.zeros((5, 9, 1), np.uint8), np.zeros((5, 9, 4), np.uint8)):
        assert alexnet.pixels(array, side=32).shape == (1, 32, 32, 3)


def test_what_is_no_picture_is_refused_in_a_line(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    odd = [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)]
    for each in (tmp_path / "text.jpg", tmp_path / "none.jpg", tmp_path, *odd):
        with pytest.raises(UserError, match="cannot be read") as caught:
            alexnet.pixels(each)
        assert "\n" not in str(caught.value)


def test_a_prediction_is_the_mean_over_ten_views_in_words(net):
    pixels = alexnet.pixels([picture(), picture(500, 260)])
    with torch.no_grad():
        mean, views = net.mean_image[16:240, 16:240], fixed_views(SOURCE2012, 256, "ten")
        shown = [
            pixels[:, t : t + 224, x : x + 224].flip(2) if f else pixels[:, t : t + 224, x : x + 224] for t, x, f in views
        ]
        each = [net((view.float() - mean).permute(0, 3, 1, 2)).double().softmax(1) for view in shown]
    expected_NK = sum(each) / 10
    found = alexnet.predict(net, pixels.numpy(), top=3)
    assert len(found) == 2
    for rows, expected_K in zip(found, expected_NK, strict=True):
        assert [word for word, _ in rows] == [WORDS[k] for k in expected_K.argsort(descending=True)]
        assert [p for _, p in rows] == pytest.approx(expected_K.sort(descending=True).values.tolist(), rel=1e-4)
    assert not net.net.training, "a net is left as it was found"


def test_a_cuda_device_is_not_left_to_round_products(net, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    alexnet.features(net, picture())
    assert not torch.backends.cudnn.allow_tf32


def test_features_are_those_of_the_central_view(net):
    found = alexnet.features(net, picture(), "fc6")
    with torch.no_grad():
        expected = net.net.features(net.as_seen(alexnet.pixels(picture())), "fc6")
    assert found == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-6)


def test_no_pictures_at_all_are_refused_in_a_line(net):
    for use in (alexnet.predict, alexnet.features):
        with pytest.raises(UserError, match="There are no pictures"):
            use(net, [])


def test_a_file_keeps_words_and_views_and_an_older_one_has_the_papers(net, tmp_path):
    weights.save(tmp_path / "new", net.net, net.card, net.mean_image)
    found = alexnet.load(tmp_path / "new")
    assert (found.words, found.shown, found.card.classes) == (WORDS, SOURCE2012, ("n1", "n2", "n3"))
    older = ModelCard("source2012", net.card.net, "0123456789ab", ("n1", "n2", "n3"))
    weights.save(tmp_path / "old", net.net, older, net.mean_image)
    found = alexnet.load(tmp_path / "old")
    assert (found.words, found.shown) == (("n1", "n2", "n3"), Augmentation())


def test_another_alexnet_is_refused_by_its_name(tmp_path):
    theirs = {"features.0.weight": torch.zeros(64, 3, 11, 11), "classifier.6.weight": torch.zeros(3, 8)}
    torch.save(theirs, tmp_path / "alexnet.pth")
    torch.save({"epoch": 1}, tmp_path / "mine.pt")
    for name, said in (("alexnet.pth", "torchvision's AlexNet"), ("mine.pt", "torch.save")):
        with pytest.raises(UserError, match=said):
            alexnet.load(tmp_path / name)
