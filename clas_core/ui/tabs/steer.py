"""The Steer tab: one prompt answered with and without steering, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from ...errors import ClasError
from ...text.languages import get_language
from ..behind.shelf import Shelf
from ..behind.stops import Stops
from ..behind.studio import Studio
from ..behind.views import View
from ..parts.components import result_panel
from ..parts.controls import NAMES, Controls, build_chat, named
from ..parts.markup import about_markup, markup

ABOUT = """The same model answers your prompt twice, in one pass. On the left it is left alone. On
the right, in its last layers, neurons that work for every language are turned up and neurons that
work for one language only are turned down, by the strength you choose; below zero it is the other
way round. Words that differ are marked. Even where the words are the same, the strip below shows
how far each next-word guess was moved. Nothing in the model itself is changed: set the strength to
Off and both sides are equal."""
MOST_EXAMPLES = 24  # languages that a row of buttons still shows well


@dataclass
class SteerTab:
    intro: gr.HTML
    example: gr.Radio
    prompt: gr.Textbox
    fold: gr.Accordion
    sees: gr.HTML
    another: gr.Button
    result: gr.HTML
    taken: list[Any]  # what was taken away
    count: gr.State
    describe: dict[str, Any]  # the arguments of the event that says what the settings reach

    def renew(self, studio: Studio, values: dict[str, Any]) -> dict[Any, Any]:
        """Updates for another model with these values; the prompt itself is left to the page."""
        code, prompt = _opening(studio), values["prompt"]
        choices = _example_choices(studio)
        stored = studio.first_screen or {}
        view = stored.get("view") if prompt == stored.get("prompt") else None
        return {
            self.intro: about_markup(_about(studio)),
            self.example: gr.update(
                choices=choices, value=code if choices else None, visible=bool(choices)
            ),
            self.fold: gr.update(visible=studio.has_template),
            self.sees: _seen(studio, values),
            self.another: gr.update(visible=bool(choices)),
            self.result: view or NOTHING_YET,
            **{box: gr.update(visible=False) for box in self.taken},
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
    studio, key = shelf.first, controls.key
    stops = Stops()
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
    result = result_panel((studio.first_screen or {}).get("view"), elem_id="result")
    with gr.Column(visible=False, elem_id="take-away") as take_away:
        gr.Markdown("### Take it away")
        with gr.Row():
            show_code = gr.Button("As Python code", elem_id="as-code", size="sm")
            show_link = gr.Button("As a link", elem_id="as-link", size="sm")
        code_box = gr.Code(language="python", label="Runs this recipe", visible=False)
        link = gr.Textbox(
            label="Opens this page with these settings", buttons=["copy"], visible=False,
            elem_id="link",
        )  # fmt: skip
        private = markup(visible=False, elem_id="private")

    count = gr.State(0)
    ticket = gr.Textbox(visible=False)  # a hidden box, as a State's value may be a later click's

    def take(key: Any, code: Any, number: int) -> tuple[Any, int]:
        try:
            return _nth(shelf.get(key), code, number), number
        except ClasError as error:
            gr.Warning(str(error))
            return gr.skip(), number

    def begin() -> tuple[Any, Any, str]:
        return gr.update(visible=False), gr.update(visible=True), stops.issue()

    def end() -> tuple[Any, Any]:
        return gr.update(visible=True), gr.update(visible=False)

    def generate(
        text: str, add: bool, ticket: str, key: Any, *values: Any
    ) -> Iterator[dict[str, Any]]:
        try:
            studio = shelf.get(key)
            recipe = studio.recipe({**named(values), "prompt": text})
            yield from studio.steer(recipe, bool(add), stops.event(ticket))
        except ClasError as error:
            gr.Warning(str(error), title="That can't be done")
        finally:
            stops.drop(ticket)

    started = gr.on(
        [run.click, prompt.submit],
        begin,
        None,
        [run, stop, ticket],
        show_progress="hidden",
        queue=False,
    )
    started.then(
        generate, [prompt, control, ticket, key, *controls.all], result, show_progress="hidden",
        concurrency_limit=4,
    ).then(end, None, [run, stop], show_progress="hidden", queue=False)  # fmt: skip

    def halt(ticket: str) -> tuple[Any, Any]:
        stops.stop(ticket)
        return end()

    stop.click(halt, ticket, [run, stop], queue=False, show_progress="hidden")

    def describe(text: str, key: Any, *values: Any) -> tuple[Any, str, Any]:
        try:
            studio = shelf.get(key)
            settings = {**named(values), "prompt": text}
            sentence = studio.language(settings["language"], text)[1]
            return sentence, studio.summary(studio.recipe(settings)), _seen(studio, settings)
        except ClasError as error:
            return gr.skip(), str(error), gr.skip()

    description: dict[str, Any] = {
        "fn": describe,
        "inputs": [prompt, key, *controls.all],
        "outputs": [controls.detected, controls.summary, sees],
        "show_progress": "hidden",
        "concurrency_limit": 4,
        "concurrency_id": "describe",
    }
    moves = [prompt.change, *controls.moves((*NAMES[:10], "chat", "system"))]
    gr.on(moves, **description, trigger_mode="always_last")
    example.select(lambda k, c: take(k, c, 0), [key, example], [prompt, count])
    another.click(lambda k, c, n: take(k, c, n + 1), [key, example, count], [prompt, count])

    def as_code(text: str, key: Any, *values: Any) -> Any:
        try:
            studio = shelf.get(key)
            code = studio.recipe({**named(values), "prompt": text}).to_python()
            return gr.update(value=code, visible=True), private_note(studio)
        except ClasError as error:
            gr.Warning(str(error))
            return gr.skip(), gr.skip()

    def as_link(text: str, key: Any, *values: Any) -> Any:
        try:
            studio = shelf.get(key)
            query = studio.recipe({**named(values), "prompt": text}).to_query()
            return gr.update(value=f"?{query}", visible=True), private_note(studio)
        except ClasError as error:
            gr.Warning(str(error))
            return gr.skip(), gr.skip()

    inputs = [prompt, key, *controls.all]
    show_code.click(as_code, inputs, [code_box, private], show_progress="hidden")
    show_link.click(as_link, inputs, [link, private], show_progress="hidden").then(
        None, link, link, js="(q) => location.origin + location.pathname + q.slice(q.indexOf('?'))"
    )
    controls.switch.change(
        lambda mode: [gr.update(visible=mode == "Lab")] * 2,
        controls.switch,
        [controls.lab, take_away],
        show_progress="hidden",
        queue=False,
    )
    taken = [code_box, link, private]
    return SteerTab(intro, example, prompt, fold, sees, another, result, taken, count, description)


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


def _seen(studio: Studio, values: dict[str, Any]) -> str:
    if not studio.has_template:
        return ""
    try:
        text = studio.render(studio.recipe(values)).text
        return f'<pre class="seen">{escape(text)}</pre>'
    except ClasError as error:
        return f'<p class="note">{escape(str(error))}</p>'


def private_note(studio: Studio) -> Any:
    reason = studio.choice.private
    return gr.update(value=f'<p class="note">{escape(reason)}</p>', visible=bool(reason))
