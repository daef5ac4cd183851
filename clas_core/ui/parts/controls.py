"""The controls at the side, shared by all tabs.

Number boxes have no limits of their own: `behind.inputs` refuses what is out of range, in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...steering.methods import OTHERS
from ...text.languages import get_language
from ..behind import inputs
from ..behind.goals import GOALS, goal_of, zones
from ..behind.saying import Saying
from ..behind.standing import keys_of
from ..behind.stored import STEP
from ..behind.studio import Studio
from .components import strength_slider
from .markup import markup

# Every control that makes a recipe, in the order in which callbacks get them.
NAMES = (
    "strength", "language", *inputs.STEERED_BY, "temperature", "length", "seed", "chat", "system",
)  # fmt: skip
# For events with all of them. Gradio would hand every value to another thread, for its component to
# check and convert, which takes longer than the event itself; `behind.inputs` checks them anyway.
AS_SENT: dict[str, Any] = {"preprocess": False, "postprocess": False}
STEERING = NAMES[: NAMES.index("temperature")]  # what changes the map, but for `where`
IN_LAB = NAMES[1 : NAMES.index("chat")]  # set in the Lab, the language beside it
BY_METHOD = ("beta", "gamma", "specific", "source", "units", "ranking")  # that not all of them read


@dataclass
class Composing:
    """What lets another steering act after the one that is set. `first` holds what acts first."""

    first: gr.Textbox
    add: gr.Button
    remove: gr.Button


@dataclass
class Controls:
    """The components by name, and what shows their state. `key` holds the visitor's model."""

    key: gr.State
    by_name: dict[str, Any]
    detected: gr.HTML
    summary: gr.HTML
    switch: gr.Radio
    lab: gr.Column
    reset: gr.Button
    composing: Composing

    @property
    def all(self) -> list[Any]:
        """The components in the order of `NAMES`."""
        return [self.by_name[name] for name in NAMES]

    def renew(self, studio: Studio, values: dict[str, Any]) -> dict[Any, Any]:
        """Updates for another model: its ranges, and these values but the system prompt's."""
        more: dict[str, dict[str, Any]] = {
            "strength": scale(studio, values),
            "language": {
                "choices": _languages(studio),
                "label": GOALS[goal_of(values)].language,
            },
            "shared_from": _shared_range(studio),
            "source": {"choices": _sources(studio)},
            "units": _units_range(studio),
            "from_token": {"visible": values["where"] == "answer"},
            "chat": {"visible": studio.has_template},
            "system": {"visible": studio.has_template and values["chat"]},
        }
        for name in BY_METHOD:
            more.setdefault(name, {})["visible"] = inputs.is_read(name, values["method"])
        boxes = {name: {"value": values[name]} for name in NAMES if name != "system"}
        return {
            self.by_name[name]: gr.update(**{**boxes.get(name, {}), **more.get(name, {})})
            for name in NAMES
        }

    def moves(self, names: tuple[str, ...]) -> list[Any]:
        """Events of a visitor's moves.

        What the page itself sets is followed where it is set, as the changes would come one by one
        with a mixture of old and new values. Text boxes, which miss a paste otherwise, are heard
        at every change; the page sets them after all else.
        """
        components = [self.by_name[name] for name in names if name != "first"]  # by a button alone
        return [c.change if isinstance(c, gr.Textbox) else c.input for c in components]


def named(values: tuple[Any, ...]) -> dict[str, Any]:
    """Callback arguments back into a dictionary."""
    return dict(zip(NAMES, values))


