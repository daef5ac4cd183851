"""The first screen as data: stored answers by the key of what they are for, and their curves."""

from __future__ import annotations

from typing import Any

from ...text.languages import get_language
from .goals import melting
from .standing import asked_in_words, keys_of
from .studio import Studio

Data = dict[str, Any]


def stored_cells(studio: Studio, code: str) -> dict[str, Data]:
    """The stored answers in a language: {key: {alpha, of, view, words}}, a key being that of the
    panes with a control under the page's settings at that strength, or under those that a goal
    opens with; `of` is the steering at any strength. None for a language without any."""
    stored = studio.stored
    if stored is None or code not in stored.codes:
        return {}
    data = stored.of(code)
    cells = {}
    opening = {**studio.defaults(), "prompt": data["prompt"], "language": code}
    shown = [({"strength": cell["alpha"]}, cell["view"]) for cell in data["cells"]]
    shown += [(cell["settings"], cell["view"]) for cell in data.get("goals", ())]
    for settings, view in shown:
        recipe = studio.recipe({**opening, **settings})
        keys = keys_of(studio, recipe, control=True)
        cells[keys["steer"]] = {
            "alpha": recipe.alpha,
            "of": f"{keys['curves']} {recipe.target}",
            "view": view,
            "words": f"Stored answers for {asked_in_words(studio, recipe)}",
        }
    return cells


def opening_view(studio: Studio, settings: dict[str, Any]) -> tuple[Data, str] | None:
    """The stored view for these settings, with its key; None if there is none."""
    recipe = studio.recipe(settings)
    key = keys_of(studio, recipe, control=True)["steer"]
    cell = stored_cells(studio, recipe.target).get(key)
    return None if cell is None else ({**cell["view"], "key": key}, key)


def curves(studio: Studio) -> list[Data]:
    """What the plots below the panes show for a prompt in each stored language, with the key of the
    steering that they are of at any strength; every page that opens asks for it."""
    return studio.mine.get(lambda: _curves(studio), "curves")


def _curves(studio: Studio) -> list[Data]:
    stored = studio.stored
    if stored is None:
        return []
    found = []
    for code in stored.codes:
        settings = {**studio.defaults(), "language": code, "prompt": ""}
        key = keys_of(studio, studio.recipe(settings))["curves"]
        about = {"counts": stored.counts, "code": code, "language": get_language(code).name}
        found.append({**stored.curves(code), **about, "key": key})
    return found


def sweep_to(studio: Studio, code: str) -> float | None:
    """How far the opening sweep goes; None without stored answers."""
    stored = studio.stored
    return melting(studio, code) if stored is not None and code in stored.codes else None


def opening_language(studio: Studio, wanted: str = "") -> str:
    """The language that the page opens in: the first of an Accept-Language header `wanted` that
    there are stored answers for, else the stored one's, else the fallback."""
    stored = studio.stored
    if stored is None:
        return studio.fallback
    for part in wanted.split(",")[:10]:
        code = part.partition(";")[0].strip().partition("-")[0].lower()
        if code in stored.codes:
            return code
    return stored.opening
