"""What the page opens with: stored, and the same as a live run."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_studio import STRENGTHS, tiny_studio

from clas_core.errors import ClasError
from clas_core.model.prompts import as_rendered
from clas_core.running.along import Along, read_along
from clas_core.running.batch import next_logits
from clas_core.studies import first_screen
from clas_core.ui.behind import first
from clas_core.ui.behind.goals import GOALS, melting, zones
from clas_core.ui.behind.parting import find_parting
from clas_core.ui.behind.profile import Profile
from clas_core.ui.behind.standing import keys_of
from clas_core.ui.behind.stored import Marks, Stored
from clas_core.ui.behind.studio import Studio
from clas_core.ui.parts.components import curves_value
from clas_core.village.grammar import CODES

BUILT = pytest.mark.skipif(not first_screen.PATH.is_file(), reason="the embedded model isn't built")


@pytest.fixture(scope="module")
def studio() -> Studio:
    return tiny_studio()


@pytest.fixture(scope="module")
def village() -> Studio:
    return Studio.open(Profile(threads=1))


def text_of(pane: dict) -> str:
    return "".join(text for text, *_ in pane["spans"])


def test_stored_answers_are_found_by_what_is_set(studio: Studio) -> None:
    cells = first.stored_cells(studio, "sw")
    assert [cell["alpha"] for cell in cells.values()] == [*STRENGTHS, 2.0]  # and silence's
    for alpha in STRENGTHS:
        settings = {**studio.defaults(), "strength": alpha, "prompt": studio.examples("sw")[0]}
        key = keys_of(studio, studio.recipe(settings), control=True)["steer"]
        assert cells[key]["alpha"] == alpha
        found = first.opening_view(studio, settings)
        assert found is not None
        assert found[1] == key
    assert first.opening_view(studio, {**settings, "tau": 0.9}) is None
    assert first.stored_cells(studio, "de") == {}


def test_each_pane_answers_the_question(studio: Studio) -> None:
    view = next(iter(first.stored_cells(studio, "sw").values()))["view"]
    assert view["story"] == "Anna sees a boat."
    for pane in view["panes"]:
        assert pane["asked"]["ask"] == "What does Anna see?"
        assert pane["asked"]["right"] == ("a boat" in pane["asked"]["answer"].lower())


def test_the_page_opens_in_the_visitors_language_if_it_is_stored(studio: Studio) -> None:
    assert first.opening_language(studio) == "sw"
    assert first.opening_language(studio, "ar-EG,ar;q=0.9,en;q=0.8") == "ar"
    assert first.opening_language(studio, "de-DE,de;q=0.9,en;q=0.8") == "en"
    assert first.opening_language(studio, "xx, ;;;,") == "sw"


def stored_with(speaks: list[float], knows: list[float]) -> Stored:
    def line(shares: list[float]) -> dict:
        return {"steered": [[share, 0, 1] for share in shares], "controls": []}

    curves = {"strengths": [-1.0, 0.0, 1.0, 2.0], "speaks": line(speaks), "knows": line(knows)}
    index = {"opening": "sw", "recipe": {}, "counts": {}, "curves": {"sw": curves}}
    return Stored({**index, "vocabulary": None}, lambda code: {"cells": []})


def test_the_sliders_words_come_from_the_curves() -> None:
    assert stored_with([0, 1, 0.95, 0.95], [0, 1, 1, 0.6]).marks("sw") == Marks(None, None)
    assert stored_with([0, 1, 0.85, 0.5], [0, 0.9, 0.5, 0.4]).marks("sw") == Marks(1.0, 2.0)
    assert stored_with([0, 0.5, 0.44, 0.5], [0, 0, 0, 0]).marks("sw") == Marks(1.0, None)
    assert stored_with([0, 1, 1, 1], [0, 1, 1, 1]).marks("th") == Marks(None, None)


@pytest.mark.parametrize(
    ("controls", "words", "label"),
    [
        ([[1, 1, 0.9, 0.9]] * 3, [(1.0, "Language melts")], "melts"),
        ([[1, 1, 0.9, 0.9]] * 2 + [[1, 1, 0.1, 0.1]], [(1.0, "Language melts")], "melts"),
        ([[1, 1, 0.9, 0.9]] + [[1, 1, 0.1, 0.1]] * 2, [(1.0, "Like random")], "like random"),
        (
            [[1, 1, 0.5, 0.9]] * 2,
            [(1.0, "Like random"), (2.0, "Language melts")],
            "melts",
        ),
    ],
)
def test_the_slider_claims_nothing_that_random_neurons_do_too(controls, words, label) -> None:
    stored = stored_with([0, 1, 0.8, 0.7], [1, 1, 1, 1])
    stored.curves("sw")["speaks"]["controls"] = [[[s, 0, 1] for s in one] for one in controls]
    known = stored.saying("sw")
    assert list(known.steps) == words
    (mark,) = known.marks
    at = next(at for at, word in words if word == "Language melts" or label == "like random")
    assert mark[:2] == (at, label)


def test_zones_are_of_one_steering(studio: Studio) -> None:
    start = {**studio.defaults(), "prompt": ""}
    known = zones(studio, "sw", {**start, "strength": 1.5})
    assert known is not None
    assert known.steps == ((0.5, "Subtle"), (1.0, "Language melts"), (2.0, "Breaks"))
    assert zones(studio, "sw", {**start, "beta": 1.0}) is None
    assert zones(studio, "de", start) is None


@pytest.mark.parametrize("name", GOALS)
def test_every_goal_can_be_set(studio: Studio, name: str) -> None:
    for code in ("sw", "en", "de"):
        wanted = GOALS[name].settings(studio, code)
        made = studio.recipe({**studio.defaults(), "prompt": "x", **wanted})
        assert studio.plan(made).layers
        assert studio.values_of(made)["strength"] == wanted["strength"]


def test_writing_in_another_language_is_not_in_the_prompts(studio: Studio) -> None:
    for code in ("sw", "en"):
        wanted = GOALS["write"].settings(studio, code)
        assert wanted["language"] != "en"
        assert wanted["prompt"] == studio.examples("en")[0]


def test_an_index_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "first_screen.json").write_text('{"language": "sw", "view": {}}', "utf-8")
    with pytest.raises(ClasError, match="another version"):
        Stored.load(tmp_path / "first_screen.json")
    assert Stored.load(tmp_path / "nothing.json") is None


def test_where_texts_part_and_what_was_likely_there(studio: Studio) -> None:
    prompt = as_rendered(studio.lm, "Anna sees")
    settings = {**studio.defaults(), "strength": 2.0, "beta": 3.0, "prompt": "Anna sees"}
    plan = studio.plan(studio.recipe(settings))

    def parting(unsteered, steered, peak):
        asked = Along(prompt.token_ids, tuple(unsteered), (None, plan))
        return find_parting(
            studio.lm, prompt, unsteered, steered, *read_along(studio.lm, [asked])[0], peak
        )

    found = parting([5, 6, 7], [5, 6, 9], peak=0)
    assert (found.place, found.parts) == (2, True)
    read = studio.lm.pad([[*prompt.token_ids, 5, 6]])
    for side, steering in ((found.before, None), (found.now, plan)):
        likely = next_logits(studio.lm, steering, *read)[0, -1].softmax(-1).topk(4).values
        assert torch.allclose(torch.tensor([share for _, share in side]), likely)
    assert found.before != found.now
    same = parting([5, 6, 7], [5, 6, 7], peak=1)
    assert (same.place, same.parts) == (1, False)
    shorter = parting([5, 6], [5, 6, 7], peak=0)
    assert (shorter.place, shorter.parts) == (2, True)


@BUILT
def test_the_stored_files_are_small_and_whole(village: Studio) -> None:
    folder = first_screen.PATH.with_suffix("")
    files = [first_screen.PATH, *folder.glob("*.json")]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert village.stored is not None
    assert village.stored.codes == CODES
    assert len({one["key"] for one in first.curves(village)}) == len(CODES)
    assert len(curves_value(first.curves(village))) < 40_000  # which every page brings
    for code in CODES:
        data = village.stored.of(code)
        assert [cell["alpha"] for cell in data["cells"]] == list(first_screen.STRENGTHS)
        assert data["prompt"] == village.examples(code)[0]


@BUILT
def test_stored_answers_are_what_a_live_run_gives(village: Studio) -> None:
    """Of four languages at four strengths: texts, colours, marks, answers and likeliest words."""
    assert village.stored is not None
    recipe = first_screen.first_recipe(village.num_layers)
    for code, alpha in (("en", 1.5), ("tr", 2.0), ("th", -0.75), ("ar", 1.0)):
        stored = village.stored.of(code)
        cell = next(cell for cell in stored["cells"] if cell["alpha"] == alpha)["view"]
        made = first_screen.cell_recipe(village, recipe, code, stored["prompt"], alpha)
        *_, live = village.steer(made, True, threading.Event())
        live = json.loads(json.dumps(live))
        assert [text_of(pane) for pane in live["panes"]] == [text_of(p) for p in cell["panes"]]
        assert live["panes"] == cell["panes"]
        assert live["sentence"] == cell["sentence"]
        assert live["parting"]["after"] == cell["parting"]["after"]
        for side in ("before", "now"):
            shares = [share for _, share in cell["parting"][side]]
            assert [share for _, share in live["parting"][side]] == pytest.approx(shares, abs=1e-3)


@BUILT
def test_what_goals_open_with_is_what_a_live_run_gives(village: Studio) -> None:
    """Silence in each language, help in all but English, and writing on from English in every other
    one: stored under what the goal sets, and a sample of all made again."""
    assert village.stored is not None
    for code in CODES:
        stored = village.stored.of(code)
        wanted = first_screen.goal_settings(village, code)
        assert [json.loads(json.dumps(one)) for one in wanted] == [
            one["settings"] for one in stored["goals"]
        ]
        assert len(wanted) == (len(CODES) if code == "en" else 2)
    for code, number in (("tr", 0), ("tr", 1), ("en", 4)):
        stored = village.stored.of(code)
        one = stored["goals"][number]
        settings, question = one["settings"], stored["question"]
        live = first_screen.goal_view(village, stored["prompt"], settings, question)
        live = json.loads(json.dumps(live))
        assert live["panes"] == one["view"]["panes"]
        assert live["notice"] == one["view"]["notice"]
        assert (live["bars"] is None) == (number > 0)
        for line in ("unsteered", "steered", "control"):
            if live["bars"]:
                assert live["bars"][line] == pytest.approx(one["view"]["bars"][line], abs=0.002)


@BUILT
def test_what_steering_helps_with_is_what_a_live_run_finds(village: Studio) -> None:
    assert village.stored is not None
    assert first_screen.helped(village, "sw") == village.stored.helped("sw")
    settings = GOALS["help"].settings(village, "en")  # which has nothing to be helped with
    assert settings["prompt"] == village.stored.helped(village.fallback)["prompt"]
    unsteered, steered, control = next(
        [text_of(pane) for pane in one["view"]["panes"]]
        for one in village.stored.of("sw")["goals"]
        if one["settings"] == json.loads(json.dumps(settings))
    )
    right = village.stored.helped("sw")["right"]
    assert steered.startswith(right)
    assert not unsteered.startswith(right)
    assert not control.startswith(right)


@BUILT
def test_one_point_of_the_curves_is_what_a_live_run_gives(village: Studio, monkeypatch) -> None:
    assert village.stored is not None
    assert village.stored.vocabulary is not None
    monkeypatch.setattr(first_screen, "STRENGTHS", (2.0,))
    recipe = replace(first_screen.first_recipe(village.num_layers))
    live = first_screen.curves(village, recipe, "sw", village.stored.vocabulary, lambda: None)
    stored = village.stored.curves("sw")
    place = stored["strengths"].index(2.0)
    for name in ("knows", "speaks"):
        assert live[name]["steered"][0] == pytest.approx(stored[name]["steered"][place], abs=0.03)
        assert live[name]["controls"][0][0] == pytest.approx(
            stored[name]["controls"][0][place], abs=0.03
        )


@BUILT
def test_the_first_example_melts_at_the_end_of_the_sweep(village: Studio) -> None:
    for code in CODES:
        assert 0 < melting(village, code) <= 2
