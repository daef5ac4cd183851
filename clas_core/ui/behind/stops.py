"""Tickets with which a visitor stops what they asked for, also while it waits in the queue."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict


class Stops:
    """A ticket is handed out at the click, long before the work may begin."""

    def __init__(self, kept: int = 1000) -> None:
        self._kept = kept
        self._events: OrderedDict[str, threading.Event] = OrderedDict()
        self._lock = threading.Lock()

    def issue(self) -> str:
        """A new ticket, by which its work can be stopped; the oldest ones are forgotten."""
        ticket = secrets.token_hex(8)
        with self._lock:
            self._events[ticket] = threading.Event()
            if len(self._events) > self._kept:
                self._events.popitem(last=False)
        return ticket

    def event(self, ticket: object) -> threading.Event:
        """What the work has to look at; one of its own if the ticket is unknown."""
        known = self._events.get(ticket) if isinstance(ticket, str) else None
        return known or threading.Event()

    def stop(self, ticket: object) -> None:
        """Tell the work with this ticket to end; an unknown one is no error."""
        self.event(ticket).set()

    def drop(self, ticket: str) -> None:
        """The work is over."""
        with self._lock:
            self._events.pop(ticket, None)
