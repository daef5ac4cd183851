"""Sweeps: which settings, which is chosen, and that a choice needs validation scores."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tasks import RECIPE, SmallTask

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.conditions import UNSTEERED, Condition
from clas_core.evaluation.judging.engine import (
    ConditionScores,
    load_items,
    reporting_runs,
    run_tasks,
    tuning_runs,
)
from clas_core.evaluation.judging.items import Scores, Test, Validation
from clas_core.evaluation.judging.results import Results, describe
from clas_core.evaluation.judging.sweep import (
    Between,
    active_settings,
    grid,
    load_chosen,
    random_search,
    save_chosen,
    setting_conditions,
    strength,
    summarise,
    sweep_runs,
)
from clas_core.evaluation.telling.figures import sweep_heatmap
from clas_core.steering.recipe import Recipe

VALUES = {"alpha": (0.5, 1.0, 2.0), "layers": ((1, 3), (2, 3))}


def test_grid():
    settings = grid(RECIPE, VALUES)
    assert len(settings) == 6
    assert [recipe.alpha for recipe in settings] == [0.5, 0.5, 1.0, 1.0, 2.0, 2.0]
    assert {recipe.beta for recipe in settings} == {RECIPE.beta}
    names = [condition.name for condition in setting_conditions(settings)]
    assert names[:2] == ["alpha=0.5 layers=1-3", "alpha=0.5 layers=2-3"]
    with pytest.raises(ClasError, match="can't change 'prompt'"):
        grid(RECIPE, {"prompt": ("a",)})
    with pytest.raises(ClasError, match="alpha must be a number"):
        grid(RECIPE, {"alpha": (99.0,)})
    with pytest.raises(ClasError, match="needs values for tau"):
        grid(RECIPE, {"tau": ()})
    with pytest.raises(ClasError, match="list values of alpha"):
        grid(RECIPE, {"alpha": Between(0, 1), "tau": (0.1,)})


@given(seed=st.integers(0, 50), count=st.integers(1, 9))
def test_random_search(seed, count):
    values = {"alpha": Between(-1.0, 2.0), "shared_from": (2, 3), "layers": ((1, 3), (2, 3))}
    settings = random_search(RECIPE, values, count, seed)
    assert len(set(settings)) == count
    assert settings == random_search(RECIPE, values, count, seed)
    assert all(-1 <= recipe.alpha <= 2 and recipe.shared_from in (2, 3) for recipe in settings)


def test_random_search_ends_with_the_grid():
    found = random_search(RECIPE, {"shared_from": (2, 3), "layers": ((1, 3), (2, 3))}, 50)
    assert set(found) == set(grid(RECIPE, {"shared_from": (2, 3), "layers": ((1, 3), (2, 3))}))


def table(means):
    """Results in which setting k scores `means[k]` on 40 items, and the unsteered model 0."""
    settings = grid(RECIPE, {"alpha": tuple(0.5 * (k + 1) for k in range(len(means)))})
    names = ["unsteered", *(condition.name for condition in setting_conditions(settings))]
    keys = tuple(f"v{k}" for k in range(40))
    found = [
        ConditionScores(name, Scores("task", code, Validation, "f1", keys, keys, values))
        for name, mean in zip(names, [0.0, *means])
        for code in ("en", "sw")
        for values in [tuple((mean if code == "sw" else 9.0) + 0.1 * (k % 2) for k in range(40))]
    ]
    return settings, Results(tuple(found), {})


def test_the_smallest_setting_that_is_as_good_as_the_best():
    settings, results = table([0.1, 0.300, 0.301, 0.2])
    sweep = summarise(results, settings, num_layers=3)
    assert sweep.best == 2
    assert sweep.tried[2].gain.estimate == pytest.approx(0.301)  # English doesn't count
    # No noise in the differences: even 0.001 behind is behind.
    assert sweep.suggested == 2
    chosen = sweep.choose(1)
    assert chosen.setting == settings[1]
    assert [scores.language for scores in chosen.evidence] == ["en", "sw"]


def test_a_noisy_best_gives_way_to_a_smaller_setting():
    settings, results = table([0.1, 0.3, 0.31])
    noisy = [
        replace(
            one,
            scores=replace(
                one.scores,
                values=tuple(
                    v + (0.5 if k % 7 == 0 else -0.5 / 6) for k, v in enumerate(one.scores.values)
                ),
            ),
        )
        if one.condition == "alpha=1.5"
        else one
        for one in results.scores
    ]
    sweep = summarise(Results(tuple(noisy), {}), settings, num_layers=3)
    assert (sweep.best, sweep.suggested) == (2, 1)


def test_the_heatmap_is_of_the_suggested_setting_s_kind():
    """Strength by layers; what differs in tau isn't shown, what wasn't tried is blank."""
    values = {"alpha": (0.5, 1.0), "tau": (0.2, 0.3), "layers": ((1, 3), (2, 3))}
    settings = grid(RECIPE, values)[:-1]
    names = ["unsteered", *(condition.name for condition in setting_conditions(settings))]
    found = [
        ConditionScores(
            name, Scores("task", "sw", Validation, "f1", ("a", "b"), ("a", "b"), (gain, gain))
        )
        for name, gain in zip(names, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9])
    ]
    sweep = summarise(Results(tuple(found), {}), settings, num_layers=3)
    assert sweep.tried[sweep.suggested].name == "alpha=1 tau=0.3 layers=1-3"
    (heat,) = sweep_heatmap(sweep, 3).data
    assert (heat.x, heat.y) == (("0.5", "1"), ("2 to 3", "3"))
    shown = [
        [None if value is None else round(value, 6) for value in condition] for condition in heat.z
    ]
    assert shown == [[0.3, 0.9], [0.4, None]]
    assert heat.text[0][1] == "+0.900<br>[no interval]"  # two items only


def test_metrics_of_other_units_count_alike():
    """Bits a hundred times as large as shares don't decide alone."""
    settings = grid(RECIPE, {"alpha": (0.5, 1.0)})
    keys = tuple("abcd")
    table = {
        ("f1", "unsteered"): (0.0, 1.0, 0.0, 1.0),
        ("f1", "alpha=0.5"): (1.0, 1.0, 1.0, 1.0),
        ("f1", "alpha=1"): (0.0, 1.0, 0.0, 1.0),
        ("bits_per_byte", "unsteered"): (100.0, 300.0, 100.0, 300.0),
        ("bits_per_byte", "alpha=0.5"): (100.0, 300.0, 100.0, 300.0),
        ("bits_per_byte", "alpha=1"): (90.0, 290.0, 90.0, 290.0),
    }
    found = [
        ConditionScores(
            condition, Scores(f"task {metric}", "sw", Validation, metric, keys, keys, values)
        )
        for (metric, condition), values in table.items()
    ]
    sweep = summarise(Results(tuple(found), {}), settings, num_layers=3)
    gains = [one.gain.estimate for one in sweep.tried]
    assert gains == pytest.approx([0.5 / 0.5 / 2, 10 / 100 / 2])


