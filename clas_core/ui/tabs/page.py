"""The whole page: head, controls at the side, tabs; and how it is launched."""

from __future__ import annotations

import os
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from ...errors import ClasError
from ...steering.recipe import Recipe
from ...text.languages import get_language
from ..behind import inputs
from ..behind.composing import composed, decomposed
from ..behind.first import opening_language, stored_cells, sweep_to
from ..behind.goals import GOALS
from ..behind.inputs import AUTO
from ..behind.library import Library
from ..behind.links import layer_of, offer_of, open_already, place_of, recipe_of, remembered
from ..behind.outcome import Outcome
from ..behind.shelf import Shelf
from ..behind.studio import Studio
from ..parts.components import fold_button, keyboard, stored_value
from ..parts.controls import IN_LAB, NAMES, build_controls, named, scale
from ..parts.markup import markup, warn
from ..parts.plotly_file import PLOTLY_JS
from ..parts.theme import CSS, make_theme
from .map import build_map
from .measure import build_measure, chosen_setting, steering_of
from .model import build_model, opened, sorry
from .neurons import build_neurons
from .now import Now
from .program import build_endpoint, hide_others, mcp_on
from .steer import build_steer, first_prompt

MASTHEAD = (
    '<header class="masthead"><h1><b>CLAS</b> Studio</h1>'
    "<p>Steer a language model from inside, and see what it changes.</p></header>"
)
EVENTS = 2000  # of all visitors, that wait or are under way
THREADS = 300  # for these; most of them wait for a token
VISITS = 500  # whose choices are remembered, the latest ones; about 0.3 MB each
# Gradio would put all of its last 10,000 events into a table after each one, to tell how long they
# took: with many visitors that takes longer than to answer them.
UNCOUNTED = {"GRADIO_ANALYTICS_MAX_EVENTS": "1", "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9)}
TABS = ("steer", "map", "neurons", "measure", "model")
NOT_SHOWN = ClasError("It was measured, but can't be shown: all tabs are as they were.")
# The tab is in the address, so that a reload, Back and a bookmark open it.
VISITED = """() => {{
  const now = new URLSearchParams(location.hash.slice(1)).get("tab") || "steer";
  if (window.clasOpened && now !== "{name}") history.pushState(null, "", "#tab={name}");
}}"""
GOAL = """(...values) => {
  history.replaceState(null, "", `#goal=${values[0]}&tab=steer`);
  window.clasMoved();
  return values;
}"""
MODE = """(mode) => {
  document.documentElement.dataset.mode = String(mode).toLowerCase();
  document.dispatchEvent(new Event("clas-mode"));
}"""
OPENED = """() => {
  window.clasOpened = true;
  document.dispatchEvent(new Event("clas-opened"));
}"""
# Tabs count as visited once the page is there, or once a visitor acts, who may be quicker.
ADDRESS = """() => {
  for (const act of ["pointerdown", "keydown"])
    addEventListener(act, () => { window.clasOpened = true; }, { once: true, capture: true });
  addEventListener("popstate", () => {
    const name = new URLSearchParams(location.hash.slice(1)).get("tab") || "steer";
    document.getElementById(`${name}-tab-button`)?.click();
  });
  let kept = "";
  try {
    kept = sessionStorage.getItem("clas") || "";
    if (kept && JSON.parse(kept).link !== location.search) kept = "";
  } catch {
    kept = "";
  }
  const way = performance.getEntriesByType("navigation")[0]?.type;
  return [location.hash + (["reload", "back_forward"].includes(way) ? "&again=1" : ""), kept];
}"""
QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False}
Updates = dict[Any, Any]  # of components, by component
Settings = dict[str, Any]  # the controls' values and the prompt, by name


