"""What the page opens with: the recipe of a link, or what a visitor had before a reload."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ...errors import ClasError
from ...steering.recipe import Recipe, is_added
from ...text.corpus import BUNDLED
from .shelf import Shelf
from .studio import Studio


def recipe_of(query: Mapping[str, str]) -> Recipe | None:
    """The recipe in a link's query; None if it asks for nothing."""
    asked = {name: value for name, value in query.items() if not is_added(name)}
    return Recipe.from_query(urlencode(asked)) if asked else None


def place_of(address: Any) -> dict[str, str]:
    """What the part of an address behind # says: tab, layer, goal; and `again` after a reload."""
    return dict(parse_qsl(address.removeprefix("#"))) if isinstance(address, str) else {}


def layer_of(place: Mapping[str, str], studio: Studio) -> int | None:
    """The map's layer that an address names, as far as the model has it."""
    layer = place.get("layer", "")
    return min(int(layer), studio.num_layers) if re.fullmatch(r"[0-9]{1,4}", layer) else None


def open_already(shelf: Shelf, recipe: Recipe) -> Studio | None:
    """A studio of this recipe; never one of a visitor's own text, whose name may be the same."""
    return next((studio for studio in shelf.studios if studio.is_of(recipe)), None)


def offer_of(shelf: Shelf, recipe: Recipe) -> str:
    """The question whether to open a link's model. Raises ClasError where it can't be."""
    shelf.check(recipe.model, recipe.revision)
    if recipe.corpus not in BUNDLED:
        raise ClasError(
            f"This link was measured on its author's own text, {recipe.corpus}: ask for that file, "
            "open it in the Model tab, and set what the link says."
        )
    return (
        f"<p>This link is for <b>{escape(recipe.model)}</b>, measured on the text "
        f"<b>{escape(recipe.corpus)}</b>. Opening it may take some minutes.</p>"
    )


def remembered(shelf: Shelf, kept: Any) -> tuple[Studio, dict[str, Any]] | None:
    """The model and the settings that this browser's tab had, as JSON {key, settings}.

    None if it had none, or had some that can't be set here. Raises ClasError if the model had to
    make room.
    """
    try:
        found = json.loads(kept)
        key, settings = found["key"], dict(found["settings"])
    except (TypeError, ValueError, KeyError):
        return None
    studio = shelf.get(key)
    start = {**studio.defaults(), "prompt": ""}
    values = {**start, **{name: settings[name] for name in start if name in settings}}
    try:
        studio.recipe(values)
    except (ClasError, TypeError):
        return None
    return studio, values
