"""The Steer tab: one prompt answered with and without steering, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..errors import ClasError
from ..languages import get_language
from .components import result_panel
from .controls import NAMES, Controls, named
from .studio import Studio
from .text import about

ABOUT = """The same model answers your prompt twice, in one pass. On the left it is left alone. On
the right, in its last layers, neurons that work for every language are turned up and neurons that
work for one language only are turned down, by the strength you choose. Words that differ are
marked. Even where the words are the same, the strip below shows how far each next-word guess was
moved. Nothing in the model itself is changed: set the strength to Off and both sides are equal."""


@dataclass
class SteerTab:
    prompt: gr.Textbox
    result: gr.HTML
    control: gr.Checkbox


def build_steer(studio: Studio, controls: Controls) -> SteerTab:
    stored = studio.first_screen or {}
    code = stored.get("language", studio.fallback)
    ready = () if "prompt" in stored else studio.examples(code)
    about(f"{ABOUT}\n\n{studio.verdict}")
    choices = [(get_language(c).native, c) for c in studio.example_codes]
    example = gr.Radio(
        choices,
        value=code if choices else None,
        label="Take an example in",
        elem_id="example-languages",
        visible=bool(choices),
    )
    prompt = gr.Textbox(
        stored.get("prompt", ready[0] if ready else ""),
        label="Prompt",
        lines=3,
        max_lines=12,
        max_length=2000,
        elem_id="prompt",
        placeholder="Write a short story and a question about it …",
    )
    with gr.Row(elem_id="actions"):
        run = gr.Button("Generate", variant="primary", elem_id="generate")
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        another = gr.Button("Another example", elem_id="another", visible=bool(choices))
        control = gr.Checkbox(
            False, label="Add a random control", container=False, elem_id="control"
        )
    result = result_panel(stored.get("view"), elem_id="result")
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

    count = gr.State(0)
    example.select(lambda c: (_nth(studio, c, 0), 0), example, [prompt, count])
    another.click(lambda c, n: (_nth(studio, c, n + 1), n + 1), [example, count], [prompt, count])

    def begin() -> tuple[Any, Any]:
        return gr.update(visible=False), gr.update(visible=True)

    def end() -> tuple[Any, Any]:
        return gr.update(visible=True), gr.update(visible=False)

    def generate(
        text: str, add: bool, request: gr.Request, *values: Any
    ) -> Iterator[dict[str, Any]]:
        try:
            recipe = studio.recipe({**named(values), "prompt": text})
            yield from studio.steer(recipe, bool(add), request.session_hash or "")
        except ClasError as error:
            gr.Warning(str(error), title="That can't be done")

    # The request stands between the prompt and the values: Gradio finds it by its annotation.
    started = gr.on(
        [run.click, prompt.submit], begin, None, [run, stop], show_progress="hidden", queue=False
    )
    started.then(
        generate, [prompt, control, *controls.all], result, show_progress="hidden",
        concurrency_limit=4,
    ).then(end, None, [run, stop], show_progress="hidden", queue=False)  # fmt: skip

    def halt(request: gr.Request) -> None:
        studio.stop(request.session_hash or "")

    stop.click(halt, None, None, queue=False, show_progress="hidden")

    def describe(text: str, *values: Any) -> tuple[str, str]:
        try:
            settings = {**named(values), "prompt": text}
            sentence = studio.language(settings["language"], text)[1]
            return sentence, studio.summary(studio.recipe(settings))
        except ClasError as error:
            return gr.skip(), str(error)  # type: ignore[return-value]

    gr.on(
        [prompt.change, *controls.changes(NAMES[:10])],
        describe,
        [prompt, *controls.all],
        [controls.detected, controls.summary],
        trigger_mode="always_last",
        show_progress="hidden",
        concurrency_limit=4,
    )

    def as_code(text: str, *values: Any) -> Any:
        try:
            code = studio.recipe({**named(values), "prompt": text}).to_python()
            return gr.update(value=code, visible=True)
        except ClasError as error:
            gr.Warning(str(error))
            return gr.skip()

    def as_link(text: str, *values: Any) -> Any:
        try:
            query = studio.recipe({**named(values), "prompt": text}).to_query()
            return gr.update(value=f"?{query}", visible=True)
        except ClasError as error:
            gr.Warning(str(error))
            return gr.skip()

    show_code.click(as_code, [prompt, *controls.all], code_box, show_progress="hidden")
    show_link.click(as_link, [prompt, *controls.all], link, show_progress="hidden").then(
        None, link, link, js="(q) => location.origin + location.pathname + q.slice(q.indexOf('?'))"
    )
    controls.switch.change(
        lambda mode: [gr.update(visible=mode == "Lab")] * 2,
        controls.switch,
        [controls.lab, take_away],
        show_progress="hidden",
        queue=False,
    )
    return SteerTab(prompt, result, control)


def _nth(studio: Studio, code: Any, number: int) -> str:
    ready = studio.examples(code) if code in studio.codes else ()
    return ready[number % len(ready)] if ready else ""
