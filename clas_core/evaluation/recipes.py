"""A recipe from what people type: a file, a link or a query."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..recipe import Recipe


def read_recipe(text: str = "", **changes: Any) -> Recipe:
    """The recipe of a .json file, or of a link or its query; the default one for "".

    `changes` replace its fields, those that are None excepted. Raises ClasError for a recipe that
    can't be read and OSError for a file that isn't there.
    """
    if text.endswith(".json"):
        recipe = Recipe.from_json(Path(text).read_text(encoding="utf-8"))
    else:
        recipe = Recipe.from_query(text)
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(recipe, **given)
