"""What is claimed without any effect, simulated from scores to words: at 5 %, 5 % of it at most."""

from __future__ import annotations

import json
from functools import partial
from math import inf, nan

import numpy as np
import pytest
from scipy import stats

from clas_core.evaluation.judging import statistics
from clas_core.evaluation.judging.comparison import Comparison, Difference, compare
from clas_core.evaluation.judging.engine import ConditionScores
from clas_core.evaluation.judging.finding import Finding, Point
from clas_core.evaluation.judging.items import Scores, Test
from clas_core.evaluation.judging.results import Results
from clas_core.evaluation.judging.statistics import Interval
from clas_core.evaluation.telling.figures import gains_figure
from clas_core.evaluation.telling.report import to_html
from clas_core.evaluation.telling.tables import from_json, to_csv, to_json, to_latex
from clas_core.evaluation.telling.verdict import headline, verdict

FEW = (1, 2, 3, 4, 5)
ENOUGH = (6, 8, 10, 20, 60)
CODES = ("es", "sw", "hi")
# metric, items of a group (None: 1 to 5), languages, tasks
KINDS = {
    "McNemar, one language": ("accuracy", 1, 1, 1),
    "sign flips, mean of three languages": ("accuracy", 1, 3, 1),
    "f1 in thirds, uneven groups": ("f1", None, 3, 1),
    "nats, uneven groups, two tasks": ("log_p", None, 2, 2),
}


def values(latent: np.ndarray, metric: str) -> tuple[float, ...]:
    if metric == "accuracy":
        latent = (latent > 0).astype(float)
    if metric == "f1":
        latent = np.clip(np.round(latent * 3) / 3, 0, 1)
    return tuple(latent.tolist())


def simulate(
    rng: np.random.Generator, groups: int, metric: str, size: int | None, languages: int,
    tasks: int = 1, effect: float = 0.0,
) -> Comparison:  # fmt: skip
    """Two conditions that differ by `effect` and by chance, of which much is an item's group's."""
    found = []
    for number in range(tasks):
        sizes = rng.integers(1, 6, groups) if size is None else np.full(groups, size)
        group = np.repeat(range(groups), sizes)
        keys = tuple(f"item {k}" for k in range(len(group)))
        hard = rng.normal(0, 1, len(group))
        for condition, gain in (("unsteered", 0.0), ("CLAS", effect)):
            shared = rng.normal(0, 1, groups)[group] + hard
            for code in ("en", *CODES[:languages]):
                latent = shared + rng.normal(0, 0.5, len(group)) + gain
                shown = values(latent, metric)
                names = tuple(f"text {k}" for k in group)
                scores = Scores(f"task {number}", code, Test, metric, keys, names, shown)
                found.append(ConditionScores(condition, scores))
    return compare(Results(tuple(found), {}))


def count_claims(groups: int, kind: str, runs: int) -> tuple[int, int]:
    """Of so many simulated comparisons without effect, in how many the headline claims one, and
    in how many the first task's sentence does for a language."""
    overall = single = 0
    for seed in range(runs):
        comparison = simulate(np.random.default_rng((groups, seed)), groups, *KINDS[kind])
        overall += "it h" in headline(comparison)  # helps or harms
        sentence = verdict(comparison)[0]
        single += "better in" in sentence or "worse in" in sentence
    return overall, single


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", FEW)
def test_up_to_five_texts_claim_nothing(groups, kind):
    assert count_claims(groups, kind, 5) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", ENOUGH)
def test_claims_are_wrong_in_five_percent_at_most(groups, kind, monkeypatch):
    for name in ("sign_flip", "paired_interval"):  # exact with any number of patterns
        quick = partial(getattr(statistics, name), resamples=999)
        monkeypatch.setattr(f"clas_core.evaluation.judging.comparison.{name}", quick)
    runs = 200
    most = stats.binom.ppf(0.999, runs, 0.05)
    assert max(count_claims(groups, kind, runs)) <= most


def test_what_is_there_is_claimed():
    rng = np.random.default_rng(0)
    assert headline(simulate(rng, 60, "log_p", 2, 3, effect=1.5)) == "it helps in task 0"
    assert headline(simulate(rng, 6, "log_p", 2, 1, effect=9.0)) == "it helps in task 0"
    assert headline(simulate(rng, 60, "log_p", 2, 3, effect=-1.5)) == "it harms in task 0"


