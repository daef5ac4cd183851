"""How many threads to compute with: more are slower for a small model on busy cores; and which
ones come later."""

from __future__ import annotations

import os
import sys
import threading
import time

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


def come_later() -> None:
    """Let this thread, and those that it starts, have what others leave of the processor.

    For what nobody watches word by word. Does nothing where threads have no priority of their own.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
