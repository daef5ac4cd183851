"""Under what a model is measured: as it is, steered, merely asked, and under random controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...atlas.atlas import Atlas
from ...atlas.selection import select
from ...errors import ClasError
from ...steering.methods import METHODS, RandomControl
from ...steering.plan import SteeringPlan
from ...steering.recipe import Recipe
from ...text.languages import get_language

UNSTEERED = "unsteered"
CONTROL = "random control "  # and a seed
_OF = " of "  # and a method, in the name of a control that isn't of the first one
CONTROL_IS = "the same numbers on random neurons"
BASELINES = ("IntMu", "LAPE", "LanguageArithmetic", "DiffMean", "Kojima")
OWN_LAYERS = ("DiffMean", "Kojima")  # by default a single layer, and all of them


@dataclass(frozen=True)
class Condition:
    """One way to run the model.

    recipe: how to steer, for whichever language is the target; None leaves the model as it is.
    control: a seed; the random control then: the recipe's numbers on random live neurons of the
        same layers (`RandomControl`).
    ask: begin the prompt with a sentence that asks for an answer in the language.
    """

    name: str
    recipe: Recipe | None = None
    control: int | None = None
    ask: bool = False

    def plan(self, atlas: Atlas, target: str) -> SteeringPlan | None:
        """What steers the model for `target`. Raises ClasError if recipe and atlas don't fit."""
        if self.recipe is None:
            return None
        recipe = dataclasses.replace(self.recipe, target=target)
        if self.control is None:
            return recipe.build(atlas)
        chosen = select(atlas, tau=recipe.tau, shared_from=recipe.shared_from, mode=recipe.tau_mode)
        control = RandomControl(recipe.steering, self.control).plan(atlas, chosen, target)
        return control.at(recipe.where)

    def idle_for(self, atlas: Atlas, targets: Iterable[str]) -> tuple[str, ...]:
        """Those of `targets` for which its plan is the identity, as where a method selects no
        neuron or its strength is 0: it steers, and changes nothing."""
        plans = ((code, self.plan(atlas, code)) for code in targets)
        return tuple(code for code, plan in plans if plan is not None and plan.is_identity)

    def prefix(self, language: str) -> str:
        """What its prompts in `language` begin with."""
        return f"Answer in {get_language(language).name}.\n" if self.ask else ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data; steered conditions carry their recipe's hash."""
        recipe = self.recipe
        steering = {} if recipe is None else {"recipe": vars(recipe), "hash": recipe.hash}
        return {"name": self.name, "control": self.control, "ask": self.ask, **steering}


def standard_conditions(recipes: Sequence[Recipe], controls: int = 3) -> tuple[Condition, ...]:
    """Unsteered, each recipe by its method's name, asked, and `controls` random controls.

    These are of the first recipe. Raises ClasError for no recipe, and for two of one method.
    """
    if not recipes:
        raise ClasError("There is no recipe to measure: give at least one.")
    first, methods = recipes[0], [recipe.method for recipe in recipes]
    if twice := next((name for name in methods if methods.count(name) > 1), None):
        raise ClasError(f"Two of these recipes are of {twice}: measure them one after the other.")
    return (
        Condition(UNSTEERED),
        *(Condition(recipe.method, recipe) for recipe in recipes),
        Condition("asked", ask=True),
        *(Condition(f"{CONTROL}{seed}", first, control=seed) for seed in range(controls)),
    )


def own_controls(recipes: Iterable[Recipe], controls: int) -> tuple[Condition, ...]:
    """As many random controls of each recipe, named after its method."""
    return tuple(
        Condition(f"{CONTROL}{seed}{_OF}{recipe.method}", recipe, control=seed)
        for recipe in recipes
        for seed in range(controls)
    )


def controls_of(condition: str, names: Iterable[str]) -> list[str]:
    """Of conditions' `names`, the random controls that `condition` is to be compared with: those
    that are named after it, or if there are none, those that are named after nobody."""
    controls = [name for name in names if name.startswith(CONTROL)]
    own = [name for name in controls if name.endswith(f"{_OF}{condition}")]
    return own or [name for name in controls if _OF not in name]


def with_baselines(recipe: Recipe) -> tuple[Recipe, ...]:
    """`recipe` and the published methods at their own strength, with its thresholds and layers.

    Where a method says in which layers it acts, it acts there. DiffMean shifts from English. None
    of them acts after another one.
    """
    others = (
        dataclasses.replace(
            recipe,
            method=name,
            alpha=METHODS[name]().alpha,
            layers=None if name in OWN_LAYERS else recipe.layers,
            source="en" if name in ("LAPE", "DiffMean") else None,
            first="",
        )
        for name in BASELINES
        if name != recipe.method
    )
    return (recipe, *others)


def check_names(conditions: tuple[Condition, ...]) -> None:
    """Raise ClasError unless every condition has a name of its own."""
    names = [condition.name for condition in conditions]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ClasError(f"Two conditions are called {twice!r}: give each a name of its own.")