def test_one_paragraph_tells_nothing():
    """Four items of one paragraph, all of them better by 1.91."""
    keys, group = tuple("abcd"), ("a paragraph",) * 4
    found = [
        ConditionScores(condition, Scores("a task", code, Test, "log_p", keys, group, (value,) * 4))
        for condition, value in (("unsteered", -2.0), ("CLAS", -0.09))
        for code in ("es", "sw")
    ]
    comparison = compare(Results(tuple(found), {"model": "m"}))
    assert headline(comparison) == "too few texts to tell"
    (sentence,) = verdict(comparison)
    assert "+1.910 (no interval from one text)" in sentence
    assert "too few texts to tell of any language alone" in sentence
    text = to_json(comparison)
    assert "NaN" not in text
    assert "Infinity" not in text
    assert to_json(from_json(text)) == text
    assert headline(from_json(text)) == headline(comparison)
    for form in (to_csv, to_latex, to_html):
        assert "nan" not in form(comparison).replace("nanmean", "").partition("<script>")[0]
    assert "textbf" not in to_latex(comparison)
    (points,) = gains_figure(comparison, "a task", "log_p").data
    assert set(points.error_y.array) == {None}
    assert "[no interval]" in points.text[0]


def test_what_changes_nothing_is_not_told_as_too_few():
    """The same paragraph under a plan that changes nothing: it has no gain to look for."""
    keys, group = tuple("abcd"), ("a paragraph",) * 4
    found = [
        ConditionScores(condition, Scores(task, code, Test, "log_p", keys, group, (-2.0,) * 4))
        for condition in ("unsteered", "CLAS")
        for task, codes in (("one task", ("es", "sw")), ("another", ("es", "hi")))
        for code in codes
    ]
    everywhere = compare(Results(tuple(found), {"idle": {"CLAS": ["es", "sw", "hi"]}}))
    assert headline(everywhere) == "it changes nothing in the model"
    in_one = compare(Results(tuple(found), {"idle": {"CLAS": ["es", "sw"]}}))
    assert headline(in_one) == (
        "it changes nothing in the model in one task; too few texts to tell in another"
    )
    assert verdict(in_one)[0] == "one task, log_p: CLAS changes nothing in the model."


def test_what_is_not_known_comes_back_from_plain_data():
    unknown = Interval(0.5, nan, nan)
    finding = Finding("a task", "f1", (Point("CLAS", "es", 0.1, 0.2, 0.3),), unknown, unknown)
    data = json.loads(json.dumps(finding.as_dict(), allow_nan=False))
    assert data["gain"] == {"estimate": 0.5, "low": None, "high": None}
    back = Finding.from_dict(data)
    assert back.points == finding.points
    assert back.as_dict() == finding.as_dict()
    assert not back.gain.is_known
    comparison = simulate(np.random.default_rng(0), 3, "f1", 1, 2)
    frame = comparison.frame
    assert {str(frame[name].dtype) for name in ("low", "high", "detectable")} == {"float64"}
    assert frame.low.isna().all()
    (first, *_) = comparison.differences
    row = frame.to_dict("records")[0]
    for data in (row, first.as_dict()):
        assert Difference.from_dict(data).as_dict() == first.as_dict()
        assert Difference.from_dict(data).detectable == first.detectable == inf


def test_few_items_are_not_taken_for_no_effect():
    """20 items of which two turn each way could show a gain of dozens of points only."""
    turned = [1.0, 1.0, 0.0, 0.0]
    keys = tuple(f"item {k}" for k in range(20))
    right = {"unsteered": (*turned, *[1.0] * 16), "CLAS": (*reversed(turned), *[1.0] * 16)}
    found = [
        ConditionScores(condition, Scores("a task", "es", Test, "accuracy", keys, keys, shown))
        for condition, shown in right.items()
    ]
    comparison = compare(Results(tuple(found), {}))
    least = 100 * comparison.differences[0].detectable
    assert least > 30
    assert headline(comparison) == (
        f"too few items to tell (they could show {least:.2f} points at best)"
    )
    assert f"({least:.2f} points would have shown in half of them)" in verdict(comparison)[0]


def test_many_items_say_no_effect():
    found = [
        ConditionScores(condition, Scores("a task", "es", Test, "accuracy", keys, keys, shown))
        for keys in [tuple(f"item {k}" for k in range(2000))]
        for condition, turned in (("unsteered", 3), ("CLAS", 4))
        for shown in [tuple(float(k >= turned) for k in range(2000))]
    ]
    assert headline(compare(Results(tuple(found), {}))) == "no gain and no loss beyond chance"
