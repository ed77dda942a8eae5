"""Memory that batches are made in, used again and again.

A batch of 128 views is 77 MB in fp32. Fresh memory of that size costs more than all the arithmetic on it, because the system
clears every page before it is first touched.
"""

import weakref
from collections import defaultdict, deque

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64  # bytes, as torch aligns its own: a cache line, and the widest vector


class Reused:
    """Gives out uninitialised tensors in memory that earlier ones have left.

    Memory comes back when the last tensor that shares it is gone, whoever holds it: a batch that is kept is never written
    over. Tensors may be asked for and let go in any thread.
    """

    def __init__(self) -> None:
        self._free: defaultdict[int, deque[np.ndarray]] = defaultdict(deque)  # by size in bytes

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a contiguous tensor on the processor whose values are whatever was there."""
        size = dtype.itemsize * int(np.prod(shape))
        free = self._free[size]
        try:
            whole = free.pop()
        except IndexError:
            unaligned = np.empty(size + ALIGNMENT, np.uint8)
            whole = unaligned[-unaligned.ctypes.data % ALIGNMENT :][:size]
        # Why: the tensor's storage, which its views share, holds `lent`; so `lent` goes when the storage does.
        lent = whole.view()
        weakref.finalize(lent, free.append, whole).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)
