"""How many threads to compute with, more being slower for a small model on busy cores; and those
that work behind the page."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from weakref import WeakSet

import torch

from ...model.architecture import LanguageModel


@torch.inference_mode()
def quickest_threads(lm: LanguageModel, repeats: int = 5) -> int:
    """Time a short forward with one thread and with all cores; the quicker number."""
    before = torch.get_num_threads()
    inputs = lm.encode(["a b c d"] * 2).inputs
    best = {}
    try:
        for threads in {1, os.cpu_count() or 1}:
            torch.set_num_threads(threads)
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                lm.model(**inputs, use_cache=False)
                times.append(time.perf_counter() - start)
            best[threads] = min(times)
    finally:
        torch.set_num_threads(before)
    return min(best, key=best.__getitem__)


class Ending(BaseException):
    """The interpreter ends, and with it what works behind the page."""


_ending = threading.Event()
_behind: WeakSet[threading.Thread] = WeakSet()
_PATIENCE = 5.0  # seconds, which a batch of a small model takes no part of


def run_behind(
    name: str, work: Callable[[], None], context: Context | None = None
) -> threading.Thread:
    """Do `work` in a thread of its own, which has what others leave of the processor.

    It ends with the interpreter, at its next `check_ending`. context: by default an empty one.
    """

    def run() -> None:
        _come_later()
        with suppress(Ending):
            work()

    within = (context or Context()).run
    thread = threading.Thread(target=within, args=(run,), name=name, daemon=True)
    _behind.add(thread)
    thread.start()
    return thread


def check_ending() -> None:
    """Raise Ending if the interpreter ends: to be called between two batches."""
    if _ending.is_set():
        raise Ending


@atexit.register
def _end() -> None:
    """A thread that is torn out of a forward at the interpreter's end aborts the process."""
    _ending.set()
    end = time.monotonic() + _PATIENCE
    for thread in list(_behind):
        thread.join(max(0.0, end - time.monotonic()))


def _come_later() -> None:
    """Does nothing where threads have no priority of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