def test_an_unfinished_sweep_has_no_winner():
    settings, results = table([0.1, 0.3])
    with pytest.raises(ClasError, match="isn't finished"):
        summarise(Results(results.scores[:-1], {}), settings, num_layers=3)


def test_strength():
    """|alpha| times the factors' distance from 1, times the layers."""
    recipe = Recipe(alpha=-0.5, beta=1.5, gamma=0.75, layers=(4, 8))
    assert strength(recipe, 8) == pytest.approx(0.5 * 0.75 * 4)
    assert strength(replace(recipe, layers=None), 8) == pytest.approx(0.5 * 0.75 * 2)
    assert strength(replace(recipe, method="IntMu"), 8) == pytest.approx(2.0)


def test_what_changes_nothing_is_not_swept(tiny_lm, tiny_corpus):
    """Neither a strength of 0 nor a threshold that no neuron reaches."""
    atlas = Atlas.measure(tiny_lm, tiny_corpus)
    loaded = load_items([SmallTask("choice")], Validation, ["en", "sw"], 4)
    settings = grid(RECIPE, {"alpha": (0.0, 1.0)})
    assert active_settings(settings, atlas, loaded) == settings[1:]
    still = Condition("x", settings[0])
    assert still.idle_for(atlas, ["sw", "es"]) == ("sw", "es")
    assert Condition(UNSTEERED).idle_for(atlas, ["sw"]) == ()
    runs = tuning_runs(loaded, [Condition(UNSTEERED), still, Condition("y", settings[1])])
    assert describe(tiny_lm, atlas, Validation, runs)["idle"] == {"x": ["sw"]}


def test_from_sweep_to_report(tmp_path, tiny_lm, tiny_corpus):
    """The whole way: sweep on validation items, keep the choice, report on test items."""
    atlas = Atlas.measure(tiny_lm, tiny_corpus)
    task, settings = SmallTask("choice"), grid(RECIPE, VALUES)
    runs = sweep_runs(load_items([task], Validation, ["en", "sw"], 4), settings, together=4)
    assert [len(run.conditions) for run in runs] == [1, 1, 4, 4, 2, 2]
    found = [one for found in run_tasks(tiny_lm, atlas, runs) for one in found]
    sweep = summarise(Results(tuple(found), {}), settings, num_layers=3)
    save_chosen(tmp_path / "chosen.json", [sweep.chosen])
    chosen = load_chosen(tmp_path / "chosen.json")
    assert chosen == (sweep.chosen,)
    runs = reporting_runs(load_items([task], Test, ["sw"], 4), chosen, controls=1)
    reported = [one for found in run_tasks(tiny_lm, atlas, runs) for one in found]
    assert {one.scores.split for one in reported} == {Test}


def test_a_forged_choice_is_refused(tmp_path):
    """Test scores don't pass for evidence, nor does a file without any."""
    settings, results = table([0.1, 0.3])
    path = tmp_path / "chosen.json"
    save_chosen(path, [summarise(results, settings, num_layers=3).chosen])
    data = json.loads(path.read_text())
    for scores in data["chosen"][0]["evidence"]:
        scores["split"] = "test"
    path.write_text(json.dumps(data))
    with pytest.raises(ClasError, match="these are test items"):
        load_chosen(path)
    data["chosen"][0]["evidence"] = []
    path.write_text(json.dumps(data))
    with pytest.raises(ClasError, match="score some first"):
        load_chosen(path)
    path.write_text("{}")
    with pytest.raises(ClasError, match="holds no chosen settings"):
        load_chosen(path)