def build_controls(studio: Studio, key: gr.State, prompt: str) -> Controls:
    """Draw all settings of the Lab at the studio's defaults; `key` holds which studio it is, and
    `prompt` is what the page opens with."""
    start = studio.defaults()
    made: dict[str, Any] = {}
    made["strength"] = strength_slider(
        start["strength"],
        low=inputs.ALPHA[0],
        high=inputs.ALPHA[1],
        step=0.05,
        **scale(studio, {**start, "prompt": prompt}),
        elem_id="strength",
    )
    summary = markup(elem_classes="summary", elem_id="summary")
    made["language"] = gr.Dropdown(
        _languages(studio),
        value=inputs.AUTO,
        label=GOALS[goal_of(start)].language,
        elem_id="language",
    )
    detected = markup(elem_classes="summary", elem_id="detected")
    made["source"] = gr.Dropdown(
        _sources(studio), value=start["source"], label="Away from", elem_id="source"
    )
    switch = gr.Radio(
        ["Explore", "Lab"], value="Explore", show_label=False, container=False, elem_id="switch"
    )
    with gr.Column(visible=False, elem_id="lab") as lab:
        _steering(studio, start, made)
        composing = _composing(start, made)
        _sampling(studio, start, made)
        reset = gr.Button("Back to the defaults", size="sm", elem_id="reset")
    for name in BY_METHOD:
        made[name].visible = inputs.is_read(name, start["method"])
    made["method"].change(
        lambda method: [gr.update(visible=inputs.is_read(name, method)) for name in BY_METHOD],
        made["method"],
        [made[name] for name in BY_METHOD],
        show_progress="hidden",
        queue=False,
    )
    made["where"].change(
        lambda where: gr.update(visible=where == "answer"),
        made["where"],
        made["from_token"],
        show_progress="hidden",
        queue=False,
    )
    return Controls(key, made, detected, summary, switch, lab, reset, composing)


def _shared_range(studio: Studio) -> dict[str, Any]:
    """Of two languages there is nothing to choose, and no slider from 2 to 2 in Gradio."""
    languages = len(studio.codes)
    return {"maximum": max(3, languages), "visible": languages > 2}


def _units_range(studio: Studio) -> dict[str, Any]:
    """From two units on, all of a model's being the most."""
    return {"minimum": 2, "maximum": max(3, studio.units)}


def _sources(studio: Studio) -> list[tuple[str, str]]:
    own = [("What the method takes by itself", inputs.AUTO), ("The mean of all others", OTHERS)]
    return [*own, *map(_language_choice, studio.codes)]


def _steering(studio: Studio, start: dict[str, Any], made: dict[str, Any]) -> None:
    made["method"] = gr.Dropdown(
        [(short, name) for name, (short, _) in inputs.METHODS.items()],
        value=start["method"],
        label="Method",
        elem_id="method",
    )
    with gr.Row():
        made["beta"] = gr.Number(start["beta"], label="β, shared", step=0.05, min_width=100)
        made["gamma"] = gr.Number(start["gamma"], label="γ, specific", step=0.05, min_width=100)
    made["tau"] = gr.Slider(
        0, 1, start["tau"], step=0.01, label="Activation threshold τ", elem_id="tau",
        info="A neuron is active in a language if it fires on at least this share of tokens",
    )  # fmt: skip
    made["shared_from"] = gr.Slider(
        2, value=start["shared_from"], step=1, label="Shared from … languages",
        info="β reaches neurons that are active in at least so many", elem_id="shared-from",
        **_shared_range(studio),
    )  # fmt: skip
    made["specific"] = gr.Radio(
        [(text, name) for name, text in inputs.SPECIFIC.items()],
        value=start["specific"],
        label="γ reaches neurons specific to",
    )
    made["units"] = gr.Slider(
        value=start["units"], step=1, label="Number of units", elem_id="units",
        info="Those that tell the language best, of all neurons in the layers",
        **_units_range(studio),
    )  # fmt: skip
    made["ranking"] = gr.Radio(
        [(text, name) for name, text in inputs.UNITS.items()],
        value=start["ranking"],
        label="Units whose activation tells the language",
    )
    made["where"] = gr.Radio(
        [(text.capitalize(), name) for name, text in inputs.WHERE.items()],
        value=start["where"],
        label="Steer",
        elem_id="where",
    )
    made["from_token"] = gr.Number(
        start["from_token"], label="The answer from its … token on", precision=0, min_width=100,
        visible=start["where"] == "answer", elem_id="from-token",
    )  # fmt: skip
    with gr.Row():
        for name, label in (
            ("first_layer", "Bridge: first layer, from 1"),
            ("last_layer", "last one, included"),
        ):
            made[name] = gr.Number(
                start[name], label=label, precision=0, min_width=100,
                elem_id=name.replace("_", "-"),
            )  # fmt: skip


