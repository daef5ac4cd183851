"""Keys of what results are for: equal where the results are, and only there."""

from __future__ import annotations

import json

import pytest
from tiny_studio import tiny_studio

from clas_core.errors import ClasError
from clas_core.ui.behind.links import recipe_of, remembered
from clas_core.ui.behind.shelf import Shelf
from clas_core.ui.behind.standing import asked_in_words, keys_of, words_of
from clas_core.ui.behind.studio import Studio


@pytest.fixture(scope="module")
def studio() -> Studio:
    return tiny_studio()


def recipe(studio, **changes):
    return studio.recipe({**studio.defaults(), "prompt": "Anna sees a boat.", **changes})


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"strength": 1.0}, {"steer", "map", "measure"}),
        ({"tau": 0.5}, {"steer", "map", "neurons", "measure"}),
        ({"first_layer": 1}, {"steer", "map", "neurons", "measure"}),
        ({"prompt": "Anna sees the moon."}, {"steer"}),
        ({"prompt": "أحمد يرى القمر."}, {"steer", "curves"}),
        ({"seed": 4}, {"steer"}),
        ({"temperature": 0.5}, {"steer"}),
        ({"length": 7}, {"steer"}),
        ({"language": "ar"}, {"steer"}),
        ({"language": "ar", "method": "DiffMean"}, {"steer", "map", "measure"}),
    ],
)
def test_a_key_changes_with_what_the_result_is_made_from(studio, changes, kinds):
    before, after = keys_of(studio, recipe(studio)), keys_of(studio, recipe(studio, **changes))
    changed = {kind for kind in before if before[kind] != after[kind]}
    curves = {"curves"} if "measure" in kinds and set(changes) != {"strength"} else set()
    assert changed == kinds | curves | {"link"}  # which holds all


def test_keys_know_the_control_and_the_maps_layer(studio):
    made = recipe(studio)
    plain = keys_of(studio, made)
    assert keys_of(studio, made, True)["steer"] != plain["steer"]
    assert keys_of(studio, made, layer=3) == plain  # the last one
    assert keys_of(studio, made, layer=1)["map"] != plain["map"]


def test_in_words(studio):
    made = recipe(studio, strength=-0.25, first_layer=2, language="sw", prompt="One\ntwo " * 20)
    assert words_of(studio, made) == "CLAS, strength −0.25, layers 2 to 3"
    assert asked_in_words(studio, made).startswith(
        "CLAS, strength −0.25, layers 2 to 3, Swahili: “One two One two"
    )
    assert len(asked_in_words(studio, made)) < 120


@pytest.mark.parametrize(
    ("prompt", "end"),
    [
        ("Anna sees a boat.", "boat.”"),
        ("猫睡觉。\n", "觉。”"),
        ("Anna sees", "sees”."),
        ("a" * 99, "a…”"),
    ],
)
def test_a_sentence_ends_once(studio, prompt, end):
    assert asked_in_words(studio, recipe(studio, prompt=prompt)).endswith(end)


def test_a_link_asks_for_something_or_not():
    assert recipe_of({}) is None
    assert recipe_of({"utm_source": "a", "fbclid": "b", "__theme": "dark"}) is None
    assert recipe_of({"seed": "3", "utm_source": "a"}).seed == 3
    assert recipe_of({"prompt": "a?b#c\nنعم"}).prompt == "a?b#c\nنعم"
    with pytest.raises(ClasError, match="no field alfa"):
        recipe_of({"alfa": "1"})


def test_what_a_reload_finds_again(studio):
    shelf = Shelf(studio)
    settings = {**studio.defaults(), "strength": 1.5, "prompt": "Hello", "chat": False}
    kept = {"key": studio.key, "settings": {**settings, "no such": 1}}
    assert remembered(shelf, json.dumps(kept)) == (studio, settings)
    for broken in (None, "", "{", "[]", "{}", '{"key": 1, "settings": 2}'):
        assert remembered(shelf, broken) is None
    kept["settings"]["strength"] = 99
    assert remembered(shelf, json.dumps(kept)) is None
    with pytest.raises(ClasError, match="made room"):
        remembered(shelf, '{"key": "gone", "settings": {}}')
