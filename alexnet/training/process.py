"""How a training lives in its process: threads, memory, and requests to stop."""

import ctypes
import signal
import sys
import threading
from typing import Any

import torch


def use_processor(num_threads: int | None) -> int:
    """Set the number of threads of torch's operations (None leaves torch's choice) and return it."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    # Why: glibc gives every large buffer back to the system and asks for it again at the next step, and the kernel clears
    # each page anew. Keeping them (M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD) makes a step of the small nets 5 to 20 % faster.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):
            mallopt(option, value)
    return torch.get_num_threads()


class StopRequests:
    """Turn the first SIGINT or SIGTERM into `requested = True`, so that a step is finished and saved.

    A second one acts as it always does. Outside the main thread signals are left alone.
    """

    requested = False

    def __enter__(self) -> "StopRequests":
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.requested = True
        signal.signal(number, self._before[number])

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
