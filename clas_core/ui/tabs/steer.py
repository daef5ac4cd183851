"""The Steer tab: one prompt answered with and without steering, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from ...errors import ClasError
from ...steering.recipe import Recipe
from ...text.languages import get_language
from ..behind import first
from ..behind.asking import busy
from ..behind.goals import GOALS, goal_of
from ..behind.inputs import AUTO
from ..behind.shelf import Shelf
from ..behind.standing import asked_in_words, keys_of, standing
from ..behind.stops import Run
from ..behind.studio import Studio
from ..behind.surprise import steering
from ..behind.views import View
from ..parts.components import (
    curves_panel,
    curves_value,
    result_panel,
    result_value,
    stamp,
    stamp_value,
    stored_panel,
    stored_value,
)
from ..parts.controls import AS_SENT, Controls, build_chat, named, scale
from ..parts.markup import about_markup, line, markup, warn
from ..parts.stoppable import Stoppable

ABOUT = """The same model answers your prompt in one pass, side by side: left alone; steered, with
some neurons turned up or down inside it; and as a check with the same numbers on random neurons.
What steering does depends on the goal chosen above; the line under the strength says it. To forget,
neurons which work for one language only are turned down, in the model's last layers; from 1 on they
are off, beyond that they work the other way round, and below zero they are turned up. To silence a
language, those that tell it best are turned down in all layers, and bars show what that does to
every language. To write in another one, all that the model holds in mind is moved there. The
example with which the page opens is one on which this shows well. Words that differ are marked from
the first difference on; words of another language carry its colour and its letters. Beside the
story the model is asked something: does it still know? The two plots say the same of many stories
and questions. Nothing in the model itself is changed: set the strength to Off and all sides are
equal."""
# A link keeps the tab and the map's layer too.
WHOLE_ADDRESS = """(q) => {
  if (!q) return q;
  const layer = document.querySelector("#map-layer input[type=number]")?.value;
  const place = new URLSearchParams(location.hash.slice(1));
  const more = `#tab=${place.get("tab") || "steer"}` + (layer ? `&layer=${layer}` : "");
  return location.origin + location.pathname + q.slice(q.indexOf("?")).split("#")[0] + more;
}"""
MOST_EXAMPLES = 24  # languages that a row of buttons still shows well


@dataclass
class SteerTab:
    """The tab's components that the page brings up to date."""

    about: gr.HTML
    example: gr.Radio
    prompt: gr.Textbox
    fold: gr.Accordion
    sees: gr.HTML
    another: gr.Button
    result: gr.HTML
    taken: list[Any]  # what was taken away
    count: gr.State
    control: gr.Checkbox
    taken_for: gr.HTML
    stamp: gr.HTML
    stored: gr.HTML
    curves: gr.HTML
    busy: gr.HTML
    goals: gr.Radio
    served: gr.HTML

    def renew(self, studio: Studio, values: dict[str, Any]) -> dict[Any, Any]:
        """Updates for another model with these values; the prompt itself is left to the page."""
        choices = _example_choices(studio)
        code = studio.language(AUTO, values["prompt"])[0]  # the prompt's, not the target
        view, made_for = _first_result(studio, values)
        return {
            self.about: about_markup(_about(studio)),
            self.example: gr.update(
                choices=choices,
                value=code if code in {one for _, one in choices} else None,
                visible=bool(choices),
            ),
            self.fold: gr.update(visible=_can_be_seen(studio)),
            self.sees: seen(studio, values),
            self.another: gr.update(visible=bool(choices)),
            self.control: gr.update(value=with_control(studio), visible=studio.served is None),
            self.served: served_note(studio),
            self.goals: goal_of(values),
            self.result: view,
            self.stamp: made_for,
            self.curves: curves_value(first.curves(studio)),
            **self.follow(studio, code),
            **{box: gr.update(visible=False) for box in self.taken},
            self.taken_for: None,
            self.count: 0,
        }

    @property
    def pursued(self) -> list[Any]:
        """What a goal sets here."""
        return [self.stored, self.prompt, self.example]

    def follow(self, studio: Studio, code: str) -> dict[Any, Any]:
        """Updates for a prompt in another language: what is stored for it."""
        return {self.stored: stored_value(first.stored_cells(studio, code))}


NOTHING_YET: View = {
    "state": "new",
    "panes": [],
    "sentence": "Press Generate: the answers appear here.",
    "facts": [],
    "strip": None,
}


