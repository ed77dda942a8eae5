from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.model.alexnet import build_alexnet
from alexnet.model.presets import source2012, with_classes, with_width
from alexnet.training import neighbours
from alexnet.training.evaluate import CHUNK
from alexnet.training.neighbours import features, nearest


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def nearest_by_loops(queries, gallery, count):
    """Whole numbers below 2**53 are exact, so equal distances are equal."""
    indices, distances = [], []
    for q in queries.tolist():
        found = sorted((sum((a - b) ** 2 for a, b in zip(q, g, strict=True)), i) for i, g in enumerate(gallery.tolist()))
        indices.append([i for _, i in found[:count]])
        distances.append([d for d, _ in found[:count]])
    return indices, distances


@pytest.mark.parametrize("rows", [1, 3, 50, 1000])
def test_neighbours_are_those_of_loops_with_ties_by_index_for_any_chunk(rows, monkeypatch):
    """Vectors of few whole numbers have many equal distances."""
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", rows * 8 * 4)
    queries, gallery = drawn(9, 4).round(), drawn(200, 4, seed=1).round()
    indices, distances = nearest(queries, gallery, count=20)
    expected_indices, expected_distances = nearest_by_loops(queries, gallery, 20)
    assert indices.tolist() == expected_indices
    assert distances.tolist() == expected_distances
    assert any(len(set(row)) < 15 for row in expected_distances)


def test_small_distances_between_large_vectors_are_not_lost():
    """Expanded into products, in fp32, all of these distances would come out as zero or noise."""
    gallery = 1000 + torch.arange(8.0)[:, None].repeat(1, 4096) * 2.0**-12
    indices, distances = nearest(gallery[3:4], gallery, count=3)
    assert indices.tolist() == [[3, 2, 4]]
    assert distances.tolist() == [[0, 4096 * 2.0**-24, 4096 * 2.0**-24]]


def test_equal_vectors_are_equally_far_wherever_they_stand(monkeypatch):
    """The last chunk has one vector, and the sums of 777 products round."""
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", 5 * 8 * 777)
    gallery = drawn(31, 777)
    gallery[[4, 5, 17, 30]] = drawn(777, seed=2)
    indices, distances = nearest(drawn(3, 777, seed=2)[:1] / 2 + gallery[4], gallery, count=4)
    assert indices.tolist() == [[4, 5, 17, 30]]
    assert len(set(distances[0].tolist())) == 1


def test_what_is_not_a_number_is_nobodys_neighbour():
    gallery = torch.tensor([[float("nan")], [2.0], [1.0]])
    assert nearest(torch.zeros(1, 1), gallery, count=3)[0].tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("count", [0, 4])
def test_more_neighbours_than_vectors_are_refused(count):
    with pytest.raises(ValueError, match=f"`count` \\(={count}\\)"):
        nearest(torch.zeros(1, 2), torch.zeros(3, 2), count)


def test_features_are_the_last_hidden_layer_with_the_same_bits_for_any_batch_size():
    config = replace(with_classes(with_width(source2012(), 1 / 32), 5), image_side=67)
    net = build_alexnet(config, seed=0).train()
    images, labels = drawn(CHUNK + 9, 3, 67, 67) * 70, torch.arange(CHUNK + 9) % 5
    found = {}
    for size in (50, CHUNK, 1000):
        starts = range(0, len(labels), size)
        found[size], same_labels = features(net, [([images[i : i + size]], labels[i : i + size]) for i in starts])
        assert torch.equal(same_labels, labels)
    assert net.training
    assert found[CHUNK].shape == (CHUNK + 9, 128)
    assert torch.equal(found[50], found[CHUNK])
    assert torch.equal(found[1000], found[CHUNK])
    with torch.no_grad():
        logits = found[CHUNK] @ torch.cat([c.fc8.weight for c in net.columns.values()], 1).T + net.columns.a.fc8.bias
        torch.testing.assert_close(logits, net.eval()(images))
    assert np.isfinite(logits.numpy()).all()


def test_features_of_several_views_are_refused():
    net = build_alexnet(replace(with_width(source2012(), 1 / 32), image_side=67), seed=0)
    with pytest.raises(ValueError, match="one view"):
        features(net, [([drawn(2, 3, 67, 67)] * 2, torch.zeros(2, dtype=torch.long))])
    with pytest.raises(ValueError, match="no images"):
        features(net, [])
