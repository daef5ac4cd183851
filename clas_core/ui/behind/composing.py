"""Steerings that act one after another: what is set acts first, and another one begins."""

from __future__ import annotations

from typing import Any

from ...errors import ClasError
from ...steering.recipe import Recipe
from .inputs import AUTO, STEERED_BY
from .studio import Studio

Settings = dict[str, Any]


def composed(studio: Studio, settings: Settings) -> Settings:
    """The page's values once what they ask for acts first, and another steering, so far of strength
    0, after it. A language that was detected goes on to be the prompt's.

    Raises ClasError where nothing acts, and where too many do.
    """
    recipe = studio.recipe(settings)
    if recipe.alpha == 0:
        raise ClasError("At strength 0 nothing acts: set a strength, then let another act after.")
    first = recipe.as_first(target=settings["language"] != AUTO)
    return {**settings, "first": Recipe(first=first).first, "strength": 0.0}


def decomposed(studio: Studio, settings: Settings) -> Settings:
    """The page's values with the last steering but one back in the controls, in place of the last;
    the same ones where nothing acts first."""
    recipe = studio.recipe(settings)
    if recipe.earlier is None:
        return settings
    before = studio.values_of_steering(recipe.earlier)
    own = Recipe(first=recipe.first, target="").earlier
    assert own is not None
    return {
        **settings,
        **{name: before[name] for name in (*STEERED_BY, "strength")},
        "language": own.target or AUTO,
    }
