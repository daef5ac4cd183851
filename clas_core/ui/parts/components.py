"""Components of our own: a Plotly panel, the strength slider, the result of a steering and what is
stored of it, a fold, what is set now and what a result is for.

Each is a `gr.HTML` with a fixed template whose value is data: the JavaScript beside it fills the
template by `textContent`, so nothing that a model says is ever read as markup. Data of more than
one part goes as one string of JSON: Gradio sends a stream's changes alone, and gets lists in lists
wrong where one becomes shorter. (Plain functions, as subclassing a component makes Gradio write a
file beside this one.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from plotly import graph_objects as go

from ..behind.views import View
from ..behind.words import PALETTE
from .plotly_file import PLOTLY_JS

_KEYS = "Arrow keys go from mark to mark, Enter chooses."
_STATIC = Path(__file__).parent / "static"


def plotly_panel(*, height: int, replay: str = "", wheel: bool = False, **options: Any) -> gr.HTML:
    """A Plotly figure that keeps its zoom, glides when told to, and tells what was clicked.

    Its marks are reached by arrow keys too: each is spoken as its hover says it, and Enter clicks.

    Its value is made by `figure_value`. `.select(f)`: f gets a `gr.EventData` whose `_data` has
    trace, x, y and key (the point's customdata). `replay`: label of a button that glides again.
    `wheel`: a mouse wheel zooms.
    """
    library = escape(f"gradio_api/file={PLOTLY_JS}", quote=True)
    button = f'<button type="button" class="plotly-panel-replay" hidden>{replay}</button>'
    return _scripted(
        "plotly_panel.js",
        # In the markup, for properties of a panel that is updated before it is shown are lost.
        f'<div class="plotly-panel" style="--height: {height}px" data-library="{library}"'
        f"{' data-wheel' if wheel else ''}>"
        '<div class="plotly-panel-plot" role="application" tabindex="0"></div>'
        f'<p class="plotly-panel-keys">{_KEYS}</p><p class="plotly-panel-said" role="status"></p>'
        f"{button if replay else ''}</div>",
        None,
        **options,
    )


def figure_value(figure: go.Figure, description: str, start: Sequence[dict[str, Any]] = ()) -> str:
    """What a `plotly_panel` shows. `description` is for those who don't see it.

    `start` lists {"trace", "x", "y"}: the positions from which these traces glide.
    """
    about = json.dumps({"description": description, "start": list(start)})
    return f"{figure.to_json()[:-1]},{about[1:]}"


def strength_slider(
    value: float,
    *,
    low: float,
    high: float,
    step: float,
    marks: Sequence[dict[str, Any]],
    zones: Mapping[str, Any] | None = None,
    coarse: float | None = None,
    **options: Any,
) -> gr.HTML:
    """A wide slider with labelled marks: dicts of value, label, kind and title.

    `zones`: {steps, key}, the words that it says, each from a strength on, while the steering of
    that key is set; without any it says numbers. `coarse`: its step while the Lab is closed.
    """
    return _scripted(
        "strength.js",
        '<div class="strength"><div class="strength-head">'
        '<label for="strength-range">Strength</label><output></output></div>'
        '<input id="strength-range" type="range"><div class="strength-scale"></div></div>',
        value,
        low=low,
        high=high,
        step=step,
        marks=list(marks),
        zones=zones,
        coarse=coarse,
        **options,
    )


def result_value(view: View | None) -> str | None:
    """What a `result_panel` shows, of what `views.steer_view` returns."""
    return None if view is None else json.dumps(view)


def result_panel(value: str | None, **options: Any) -> gr.HTML:
    """Panes side by side and what steering did; its values are made by `result_value`."""
    return _scripted(
        "result.js",
        '<div class="result"><div class="result-panes"></div><p class="result-story"></p>'
        '<p class="result-sentence" role="status"></p><div class="result-notice" hidden></div>'
        '<section class="result-bars" hidden></section>'
        '<section class="result-parting" hidden></section>'
        '<div class="in-lab"><p class="result-measured"></p>'
        '<dl class="result-facts"></dl><div class="result-strip"></div></div></div>',
        value,
        palette=PALETTE,
        **options,
    )


def stored_panel(value: str, **options: Any) -> gr.HTML:
    """Holds the answers that need no run, for `result_panel` to show; all that is seen of it is a
    button that lets the strength sweep over them once more. Its values are made by `stored_value`.
    """
    button = '<button type="button" class="sweep-again" hidden>▶ Watch the strength go up</button>'
    return _scripted("stored.js", button, value, **options)


def stored_value(cells: Mapping[str, Any], sweep: float | None = None) -> str:
    """Stored answers, and how far the strength sweeps over them once at opening, if it does."""
    return json.dumps({"cells": cells, "sweep": sweep}, ensure_ascii=False)


def curves_panel(value: str, **options: Any) -> gr.HTML:
    """Two small plots over strength, which follow the slider and the prompt's language; its values
    are made by `curves_value`. `.input` once that language is another: `window.clasSpoken`."""
    return _scripted(
        "curves.js",
        '<div class="curves" hidden><div class="curves-body"></div><p class="curves-said"></p>'
        '<p class="curves-key"></p></div>',
        value,
        **options,
    )


def curves_value(curves: Sequence[Mapping[str, Any]]) -> str:
    """What a `curves_panel` shows, of what `first.curves` returns."""
    return json.dumps(curves, separators=(",", ":"))


def now_panel(value: str, **options: Any) -> gr.HTML:
    """Not seen: holds what is set now, for the stamps to compare, and for a reload to find.

    Its values are made by `now_value`.
    """
    return _scripted("now.js", "<span hidden></span>", value, **options)


def now_value(keys: Mapping[str, str], kept: Mapping[str, Any] | None = None) -> str:
    """The keys of what is set now, and what a reload is to find again."""
    return json.dumps({"keys": keys, "kept": kept})


def stamp(kind: str, otherwise: str, value: str | None = None) -> gr.HTML:
    """A line that says what a kind of result is for. While that isn't what is set now, it says
    `otherwise` too, and the style sheet dims the results.

    `kind`: which of the keys in `now_value` is compared. Its values are made by `stamp_value`.
    """
    return _scripted(
        "stamp.js",
        # In the markup, as with panels.
        f'<p class="stamp" data-kind="{kind}" hidden>'
        f"<span></span> <b hidden>{escape(otherwise)}</b></p>",
        value,
        elem_id=f"{kind}-stamp",
    )


def stamp_value(standing: Mapping[str, Any]) -> str:
    """What a `stamp` says, of what `standing.standing` returns."""
    return json.dumps(standing)


def fold_button(label: str, target: str) -> gr.HTML:
    """A button for phones that adds the class `open` to `target` (a selector), or takes it off."""
    return gr.HTML(
        f'<button type="button" class="fold" aria-expanded="false">{escape(label)}</button>',
        js_on_load=(_STATIC / "fold.js").read_text("utf-8"),
        apply_default_css=False,
        target=target,
        elem_id="fold",
    )


def keyboard() -> gr.HTML:
    """Not seen: arrows between tabs and choices, Ctrl+Enter, and a focus that isn't lost."""
    return _scripted("keyboard.js", "<span hidden></span>", None, elem_id="keyboard")


def _scripted(script: str, template: str, value: Any, **options: Any) -> gr.HTML:
    return gr.HTML(
        value,
        html_template=template,
        js_on_load=(_STATIC / script).read_text("utf-8"),
        apply_default_css=False,
        **options,
    )