def build_steer(shelf: Shelf, controls: Controls) -> SteerTab:
    """Build the tab inside the page's blocks; what other tabs need of it."""
    studio, key = shelf.first, controls.key
    code = _opening(studio)
    opening = goal_of(studio.defaults())
    claim = markup(claim_markup(opening))
    goals = gr.Radio(
        [(goal.title, name) for name, goal in GOALS.items()],
        value=opening,
        label="What should steering do?",
        elem_id="goals",
    )
    claims = json.dumps({name: claim_markup(name) for name in GOALS})
    goals.change(None, goals, claim, js=f"(goal) => ({claims})[goal]")
    choices = _example_choices(studio)
    with gr.Column(elem_id="ask"):
        example = gr.Radio(
            choices,
            value=code if choices else None,
            label="An example in",
            elem_id="example-languages",
            visible=bool(choices),
        )
        prompt = gr.Textbox(
            first_prompt(studio),
            label="Prompt",
            info="Change it: the answers follow. Ctrl + Enter (on a Mac ⌘ + Enter) generates now",
            lines=1,
            max_lines=12,
            max_length=2000,
            elem_id="prompt",
            placeholder="Write a short story and a question about it …  Left empty, "
            f"“{GOALS['write'].title}” begins from nothing.",
        )
        build_chat(studio, controls)
        with gr.Accordion(
            "What the model sees", open=False, visible=_can_be_seen(studio), elem_id="sees"
        ) as fold:
            sees = markup()
        with gr.Row(elem_id="actions"):
            run = gr.Button("Generate", variant="primary", elem_id="generate")
            stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
            another = gr.Button("Another example", elem_id="another", visible=bool(choices))
            again_button = gr.Button("Again", elem_id="again", visible="hidden")
            control = gr.Checkbox(
                with_control(studio),
                label="Add a random control",
                container=False,
                visible=studio.served is None,
                elem_id="control",
            )
            start = {**studio.defaults(), "prompt": prompt.value}
            view, made_for = _first_result(studio, start)
            crowd = markup(elem_id="busy")
            made = stamp("steer", "Updating …", made_for)
    cells, sweep = first.stored_cells(studio, code), first.sweep_to(studio, code)
    served = markup(served_note(studio), elem_id="served")
    with gr.Column(elem_id="shown"):
        stored = stored_panel(stored_value(cells, sweep), elem_id="stored")
        result = result_panel(view, elem_id="result")
        curves = curves_panel(curves_value(first.curves(studio)), elem_id="curves")
        about = markup(about_markup(_about(studio)))
    with gr.Column(visible=False, elem_id="take-away") as take_away:
        gr.Markdown("### Take it away")
        with gr.Row():
            show_code = gr.Button("As Python code", elem_id="as-code", size="sm")
            show_link = gr.Button("As a link", elem_id="as-link", size="sm")
        code_box = gr.Code(
            language="python", label="Runs this recipe", visible=False, elem_id="code"
        )
        link = gr.Textbox(
            label="Opens this page with these settings", buttons=["copy"], visible=False,
            elem_id="link",
        )  # fmt: skip
        taken_for = stamp("link", "Something else is set now: press again.")
        private = markup(visible=False, elem_id="private")

    count = gr.State(0)

    def take(step: int, key: Any, code: Any, number: int, *values: Any) -> tuple[Any, ...]:
        """An example's text, its number, and what is stored of its language."""
        try:
            studio = shelf.get(key)
            number = number + 1 if step else 0
            text = _nth(studio, code, number)
            settings = {**named(values), "prompt": text}
            return (
                text,
                number,
                stored_value(first.stored_cells(studio, code)),
                gr.update(**scale(studio, settings)),
            )
        except ClasError as error:
            warn(error)
            return gr.skip(), number, gr.skip(), gr.skip()

    def generate(
        mine: Run, text: str, add: bool, key: Any, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        try:
            yield from answer(mine, text, add, key, *values)
        except ClasError as error:
            warn(error, "That can't be done")

    def follow(mine: Run, text: str, add: bool, key: Any, *values: Any) -> Iterator[dict[Any, Any]]:
        """As `generate`, for a move that nobody pressed a button for."""
        try:
            yield from answer(mine, text, add, key, *values)
        except ClasError as error:
            said = standing(*key_now(text, add, key, *values), words=str(error), unfinished=True)
            yield {made: stamp_value(said)}

    def key_now(text: str, add: bool, key: Any, *values: Any) -> list[str]:
        """The key of the panes that are asked for; none where the settings make no recipe."""
        try:
            studio = shelf.get(key)
            recipe = studio.recipe({**named(values), "prompt": text})
            return [keys_of(studio, recipe, bool(add))["steer"]]
        except ClasError:
            return []

    def answer(mine: Run, text: str, add: bool, key: Any, *values: Any) -> Iterator[dict[Any, Any]]:
        studio = shelf.get(key)
        recipe = studio.recipe({**named(values), "prompt": text})
        made_for = _made_for(studio, recipe, bool(add))
        key = keys_of(studio, recipe, bool(add))["steer"]
        asked = studio.calls(steering, studio, recipe, bool(add), stop=mine.stop, owner=mine.owner)
        shown: dict[Any, Any] = {}
        for view in asked:
            # All of them: Gradio makes one that is left out anew, at every frame.
            shown = {result: result_value({**view, "key": key}), made: made_for, crowd: ""}
            yield shown
        yield {**shown, crowd: how_busy(studio, recipe, bool(add))}

    answering = Stoppable(run, stop)
    asked = [prompt, control, key, *controls.all]
    shows = [result, made, crowd]
    pressed = partial(gr.on, [run.click, prompt.submit])
    answering.on(pressed, generate, asked, shows, concurrency_limit=None, **AS_SENT)
    answering.on(again_button.click, follow, asked, shows, concurrency_limit=None, **AS_SENT)

    again: dict[str, Any] = {"queue": False, "trigger_mode": "always_last"}
    shown = [prompt, count, stored, controls.by_name["strength"]]
    at = [key, example, count, *controls.all]
    example.select(partial(take, 0), at, shown, **again)
    another.click(partial(take, 1), at, shown, **again)
    curves.input(None, None, example, js="() => window.clasSpoken")

    def taking(shown: Any) -> dict[str, Any]:
        """The event that fills both boxes, which so are for the same settings, and shows one."""

        def fill(text: str, key: Any, *values: Any) -> dict[Any, Any]:
            try:
                studio = shelf.get(key)
                recipe = studio.recipe({**named(values), "prompt": text})
            except ClasError as error:
                warn(error)
                return {shown: gr.skip()}
            texts = {code_box: recipe.to_python(), link: f"?{recipe.to_query()}"}
            filled = {box: gr.update(value=value) for box, value in texts.items()}
            return {
                **filled,
                shown: gr.update(value=texts[shown], visible=True),
                private: private_note(studio),
                taken_for: _made_for(studio, recipe, False),
            }

        return {
            "fn": fill,
            "inputs": [prompt, key, *controls.all],
            "outputs": [code_box, link, private, taken_for],
            **again,
        }

    again["show_progress"] = "hidden"
    for button, box in ((show_code, code_box), (show_link, link)):
        button.click(**taking(box)).then(None, link, link, js=WHOLE_ADDRESS)
    controls.switch.change(
        lambda mode: [gr.update(visible=mode == "Lab")] * 2,
        controls.switch,
        [controls.lab, take_away],
        show_progress="hidden",
        queue=False,
    )
    taken = [code_box, link, private]
    return SteerTab(
        about, example, prompt, fold, sees, another, result, taken, count, control, taken_for, made,
        stored, curves, crowd, goals, served,
    )  # fmt: skip


def claim_markup(goal: str) -> str:
    """What a goal is about, as the page's headline."""
    claim, call = GOALS[goal].claim
    return f'<h2 class="claim">{escape(claim)} <span>{escape(call)}</span></h2>'


def _about(studio: Studio) -> str:
    return f"{ABOUT}\n\n{studio.verdict}"


def _opening(studio: Studio) -> str:
    """The language that the tab opens with."""
    return first.opening_language(studio)


def first_prompt(studio: Studio, code: str = "") -> str:
    """The prompt that the tab opens with, in the language `code` or in its own."""
    return _nth(studio, code or _opening(studio), 0)


def _example_choices(studio: Studio) -> list[tuple[str, str]]:
    return [(get_language(c).native, c) for c in studio.example_codes[:MOST_EXAMPLES]]


def _nth(studio: Studio, code: Any, number: int) -> str:
    ready = studio.examples(code) if code in studio.codes else ()
    return ready[number % len(ready)] if ready else ""


def with_control(studio: Studio) -> bool:
    """Whether the panes open with a random control: where they are stored, which takes no time."""
    return studio.stored is not None


def served_note(studio: Studio) -> str:
    """Who writes the texts in the model's place, and what that takes away; empty where it does."""
    if studio.served is None:
        return ""
    return line(studio.served.note, "note")


def _can_be_seen(studio: Studio) -> bool:
    return studio.has_template and studio.served is None  # a server's template is its own


def seen(studio: Studio, values: dict[str, Any]) -> str:
    """The prompt as the model reads it; empty for a model without a chat template."""
    if not _can_be_seen(studio):
        return ""
    try:
        text = studio.render(studio.recipe(values)).text
        return f'<pre class="seen">{escape(text)}</pre>'
    except ClasError as error:
        return f'<p class="note">{escape(str(error))}</p>'


def _first_result(studio: Studio, values: dict[str, Any]) -> tuple[str | None, str | None]:
    """The stored result where there is one for these values, and what that is for."""
    try:
        found = first.opening_view(studio, values)
    except ClasError:
        found = None
    if found is None:
        return result_value(NOTHING_YET), None
    return result_value(found[0]), _made_for(studio, studio.recipe(values), True)


def _made_for(studio: Studio, recipe: Recipe, control: bool) -> str:
    """What the panes are for, or without a control a link."""
    key = keys_of(studio, recipe, control)["steer"]
    return stamp_value(standing(key, words=f"For {asked_in_words(studio, recipe)}"))


def how_busy(studio: Studio, recipe: Recipe, control: bool) -> str:
    """How long it would take until an answer to `recipe` begins; empty where it begins at once, or
    where servers don't tell."""
    if studio.served is not None:
        return ""
    said = busy(studio.decoder, 3 if control else 2, recipe.max_new_tokens)
    return line(said, "note") if said else ""


def private_note(studio: Studio) -> Any:
    """Why a link to this model opens only here, as a note, and that servers have no part in it;
    hidden where there is nothing to say."""
    reason = studio.choice.private
    if studio.served is not None:
        reason = f"Steers {studio.choice.title} on this machine, not the servers. {reason}".rstrip()
    return gr.update(value=f'<p class="note">{escape(reason)}</p>', visible=bool(reason))
