"""The Map tab: where the sentences of all languages lie, before and after steering."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from ..clusters import Separation
from ..errors import ClasError
from ..figures import map_figure, map_start
from ..languages import get_language
from .components import figure_value, plotly_panel
from .controls import STEERING, Controls, named
from .mapper import MapResult
from .studio import Studio
from .text import about, in_language, markup, table, title

ABOUT = """Each mark is one sentence, as the model holds it in mind at the chosen layer. Every
sentence is there once in each language, with the same meaning. Marks that lie close are alike to
the model; colour and shape tell the language. The faint dots are the model left alone, the solid
marks are where steering moves them, in the same unchanged map. A flat map can only hint at a space
of hundreds of dimensions, so the scores beside it are computed in the full space. Click a mark to
find its translations."""

SCORES = (
    ("Silhouette", "how clearly languages form groups, −1 to 1", "silhouette"),
    ("Centroid ratio", "distance between groups over their width", "centroid_ratio"),
    ("Neighbours of the same language", "among the 10 nearest", "knn_purity"),
    ("Translations found", "nearest English sentence means the same", "mean_retrieval"),
)
WARMING = "The map is getting ready (some seconds, once): this is a first sketch of it."


def build_map(studio: Studio, controls: Controls, prompt: gr.Textbox, tab: gr.State) -> Any:
    """Builds the tab; returns the callback's event arguments for the page to call at opening."""
    about(ABOUT)
    with gr.Row(elem_classes="two"):
        with gr.Column(scale=5, elem_id="map-card", min_width=300):
            panel = plotly_panel(height=560, replay="▶ Replay the move", elem_id="map")
            parallels = markup(_parallels(studio, None), elem_id="parallels")
        with gr.Column(scale=3, min_width=260):
            layer = gr.Slider(
                0, studio.num_layers, studio.num_layers, step=1, label="Layer", elem_id="map-layer",
                info=f"0: the words alone; {studio.num_layers}: just before the next word is said",
            )  # fmt: skip
            scores = markup(elem_id="scores")
            note = markup(elem_id="map-note")
    chosen = gr.State(None)

    def redraw(open_tab: str, at: Any, group: Any, text: str, *values: Any) -> Iterator[Any]:
        if open_tab != "map":
            yield gr.skip(), gr.skip(), gr.skip()
            return
        try:
            recipe = studio.recipe({**named(values), "prompt": text})
            at = int(at) if isinstance(at, (int, float)) and at == at else studio.num_layers
            plan = studio.plan(recipe)
            result = studio.mapper.compute(plan, at, patient=False)
            yield _shown(studio, result, group)
            if result.provisional:
                yield _shown(studio, studio.mapper.compute(plan, at), group)
        except ClasError as error:
            yield gr.skip(), gr.skip(), f'<p class="note">{escape(str(error))}</p>'

    arguments = {
        "fn": redraw,
        "inputs": [tab, layer, chosen, prompt, *controls.all],
        "outputs": [panel, scores, note],
        "show_progress": "hidden",
        "trigger_mode": "always_last",
        "concurrency_limit": 2,
        "concurrency_id": "map",
    }
    gr.on([layer.change, *controls.changes(STEERING)], **arguments)

    def choose(event: gr.EventData) -> tuple[Any, Any]:
        key = event._data.get("key") if isinstance(event._data, dict) else None
        known = isinstance(key, int) and 0 <= key < len(studio.mapper.corpus)
        group = key if known else None
        return group, _parallels(studio, group)

    panel.select(choose, None, [chosen, parallels], show_progress="hidden").then(**arguments)
    return arguments


def _shown(studio: Studio, result: MapResult, group: Any) -> tuple[Any, str, str]:
    mapper = studio.mapper
    figure = map_figure(
        result.before, result.after, mapper.labels, mapper.groups, mapper.texts, mapper.english,
        group if isinstance(group, int) else None,
    )  # fmt: skip
    value = figure_value(
        figure,
        "Map of sentences by language, before and after steering; the table says it in numbers.",
        map_start(result.before, mapper.labels),
    )
    note = WARMING if result.provisional else result.note
    return value, _scores(*result.scores), f'<p class="note">{escape(note)}</p>' if note else ""


def _scores(before: Separation, after: Separation) -> str:
    rows = []
    for name, help_, attribute in SCORES:
        old, new = getattr(before, attribute), getattr(after, attribute)
        change = new - old
        side = "up" if change > 0.0005 else "down" if change < -0.0005 else ""
        sign = {"up": "▲ ", "down": "▼ "}.get(side, "")
        text = f"{change:+.3f}".replace("-", "−") if side else "0"
        rows.append(
            (
                f"{escape(name)}<small>{escape(help_)}</small>",
                f"{old:.3f}".replace("-", "−"),
                f"{new:.3f}".replace("-", "−"),
                f'<span class="{side}">{sign}{text}</span>',
            )
        )
    heading = title("Scores in the full space", "never from the picture")
    return heading + table(("", "before", "after", "change"), rows)


def _parallels(studio: Studio, group: int | None) -> str:
    if group is None:
        return '<p class="quiet">Click a mark to see the sentence in every language.</p>'
    corpus = studio.mapper.corpus
    items = "".join(
        f"<li><span>{escape(get_language(code).native)}</span>"
        f"{in_language(corpus.sentences[code][group], code)}</li>"
        for code in corpus.languages
    )
    return title("The same sentence") + f'<ul class="parallels">{items}</ul>'
