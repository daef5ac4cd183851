"""Tickets with which a visitor stops what they asked for, also while it waits in the queue."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(eq=False)
class Run:
    """What was asked for with one click. `over`: a later click took its place, so that it must
    show nothing more. `owner`: whose click it was."""

    stop: threading.Event = field(default_factory=threading.Event)
    over: bool = False
    owner: str = ""


class Stops:
    """A ticket is handed out at the click, long before the work may begin."""

    def __init__(self, kept: int = 1000) -> None:
        self._kept = kept
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._later: OrderedDict[str, str] = OrderedDict()  # the ticket in place of another
        self._lock = threading.Lock()

    def issue(self, before: object = None) -> str:
        """A new ticket in the place of `before`, which is stopped for good; the oldest ones are
        forgotten."""
        self.run(before).over = True
        self.stop(before)
        ticket = secrets.token_hex(8)
        with self._lock:
            self._runs[ticket] = Run()
            if isinstance(before, str) and len(before) == len(ticket):
                self._later[before] = ticket
            for kept in (self._runs, self._later):
                if len(kept) > self._kept:
                    kept.popitem(last=False)
        return ticket

    def run(self, ticket: object) -> Run:
        """What the work has to look at; one of its own if the ticket is unknown."""
        known = self._runs.get(ticket) if isinstance(ticket, str) else None
        return known or Run()

    def stop(self, ticket: object) -> None:
        """Tell the work with this ticket to end; an unknown one is no error."""
        self.run(ticket).stop.set()

    def goes_on(self, ticket: object) -> bool:
        """Whether it, or what took its place, is waited for: neither stopped nor over.

        The page may tell of a run's end by its ticket after a later click, whose own ticket it
        hasn't got yet.
        """
        while isinstance(ticket, str) and ticket in self._later:
            ticket = self._later[ticket]
        return ticket in self._runs and not self.run(ticket).stop.is_set()

    def drop(self, ticket: str) -> None:
        """The work is over."""
        with self._lock:
            self._runs.pop(ticket, None)
