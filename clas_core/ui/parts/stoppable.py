"""Two buttons in one place: one starts work that takes a while, the other stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from ..behind.stops import Stops

Work = Callable[..., Iterator[Any]]


class Stoppable:
    """A button that starts and one that stops; each does what it says whenever it can be pressed.

    Started anew while the last run has not ended yet, that one is stopped and shows nothing more.
    """

    def __init__(self, start: gr.Button, stop: gr.Button) -> None:
        self._stops = Stops()
        self._swap = [start, stop]
        # A hidden box, as a State's value may be a later click's.
        self._ticket = gr.Textbox(visible=False)
        stop.click(self._halt, self._ticket, self._swap, **_AT_ONCE)

    def on(
        self,
        trigger: Callable[..., Any],
        work: Work,
        inputs: Sequence[Any],
        outputs: Any,
        **limits: Any,
    ) -> Any:
        """Run `work(run, *inputs)` at `trigger` (such as `button.click`); the event of its end.

        `work` yields updates of `outputs` until it is done or `run.stop` is set.
        """
        swap, ticket = self._swap, self._ticket

        def run(ticket: Any, request: gr.Request, *values: Any) -> Iterator[Any]:
            mine = self._stops.run(ticket)
            mine.owner = request.session_hash or ""
            updates = work(mine, *values)
            try:
                for update in updates:
                    if mine.over:
                        return
                    yield update
            finally:
                updates.close()  # type: ignore[attr-defined]
                self._stops.drop(ticket)

        began = trigger(self._begin, ticket, [*swap, ticket], **_AT_ONCE)
        ran = began.then(
            run, [ticket, *inputs], outputs, show_progress="hidden", trigger_mode="multiple",
            **limits,
        )  # fmt: skip
        ran.failure(self._end, ticket, swap, **_AT_ONCE)  # which `then` doesn't hear of
        return ran.then(self._end, ticket, swap, **_AT_ONCE)

    def _begin(self, before: Any) -> tuple[Any, Any, str]:
        return *_shown(False), self._stops.issue(before)

    def _end(self, ticket: Any) -> tuple[Any, Any]:
        """Not the end of a later run."""
        return (gr.skip(), gr.skip()) if self._stops.goes_on(ticket) else _shown(True)

    def _halt(self, ticket: Any) -> tuple[Any, Any]:
        self._stops.stop(ticket)
        return _shown(True)


_AT_ONCE: dict[str, Any] = {
    "show_progress": "hidden",
    "queue": False,
    "trigger_mode": "multiple",
}


def _shown(start: bool) -> tuple[Any, Any]:
    return gr.update(visible=start), gr.update(visible=not start)
