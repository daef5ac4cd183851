"""The whole page: head, controls at the side, tabs; and how it is launched."""

from __future__ import annotations

import os
from html import escape
from typing import Any

import gradio as gr

from ...errors import ClasError
from ...steering.recipe import Recipe
from ...text.corpus import BUNDLED
from ...text.languages import get_language
from ..behind import inputs
from ..behind.library import Library
from ..behind.outcome import Outcome
from ..behind.shelf import Shelf
from ..behind.studio import Studio
from ..parts.components import fold_button
from ..parts.controls import NAMES, build_controls
from ..parts.markup import markup
from ..parts.plotly_file import PLOTLY_JS
from ..parts.theme import CSS, make_theme
from .map import build_map
from .measure import build_measure, chosen_setting
from .model import build_model
from .neurons import build_neurons
from .steer import build_steer, first_prompt

MASTHEAD = (
    '<header class="masthead"><h1><b>CLAS</b> Studio</h1>'
    "<p>Steer a language model from inside, and see what it changes.</p></header>"
)
QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False}
Updates = dict[Any, Any]  # of components, by component


def build(studio: Studio) -> gr.Blocks:
    """The page, ready to launch. It opens with `studio`; visitors may choose other models."""
    shelf = Shelf(studio)
    gr.set_static_paths([PLOTLY_JS])
    day = 24 * 3600  # after which what was uploaded is deleted
    with gr.Blocks(
        title="CLAS Studio", analytics_enabled=False, fill_width=True, delete_cache=(3600, day)
    ) as page:
        key, tab = gr.State(studio.key), gr.State("steer")
        link = gr.State(None)  # the recipe of a link for a model that is not open
        texts = gr.State(None)  # prompt and system prompt, to be set after all else
        with gr.Row(elem_id="head"):
            markup(MASTHEAD)
            model_line = markup(_model_line(studio), elem_id="model-line")
            change = gr.Button("Change", size="sm", elem_id="change")
        with gr.Row(visible=False, elem_id="offer") as offer:
            offered = markup()
            accept = gr.Button("Open it", variant="primary", size="sm", elem_id="accept")
            decline = gr.Button("Stay here", size="sm", elem_id="decline")
        with gr.Row(elem_id="frame"):
            with gr.Column(elem_id="side"):
                controls = build_controls(studio, key)
                fold_button("Settings", "#side")
            with gr.Column(elem_id="work"), gr.Tabs() as tabs:
                with gr.Tab("Steer", id="steer") as steer_tab:
                    steer = build_steer(shelf, controls)
                with gr.Tab("Map", id="map") as map_tab:
                    map_ = build_map(shelf, controls, steer.prompt, tab)
                with gr.Tab("Neurons", id="neurons") as neurons_tab:
                    neurons = build_neurons(shelf, controls, steer.prompt, tab)
                with gr.Tab("Measure", id="measure") as measure_tab:
                    measure = build_measure(shelf, controls, steer.prompt)
                with gr.Tab("Model", id="model") as model_tab:
                    model = build_model(shelf, Library(shelf), key)
        # Told once at opening, as no control has changed yet.
        start = {**studio.defaults(), "prompt": steer.prompt.value}
        controls.summary.value, controls.detected.value = _described(studio, start)

        followed = [
            (steer_tab, None),
            (map_tab, map_.redraw),
            (neurons_tab, neurons.recount),
            (measure_tab, None),
            (model_tab, model.refresh),
        ]
        _follow_tabs(tab, followed)
        change.click(lambda: gr.update(selected="model"), None, tabs, **QUIET)

        def renewed(studio: Studio, recipe: Recipe | None) -> Updates:
            """Everything for another model; with the settings of a link, if there is one."""
            start = {**studio.defaults(), "prompt": first_prompt(studio)}
            values = studio.values_of(recipe) if recipe else start
            summary, detected = _described(studio, values)
            return {
                **controls.renew(studio, values),
                **steer.renew(studio, values),
                **map_.renew(studio),
                **neurons.renew(studio),
                **measure.renew(studio),
                controls.summary: summary,
                controls.detected: detected,
                controls.switch: "Lab" if recipe else gr.skip(),
                model_line: _model_line(studio),
                key: studio.key,
                tab: "steer",
                tabs: gr.update(selected="steer"),
                link: None,
                texts: (values["prompt"], values["system"]),
                offer: gr.update(visible=False),
            }

        outputs = [*renewed(studio, None), offered]
        unchanged: Updates = {link: gr.skip()}

        def show(ready: Any, recipe: Recipe | None) -> Updates:
            """After the Model tab opened a model, or didn't."""
            if ready is None:
                return unchanged
            try:
                studio = shelf.get(ready)
                return renewed(studio, recipe if recipe and studio.is_of(recipe) else None)
            except ClasError as error:
                gr.Warning(str(error))
                return unchanged

        def take_link(request: gr.Request) -> Updates:
            if not {"method", "alpha", "prompt"} & set(request.query_params):
                return unchanged
            try:
                recipe = Recipe.from_query(str(request.query_params))
                if (known := _open_already(shelf, recipe)) is not None:
                    return renewed(known, recipe)
                sentence = _offer(shelf, recipe)
            except ClasError as error:
                gr.Warning(f"{error} The page opens with its defaults.", title="Not this link")
                return unchanged
            return {link: recipe, offered: sentence, offer: gr.update(visible=True)}

        def accept_link(recipe: Recipe | None) -> tuple[Any, ...]:
            if recipe is None:
                return (gr.skip(),) * 4
            name = f"{recipe.model}@{recipe.revision}" if recipe.revision else recipe.model
            return gr.update(selected="model"), name, recipe.corpus, []

        def set_texts(found: tuple[str, str] | None) -> tuple[Any, Any, None]:
            return (*(found or (gr.skip(), gr.skip())), None)

        settle: dict[str, Any] = {
            "fn": set_texts,
            "inputs": texts,
            "outputs": [steer.prompt, controls.by_name["system"], texts],
            **QUIET,
        }
        asked = accept.click(
            accept_link, link, [tabs, model.model, model.text, model.languages], **QUIET
        )
        for opening in (*model.openings, model.open_after(asked)):
            opening.then(show, [model.ready, link], outputs, **QUIET).then(**settle)
        decline.click(lambda: (None, gr.update(visible=False)), None, [link, offer], **QUIET)
        page.load(take_link, None, outputs, show_progress="hidden").then(**settle)
        # The direction of what is typed follows its first letter.
        page.load(None, js="() => { document.querySelector('#prompt textarea').dir = 'auto'; }")

        def reset(key: Any) -> list[Any]:
            try:
                start = shelf.get(key).defaults()
            except ClasError as error:
                gr.Warning(str(error))
                return [gr.skip()] * len(NAMES)
            return [start[name] for name in NAMES]

        def take(outcome: Outcome | None, *values: Any) -> list[Any]:
            """The suggested setting at the side; what steers nothing stays as it is."""
            recipe, now = chosen_setting(outcome), dict(zip(NAMES, values))
            if recipe is not None:
                now |= {
                    name: getattr(recipe, name)
                    for name in ("method", "beta", "gamma", "tau", "specific")
                }
                now["strength"] = recipe.alpha
                if recipe.layers is not None:
                    now["first_layer"], now["last_layer"] = recipe.layers[0] + 1, recipe.layers[1]
                now["shared_from"] = recipe.shared_from or now["shared_from"]
            return [now[name] for name in NAMES]

        def fit_strength(method: Any, strength: Any, key: Any) -> Any:
            try:
                return inputs.strength_for(method, strength, shelf.get(key).opening.alpha)
            except ClasError:
                return gr.skip()

        by_name = controls.by_name
        for done in (
            by_name["method"].input(
                fit_strength,
                [by_name["method"], by_name["strength"], key],
                by_name["strength"],
                **QUIET,
            ),
            controls.reset.click(reset, key, controls.all, **QUIET),
            measure.take.click(take, [measure.outcome, *controls.all], controls.all, **QUIET),
        ):
            for then in (steer.describe, map_.redraw, neurons.recount):
                done.then(**then)
    return page.queue(max_size=studio.profile.queue, default_concurrency_limit=4, api_open=False)


