"""Components of our own: a Plotly panel, the strength slider, the result of a steering, a fold.

Each is a `gr.HTML` with a fixed template whose value is data: the JavaScript beside it fills the
template by `textContent`, so nothing that a model says is ever read as markup. (Plain functions,
as subclassing a component makes Gradio write a file beside this one.)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from plotly import graph_objects as go

from .plotly_file import PLOTLY_JS

_STATIC = Path(__file__).parent / "static"


def plotly_panel(*, height: int, replay: str = "", **options: Any) -> gr.HTML:
    """A Plotly figure that keeps its zoom, glides when told to, and tells what was clicked.

    Its value is made by `figure_value`. `.select(f)`: f gets a `gr.EventData` whose `_data` has
    trace, x, y and key (the point's customdata). `replay`: label of a button that glides again.
    """
    library = escape(f"gradio_api/file={PLOTLY_JS}", quote=True)
    button = f'<button type="button" class="plotly-panel-replay" hidden>{replay}</button>'
    return _scripted(
        "plotly_panel.js",
        # In the markup, for properties of a panel that is updated before it is shown are lost.
        f'<div class="plotly-panel" style="--height: {height}px" data-library="{library}">'
        f'<div class="plotly-panel-plot" role="img"></div>{button if replay else ""}</div>',
        None,
        **options,
    )


def figure_value(
    figure: go.Figure, description: str, start: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """What a `plotly_panel` shows. `description` is for those who don't see it.

    `start` lists {"trace", "x", "y"}: the positions from which these traces glide.
    """
    return {**json.loads(figure.to_json()), "description": description, "start": list(start)}


def strength_slider(
    value: float,
    *,
    low: float,
    high: float,
    step: float,
    marks: Sequence[dict[str, Any]],
    **options: Any,
) -> gr.HTML:
    """A wide slider with labelled marks: dicts of value, label, kind and title."""
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
        **options,
    )


def result_panel(value: dict[str, Any] | None, **options: Any) -> gr.HTML:
    """Panes side by side and what steering did; its values are what `views.steer_view` returns."""
    return _scripted(
        "result.js",
        '<div class="result"><div class="result-panes"></div>'
        '<p class="result-sentence" role="status"></p>'
        '<dl class="result-facts"></dl><div class="result-strip"></div></div>',
        value,
        **options,
    )


def fold_button(label: str, target: str) -> gr.HTML:
    """A button for phones that adds the class `open` to `target` (a selector), or takes it off."""
    return gr.HTML(
        f'<button type="button" class="fold" aria-expanded="false">{escape(label)}</button>',
        js_on_load=(_STATIC / "fold.js").read_text("utf-8"),
        apply_default_css=False,
        target=target,
        elem_id="fold",
    )


def _scripted(script: str, template: str, value: Any, **options: Any) -> gr.HTML:
    return gr.HTML(
        value,
        html_template=template,
        js_on_load=(_STATIC / script).read_text("utf-8"),
        apply_default_css=False,
        **options,
    )
