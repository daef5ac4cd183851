"""`clas.evaluate`: the engine's numbers in one call."""

import pytest
from small_tasks import RECIPE, SmallTask

import clas_core as clas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.comparison import compare
from clas_core.evaluation.judging.conditions import standard_conditions
from clas_core.evaluation.judging.engine import load_items, run_tasks, tuning_runs
from clas_core.evaluation.judging.items import Validation
from clas_core.evaluation.judging.results import Results, describe


def test_it_gives_what_the_engine_gives(tiny_lm, tiny_corpus):
    atlas, tasks = clas.Atlas.measure(tiny_lm, tiny_corpus), [SmallTask("choice")]
    found = clas.evaluate(tiny_lm, atlas, RECIPE, tasks, ["en", "sw", "es"], items=4, controls=1)
    runs = tuning_runs(
        load_items(tasks, Validation, ["en", "sw", "es"], 4), standard_conditions([RECIPE], 1)
    )
    scores = [one for some in run_tasks(tiny_lm, atlas, runs) for one in some]
    wanted = compare(Results(tuple(scores), describe(tiny_lm, atlas, Validation, runs)))
    assert found.frame.equals(wanted.frame)
    assert found.about["split"] == "validation"
    assert {*found.frame.condition} == {"CLAS", "asked", "random control 0"}


def test_what_can_not_be_measured_is_refused(tiny_lm, tiny_corpus):
    atlas = clas.Atlas.measure(tiny_lm, tiny_corpus)
    for recipes, tasks, sentence in (
        ([], [SmallTask("choice")], "no recipe to measure"),
        (RECIPE, ["nothing"], "no task 'nothing'"),
        ([RECIPE, RECIPE], [SmallTask("choice")], "Two of these recipes are of CLAS"),
    ):
        with pytest.raises(ClasError, match=sentence):
            clas.evaluate(tiny_lm, atlas, recipes, tasks)
