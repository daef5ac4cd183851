"""The Map tab: where the sentences of all languages lie, before and after steering."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from ...errors import ClasError
from ...running.separation import Separation
from ...steering.recipe import Recipe
from ...steering.where import ALL
from ...text.languages import get_language
from ..behind.mapper import MapResult
from ..behind.shelf import Shelf
from ..behind.standing import UNKNOWN, keys_of, standing, words_of
from ..behind.stops import Run
from ..behind.studio import Studio
from ..parts.components import figure_value, plotly_panel, stamp, stamp_value
from ..parts.controls import AS_SENT, STEERING, Controls, named
from ..parts.figures import layers_figure, map_figure, map_start
from ..parts.markup import about, in_language, line, markup, table, title, warn
from ..parts.stoppable import Stoppable

ABOUT = """Each mark is one sentence, as the model holds it in mind at the chosen layer. Every
sentence is there once in each language, with the same meaning. Marks that lie close are alike to
the model; colour and shape tell the language. The faint dots are the model left alone, the solid
marks are where steering moves them, in the same unchanged map. A flat map can only hint at a space
of hundreds of dimensions, so the scores beside it are computed in the full space. Click a mark, or
type a sentence, to find its translations. Play through the layers to see words turn into meaning
and back: early on, sentences lie by the language they are written in; in the middle many lie with
their translations; before the next word is said, languages part again."""

SCORES = (
    ("Silhouette", "how clearly languages form groups, −1 to 1", "silhouette"),
    ("Centroid ratio", "distance between groups over their width", "centroid_ratio"),
    ("Neighbours of the same language", "among the 10 nearest", "knn_purity"),
    ("Translations found", "nearest {anchor} sentence means the same", "mean_retrieval"),
)
CHOOSE = "Click a mark, or choose one with arrow keys and Enter: its translations appear here."
BLANK = '{"data": [], "layout": {"xaxis": {"visible": false}, "yaxis": {"visible": false}}}'
READING = "The model is reading the sentences; a large one takes a while, once."
BELOW = "Nothing moves at this layer: strength acts from layer {first} on."
PAUSE = 1.7  # seconds that a layer stays while all of them are played
WARMING = "The map is getting ready (some seconds, once): this is a first sketch of it."


@dataclass
class MapTab:
    """`redraw`: the arguments of the event that draws the map, for the page to call at opening and
    at `moves`."""

    moves: list[Any]
    redraw: dict[str, Any]
    panel: gr.HTML
    scores: gr.HTML
    note: gr.HTML
    stamp: gr.HTML
    layer: gr.Slider
    parallels: gr.HTML
    chosen: gr.State
    find: gr.Dropdown
    lines: gr.HTML
    told: gr.HTML
    below: gr.Row
    picked: list[Any]  # the events that choose a layer but by its slider

    def renew(self, studio: Studio, layer: int | None = None) -> dict[Any, Any]:
        """Updates for another model; `layer`: the one to open at, if it is asked for."""
        last = studio.num_layers
        at = studio.telling_layer if layer is None else layer
        return {
            self.panel: BLANK,
            self.scores: "",
            self.note: "",
            self.stamp: None,
            self.layer: gr.update(maximum=last, value=at, info=_layer_help(studio)),
            self.parallels: _parallels(studio, None),
            self.chosen: None,
            self.find: gr.update(choices=_sentences(studio), value=None),
            self.lines: BLANK,
            self.told: "",
            self.below: gr.update(visible=False),
        }


def build_map(shelf: Shelf, controls: Controls, prompt: gr.Textbox, tab: gr.State) -> MapTab:
    """Build the tab inside the page's blocks; what other tabs need of it."""
    studio, key = shelf.first, controls.key
    about(ABOUT)
    made = stamp("map", "Updating …")
    with gr.Row(visible=False, elem_id="map-reach") as below:
        unreached = markup()
        reach = gr.Button("Show that layer", size="sm")
    with gr.Row(elem_classes="two"):
        with gr.Column(scale=5, elem_id="map-card", min_width=400):
            find = gr.Dropdown(
                _sentences(studio), value=None, label="Find a sentence", filterable=True,
                elem_id="map-find",
            )  # fmt: skip
            panel = plotly_panel(height=560, replay="▶ Replay the move", wheel=True, elem_id="map")
            parallels = markup(_parallels(studio, None), elem_id="parallels")
        with gr.Column(scale=3, min_width=340):
            layer = gr.Slider(
                0, studio.num_layers, studio.telling_layer, step=1, label="Layer",
                elem_id="map-layer", info=_layer_help(studio),
            )  # fmt: skip
            with gr.Row(elem_id="map-play-row"):
                play = gr.Button("▶ Play through the layers", size="sm", elem_id="map-play")
                halt_button = gr.Button(
                    "Stop", size="sm", variant="stop", visible=False, elem_id="map-stop"
                )
            with gr.Column(elem_classes="figure-card"):
                told = markup(elem_id="map-told")
                lines = plotly_panel(height=210, elem_id="map-lines")
            note = markup(elem_id="map-note")
            scores = markup(elem_id="scores")
    chosen = gr.State(None)

    def shown(
        studio: Studio, result: MapResult, group: Any, recipe: Recipe, at: int
    ) -> dict[Any, Any]:
        first = reach_of(studio, recipe)
        moves = at >= first and not studio.plan(recipe).is_identity
        drawn = dict(zip((panel, scores, note), _shown(studio, result, group, moves)))
        said = line(BELOW.format(first=first))
        return {**drawn, below: gr.update(visible=at < first), unreached: said}

    def over_layers(studio: Studio, recipe: Recipe, at: int) -> dict[Any, Any]:
        """The two scores over all layers, and what they say of this one."""
        profile = studio.layer_scores()
        figure = layers_figure(profile, at, reach_of(studio, recipe))
        sentence = _in_a_word(profile, at)
        return {lines: figure_value(figure, sentence), told: title("Over the layers", sentence)}

    def redraw(
        open_tab: str, at: Any, group: Any, text: str, key: Any, *values: Any
    ) -> Iterator[Any]:
        if open_tab != "map":
            return
        mine, words = UNKNOWN["map"], ""

        def unfinished(sentence: str) -> dict[Any, Any]:
            said = f'<p class="note" role="status">{escape(sentence)}</p>'
            return {note: said, made: stamp_value(standing(mine, words=words, unfinished=True))}

        try:
            studio = shelf.get(key)
            recipe = _everywhere(studio, text, values)
            known = isinstance(at, (int, float)) and 0 <= at <= studio.num_layers
            at = int(at) if known else studio.num_layers
            mine = keys_of(studio, recipe, layer=at)["map"]
            words = f"For {words_of(studio, recipe)}, seen at layer {at}."
            plan = studio.plan(recipe)
            if not studio.mapper.begun:
                yield unfinished(READING)
            result = studio.mapper.compute(plan, at, patient=False)
            if result.provisional:
                yield {**shown(studio, result, group, recipe, at), **unfinished(WARMING)}
                result = studio.mapper.compute(plan, at)
            drawn = shown(studio, result, group, recipe, at)
            yield {**drawn, made: stamp_value(standing(mine, words=words))}
            yield over_layers(studio, recipe, at)
        except ClasError as error:
            yield unfinished(str(error))

    arguments = {
        "fn": redraw,
        "inputs": [tab, layer, chosen, prompt, key, *controls.all],
        "outputs": [panel, scores, note, made, lines, told, below, unreached],
        "show_progress": "hidden",
        "concurrency_limit": 2,
        "concurrency_id": "map",
        **AS_SENT,
    }
    moves = [layer.input, *controls.moves(STEERING)]

    def choose(key: Any, event: gr.EventData) -> tuple[Any, Any]:
        group = event._data.get("key") if isinstance(event._data, dict) else None
        try:
            studio = shelf.get(key)
        except ClasError:
            return gr.skip(), gr.skip()
        if not (isinstance(group, int) and 0 <= group < len(studio.mapper.corpus)):
            group = None
        return group, _parallels(studio, group)

    def find_it(group: Any, key: Any) -> tuple[Any, Any]:
        return group, _parallels(shelf.get(key), group if isinstance(group, int) else None)

    def click_layer(event: gr.EventData) -> Any:
        at = event._data.get("key") if isinstance(event._data, dict) else None
        return at if isinstance(at, int) else gr.skip()

    def to_reached(text: str, key: Any, *values: Any) -> Any:
        try:
            studio = shelf.get(key)
            return reach_of(studio, _everywhere(studio, text, values))
        except ClasError as error:
            warn(error)
            return gr.skip()

    def through(
        run: Run, at_first: Any, group: Any, text: str, key: Any, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        """Layer after layer. Each is for what was set when it began, whatever the layer."""
        try:
            studio = shelf.get(key)
            recipe = _everywhere(studio, text, values)
            plan, words = studio.plan(recipe), words_of(studio, recipe)
            keys = [keys_of(studio, recipe, layer=at_first)["map"]]
            for at in range(studio.num_layers + 1):
                result = studio.mapper.compute(plan, at)
                said = standing(*keys, words=f"For {words}, seen at layer {at}.")
                drawn = {**shown(studio, result, group, recipe, at), layer: at}
                yield {**drawn, **over_layers(studio, recipe, at), made: stamp_value(said)}
                if run.stop.wait(PAUSE):
                    return
        except ClasError as error:
            warn(error)

    chose = panel.select(choose, key, [chosen, parallels], show_progress="hidden")
    chose.then(**arguments)
    found = find.input(find_it, [find, key], [chosen, parallels], show_progress="hidden")
    found.then(**arguments)
    Stoppable(play, halt_button).on(
        play.click, through, [layer, chosen, prompt, key, *controls.all],
        [panel, scores, note, layer, lines, told, made, below, unreached],
        concurrency_limit=2, concurrency_id="map",
    )  # fmt: skip
    picked = [
        lines.select(click_layer, None, layer, show_progress="hidden"),
        reach.click(
            to_reached, [prompt, key, *controls.all], layer, show_progress="hidden", queue=False
        ),
    ]
    return MapTab(
        moves, arguments, panel, scores, note, made, layer, parallels, chosen, find, lines, told,
        below, picked,
    )  # fmt: skip


def _everywhere(studio: Studio, text: str, values: tuple[Any, ...]) -> Recipe:
    """What is set, in all of a text: the map's sentences have neither prompt nor answer."""
    recipe = studio.recipe({**named(values), "prompt": text})
    return dataclasses.replace(recipe, where=ALL)


def reach_of(studio: Studio, recipe: Recipe) -> int:
    """The first layer of the map that steering moves: what its first steered block puts out."""
    return min(studio.plan(recipe).layers, default=studio.num_layers) + 1


def _in_a_word(profile: list[tuple[float, float]], at: int) -> str:
    """What a layer's two scores say, beside those of all layers."""
    split, found = profile[at]
    most_split = max(score for score, _ in profile)
    most_found = max(score for _, score in profile)
    if found > 0.8 * most_found and found > split:
        word = "mixed by meaning"
    elif split > 0.6 * most_split:
        word = "split by language"
    else:
        word = "between the two"
    return (
        f"Layer {at}: {word}. Left alone, {found:.0%} of sentences lie nearest to their own "
        f"translation; how clearly languages form groups: {split:.2f}".replace("-", "−")
        + "."
    )


def _sentences(studio: Studio) -> list[tuple[str, int]]:
    """All sentences to choose from by typing, in every language, each with its number."""
    mapper = studio.mapper
    first = list(zip(mapper.english, mapper.groups))[: len(mapper.corpus)]
    rest = [pair for pair in zip(mapper.texts, mapper.groups) if pair not in first]
    return [*first, *rest]


def _layer_help(studio: Studio) -> str:
    return f"0: the words alone; {studio.num_layers}: just before the next word is said"


def _shown(studio: Studio, result: MapResult, group: Any, moves: bool) -> tuple[Any, str, str]:
    """The map, its scores and a note. `moves`: whether there is a move to play again."""
    mapper = studio.mapper
    figure = map_figure(
        result.before, result.after, mapper.labels, mapper.groups, mapper.texts, mapper.english,
        group if isinstance(group, int) else None,
    )  # fmt: skip
    value = figure_value(
        figure,
        "Map of sentences by language, before and after steering; the table says it in numbers.",
        map_start(result.before, mapper.labels) if moves else (),
    )
    scores = _scores(*result.scores, get_language(mapper.anchor).name)
    return value, scores, f'<p class="note">{escape(result.note)}</p>' if result.note else ""


def _scores(before: Separation, after: Separation, anchor: str) -> str:
    rows = []
    for name, help_, attribute in SCORES:
        old, new = getattr(before, attribute), getattr(after, attribute)
        change = new - old
        side = "up" if change > 0.0005 else "down" if change < -0.0005 else ""
        sign = {"up": "▲ ", "down": "▼ "}.get(side, "")
        text = f"{change:+.3f}".replace("-", "−") if side else "0"
        rows.append(
            (
                f"{escape(name)}<small>{escape(help_.format(anchor=anchor))}</small>",
                f"{old:.3f}".replace("-", "−"),
                f"{new:.3f}".replace("-", "−"),
                f'<span class="{side}">{sign}{text}</span>',
            )
        )
    heading = title("Scores in the full space", "never from the picture")
    return heading + table(("", "before", "after", "change"), rows)


def _parallels(studio: Studio, group: int | None) -> str:
    if group is None:
        return line(CHOOSE, "quiet")
    corpus = studio.mapper.corpus
    items = "".join(
        f"<li><span>{escape(get_language(code).native)}</span>"
        f"{in_language(corpus.sentences[code][group], code)}</li>"
        for code in corpus.languages
    )
    return title("The same sentence") + f'<ul class="parallels">{items}</ul>'
