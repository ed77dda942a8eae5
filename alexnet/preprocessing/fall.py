"""The whole of ImageNet as it was in the fall of 2009 and of 2011: a tar file or a folder for each wnid.

Paper 6: of 2009's 8.9 million images in 10,184 classes half were for training and half for testing; the paper does not say
which, so the halves here are drawn from a seed, class by class. 2011's release served to pre-train two nets of Table 2.
"""

from pathlib import Path

import numpy as np

from alexnet import randomness
from alexnet.config import UserError
from alexnet.preprocessing.archives import Span
from alexnet.preprocessing.ilsvrc import read_words
from alexnet.preprocessing.listing import Listing, Part, class_places, list_classes
from alexnet.preprocessing.photographs import Source

PUBLISHED_CLASSES = {2009: 10_184, 2011: 21_843}
SEED = 2009


def find_2009(source: Path) -> Source:
    """Find the images of the fall of 2009, half of each class for training. Raises UserError for an empty folder."""
    wnids, listing = _find(source)
    halves = [_halves(part, wnid) for part, wnid in zip(listing.parts, wnids, strict=True)]
    train = Listing(tuple(first for first, _ in halves), listing.refused, listing.remarks)
    test = Listing(tuple(second for _, second in halves))
    return Source(wnids, read_words(source, wnids), {"train": train, "test": test}, facts=_facts(2009, split_seed=SEED))


def find_2011(source: Path) -> Source:
    """Find the images of the fall of 2011, all for training. Raises UserError for an empty folder."""
    wnids, listing = _find(source)
    return Source(wnids, read_words(source, wnids), {"train": listing}, facts=_facts(2011))


def _find(source: Path) -> tuple[tuple[str, ...], Listing]:
    """List all classes of a folder of tars or folders, or of the one tar of tars in it."""
    places, _ = class_places(source)
    root = source
    if len(places) == 1:
        (place,) = places.values()
        root = place.file if isinstance(place, Span) else place
    wnids = tuple(sorted(class_places(root)[0]))
    if not wnids:
        raise UserError(f"{source} holds neither <wnid>.tar nor <wnid>/ nor one tar file of such tar files.")
    return wnids, list_classes(root, wnids)


def _facts(year: int, **more: int) -> dict[str, object]:
    return {"source": f"ImageNet, fall {year}", "published_classes": PUBLISHED_CLASSES[year], **more}


def _halves(part: Part, wnid: str) -> tuple[Part, Part]:
    """Divide a class into two halves; of an odd number of images one half, in turn, gets one more."""
    count = len(part.names)
    more = count % 2 * (part.label % 2)
    order = randomness.generator(SEED, f"halves of {wnid}").permutation(count)
    half = count // 2 + more
    return part.take(np.sort(order[:half])), part.take(np.sort(order[half:]))
