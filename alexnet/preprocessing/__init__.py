"""Sections 2 and 4.1: from images anywhere to batches.

catalog: the sets by name. cifar10, imagenet, synthetic: their sources, found (image_index) or computed. photograph: one
untrusted file -> a square of 256 pixels. prepare: make a set, or resume making it. prepared_set: the set on disk.
augment: crops, flips, colour noise, the ten views. loader: (seed, epoch, step) -> batch.
"""

from alexnet.preprocessing.catalog import SETS
from alexnet.preprocessing.prepare import prepare
from alexnet.preprocessing.prepared_set import PreparedSet, Split, data_dir, is_prepared, open_set

__all__ = ["SETS", "PreparedSet", "Split", "data_dir", "is_prepared", "open_set", "prepare"]
