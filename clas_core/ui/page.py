"""The whole page: head, controls at the side, three tabs; and how it is launched."""

from __future__ import annotations

import os
from html import escape
from typing import Any

import gradio as gr

from ..errors import ClasError
from ..languages import get_language
from . import inputs
from .controls import NAMES, Controls, build_controls
from .map import build_map
from .neurons import build_neurons
from .plotly_file import PLOTLY_JS
from .steer import SteerTab, build_steer
from .studio import Studio
from .text import markup
from .theme import CSS, make_theme


def build(studio: Studio) -> gr.Blocks:
    """The page of `studio`, ready to launch."""
    gr.set_static_paths([PLOTLY_JS])
    with gr.Blocks(title="CLAS Studio", analytics_enabled=False, fill_width=True) as page:
        markup(_masthead(studio))
        tab = gr.State("steer")
        with gr.Row(elem_id="frame"):
            with gr.Column(elem_id="side"):
                controls = build_controls(studio)
            with gr.Column(elem_id="work"), gr.Tabs():
                with gr.Tab("Steer", id="steer") as steer_tab:
                    steer = build_steer(studio, controls)
                with gr.Tab("Map", id="map") as map_tab:
                    redraw = build_map(studio, controls, steer.prompt, tab)
                with gr.Tab("Neurons", id="neurons") as neurons_tab:
                    recount = build_neurons(studio, controls, steer.prompt, tab)
        steer_tab.select(lambda: "steer", None, tab, show_progress="hidden", queue=False)
        for one, name, then in ((map_tab, "map", redraw), (neurons_tab, "neurons", recount)):
            opened = one.select(
                lambda name=name: name, None, tab, show_progress="hidden", queue=False
            )
            opened.then(**then)
        _set_values(page, studio, controls, steer)
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
        "max_file_size": "1mb",
        "footer_links": [],
        "show_error": False,
    }


def _set_values(page: gr.Blocks, studio: Studio, controls: Controls, steer: SteerTab) -> None:
    """A shared link sets the controls at opening; a button sets them back."""

    def opened(request: gr.Request) -> list[Any]:
        unchanged = [gr.skip()] * (len(NAMES) + 2)
        query = str(request.query_params)
        if not any(name in request.query_params for name in ("method", "alpha", "prompt")):
            return unchanged
        try:
            values = studio.values_of(query)
        except ClasError as error:
            gr.Warning(f"{error} The page opens with its defaults.", title="This link is not whole")
            return unchanged
        return [*(values[name] for name in NAMES), values["prompt"], "Lab"]

    page.load(opened, None, [*controls.all, steer.prompt, controls.switch], show_progress="hidden")
    # The direction of what is typed follows its first letter.
    page.load(None, js="() => { document.querySelector('#prompt textarea').dir = 'auto'; }")
    # Told once at opening, as no control has changed yet.
    start = studio.defaults()
    controls.summary.value = studio.summary(studio.recipe({**start, "prompt": ""}))
    controls.detected.value = studio.language(inputs.AUTO, steer.prompt.value)[1]
    controls.reset.click(
        lambda: [studio.defaults()[name] for name in NAMES],
        None,
        controls.all,
        show_progress="hidden",
        queue=False,
    )


def _masthead(studio: Studio) -> str:
    lm = studio.lm
    millions = sum(p.numel() for p in lm.model.parameters()) / 1e6
    model = (
        f"{studio.profile.model}: {millions:.1f} M parameters, {lm.num_layers} layers of "
        f"{lm.num_neurons} neurons, {len(studio.codes)} languages"
    )
    names = ", ".join(get_language(code).name for code in studio.codes)
    return (
        '<header class="masthead"><h1><b>CLAS</b> Studio</h1>'
        "<p>Steer a language model from inside, and see what it changes.</p>"
        f'<p class="model" title="{escape(names)}">{escape(model)}</p></header>'
    )
