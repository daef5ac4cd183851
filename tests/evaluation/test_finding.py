"""Shifts against separations measured one plan at a time; rho against scipy's."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from sklearn.metrics import silhouette_samples
from small_tasks import RECIPE

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.comparison import Comparison, Difference
from clas_core.evaluation.judging.conditions import Condition, standard_conditions
from clas_core.evaluation.judging.finding import Shift, find, measure_shifts
from clas_core.evaluation.judging.statistics import Interval
from clas_core.evaluation.telling.figures import finding_figure, retrieval_figure
from clas_core.running.separation import separation
from clas_core.running.states import hidden_states
from clas_core.steering.recipe import Recipe
from clas_core.text.corpus import ParallelCorpus

CONDITIONS = (
    *standard_conditions([RECIPE], controls=1),
    Condition("IntMu", Recipe(method="IntMu", tau=0.3)),
)


@pytest.fixture(scope="module")
def atlas(tiny_lm, tiny_corpus):
    return Atlas.measure(tiny_lm, tiny_corpus)


def silhouette(lm, corpus, plan, code):
    states = hidden_states(lm, corpus, plan)
    points = states.at(-1).double().numpy()
    values = silhouette_samples(points, states.labels, metric="cosine")
    mine = [value for value, label in zip(values, states.labels) if label == code]
    return sum(mine) / len(mine)


def test_shifts(tiny_lm, atlas, tiny_corpus):
    seen = []
    shifts = measure_shifts(
        tiny_lm, atlas, CONDITIONS, tiny_corpus, progress=lambda *done: seen.append(done)
    )
    names = {condition.name: condition for condition in CONDITIONS}
    assert {shift.condition for shift in shifts} <= {"CLAS", "random control 0", "IntMu"}
    part = Condition("CLAS", replace(RECIPE, where="answer"))  # a sentence has no answer
    assert not measure_shifts(tiny_lm, atlas, [part], tiny_corpus)
    assert {shift.language for shift in shifts} == {"es", "hi", "sw"}
    assert seen[-1] == (len(shifts), len(shifts))
    for shift in shifts:
        plan = names[shift.condition].plan(atlas, shift.language)
        moved = silhouette(tiny_lm, tiny_corpus, plan, shift.language)
        still = silhouette(tiny_lm, tiny_corpus, None, shift.language)
        assert shift.separation == pytest.approx(moved - still, abs=1e-4)
        after, before = (separation(tiny_lm, tiny_corpus, p).retrieval for p in (plan, None))
        assert shift.retrieval == pytest.approx(after[shift.language] - before[shift.language])


def test_some_languages_and_sentences(tiny_lm, atlas, tiny_corpus):
    """Fewer targets don't change a target's number; fewer sentences do."""
    condition = CONDITIONS[1]
    whole = measure_shifts(tiny_lm, atlas, [condition], tiny_corpus)
    (one,) = measure_shifts(tiny_lm, atlas, [condition], tiny_corpus, ["sw", "en"])
    assert one in whole
    (few,) = measure_shifts(tiny_lm, atlas, [condition], tiny_corpus, ["sw"], sentences=3)
    assert few.separation != one.separation


def test_parallel_text_needs_the_anchor(tiny_lm, atlas, tiny_corpus):
    with pytest.raises(ClasError, match="parallel text in 'en'"):
        measure_shifts(tiny_lm, atlas, CONDITIONS, ParallelCorpus("x", {"sw": ["Paka."]}))


def comparison(gains):
    """One task's gains by (condition, language)."""
    fixed = {"before": 0.5, "after": 0.5, "p": 1.0, "p_holm": 1.0, "detectable": 0.1}
    fixed |= {"items": 10, "groups": 10}
    differences = tuple(
        Difference(condition, "task", "f1", code, gain=Interval(gain, gain, gain), **fixed)
        for (condition, code), gain in gains.items()
    )
    return Comparison(differences, {}, {})


def test_the_finding():
    generator = torch.Generator().manual_seed(0)
    keys = [
        (condition, code) for condition in ("a", "b") for code in ("es", "hi", "sw", "th", "tr")
    ]
    numbers = torch.randn(len(keys), 3, generator=generator).tolist()
    shifts = [Shift(*key, x, y) for key, (x, y, _) in zip(keys, numbers)]
    table = comparison({key: gain for key, (*_, gain) in zip(keys, numbers)})
    few = [shift for shift in shifts if shift.language in ("es", "hi", "sw")]
    assert find(table, few, "task", "f1") is None
    found = find(table, shifts, "task", "f1")
    assert len(found.points) == len(keys)
    x, y, gain = zip(*numbers)
    assert found.gain.estimate == pytest.approx(stats.spearmanr(x, gain).statistic)
    assert found.retrieval.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.gain.low <= found.gain.estimate <= found.gain.high
    figure = finding_figure(found)
    assert [trace.text[0] for trace in figure.data] == ["es", "hi", "sw", "th", "tr"]
    assert figure.data[0].x == (x[0], x[5])
    assert figure.data[0].y == pytest.approx((100 * gain[0], 100 * gain[5]))
    assert "rho" in figure.layout.annotations[0].text
    assert retrieval_figure(found).data[0].y == pytest.approx((100 * y[0], 100 * y[5]))


def test_two_points_tell_nothing():
    table = comparison({("a", "es"): 0.1, ("a", "hi"): 0.2})
    assert find(table, [Shift("a", "es", 1, 1), Shift("a", "hi", 2, 2)], "task", "f1") is None
