"""What the page opens with, stored from a live run."""

from __future__ import annotations

import json
import threading
from typing import Any

from ..errors import ClasError
from ..paths import replacing
from ..ui.behind.profile import read_profile
from ..ui.behind.studio import VILLAGE, Studio

PATH = VILLAGE / "first_screen.json"


def first_screen(studio: Studio) -> dict[str, Any]:
    """The first example of the page's default language, run with the page's defaults, as data.

    Raises ClasError for a language without examples.
    """
    ready = studio.examples(studio.fallback)
    if not ready:
        raise ClasError(f"There is no example in {studio.fallback!r} to open the page with.")
    recipe = studio.recipe({**studio.defaults(), "prompt": ready[0]})
    *_, view = studio.steer(recipe, False, threading.Event())
    view["state"] = "stored"
    return {"language": studio.fallback, "prompt": ready[0], "view": view}


def write_first_screen() -> None:
    """Write the first screen of the embedded model, and the layouts of its map, under assets."""
    studio = Studio.open(read_profile("local"))
    text = json.dumps(first_screen(studio), ensure_ascii=False, indent=1) + "\n"
    with replacing(PATH) as scratch:
        scratch.write_text(text, "utf-8")
    studio.mapper.save_layouts()