def launch_options(studio: Studio, port: int | None = None) -> dict[str, Any]:
    """Arguments of `launch` that belong to the page: nothing is fetched, counted or shared."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return {
        "server_name": studio.profile.host,
        "server_port": studio.profile.port if port is None else port,
        "theme": make_theme(),
        "css": CSS,
        "share": False,
        "ssr_mode": False,
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": f"{max(1, studio.profile.uploads)}mb",
        "footer_links": [],
        "show_error": False,
    }


def _follow_tabs(tab: gr.State, tabs: list[tuple[gr.Tab, dict[str, Any] | None]]) -> None:
    """`tab` holds the name of the open one, which is brought up to date when it opens."""
    for one, then in tabs:
        opened = one.select(lambda name=one.id: name, None, tab, **QUIET)
        if then is not None:
            opened.then(**then)


def _described(studio: Studio, values: dict[str, Any]) -> tuple[str, str]:
    """What these settings reach, and where the language comes from."""
    sentence = studio.language(values["language"], values["prompt"])[1]
    return studio.summary(studio.recipe(values)), sentence


def _open_already(shelf: Shelf, recipe: Recipe) -> Studio | None:
    """A studio of this recipe; never one of a visitor's own text, whose name may be the same."""
    bundled = (studio for studio in shelf.studios if studio.choice.name in BUNDLED)
    return next((studio for studio in bundled if studio.is_of(recipe)), None)


def _offer(shelf: Shelf, recipe: Recipe) -> str:
    """The question whether to open a link's model. Raises ClasError where it can't be."""
    shelf.check(recipe.model)
    if recipe.corpus not in BUNDLED:
        raise ClasError(
            f"This link was measured on its author's own text, {recipe.corpus}: ask for that file, "
            "open it in the Model tab, and set what the link says."
        )
    return (
        f"<p>This link is for <b>{escape(recipe.model)}</b>, measured on the text "
        f"<b>{escape(recipe.corpus)}</b>. Opening it may take some minutes.</p>"
    )


def _model_line(studio: Studio) -> str:
    lm = studio.lm
    millions = sum(p.numel() for p in lm.model.parameters()) / 1e6
    size = f"{millions:.1f} M" if millions < 1000 else f"{millions / 1000:.1f} B"
    widths = sorted(set(lm.widths))
    neurons = " to ".join(str(width) for width in {widths[0]: 0, widths[-1]: 0})
    text = "" if studio.choice.name == "village" else f" of {studio.choice.name}"
    line = (
        f"{studio.choice.title}: {size} parameters, {lm.num_layers} layers of "
        f"{neurons} neurons, {len(studio.codes)} languages{text}"
    )
    names = ", ".join(get_language(code).name for code in studio.codes)
    return f'<p class="model" title="{escape(names)}">{escape(line)}</p>'
