"""What comes measured with the embedded model, as the page tells it."""

from __future__ import annotations

import json
import re

import pytest

from clas_core.atlas.atlas import Atlas
from clas_core.evaluation.judging.conditions import Condition
from clas_core.evaluation.telling.figures import sweep_caption, sweep_heatmap
from clas_core.steering.recipe import Recipe
from clas_core.ui.behind.outcome import Outcome, read_outcome, told
from clas_core.ui.behind.studio import VILLAGE
from clas_core.ui.parts.gains import rho_markup, summary_markup, tables, verdict_markup
from clas_core.ui.tabs.measure import chosen_setting


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    settings = json.loads((VILLAGE / "settings.json").read_text("utf-8"))
    return read_outcome(VILLAGE / "measured.json", settings)


def test_it_is_of_test_items_in_all_languages(outcome) -> None:
    about = outcome.comparison.about
    assert about["split"] == "test"
    assert {"CLAS", "IntMu", "DiffMean", "asked", "random control 0"} <= set(
        outcome.comparison.conditions
    )
    tasks = (("nli", "accuracy"), ("qa", "f1"), ("recall", "asked"), ("known", "asked"))
    assert outcome.measures == [(f"village-{task}", metric) for task, metric in tasks]
    for task, metric in outcome.measures:
        assert len(outcome.comparison.languages(task)) == 13  # the mean too
        assert outcome.finding(task, metric) is not None


def test_the_page_opens_with_what_the_sweep_suggests(outcome) -> None:
    suggested = chosen_setting(outcome)
    assert suggested == Recipe.suggested("village")
    ranking = outcome.ranking
    gains = [one.gain.estimate for one in ranking.tried]
    assert gains[ranking.best] == max(gains)
    assert all(re.search(r" layers=\d-\d$", one.name) for one in ranking.tried)  # as in the shell
    drawn = sweep_heatmap(ranking, outcome.num_layers).data[0]
    assert len(drawn.y) > 1
    cells = sum(gain is not None for row in drawn.z for gain in row)
    assert sweep_caption(ranking).startswith(f"{cells} of the {len(ranking.tried)} settings")


def test_rows_that_do_nothing_are_marked_and_no_others(outcome) -> None:
    """As their plans on the shipped atlas say, by language; English is read under all of them."""
    frame = outcome.comparison.frame
    recipes = {one["name"]: one.get("recipe") for one in outcome.comparison.about["conditions"]}
    atlas = Atlas.load(VILLAGE / "atlas.safetensors")
    for name, recipe in recipes.items():
        if recipe is not None and "random" not in name:
            codes = [code for code in atlas.languages if code != "en"]
            rows = frame[(frame.condition == name) & frame.language.isin(codes)]
            condition = Condition(name, Recipe.from_json(json.dumps(recipe)))
            idle = condition.idle_for(atlas, codes)
            assert {*rows[rows.identity].language} == set(idle), name


def test_it_is_told_in_sentences(outcome) -> None:
    text = told(outcome)
    assert text.startswith("Does it help this model? ")
    assert "village-nli, accuracy: " in text
    assert "village-qa, f1: " in text
    assert "nan" not in text
    assert "The paper, in the mean of XNLI" in verdict_markup(outcome)
    assert tables(list(outcome.comparison.differences), True).count("<table") == 4
    assert all("95 %" in rho_markup(finding) for finding in outcome.findings)


def test_other_models_have_the_general_defaults() -> None:
    assert Recipe.suggested("owner/name") == Recipe(model="owner/name")


def test_the_first_sentence_names_tasks_by_what_they_ask(outcome) -> None:
    assert "village-" in verdict_markup(outcome)
    assert not re.search(r"village-\w", summary_markup(outcome))
    assert "“a question about a story”" in summary_markup(outcome)
