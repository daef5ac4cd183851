"""What is set now: told in words, compared with what results are for, kept for a reload."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...errors import ClasError
from ..behind.goals import GOALS, goal_of
from ..behind.shelf import Shelf
from ..behind.standing import UNKNOWN, keys_of, words_of_first
from ..behind.studio import Studio
from ..parts.components import now_panel, now_value
from ..parts.controls import AS_SENT, NAMES, Controls, named
from ..parts.markup import line
from .map import MapTab
from .steer import SteerTab, how_busy, seen, with_control

MOVED = "(...values) => { window.clasMoved(); return values; }"
SETTLED = "() => window.clasSettle()"
ANSWERED = "() => window.clasAnswered()"  # with the same as before, of which nobody hears


class Now:
    """`tell`: the arguments of the event that tells what is set."""

    def __init__(
        self, shelf: Shelf, controls: Controls, steer: SteerTab, map_: MapTab, tab: gr.State
    ) -> None:
        studio = shelf.first
        start = {**studio.defaults(), "prompt": steer.prompt.value}
        self.panel = now_panel(self.value(studio, start, with_control(studio)), elem_id="now")
        self._controls = controls
        controls.summary.value, controls.detected.value = self.sentences(studio, start)

        def tell(text: str, add: Any, layer: Any, key: Any, *values: Any) -> dict[Any, Any]:
            settings = {**named(values), "prompt": text}
            try:
                studio = shelf.get(key)
                summary, detected = self.sentences(studio, settings)
                return {
                    controls.summary: summary,
                    controls.detected: detected,
                    steer.goals: goal_of(settings),
                    steer.sees: seen(studio, settings),
                    steer.busy: how_busy(studio, studio.recipe(settings), bool(add)),
                    self.panel: self.value(studio, settings, bool(add), layer),
                }
            except ClasError as error:
                return {controls.summary: line(error), self.panel: now_value(UNKNOWN)}

        self.tell: dict[str, Any] = {
            "fn": tell,
            "inputs": [steer.prompt, steer.control, map_.layer, controls.key, *controls.all],
            "outputs": [
                controls.summary, controls.detected, steer.sees, steer.busy, self.panel,
                steer.goals,
            ],
            "js": MOVED,
            "show_progress": "hidden",
            "queue": False,
            **AS_SENT,
        }  # fmt: skip
        moves = [
            steer.prompt.change,
            steer.control.input,
            map_.layer.input,
            *controls.moves(NAMES),
        ]
        told = gr.on(moves, **self.tell, trigger_mode="always_last")
        told.failure(None, js=SETTLED)
        told.then(None, js=ANSWERED)
        steer.goals.change(
            lambda goal: gr.update(label=GOALS[goal].language) if goal in GOALS else gr.skip(),
            steer.goals,
            controls.by_name["language"],
            show_progress="hidden",
            queue=False,
        )

    def after(self, event: Any) -> None:
        """Tell what is set once `event`, which sets something, is done."""
        event.then(**self.tell).then(None, js=ANSWERED)

    def value(
        self, studio: Studio, settings: dict[str, Any], control: bool = False, layer: Any = None
    ) -> str:
        """What the page compares results with, and finds again after a reload."""
        keys = keys_of(studio, studio.recipe(settings), control, layer)
        return now_value(keys, {"key": studio.key, "settings": settings})

    def sentences(self, studio: Studio, settings: dict[str, Any]) -> tuple[str, str]:
        """What these settings reach, and where the language comes from, as markup."""
        told = studio.language(settings["language"], settings["prompt"])[1]
        recipe = studio.recipe(settings)
        reach = f"{words_of_first(studio, recipe)} {studio.summary(recipe)}".strip()
        return line(reach), line(told)

    def renew(
        self, studio: Studio, settings: dict[str, Any], layer: int | None = None
    ) -> dict[Any, Any]:
        """Updates for another model with these settings, and the map's layer if it is another."""
        summary, detected = self.sentences(studio, settings)
        return {
            self._controls.summary: summary,
            self._controls.detected: detected,
            self.panel: self.value(studio, settings, with_control(studio), layer),
        }
