"""Steerings one after another, as the Lab sets them."""

from __future__ import annotations

import pytest
import torch
from tiny_studio import tiny_studio

from clas_core.errors import ClasError
from clas_core.steering.recipe import MOST_FIRST, Recipe
from clas_core.ui.behind.composing import composed, decomposed
from clas_core.ui.behind.inputs import AUTO
from clas_core.ui.behind.standing import keys_of, words_of, words_of_first


@pytest.fixture(scope="module")
def studio():
    return tiny_studio()


def settings(studio, **changes):
    return {**studio.defaults(), "prompt": "who sleeps", **changes}


def shift(studio):
    return settings(
        studio, method="DiffMean", strength=0.75, language="sw", first_layer=1, last_layer=2
    )


def parts(plan):
    return {
        (layer, name): getattr(one, name)
        for layer, one in plan.layers.items()
        for name in ("scale", "bias", "shift")
        if getattr(one, name) is not None
    }


def test_what_is_set_acts_first_and_the_next_begins_at_nothing(studio):
    before = shift(studio)
    after = composed(studio, before)
    assert after["strength"] == 0
    alone, both = (studio.plan(studio.recipe(one)) for one in (before, after))
    assert parts(alone).keys() == parts(both).keys()
    assert all(torch.equal(tensor, parts(both)[key]) for key, tensor in parts(alone).items())


def test_both_act_and_the_random_control_is_of_both(studio):
    after = {**composed(studio, shift(studio)), "method": "CLAS", "strength": 1.0, "gamma": 0.0}
    recipe = studio.recipe({**after, "language": "es"})
    assert [(one.method, one.target) for one in recipe.chain] == [
        ("DiffMean", "sw"),
        ("CLAS", "es"),
    ]
    plan, control = studio.plan(recipe), studio.plan(recipe, control=True)
    first = studio.plan(recipe.earlier)
    then = studio.plan(studio.recipe({**after, "language": "es", "first": ""}))
    expected = parts(then @ first)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in parts(plan).items())
    for key, tensor in parts(control).items():  # the same numbers, dealt to others
        torch.testing.assert_close(tensor.sort().values, expected[key].sort().values)
    assert any(not torch.equal(tensor, expected[key]) for key, tensor in parts(control).items())


def test_it_is_said_and_results_without_it_are_stale(studio):
    after = {**composed(studio, shift(studio)), "strength": 1.0}
    recipe = studio.recipe(after)
    assert words_of(studio, recipe).startswith("DiffMean, strength 0.75, layers 1 to 2, then ")
    assert words_of_first(studio, recipe) == (
        "First DiffMean, strength 0.75, layers 1 to 2, for Swahili."
    )
    assert words_of_first(studio, studio.recipe(settings(studio))) == ""
    mine, without = (keys_of(studio, studio.recipe(one)) for one in (after, {**after, "first": ""}))
    changed = {name for name in mine if mine[name] != without[name]}
    assert changed == {"steer", "link", "map", "measure", "curves"}


@pytest.mark.parametrize("language", [AUTO, "es"])
def test_taking_back_restores_what_acted_first(studio, language):
    before = {**shift(studio), "language": language}
    assert decomposed(studio, composed(studio, before)) == before
    assert decomposed(studio, before) == before


def test_a_link_holds_all_of_them(studio):
    after = {**composed(studio, shift(studio)), "method": "CLAS", "strength": 0.5}
    recipe = studio.recipe(after)
    values = studio.values_of(Recipe.from_query(recipe.to_query()))
    assert studio.recipe(values) == recipe


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("method=RandomControl", "The method must be one of"),
        ("method=DiffMean&alpha=9", "The strength of what acts first must be"),
        (None, "first must be text"),
        ("x", "first must be a steering"),
    ],
)
def test_what_the_page_has_not_cannot_act_first(studio, first, said):
    with pytest.raises(ClasError, match=said):
        studio.recipe(settings(studio, first=first))


def test_nothing_and_too_many_are_refused(studio):
    with pytest.raises(ClasError, match="At strength 0 nothing acts"):
        composed(studio, settings(studio, strength=0.0))
    values = shift(studio)
    for _ in range(MOST_FIRST):
        values = {**composed(studio, values), "strength": 1.0}
    with pytest.raises(ClasError, match=f"At most {MOST_FIRST} steerings"):
        composed(studio, values)
