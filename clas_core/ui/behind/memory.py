"""Memory that is free inside of this process goes back to the system."""

from __future__ import annotations

import ctypes
import threading
import time

_MMAP_THRESHOLD = -3  # of malloc.h
_LARGE = 2 * 2**20  # bytes; glibc else comes to keep all pieces of up to 32 MB that were freed


def give_back() -> None:
    """Give back what was freed; glibc keeps it in each thread's own heap else, which adds up.

    Does nothing where the C library isn't glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_giving_back(every: float = 30.0) -> None:
    """From now on `give_back`, every so many seconds, for as long as the page runs; and at once
    what is large."""
    limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if limit is not None:
        limit(_MMAP_THRESHOLD, _LARGE)

    def watch() -> None:
        while True:
            time.sleep(every)
            give_back()

    threading.Thread(target=watch, name="give-back", daemon=True).start()