def _composing(start: dict[str, Any], made: dict[str, Any]) -> Composing:
    first = made["first"] = gr.Textbox(start["first"], visible="hidden", elem_id="first")
    with gr.Row():
        add = gr.Button("Let another act after this", size="sm", elem_id="compose")
        remove = gr.Button("Take the last back", size="sm", visible=False, elem_id="decompose")
    first.change(
        lambda text: gr.update(visible=bool(text)), first, remove,
        show_progress="hidden", queue=False,
    )  # fmt: skip
    return Composing(first, add, remove)


def _sampling(studio: Studio, start: dict[str, Any], made: dict[str, Any]) -> None:
    made["temperature"] = gr.Slider(
        0, 2, start["temperature"], step=0.05, label="Temperature", info="0 is greedy"
    )
    with gr.Row():
        made["length"] = gr.Number(
            start["length"], label="Length, tokens", precision=0, min_width=100, elem_id="length"
        )
        made["seed"] = gr.Number(
            start["seed"], label="Seed", precision=0, min_width=100, elem_id="seed"
        )


def build_chat(studio: Studio, controls: Controls) -> None:
    """The chat template's switch and the system prompt; hidden for models without one."""
    start = studio.defaults()
    chat = controls.by_name["chat"] = gr.Checkbox(
        start["chat"], label="Chat template: ask in the form that the model was trained on",
        visible=studio.has_template, container=False, elem_id="chat",
    )  # fmt: skip
    system = controls.by_name["system"] = gr.Textbox(
        start["system"], label="System prompt", max_lines=4, max_length=2000, elem_id="system",
        placeholder="None of your own", visible=studio.has_template and start["chat"],
    )  # fmt: skip
    chat.change(
        lambda on: gr.update(visible=bool(on)), chat, system, show_progress="hidden", queue=False
    )


def _languages(studio: Studio) -> list[tuple[str, str]]:
    return [("Detect from the prompt", inputs.AUTO), *map(_language_choice, studio.codes)]


def scale(studio: Studio, values: dict[str, Any]) -> dict[str, Any]:
    """The slider's marks, the words it says and its step in Explore, under these settings."""
    code = studio.language(values["language"], values["prompt"])[0]
    known = zones(studio, code, values)
    return {
        "marks": _marks(studio, values, known),
        "zones": known
        and {"steps": known.steps, "key": keys_of(studio, studio.recipe(values))["curves"]},
        "coarse": STEP if studio.stored else None,
    }


def _marks(studio: Studio, values: dict[str, Any], known: Saying | None) -> list[dict[str, Any]]:
    low, high = inputs.ALPHA
    far = {"value": low, "label": "−1", "kind": "end-low", "title": "Steer the other way"}
    off = {"value": 0.0, "label": "Off", "kind": "off", "title": "The model as it is"}
    marks: list[dict[str, Any]] = [far, off]
    best = studio.best_measured(values)
    if best is not None:
        strength, sentence = best
        marks.append({"value": strength, "label": "best", "kind": "best", "title": sentence})
    if known is not None:
        names = ("value", "label", "kind", "title")
        marks += [dict(zip(names, mark)) for mark in known.marks]
        far["label"] = "other way"
    elif best is None:
        default = studio.defaults()["strength"]
        if default:
            title = "Default strength"
            marks.append({"value": default, "label": "Default", "kind": "default", "title": title})
        collapse = studio.collapse
        if studio.stored is None and collapse is not None and low < collapse <= high:
            title = "From here on true answers are less than half as likely (measured)"
            marks.append({"value": collapse, "label": "Breaks", "kind": "collapse", "title": title})
    if all(mark["value"] < high - 0.5 for mark in marks):
        marks.append({"value": high, "label": "2", "kind": "end-high", "title": "Strongest"})
    return marks


def _language_choice(code: str) -> tuple[str, str]:
    language = get_language(code)
    same = language.native == language.name
    return (language.native if same else f"{language.native} · {language.name}", code)
