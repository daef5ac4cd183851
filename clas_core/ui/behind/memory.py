"""Memory that is free inside of this process goes back to the system."""

from __future__ import annotations

import ctypes
import threading
import time


def give_back() -> None:
    """Give back what was freed; glibc keeps it in each thread's own heap else, which adds up.

    Does nothing where the C library isn't glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_giving_back(every: float = 30.0) -> None:
    """From now on `give_back`, every so many seconds, for as long as the page runs."""

    def watch() -> None:
        while True:
            time.sleep(every)
            give_back()

    threading.Thread(target=watch, name="give-back", daemon=True).start()
