"""Equal requests are answered once: what was asked before is known, and who asks for the same at
the same time looks on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Iterator

from .kept import Share
from .views import View

_LOOK = 0.1  # seconds between two looks at what another's answer has come to


class Answered:
    """Views of answers, as far as there is room to keep them."""

    def __init__(self, kept: Share) -> None:
        self._kept = kept
        self._under_way: dict[Hashable, _Flight] = {}
        self._guard = threading.Lock()

    def views(
        self, key: Hashable, make: Callable[[], Iterator[View]], stop: threading.Event
    ) -> Iterator[View]:
        """The views that `make` yields, or only the last one if it is kept under `key`.

        An answer is kept once its last view's state is "done". While somebody else makes the same
        one, theirs are shown; should they stop, it is made anew. Ends after `stop`.
        """
        while True:
            if (known := self._kept.find("answer", key)) is not None:
                yield json.loads(known)
                return
            with self._guard:
                flight = self._under_way.get(key)
                if flight is None:
                    mine = self._under_way[key] = _Flight()
                    break
            yield from flight.follow(stop)
            if stop.is_set():
                return
        try:
            for view in make():
                mine.latest = view
                if view["state"] == "done":
                    self._kept.put(json.dumps(view), "answer", key)
                yield view
        finally:
            with self._guard:
                del self._under_way[key]
            mine.over.set()


class _Flight:
    """An answer that somebody waits for."""

    def __init__(self) -> None:
        self.latest: View | None = None
        self.over = threading.Event()

    def follow(self, stop: threading.Event) -> Iterator[View]:
        """What it has come to, until its end."""
        shown = None
        while not self.over.wait(_LOOK):
            if stop.is_set():
                break
            if (view := self.latest) is not None and view is not shown:
                shown = view
                yield view
        if stop.is_set() and shown is not None:
            panes = [{**pane, "writing": False} for pane in shown["panes"]]
            yield {**shown, "panes": panes, "state": "stopped"}
