"""Answers come first: measuring waits between two batches while somebody is waiting for one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .threads import check_ending


class Gate:
    """One for all models of a machine, as they share its processor."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._answers = 0

    @property
    def answers(self) -> int:
        """How many are under way."""
        return self._answers

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count as an answer while inside, which `give_way` waits for."""
        with self._condition:
            self._answers += 1
        try:
            yield
        finally:
            with self._condition:
                self._answers -= 1
                self._condition.notify_all()

    def give_way(self, longest: float = 5.0) -> None:
        """Wait until no answer is under way, at most `longest` seconds: all work gets its turn.

        Raises Ending when the interpreter ends.
        """
        check_ending()
        with self._condition:
            self._condition.wait_for(lambda: not self._answers, timeout=longest)
