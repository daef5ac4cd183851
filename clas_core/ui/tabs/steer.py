"""The Steer tab: one prompt answered with and without steering, side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from ...errors import ClasError
from ...steering.recipe import Recipe
from ...text.languages import get_language
from ..behind.shelf import Shelf
from ..behind.standing import asked_in_words, keys_of, standing
from ..behind.studio import Studio
from ..behind.views import View
from ..parts.components import result_panel, result_value, stamp, stamp_value
from ..parts.controls import Controls, build_chat, named
from ..parts.markup import about_markup, markup, warn
from ..parts.stoppable import Stoppable

ABOUT = """The same model answers your prompt twice, in one pass. On the left it is left alone. On
the right, in its last layers, neurons that work for every language are turned up and neurons that
work for one language only are turned down, by the strength you choose; below zero it is the other
way round. Words that differ are marked. Even where the words are the same, the strip below shows
how far each next-word guess was moved. Nothing in the model itself is changed: set the strength to
Off and both sides are equal."""
WHOLE_ADDRESS = "(q) => q && location.origin + location.pathname + q.slice(q.indexOf('?'))"
MOST_EXAMPLES = 24  # languages that a row of buttons still shows well


@dataclass
class SteerTab:
    """The tab's components that the page brings up to date."""

    intro: gr.HTML
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

    def renew(self, studio: Studio, values: dict[str, Any]) -> dict[Any, Any]:
        """Updates for another model with these values; the prompt itself is left to the page."""
        code, choices = _opening(studio), _example_choices(studio)
        view, made_for = _first_result(studio, values)
        return {
            self.intro: about_markup(_about(studio)),
            self.example: gr.update(
                choices=choices, value=code if choices else None, visible=bool(choices)
            ),
            self.fold: gr.update(visible=studio.has_template),
            self.sees: seen(studio, values),
            self.another: gr.update(visible=bool(choices)),
            self.control: False,
            self.result: view,
            self.stamp: made_for,
            **{box: gr.update(visible=False) for box in self.taken},
            self.taken_for: None,
            self.count: 0,
        }


NOTHING_YET: View = {
    "state": "new",
    "panes": [],
    "sentence": "Press Generate: both answers appear here.",
    "facts": [],
    "strip": None,
}


def build_steer(shelf: Shelf, controls: Controls) -> SteerTab:
    """Build the tab inside the page's blocks; what other tabs need of it."""
    studio, key = shelf.first, controls.key
    code = _opening(studio)
    intro = markup(about_markup(_about(studio)))
    choices = _example_choices(studio)
    example = gr.Radio(
        choices,
        value=code if choices else None,
        label="Take an example in",
        elem_id="example-languages",
        visible=bool(choices),
    )
    prompt = gr.Textbox(
        first_prompt(studio),
        label="Prompt",
        info="Ctrl + Enter (on a Mac ⌘ + Enter) generates",
        lines=3,
        max_lines=12,
        max_length=2000,
        elem_id="prompt",
        placeholder="Write a short story and a question about it …",
    )
    build_chat(studio, controls)
    with gr.Accordion(
        "What the model sees", open=False, visible=studio.has_template, elem_id="sees"
    ) as fold:
        sees = markup()
    with gr.Row(elem_id="actions"):
        run = gr.Button("Generate", variant="primary", elem_id="generate")
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        another = gr.Button("Another example", elem_id="another", visible=bool(choices))
        control = gr.Checkbox(
            False, label="Add a random control", container=False, elem_id="control"
        )
    start = {**studio.defaults(), "prompt": prompt.value}
    view, made_for = _first_result(studio, start)
    made = stamp("steer", "Something else is set now: press Generate.", made_for)
    result = result_panel(view, elem_id="result")
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

    def take(key: Any, code: Any, number: int) -> tuple[Any, int]:
        try:
            return _nth(shelf.get(key), code, number), number
        except ClasError as error:
            warn(error)
            return gr.skip(), number

    def generate(
        halt: threading.Event, text: str, add: bool, key: Any, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        try:
            studio = shelf.get(key)
            recipe = studio.recipe({**named(values), "prompt": text})
            made_for = _made_for(studio, recipe, bool(add))
            for view in studio.steer(recipe, bool(add), halt):
                yield {result: result_value(view), made: made_for}
        except ClasError as error:
            warn(error, "That can't be done")

    Stoppable(run, stop).on(
        partial(gr.on, [run.click, prompt.submit]),
        generate,
        [prompt, control, key, *controls.all],
        [result, made],
        concurrency_limit=4,
    )

    again: dict[str, Any] = {"queue": False, "trigger_mode": "always_last"}
    example.select(lambda k, c: take(k, c, 0), [key, example], [prompt, count], **again)
    another.click(
        lambda k, c, n: take(k, c, n + 1), [key, example, count], [prompt, count], **again
    )

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
        intro, example, prompt, fold, sees, another, result, taken, count, control, taken_for, made
    )


def _about(studio: Studio) -> str:
    return f"{ABOUT}\n\n{studio.verdict}"


def _opening(studio: Studio) -> str:
    """The language that the tab opens with."""
    return (studio.first_screen or {}).get("language", studio.fallback)


def first_prompt(studio: Studio) -> str:
    """The prompt that the tab opens with."""
    stored = (studio.first_screen or {}).get("prompt")
    return stored or _nth(studio, _opening(studio), 0)


def _example_choices(studio: Studio) -> list[tuple[str, str]]:
    return [(get_language(c).native, c) for c in studio.example_codes[:MOST_EXAMPLES]]


def _nth(studio: Studio, code: Any, number: int) -> str:
    ready = studio.examples(code) if code in studio.codes else ()
    return ready[number % len(ready)] if ready else ""


def seen(studio: Studio, values: dict[str, Any]) -> str:
    """The prompt as the model reads it; empty for a model without a chat template."""
    if not studio.has_template:
        return ""
    try:
        text = studio.render(studio.recipe(values)).text
        return f'<pre class="seen">{escape(text)}</pre>'
    except ClasError as error:
        return f'<p class="note">{escape(str(error))}</p>'


def _first_result(studio: Studio, values: dict[str, Any]) -> tuple[str | None, str | None]:
    """The stored result where these values open with it, and what that is for."""
    stored = studio.first_screen or {}
    if "view" not in stored or values["prompt"] != stored["prompt"]:
        return result_value(NOTHING_YET), None
    start = {**studio.defaults(), "prompt": stored["prompt"]}
    return result_value(stored["view"]), _made_for(studio, studio.recipe(start), False)


def _made_for(studio: Studio, recipe: Recipe, control: bool) -> str:
    """What the panes are for, or without a control a link."""
    key = keys_of(studio, recipe, control)["steer"]
    return stamp_value(standing(key, words=f"For {asked_in_words(studio, recipe)}."))


def private_note(studio: Studio) -> Any:
    """Why a link to this model opens only here, as a note; hidden where it opens anywhere."""
    reason = studio.choice.private
    return gr.update(value=f'<p class="note">{escape(reason)}</p>', visible=bool(reason))
