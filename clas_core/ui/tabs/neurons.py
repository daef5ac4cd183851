"""The Neurons tab: which neurons belong to one language, which to all, live with the thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from plotly import graph_objects as go
from torch import Tensor

from ...errors import ClasError
from ...model.architecture import Experts
from ...steering.recipe import Recipe
from ...text.languages import get_language
from ..behind.shelf import Shelf
from ..behind.standing import UNKNOWN, keys_of, standing
from ..behind.studio import Studio
from ..parts.components import figure_value, plotly_panel, stamp, stamp_value
from ..parts.controls import AS_SENT, Controls, named
from ..parts.figures import (
    CATEGORY_COLOURS,
    CATEGORY_NAMES,
    category_bars,
    layer_mosaic,
    overlap_heatmap,
)
from ..parts.markup import about, in_language, markup, table, title

ABOUT = """Inside each layer are hundreds of neurons. For every language we counted on which share
of words a neuron fires. Above the threshold τ it counts as active there. A neuron that is active in
one language only is language-specific, one that is active in all (or as many as you say) is shared,
one that is active nowhere is rarely used. Steering acts on the shared and the specific ones of the
bridge layers. Move the thresholds in the Lab and watch the neurons change sides."""

TRIGGERS = ("tau", "shared_from", "first_layer", "last_layer")


MOST_TILES = 16_384  # of a layer's neurons shown at once; tiles of more can't be clicked


@dataclass
class NeuronsTab:
    """`recount`: the arguments of the event that fills the tab, for the page to call at opening and
    at `moves`."""

    moves: list[Any]
    recount: dict[str, Any]
    layer: gr.Number
    neuron: gr.Number

    def renew(self, studio: Studio) -> dict[Any, Any]:
        """Updates for another model."""
        return {self.layer: studio.num_layers, self.neuron: 0}


def build_neurons(
    shelf: Shelf, controls: Controls, prompt: gr.Textbox, tab: gr.State
) -> NeuronsTab:
    """Build the tab inside the page's blocks; what other tabs need of it."""
    studio, key = shelf.first, controls.key
    about(ABOUT)
    made = stamp("neurons", "Updating …")
    with gr.Column(elem_id="neuron-cards"):
        panels = _build_cards(studio)
    bars, overlap, mosaic, heading, layer, neuron, details = panels

    def show(open_tab: str, at: Any, index: Any, text: str, key: Any, *values: Any) -> Any:
        if open_tab != "neurons":
            return {bars: gr.skip()}
        mine = UNKNOWN["neurons"]
        try:
            studio = shelf.get(key)
            recipe = studio.recipe({**named(values), "prompt": text})
            mine = keys_of(studio, recipe)["neurons"]
            layer_at, neuron_at, words = _chosen(studio, at, index)
            shown = views(studio, recipe, layer_at, neuron_at)
            return {
                **dict(zip((bars, overlap, mosaic, heading, details), shown)),
                # What was typed stays, unless it is out of range.
                layer: gr.skip() if layer_at == at else layer_at,
                neuron: gr.skip() if neuron_at == index else neuron_at,
                made: stamp_value(standing(mine, words=words)),
            }
        except ClasError as error:
            return {made: stamp_value(standing(mine, words=str(error), unfinished=True))}

    arguments = {
        "fn": show,
        "inputs": [tab, layer, neuron, prompt, key, *controls.all],
        "outputs": [bars, overlap, mosaic, heading, details, layer, neuron, made],
        "show_progress": "hidden",
        "concurrency_limit": 4,
        "concurrency_id": "neurons",
        **AS_SENT,
    }
    moves = [layer.input, neuron.input, *controls.moves(TRIGGERS)]

    def click_bar(event: gr.EventData) -> Any:
        return _clicked(event, "x")

    def click_tile(event: gr.EventData) -> Any:
        return _clicked(event, "key")

    bars.select(click_bar, None, layer, show_progress="hidden").then(**arguments)
    mosaic.select(click_tile, None, neuron, show_progress="hidden").then(**arguments)
    return NeuronsTab(moves, arguments, layer, neuron)


def _build_cards(studio: Studio) -> tuple[Any, ...]:
    """Three figures, a heading, the numbers of a layer and a neuron, and its table."""
    with gr.Row(elem_classes="two"):
        with gr.Column(elem_classes="figure-card", min_width=280):
            markup(title("Neurons by layer", "click a bar to open its layer"))
            bars = plotly_panel(height=300, elem_id="bars")
            markup(_swatches())
        with gr.Column(elem_classes="figure-card", min_width=280):
            markup(title("What languages share", "active neurons in common, in the bridge layers"))
            overlap = plotly_panel(height=330, elem_id="overlap")
    with gr.Row(elem_classes="two"):
        with gr.Column(elem_classes="figure-card", min_width=280):
            heading = markup(elem_id="mosaic-title")
            mosaic = plotly_panel(height=340, elem_id="mosaic")
        with gr.Column(elem_classes="figure-card", min_width=280):
            with gr.Row():
                # Without limits of their own, which would refuse what is out of range.
                layer = gr.Number(
                    studio.num_layers, label="Layer, from 1", precision=0, min_width=90,
                    elem_id="neuron-layer",
                )  # fmt: skip
                neuron = gr.Number(
                    0, label="Neuron, from 0", precision=0, min_width=90, elem_id="neuron-number",
                )  # fmt: skip
            details = markup(elem_id="neuron")
    return bars, overlap, mosaic, heading, layer, neuron, details


