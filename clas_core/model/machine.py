"""What this machine has: memory that is free, and how fast it multiplies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")  # the limits of a container


def free_memory(device: torch.device) -> int | None:
    """Bytes that a program may still take on `device`, None if the system doesn't say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _free_of_machine()
    limit = _free_of_container()
    return free if limit is None else limit if free is None else min(free, limit)


def multiply_rate(device: torch.device, dtype: torch.dtype, inputs: int, outputs: int) -> float:
    """Operations a second of a linear map from `inputs` to `outputs`, timed for a moment.

    A product counts as one, and so does a sum: there are 2 * inputs * outputs for each row.
    """
    weight = torch.ones(outputs, inputs, dtype=dtype, device=device)
    _time_product(weight, 64)  # the first one warms up
    rows = 64
    while rows < 4096 and min(_time_product(weight, rows) for _ in range(3)) < 0.01:
        rows *= 2
    times, start = [_time_product(weight, rows)], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - start < 0.2 and len(times) < 100):
        times.append(_time_product(weight, rows))
    return 2 * rows * inputs * outputs / min(times)  # the least disturbed by other programs


@torch.inference_mode()
def _time_product(weight: torch.Tensor, rows: int) -> float:
    x = weight.new_ones(rows, weight.shape[1])
    start = time.perf_counter()
    float(torch.nn.functional.linear(x, weight)[0, 0])  # reading it waits for the device
    return time.perf_counter() - start


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        if not hasattr(os, "sysconf"):
            return None
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kilobytes = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines)}
    return int(kilobytes["MemAvailable"]) * 1024


def _free_of_container() -> int | None:
    """What is left under the control group's limit; files it merely caches can be dropped."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        stat = (_CGROUP / "memory.stat").read_text().split()
    except OSError:
        return None
    if limit == "max":
        return None
    return int(limit) - int(stat[stat.index("anon") + 1])
