"""A data set of one's own: train/<class>/ and val/<class>/ or test/<class>/, with images of any kind and size."""

from pathlib import Path

from alexnet.config import UserError
from alexnet.preprocessing.listing import class_places, list_classes
from alexnet.preprocessing.photographs import Source

SPLITS = ("train", "val", "test")


def find(source: Path) -> Source:
    """List the images of `source`; its classes are the folders of `train` in the order of their names.

    Raises UserError when `train`, or both of the others, are missing, or their folders differ from those of `train`.
    """
    splits = [split for split in SPLITS if (source / split).is_dir()]
    if splits[:1] != ["train"] or len(splits) == 1:
        raise UserError(
            f"{source} has {', '.join(splits) or 'neither train, val nor test'}; a set needs train/<class>/ and "
            "val/<class>/ or test/<class>/."
        )
    classes = {split: sorted(class_places(source / split)[0]) for split in splits}
    for split in splits[1:]:
        if odd := sorted(set(classes[split]) ^ set(classes["train"])):
            has, lacks = (split, "train") if odd[0] in classes[split] else ("train", split)
            raise UserError(
                f"{source / has} has a folder {odd[0]!r} that {source / lacks} lacks; all need the same classes."
            )
    names = tuple(classes["train"])
    if not names:
        raise UserError(f"{source / 'train'} holds no folders; it needs one for each class.")
    return Source(names, names, {split: list_classes(source / split, names) for split in splits})
