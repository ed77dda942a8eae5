"""From listed images to a split on disk: decoded on all cores, written in order by one process, resumable.

A shard is 1024 listed images. After each the split's files are on the disk and `progress.npz` says how far they count; what
a killed call wrote beyond is cut off by the next. So the bytes do not depend on the number of processes or on interruptions.
An image that cannot be read leaves no hole: the next takes its place, and its name goes into the report. Where the source
was mended in between, a call goes on from the first shard that it concerns.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from alexnet.preprocessing import codec, decoding, progress, store, workers
from alexnet.preprocessing.codec import Codec
from alexnet.preprocessing.decoding import Chunk, Job
from alexnet.preprocessing.listing import Listing
from alexnet.preprocessing.progress import Filled

CHUNK = 16  # images that a process decodes at a time: 3 MB, of which each process has two in flight
EXAMPLES = 100  # names kept of each kind of unusual image


def fill(folder: Path, listing: Listing, side: int, form: Codec, processes: int) -> Filled:
    """Decode the images of `listing` into `folder`, going on after what an earlier call finished.

    Images that cannot be read are left out. Raises OSError when the disk is full; finished shards are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for other in {*codec.FILES.values()} - {codec.FILES[form]}:
        (folder / other).unlink(missing_ok=True)
    filled = progress.resume(folder, listing, side, form)
    job, start = Job(listing, side, form, workers.context().Lock()), progress.start_of_images(form, side)
    with ExitStack() as stack:
        stream = stack.enter_context(_open_at(folder / codec.FILES[form], start + filled.num_bytes))
        lengths = stack.enter_context(_open_at(folder / progress.LENGTHS, 4 * filled.num_images)) if form == "jpeg" else None
        shards = stack.enter_context(closing(_shards(folder, job, filled.done, processes)))
        for chunks in shards:
            _add_shard(filled, listing, chunks, stream, lengths)
            progress.commit(folder, filled, stream, lengths)
        if form == "raw":
            stream.seek(0)
            stream.write(codec.header(filled.num_images, side))
    return filled


def finish(folder: Path, listing: Listing, filled: Filled) -> None:
    """Write the labels of the images that could be read, where each begins, and the checksums of the shards."""
    store.save_array(folder / "labels.npy", np.delete(listing.labels(), [i for i, _ in filled.refused]))
    checksums = [[shard.num_bytes, shard.sha256] for shard in filled.shards]
    store.write_json(
        folder / store.SHARDS, {"start": progress.start_of_images(filled.codec, filled.side), "shards": checksums}
    )
    if filled.codec == "jpeg":
        store.save_array(folder / codec.OFFSETS, progress.offsets(folder, filled.num_images))


def _open_at(file: Path, length: int) -> BinaryIO:
    """Open a file for writing behind its first `length` bytes, which are kept, and cut off the rest."""
    stream = file.open("r+b" if file.is_file() else "w+b")
    stream.truncate(length)
    stream.seek(length)
    return stream


def _shards(folder: Path, job: Job, done: int, processes: int) -> Iterator[Iterator[Chunk]]:
    """Yield the chunks of each shard from image `done` on, decoded ahead by `processes`."""
    count = len(job.listing)
    spans = ((start, min(start + CHUNK, count)) for start in range(done, count, CHUNK))
    label = f"{folder.parent.name} {folder.name}"
    with (
        tqdm(total=count, initial=done, desc=label, unit=" images", unit_scale=True, leave=False) as bar,
        closing(workers.map_in_order(decoding.decode, job, spans, processes)) as decoded,
    ):
        for start in range(done, count, progress.SHARD):
            yield _until(min(start + progress.SHARD, count), decoded, bar)


def _until(stop: int, decoded: Iterator[Chunk], bar: tqdm) -> Iterator[Chunk]:
    for chunk in decoded:
        yield chunk
        bar.update(chunk.stop - chunk.start)
        if chunk.stop == stop:
            return


def _add_shard(
    filled: Filled, listing: Listing, chunks: Iterator[Chunk], stream: BinaryIO, lengths: BinaryIO | None
) -> None:
    """Write the images of a shard behind the earlier ones and count them."""
    start, digest, shard, last = filled.done, hashlib.sha256(), progress.Shard(""), filled.done
    for chunk in chunks:
        stream.write(chunk.data)
        digest.update(chunk.data)
        if lengths is not None:
            lengths.write(np.array(chunk.lengths, "<u4").tobytes())
        shard.num_images += len(chunk.lengths)
        shard.num_bytes += len(chunk.data)
        shard.refused += chunk.refused
        filled.total += chunk.total
        filled.outer += chunk.outer
        for kind, i in chunk.remarks:
            shard.remarks[kind] = shard.remarks.get(kind, 0) + 1
            if len(filled.examples.setdefault(kind, [])) < EXAMPLES:
                filled.examples[kind].append(i)
        last = chunk.stop
    shard.listed, shard.sha256 = listing.digest(start, last), digest.hexdigest()
    filled.shards.append(shard)
