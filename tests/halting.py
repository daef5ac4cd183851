"""A measurement that is cut short."""

from __future__ import annotations

from collections.abc import Callable


class Halt(Exception):
    """Raised by a progress callback."""


def halt_after(sentences: int) -> Callable[[int, int], None]:
    """A progress callback that raises Halt once so many sentences are measured."""

    def progress(done: int, total: int) -> None:
        if done >= sentences:
            raise Halt

    return progress
