"""The sums that a process hands over with its images are exact, whatever the images."""

import numpy as np
import pytest

from alexnet.preprocessing.decoding import sums

DRAWS = np.random.default_rng(0)
CASES = {
    "noise": DRAWS.integers(0, 256, (256, 256, 3)),
    "white, the largest sums": np.full((256, 256, 3), 255),
    "wider than float32 can sum": np.full((4, 300, 3), 255) - (np.arange(300) % 2)[:, None],
    "one pixel": DRAWS.integers(0, 256, (1, 1, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_products_of_colours_are_summed_exactly(case):
    image = CASES[case].astype(np.uint8)
    total, outer = sums(image)
    pixels = image.reshape(-1, 3).astype(object)  # Python's integers
    assert outer.tolist() == pixels.T.dot(pixels).tolist()
    assert np.array_equal(total, image)