def build(studio: Studio) -> gr.Blocks:
    """The page, ready to launch. It opens with `studio`; visitors may choose other models."""
    shelf = Shelf(studio)
    os.environ.update(UNCOUNTED)
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
                controls = build_controls(studio, key, first_prompt(studio))
                fold_button("Settings", "#side")
                keyboard()
            with gr.Column(elem_id="work"), gr.Tabs() as tabs:
                with gr.Tab("Steer", id="steer", elem_id="steer-tab") as steer_tab:
                    steer = build_steer(shelf, controls)
                with gr.Tab("Map", id="map", elem_id="map-tab") as map_tab:
                    map_ = build_map(shelf, controls, steer.prompt, tab)
                with gr.Tab("Neurons", id="neurons", elem_id="neurons-tab") as neurons_tab:
                    neurons = build_neurons(shelf, controls, steer.prompt, tab)
                with gr.Tab("Measure", id="measure", elem_id="measure-tab") as measure_tab:
                    measure = build_measure(shelf, controls, steer.prompt)
                with gr.Tab("Model", id="model", elem_id="model-tab") as model_tab:
                    model = build_model(shelf, Library(shelf), key)
        # First of all that follows a move: what hears of the same event runs one after another.
        now = Now(shelf, controls, steer, map_, tab)
        follow = [map_.redraw, neurons.recount]
        for moves, then in ((map_.moves, map_.redraw), (neurons.moves, neurons.recount)):
            gr.on(moves, **then, trigger_mode="always_last")
        followed = [
            (steer_tab, None),
            (map_tab, map_.redraw),
            (neurons_tab, neurons.recount),
            (measure_tab, None),
            (model_tab, model.refresh),
        ]
        _follow_tabs(tab, followed)
        change.click(lambda: gr.update(selected="model"), None, tabs, **QUIET)

        def renewed(
            studio: Studio,
            values: Settings | None = None,
            to: str = "steer",
            by_goal: bool = False,
            place: dict[str, str] | None = None,
        ) -> Updates:
            """Everything for another model, with these values if there are any, in the tab `to`."""
            layer = layer_of(place or {}, studio)
            start = {**studio.defaults(), "prompt": first_prompt(studio)}
            settings = {**start, **(values or {})}
            lab = not by_goal and any(settings[name] != start[name] for name in IN_LAB)
            return {
                **controls.renew(studio, settings),
                **steer.renew(studio, settings),
                **map_.renew(studio, layer),
                **neurons.renew(studio),
                **measure.renew(studio),
                **now.renew(studio, settings, layer),
                controls.switch: "Lab" if lab else gr.skip(),
                model_line: _model_line(studio),
                key: studio.key,
                tab: to,
                tabs: gr.update(selected=to),
                link: None,
                texts: (settings["prompt"], settings["system"]),
                offer: gr.update(visible=False),
            }

        outputs = [*renewed(studio), offered, model.progress]
        unchanged: Updates = {link: gr.skip()}

        def show(ready: Any, recipe: Recipe | None) -> Updates:
            """After the Model tab opened a model, or didn't."""
            if ready is None:
                return unchanged
            try:
                studio = shelf.get(ready)
                of_link = recipe is not None and studio.is_of(recipe)
                values = studio.values_of(recipe) if recipe and of_link else None
                return {**renewed(studio, values), model.progress: opened(studio)}
            except ClasError as error:
                warn(error)
                return {model.progress: sorry(error)}

        def open_page(address: Any, kept: Any, request: gr.Request) -> Updates:
            """What the address asks for; what a reload finds again comes first."""
            place = place_of(address)
            to = place.get("tab", "steer")
            to = to if to in TABS else "steer"
            # It opens with the first tab: a late answer must not take a visitor back to it.
            here: Updates = unchanged if to == "steer" else {tab: to, tabs: gr.update(selected=to)}
            try:
                recipe = recipe_of(request.query_params)
                goal = GOALS.get(place.get("goal", "")) if recipe is None else None
                # A goal's address is also where it was chosen for a visitor's own model or text.
                followed = goal is not None and "again" not in place
                found = None if followed else remembered(shelf, kept)
                first = shelf.first
                if goal is not None and (found is None or found[0] is first):
                    code = opening_language(first, request.headers.get("accept-language", ""))
                    return renewed(first, goal.settings(first, code), by_goal=True)
                if found is not None:
                    return renewed(*found, to, place=place)
                if recipe is None:
                    return {**here, **in_own_language(request, to, place)}
                if (known := open_already(shelf, recipe)) is not None:
                    return renewed(known, known.values_of(recipe), to, place=place)
                sentence = offer_of(shelf, recipe)
            except ClasError as error:
                warn(f"{error} The page opens with its defaults.", "Not opened")
                return here
            return {link: recipe, offered: sentence, offer: gr.update(visible=True)}

        def in_own_language(request: gr.Request, to: str, place: dict[str, str]) -> Updates:
            """The first example in the visitor's language, if the page doesn't open in it; and at
            the layer that the address names, if it does."""
            studio = shelf.first
            code = opening_language(studio, request.headers.get("accept-language", ""))
            if code == opening_language(studio) and "layer" not in place:
                return {}
            text = first_prompt(studio, code)
            cells = stored_cells(studio, code)
            made = renewed(studio, {"prompt": text}, to, place=place)
            if to == "steer":  # where they may have left already
                del made[tab], made[tabs]
            return {**made, steer.stored: stored_value(cells, sweep_to(studio, code))}

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
            shown = opening.then(show, [model.ready, link], outputs, **QUIET)
            shown.failure(lambda: sorry(NOT_SHOWN), None, model.progress, **QUIET)
            shown.then(**settle)
        decline.click(lambda: (None, gr.update(visible=False)), None, [link, offer], **QUIET)
        address, kept = gr.Textbox(visible=False), gr.Textbox(visible=False)
        loaded = page.load(
            open_page, [address, kept], outputs, js=ADDRESS, show_progress="hidden"
        ).then(**settle)
        loaded.then(None, js=OPENED)
        controls.switch.change(None, controls.switch, None, js=MODE)
        for then in follow:
            loaded.then(**then)
        # The direction of what is typed follows its first letter.
        page.load(None, js="() => { document.querySelector('#prompt textarea').dir = 'auto'; }")

        def reset(key: Any) -> list[Any]:
            try:
                start = shelf.get(key).defaults()
            except ClasError as error:
                warn(error)
                return [gr.skip()] * len(NAMES)
            return [start[name] for name in NAMES]

        def take(outcome: Outcome | None, *values: Any) -> list[Any]:
            """The suggested setting at the side; what steers nothing stays as it is."""
            recipe, values_now = chosen_setting(outcome), dict(zip(NAMES, values))
            chosen = steering_of(recipe) if recipe else {}
            if "layers" in chosen:
                first, end = chosen.pop("layers")
                values_now |= {"first_layer": first + 1, "last_layer": end}
            if "alpha" in chosen:
                values_now["strength"] = chosen.pop("alpha")
            return [(values_now | chosen)[name] for name in NAMES]

        def fit_strength(method: Any, strength: Any, key: Any) -> Any:
            try:
                return inputs.strength_for(method, strength, shelf.get(key).opening.alpha)
            except ClasError:
                return gr.skip()

        def pursue(name: Any, text: Any, key: Any, *values: Any) -> Updates:
            """What a goal asks for; all else stays."""
            try:
                studio = shelf.get(key)
                goal = GOALS[inputs.choice("The goal", name, GOALS)]
                code = studio.language(AUTO, text)[0]
                wanted = goal.settings(studio, code)
                settings = {**named(values), "prompt": text, **wanted}
                code = studio.language(AUTO, settings["prompt"])[0]
            except ClasError as error:
                warn(error)
                return unchanged
            chosen = {by_name[one]: settings[one] for one in NAMES if one in wanted}
            slider = gr.update(value=settings["strength"], **scale(studio, settings))
            return {
                **chosen,
                by_name["strength"]: slider,
                **steer.follow(studio, code),
                steer.prompt: settings["prompt"],
                steer.example: code if code in studio.example_codes else gr.skip(),
            }

        def changing(how: Callable[[Studio, Settings], Settings]) -> dict[str, Any]:
            """The event that sets the controls to what `how` makes of them."""

            def changed(text: Any, key: Any, *values: Any) -> list[Any]:
                try:
                    made = how(shelf.get(key), {**named(values), "prompt": text})
                    return [made[name] for name in NAMES]
                except ClasError as error:
                    warn(error)
                    return [gr.skip()] * len(NAMES)

            asked = [steer.prompt, key, *controls.all]
            return {"fn": changed, "inputs": asked, "outputs": controls.all, **QUIET}

        by_name = controls.by_name
        for done in (
            controls.composing.add.click(**changing(composed)),
            controls.composing.remove.click(**changing(decomposed)),
            steer.goals.input(
                pursue,
                [steer.goals, steer.prompt, key, *controls.all],
                [*controls.all, *steer.pursued, link],
                js=GOAL,
                **QUIET,
            ),
            *map_.picked,
            by_name["method"].input(
                fit_strength,
                [by_name["method"], by_name["strength"], key],
                by_name["strength"],
                **QUIET,
            ),
            controls.reset.click(reset, key, controls.all, **QUIET),
            measure.take.click(take, [measure.outcome, *controls.all], controls.all, **QUIET),
        ):
            now.after(done)
            for then in follow:
                done.then(**then)
        build_endpoint(shelf)
    hide_others(page)
    return page.queue(max_size=EVENTS, default_concurrency_limit=4, api_open=False)


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
        "mcp_server": mcp_on(studio.profile.mcp),
        "show_error": False,
        "state_session_capacity": VISITS,
        "max_threads": THREADS,
    }


def _follow_tabs(tab: gr.State, tabs: list[tuple[gr.Tab, dict[str, Any] | None]]) -> None:
    """`tab` holds the name of the open one, which is brought up to date when it opens."""
    for one, then in tabs:
        one.select(None, js=VISITED.format(name=one.id))
        chosen = one.select(lambda name=one.id: name, None, tab, **QUIET)
        if then is not None:
            chosen.then(**then)


def _model_line(studio: Studio) -> str:
    lm = studio.lm
    millions = sum(p.numel() for p in lm.model.parameters()) / 1e6
    size = f"{millions:.1f} M" if millions < 1000 else f"{millions / 1000:.1f} B"
    widths = sorted(set(lm.widths))
    neurons = " to ".join(str(width) for width in {widths[0]: 0, widths[-1]: 0})
    plain = studio.corpus.is_bundled and studio.choice.name == "village"
    text = "" if plain else f" of {studio.choice.name}"
    line = (
        f"{studio.choice.title}: {size} parameters, {lm.num_layers} layers of "
        f"{neurons} neurons, {len(studio.codes)} languages{text}"
    )
    names = ", ".join(get_language(code).name for code in studio.codes)
    return f'<p class="model" title="{escape(names)}">{escape(line)}</p>'
