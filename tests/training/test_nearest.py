import numpy as np
import pytest

from alexnet.training import evaluate
from alexnet.training.evaluate import nearest


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


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
    monkeypatch.setattr(evaluate, "CHUNK_BYTES", rows * 8 * 4)
    queries, gallery = drawn(9, 4).round(), drawn(200, 4, seed=1).round()
    indices, distances = nearest(queries, gallery, count=20)
    expected_indices, expected_distances = nearest_by_loops(queries, gallery, 20)
    assert indices.tolist() == expected_indices
    assert distances.tolist() == expected_distances
    assert any(len(set(row)) < 15 for row in expected_distances)


def test_small_distances_between_large_vectors_are_not_lost():
    """Expanded into products, these distances would come out as noise."""
    gallery = 1000 + np.arange(80.0)[:, None].repeat(4096, axis=1) * 2.0**-12
    indices, distances = nearest(gallery[3:4], gallery, count=3)
    assert indices.tolist() == [[3, 2, 4]]
    assert distances.tolist() == [[0, 4096 * 2.0**-24, 4096 * 2.0**-24]]


def test_equal_vectors_are_equally_far_wherever_they_stand(monkeypatch):
    """The last chunk has one vector, and the sums of 777 products round."""
    monkeypatch.setattr(evaluate, "CHUNK_BYTES", 5 * 8 * 777)
    gallery = drawn(31, 777)
    gallery[[4, 5, 17, 30]] = drawn(777, seed=2)
    indices, distances = nearest(drawn(3, 777, seed=2)[:1] / 2 + gallery[4], gallery, count=4)
    assert indices.tolist() == [[4, 5, 17, 30]]
    assert len(set(distances[0].tolist())) == 1


def test_what_is_not_a_number_is_nobodys_neighbour():
    gallery = np.array([[float("nan")], [2.0], [1.0]])
    assert nearest(np.zeros((1, 1)), gallery, count=3)[0].tolist() == [[2, 1, 0]]


def test_images_of_bytes_are_compared_as_they_are():
    """Without overflow: 255 and 0 are far apart. A gallery need only be indexed, like images in a file."""
    gallery = [np.full((2, 2, 3), value, np.uint8) for value in (255, 128, 3)]
    indices, distances = nearest([np.zeros((2, 2, 3), np.uint8)], gallery, count=2)
    assert indices.tolist() == [[2, 1]]
    assert distances.tolist() == [[12 * 9, 12 * 128**2]]