def views(studio: Studio, recipe: Recipe, layer: int, neuron: int) -> list[Any]:
    """All that the tab shows: three figures, a heading, a neuron's table.

    `layer` counts from 1, `neuron` from 0; both are there.
    """
    at, index = layer - 1, neuron
    width = studio.atlas.widths[at]
    selection = studio.selection(recipe)
    counts = selection.counts()
    bridge = recipe.layers or (at, at + 1)
    shared = ", ".join(
        f"{n} {name}" for n, name in zip(counts[at].tolist(), CATEGORY_NAMES, strict=True)
    )
    return [
        figure_value(category_bars(counts, bridge, at), "Categories of neurons by layer"),
        figure_value(
            overlap_heatmap(selection.overlap(range(*bridge)), selection.languages),
            "Overlap between languages",
        ),
        figure_value(
            _mosaic(selection.category[at, :width], index),
            f"Neurons of layer {at + 1}: {shared}",
        ),
        title(
            f"Layer {at + 1} of {studio.num_layers}, neuron by neuron",
            f"{shared}; {_window(width, index)}",
        ),
        _details(studio, recipe, at, index),
    ]


def _mosaic(category: Tensor, index: int) -> go.Figure:
    """A layer's neurons as tiles; of a very wide layer, those about the chosen one."""
    first = index // MOST_TILES * MOST_TILES
    figure = layer_mosaic(category[first : first + MOST_TILES], index - first)
    tiles = figure.data[0]
    tiles.customdata = [[first + number for number in row] for row in tiles.customdata]
    return figure


def _window(width: int, index: int) -> str:
    """Which neurons the tiles are."""
    if width <= MOST_TILES:
        return "click one"
    first = index // MOST_TILES * MOST_TILES
    return f"here {first} to {min(first + MOST_TILES, width) - 1}; click one, or type a number"


def _whose(studio: Studio, layer: int, neuron: int) -> str:
    """Which expert a neuron is in; empty where a layer has none."""
    for mlp in studio.lm.mlps:
        if mlp.layer == layer and mlp.start <= neuron < mlp.start + mlp.neurons:
            if isinstance(mlp, Experts):
                return f", of expert {(neuron - mlp.start) // mlp.per_expert}"
            return ", of what all tokens pass" if mlp.start else ""
    return ""


def _details(studio: Studio, recipe: Recipe, layer: int, neuron: int) -> str:
    selection, atlas = studio.selection(recipe), studio.atlas
    category = CATEGORY_NAMES[selection.category[layer, neuron]]
    owner = int(selection.owner[layer, neuron])
    if owner >= 0:
        category = f"{get_language(selection.languages[owner]).name} only"
    rows = []
    for k, code in enumerate(atlas.languages):
        p, mu = atlas.probability[layer, k, neuron].item(), atlas.mean[layer, k, neuron].item()
        meter = (
            f'<span class="meter"><i style="width:{100 * p:.1f}%"></i>'
            f'<b style="left:{100 * recipe.tau:.1f}%"></b></span>'
        )
        active = "active" if selection.active[layer, k, neuron] else ""
        mean = _digits(mu, 3)
        rows.append(
            (
                escape(get_language(code).native),
                f'{meter}<span class="share">{p:.0%}</span>',
                mean,
                active,
            )
        )
    whose = _whose(studio, layer, neuron)
    heading = title(
        f"Layer {layer + 1} of {studio.num_layers}, neuron {neuron}{whose}: {category}",
        "the line is τ",
    )
    fired = "".join(
        f"<li><span>{_digits(one.value, 2)}</span>{in_language(one.text, one.code)}</li>"
        for one in studio.most_fired(layer, neuron)
    )
    below = title("Sentences that fire it most", "its highest value at any of their words")
    most = f'<div class="fired">{below}<ul class="parallels">{fired}</ul></div>' if fired else ""
    return heading + table(("", "fires on", "mean", ""), rows) + most


def _digits(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _clicked(event: gr.EventData, name: str) -> Any:
    value = event._data.get(name) if isinstance(event._data, dict) else None
    return value if isinstance(value, int) else gr.skip()


def _chosen(studio: Studio, layer: Any, neuron: Any) -> tuple[int, int, str]:
    """The layer (from 1) and neuron (from 0) to show, and a word where others were asked for."""
    at, first = _within("Layer", layer, 1, studio.num_layers)
    index, second = _within("Neuron", neuron, 0, studio.atlas.widths[at - 1] - 1)
    return at, index, f"{first}{second}".strip()


def _within(name: str, value: Any, low: int, high: int) -> tuple[int, str]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ClasError(f"{name} must be a whole number from {low} to {high}.")
    near = round(min(max(value, low), high))
    return near, "" if near == value else f"{name} {low} to {high} are there: this is {near}. "


def _swatches() -> str:
    pairs = zip(CATEGORY_COLOURS, CATEGORY_NAMES, strict=True)
    items = "".join(f'<span><i style="background:{c}"></i>{escape(n)}</span>' for c, n in pairs)
    return f'<div class="legend-swatches">{items}</div>'
