"""Work that several threads ask for at once, done in one go by whoever comes first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Together(Generic[A, B]):
    """Calls `work` with all that waits, at most `most` at a time; each caller gets its own result.

    While one thread works the others wait, and what they bring is the next batch. If a batch
    raises, each of it is done alone, so that only the one whose fault it is gets the error.
    """

    def __init__(self, work: Callable[[Sequence[A]], Sequence[B]], most: int = 16) -> None:
        self._work, self._most = work, most
        self._waiting: list[_Call[A, B]] = []
        self._guard, self._turn = threading.Lock(), threading.Lock()

    def __call__(self, asked: A) -> B:
        """What `work` makes of `asked`; raises what it raises."""
        mine: _Call[A, B] = _Call(asked)
        with self._guard:
            self._waiting.append(mine)
        with self._turn:
            while not mine.done:
                with self._guard:
                    batch = self._waiting[: self._most]
                    del self._waiting[: self._most]
                self._do(batch)
        if mine.error is not None:
            raise mine.error
        return mine.found[0]

    def _do(self, batch: Sequence[_Call[A, B]]) -> None:
        try:
            for call, found in zip(batch, self._work([call.asked for call in batch]), strict=True):
                call.found, call.done = [found], True
        except BaseException as error:
            if len(batch) == 1:
                batch[0].error, batch[0].done = error, True
                return
            for call in batch:
                self._do([call])


class _Call(Generic[A, B]):
    def __init__(self, asked: A) -> None:
        self.asked = asked
        self.found: list[B] = []
        self.error: BaseException | None = None
        self.done = False
