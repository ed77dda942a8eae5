"""Every random draw as a function of what it is for.

A draw depends on (seed, purpose, epoch, step or sample) and on nothing else: not on how many draws came before,
on the number of workers or ranks, or on whether the run was stopped and resumed.
"""

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *where: int) -> np.random.Generator:
    """Return a fresh generator for one purpose at one place (`where` is epoch, step, sample ... in that order).

    The key of a counter-based Philox stream is the hash of the arguments, so streams of different purposes or places
    never overlap, and asking twice gives the same numbers.
    """
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, *where)))


def key(seed: int, purpose: str, *where: int) -> int:
    """Return the key of `generator`'s stream, 128 bits, for who makes the stream in another way."""
    words = "/".join([str(seed), purpose, *map(str, where)])
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=16).digest(), "little")


def normal(seed: int, purpose: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return standard normal draws of `shape`, float32."""
    return generator(seed, purpose).standard_normal(shape, dtype=np.float32)
