"""The question beside a prompt, put to each pane; and what a visitor is told while others come
first."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from typing import Any

from ...running.batch import Plan
from ...running.decoder import Decoder
from ...running.request import Request
from .kept import Share

ANSWER = 24  # tokens that an answer may take
SOON = 1.0  # seconds of waiting that are not worth a word
_LOOK = 0.2  # seconds between two looks at whether to stop


class Asking:
    """Answers under several plans, which are written from the start on. What was asked before is
    known: the plan counts, not the prompt beside it."""

    def __init__(
        self,
        decoder: Decoder,
        kept: Share,
        question: Mapping[str, Any] | None,
        plans: Mapping[Hashable, Plan],
        owner: Hashable,
    ) -> None:
        """`plans` by what tells them from others."""
        self._kept = kept
        text = f"{question['story']}\n{question['ask']}\n" if question else ""
        self._keys = [("asked", text, name) for name in plans]
        self._texts: list[str | None] = [kept.find(*key) for key in self._keys]
        self._stream = None
        new = [plan for plan, text in zip(plans.values(), self._texts) if text is None]
        if question is None:
            self._texts = []
        elif new:
            request = Request(text, new, ANSWER, stop_at_newline=True)
            self._stream = decoder.submit(request, owner)

    def answers(self, stop: threading.Event) -> list[str]:
        """Each plan's, once all are written; none after `stop`, or where nothing was asked."""
        step = None
        while self._stream is not None and not stop.is_set():
            if not self._stream.begun(_LOOK):
                continue
            newer = self._stream.newest(_LOOK)
            if newer is None:
                break
            step = newer
        if stop.is_set():
            return []
        new = iter(step.texts if step else ())
        texts = [next(new) if text is None else text for text in self._texts]
        return [self._kept.put(text, *key) for text, key in zip(texts, self._keys)]

    def close(self) -> None:
        """What isn't written yet is wanted no more."""
        if self._stream is not None:
            self._stream.stop()


def in_line(place: int, wait: float) -> str:
    """What to tell who waits behind so many requests, for so many seconds."""
    before = f"{place} request{'' if place == 1 else 's'} before yours" if place else "You are next"
    return f"{before}, about {max(1, round(wait))} s."


def busy(decoder: Decoder, rows: int, tokens: int, owner: Hashable = None) -> str:
    """What to tell who thinks of asking for so much; empty if it would begin at once."""
    place, wait = decoder.expected(rows, tokens, owner)
    return f"Many are asking now: {in_line(place, wait)}" if wait >= SOON else ""
