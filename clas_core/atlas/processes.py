"""The processes that torchrun or `accelerate launch` started, when they share a measurement."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from ..errors import ClasError

T = TypeVar("T")

_PATIENCE = timedelta(days=1)  # in which the first to finish waits for the last


@dataclass(frozen=True)
class Processes:
    """This process is the `rank`-th (from 0) of `count`.

    All must call the same methods in the same order: each waits for the others.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    def first(self, call: Callable[[], T]) -> T:
        """What `call` returns in the first process, which alone calls it; in all of them.

        So it is with a ClasError or OSError that it raises.
        """
        if self.count == 1:
            return call()
        told: list[Any] = [None, None]  # value, error
        if self.rank == 0:
            try:
                told[0] = call()
            except (ClasError, OSError) as error:
                told[1] = error
        dist.broadcast_object_list(told, src=0, group=self.group)
        value, refusal = told
        if refusal is not None:
            raise refusal
        return value

    def agree(self, label: str) -> None:
        """Raises ClasError, in all, unless all were given the same."""
        if self.count == 1:
            return
        labels: list[Any] = [None] * self.count
        dist.all_gather_object(labels, label, group=self.group)
        if len(set(labels)) > 1:
            raise ClasError(
                "The processes measure different things: give each the same model, dtype and text."
            )

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Add up the tensors (on the CPU) of all processes, in place in each of them."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor, group=self.group)


@contextmanager
def joined() -> Iterator[Processes]:
    """All that were started together; this one alone if it was.

    They meet in a group of their own, of gloo: the program's may be of NCCL, which knows no tensor
    on the CPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not dist.is_available():
        yield Processes()
        return
    if not dist.is_initialized():
        dist.init_process_group("gloo")
        # Its threads outlive Python's own else, and at times abort a process that is done.
        atexit.register(_leave)
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), group)
    finally:
        dist.destroy_process_group(group)


def _leave() -> None:
    if dist.is_initialized():  # the program may have left by itself
        dist.destroy_process_group()
