"""Where a goal opens, and what the slider says, come from what was tried on the model."""

from dataclasses import replace

import pytest
from tiny_studio import tiny_studio

from clas_core.evaluation.marks import Marks, Point
from clas_core.ui.behind import studio as module
from clas_core.ui.behind.goals import GOALS, zones
from clas_core.ui.parts.controls import scale

METHOD = {"method": "DiffMean", "layers": [1, 3], "source": "en", "tau": 0.2}


def found(*points, goal="write"):
    rows = ((0,) * 7, *points)
    return Marks(goal, METHOD, ("sw",), 6, tuple(Point(*row) for row in rows))


WHOLE = found((0.1, 1, 0.5, 0, 0.5, 0, 0), (0.5, 1, 0.5, 0.9, 0.2, 0, 0))


@pytest.fixture
def studio():
    """As one that a visitor opened, without stored answers."""
    made = tiny_studio()
    made.stored = None
    return made


def settings(studio, **changes):
    made = GOALS["write"].settings(studio, "sw")
    return {**studio.defaults(), "prompt": "Anna sees the moon.", **made, **changes}


def test_a_goal_opens_at_its_marks(studio):
    before = GOALS["write"].settings(studio, "sw")
    studio.marks["write"] = WHOLE
    opened = GOALS["write"].settings(studio, "sw")
    assert (opened["strength"], opened["first_layer"], opened["last_layer"]) == (0.1, 2, 3)
    assert opened["language"] == "sw"
    studio.marks["write"] = found((0.1, 0, 0, 0, 0, 0, 0))
    assert GOALS["write"].settings(studio, "sw") == before


def test_untried_models_open_at_a_short_shift(studio):
    """One as long as the stream leaves nothing of a text."""
    assert 0 < GOALS["write"].settings(studio, "sw")["strength"] <= 0.2


def test_the_slider_says_what_was_found(studio):
    studio.marks["write"] = WHOLE
    known = zones(studio, "sw", settings(studio))
    assert known.steps == ((0.1, "Language turns"), (0.5, "Breaks"))
    labels = {mark["label"]: mark["value"] for mark in scale(studio, settings(studio))["marks"]}
    assert (labels["turns"], labels["breaks"]) == (0.1, 0.5)
    assert zones(studio, "sw", settings(studio, first_layer=1)) is None


def test_the_slider_marks_what_random_neurons_do_not_do(studio):
    """Words change early, in the language that is asked for they are later, and random neurons'
    are in it too where most fall apart."""
    studio.marks["write"] = found(
        (0.1, 1, 0, 0, 0, 0, 0), (0.2, 1, 0.5, 0, 0.5, 0, 0), (0.3, 1, 0.5, 0, 0.5, 0, 0.45)
    )
    known = zones(studio, "sw", settings(studio, strength=0.2))
    assert known.steps == ((0.1, "Text changes"), (0.2, "Language turns"), (0.3, "Text changes"))
    assert [mark[:3] for mark in known.marks] == [(0.2, "turns", "melts")]
    studio.marks["write"] = found((0.1, 1, 0, 0, 0, 0, 0))
    (mark,) = zones(studio, "sw", settings(studio, strength=0.1)).marks
    assert mark[:3] == (0.1, "changes", "alike")
    assert "random" in mark[3]


def test_no_strength_is_told_of_that_the_slider_lacks(studio):
    studio.marks["write"] = found((2.0, 1, 1, 0, 0.5, 0, 0), (3.0, 1, 1, 0, 0.9, 0, 0))
    said = studio.summary(studio.recipe(settings(studio, strength=2.0)))
    assert said.endswith("Seen from strength 2, best at 2, breaks at none up to 2.")


def test_the_page_says_that_nothing_can_be_seen(studio):
    made = settings(studio)
    studio.marks["write"] = replace(
        found((0.1, 0, 0, 0, 0, 0, 0)),
        method={**METHOD, "layers": [made["first_layer"] - 1, made["last_layer"]]},
    )
    said = studio.summary(studio.recipe(made))
    assert said.endswith("Nothing can be seen at any strength up to 0.1.")


def test_marks_are_found_behind_the_page_once(studio, monkeypatch):
    calls = []

    def opening(lm, atlas, corpus, goal, progress):
        calls.append(goal)
        progress(1, 1)
        return replace(WHOLE, goal=goal)

    monkeypatch.setattr(module, "opening", opening)
    for _ in range(2):
        studio.find_marks().join(timeout=30)
    assert calls == list(module.FOUND)
    assert set(studio.marks) == set(module.FOUND)
