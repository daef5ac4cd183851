"""Comparisons against numbers worked out by hand."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from clas_core.errors import ClasError
from clas_core.evaluation.judging.comparison import MEAN, Difference, beyond_controls, compare
from clas_core.evaluation.judging.engine import ConditionScores
from clas_core.evaluation.judging.items import Scores, Test
from clas_core.evaluation.judging.results import Results
from clas_core.evaluation.telling.figures import gains_figure
from clas_core.evaluation.telling.paper import paper_sentence, published_for
from clas_core.evaluation.telling.report import to_html
from clas_core.evaluation.telling.tables import (
    from_json,
    idle_notes,
    to_csv,
    to_json,
    to_latex,
    to_text,
)
from clas_core.evaluation.telling.verdict import answer, headline, verdict
from clas_core.ui.parts.gains import tables

N = 40
KEYS = tuple(f"item {k}" for k in range(N))
ABOUT = {
    "model": "a <model>",
    "revision": "abc",
    "weights": "0123",
    "split": "test",
    "conditions": [{"name": "CLAS", "hash": "123456789abc"}],
    "versions": {"torch": "2"},
    "date": "2026-01-01",
}


def scores(values, language, metric="accuracy"):
    return Scores("a task", language, Test, metric, KEYS, KEYS, tuple(map(float, values)))


def right(count, shift=0):
    """`count` of the items right, the first one at `shift`."""
    return [float((k - shift) % N < count) for k in range(N)]


@pytest.fixture(scope="module")
def comparison():
    """Unsteered: half right. CLAS: 12 more in es and none lost, 1 more in hi, 2 lost in en."""
    table = {
        "unsteered": {"en": right(20), "es": right(20), "hi": right(20)},
        "CLAS": {"en": right(18), "es": right(32), "hi": right(21)},
        "random control 0": {"en": right(20), "es": right(20), "hi": right(22)},
        "random control 1": {"en": right(20), "es": right(33), "hi": right(21)},
    }
    found = [
        ConditionScores(condition, scores(values, language))
        for condition, columns in table.items()
        for language, values in columns.items()
    ]
    for condition, level in (("unsteered", 2.0), ("CLAS", 1.5)):
        values = [level + 0.01 * (k % 3) for k in range(N)]
        found.append(ConditionScores(condition, scores(values, "es", "bits_per_byte")))
    return compare(Results(tuple(found), ABOUT))


def test_gains_are_paired(comparison):
    es = comparison.get("CLAS", "a task", "accuracy", "es")
    assert (es.before, es.after, es.items) == (0.5, 0.8, N)
    assert es.gain.estimate == pytest.approx(12 / 40)
    assert 0.1 < es.gain.low < 0.3 < es.gain.high < 0.5
    assert es.p == pytest.approx(2 * 0.5**12)  # 12 of 12 became right
    assert es.p_holm == pytest.approx(2 * es.p)  # the smaller of two languages
    hi = comparison.get("CLAS", "a task", "accuracy", "hi")
    assert (hi.p, hi.p_holm) == (1.0, 1.0)
    assert 0 < hi.detectable < 0.3


def test_the_anchor_stands_apart(comparison):
    en = comparison.get("CLAS", "a task", "accuracy", "en")
    assert en.gain.estimate == pytest.approx(-0.05)
    assert en.p_holm == en.p == 0.5
    mean = comparison.get("CLAS", "a task", "accuracy", MEAN)
    assert mean.gain.estimate == pytest.approx((0.3 + 0.025) / 2)
    assert mean.items == 2 * N
    assert comparison.languages("a task") == (MEAN, "en", "es", "hi")


def test_translations_are_one_group(comparison):
    """The mean's interval is that of each item's mean over the languages."""
    mean = comparison.get("CLAS", "a task", "accuracy", MEAN)
    es, hi = np.array(right(32)) - right(20), np.array(right(21)) - right(20)
    error = ((es + hi) / 2).std(ddof=1) / np.sqrt(N)
    width = (mean.gain.high - mean.gain.low) / (2 * stats.norm.ppf(0.975))
    assert width == pytest.approx(error, rel=0.1)


def test_how_often_controls_win(comparison):
    """In es the first loses and the second wins; in hi the first wins and the second ties."""
    assert comparison.control_wins["CLAS", "a task", "accuracy"] == pytest.approx(2.5 / 4)
    assert ("CLAS", "a task", "bits_per_byte") not in comparison.control_wins


def test_a_method_is_compared_with_its_own_controls():
    """IntMu's two controls gain 2 and 4 items, on average 3: it is 5 beyond them, and CLAS, whose
    control gains 20, is behind."""
    table = {
        "unsteered": right(20),
        "CLAS": right(28),
        "IntMu": right(28),
        "random control 0 of CLAS": right(40),
        "random control 0 of IntMu": right(22),
        "random control 1 of IntMu": right(24),
    }
    found = Results(
        tuple(
            ConditionScores(name, scores(values, code))
            for name, values in table.items()
            for code in ("en", "es", "hi")
        ),
        ABOUT,
    )
    own = beyond_controls(found, "IntMu", "a task", "accuracy")
    assert (own.condition, own.language, own.items) == ("IntMu", MEAN, 2 * N)  # English left out
    assert own.before == pytest.approx(23 / 40)
    assert own.gain.estimate == pytest.approx(5 / 40)
    assert own.shown == 1
    assert beyond_controls(found, "CLAS", "a task", "accuracy").shown == -1
    wins = compare(found).control_wins
    assert wins["IntMu", "a task", "accuracy"] == 0
    assert wins["CLAS", "a task", "accuracy"] == 1
    alone = Results(found.scores[:6], ABOUT)  # without controls
    assert beyond_controls(alone, "CLAS", "a task", "accuracy") is None


def test_less_is_better_for_bits(comparison):
    bits = comparison.get("CLAS", "a task", "bits_per_byte", "es")
    assert bits.gain.estimate == pytest.approx(-0.5)
    assert bits.better == pytest.approx(0.5)
    assert bits.p < 0.001
    assert comparison.get("CLAS", "a task", "bits_per_byte", MEAN) is None  # of one language


def test_the_frame_holds_every_difference(comparison):
    """Its numbers are those of the differences to the bit, in a type that can be computed with."""
    frame = comparison.frame
    assert [*frame.columns[:9]] == [
        *("condition", "task", "metric", "language", "before", "after", "gain", "low", "high")
    ]
    assert [Difference.from_dict(row) for row in frame.to_dict("records")] == [
        *comparison.differences
    ]
    assert {str(frame[name].dtype) for name in ("before", "gain", "p_holm", "detectable")} == {
        "float64"
    }
    assert frame["items"].dtype.kind == "i"
    table = frame[frame.metric == "accuracy"].pivot(
        index="condition", columns="language", values="gain"
    )
    assert table.loc["CLAS", "es"] == pytest.approx(0.3)


def test_a_grid_is_in_the_tables_order(comparison):
    grid = comparison.grid("a task", "accuracy")
    assert [*grid.columns] == [MEAN, "en", "es", "hi"]
    assert [*grid.index] == ["CLAS", "random control 0", "random control 1"]
    assert grid.loc["CLAS", "es"] == comparison.get("CLAS", "a task", "accuracy", "es")
    half = replace(comparison, differences=comparison.differences[:2])  # as it fills in
    assert half.grid("a task", "accuracy").loc["CLAS"].notna().all()


def test_the_shell_s_table(comparison):
    lines = to_text(comparison, "a task", "accuracy").splitlines()
    assert lines[0].split() == ["a", "task,", "accuracy", MEAN, "en", "es", "hi"]
    assert lines[1].split()[-4:] == ["50.00"] * 4
    assert lines[2].split() == ["CLAS", "+16.25", "-5.00", "+30.00", "+2.50"]


@pytest.fixture(scope="module")
def idle(comparison):
    """The same, but CLAS has nothing to change in hi, the first control nowhere."""
    codes = {"CLAS": ["hi"], "random control 0": ["es", "hi"]}
    found = tuple(
        replace(d, identity=d.language in codes.get(d.condition, ()))
        for d in comparison.differences
    )
    return replace(comparison, differences=found)


def test_what_changes_nothing_is_marked_in_every_form(idle):
    table = to_text(idle, "a task", "accuracy").splitlines()
    assert table[2].split() == ["CLAS", "+16.25", "-5.00", "+30.00", "="]
    assert r"CLAS & \textbf{$+30.00$} & $=$ & " in to_latex(idle)
    assert idle_notes(idle)[0].startswith("CLAS: changes nothing in Hindi, as its plan")
    assert idle_notes(idle)[1].startswith("random control 0: changes nothing, as its plan")
    assert all(f"% {note}" in to_latex(idle) for note in idle_notes(idle))
    assert answer(idle)[-2:] == idle_notes(idle)
    html = to_html(idle)
    assert 'title="the plan changes nothing, 40 items">=</td>' in html
    assert "CLAS: changes nothing in Hindi" in html
    assert tables(idle.differences, True).count(">=</td>") == 3
    (first, *_) = gains_figure(idle, "a task", "accuracy").data
    assert list(first.marker.symbol) == ["circle", "circle", "circle", "circle-open"]
    lines = list(csv.DictReader(line for line in to_csv(idle).splitlines() if line[0] != "#"))
    marked = {(line["condition"], line["language"]) for line in lines if line["identity"] == "True"}
    assert marked == {("CLAS", "hi"), ("random control 0", "es"), ("random control 0", "hi")}
    assert from_json(to_json(idle)).differences == idle.differences


def test_a_method_that_changes_nothing_is_no_finding(comparison):
    every = tuple(replace(d, identity=d.condition == "CLAS") for d in comparison.differences)
    idle = replace(comparison, differences=every)
    assert headline(idle) == "it changes nothing in the model"
    assert verdict(idle) == ["a task, accuracy: CLAS changes nothing in the model."]
    figure = gains_figure(idle, "a task", "accuracy")
    assert figure.data[0].name == "CLAS (changes nothing)"


def test_the_anchor_and_the_mean_are_idle_where_all_languages_are():
    found = [
        ConditionScores(condition, scores(right(20), language))
        for condition in ("unsteered", "LAPE", "IntMu")
        for language in ("en", "es", "hi")
    ]
    idle = {"LAPE": ["es", "hi"], "IntMu": ["hi"]}
    frame = compare(Results(tuple(found), {**ABOUT, "idle": idle})).frame
    assert frame[frame.condition == "LAPE"].identity.all()
    marked = frame[(frame.condition == "IntMu") & frame.identity]
    assert [*marked.language] == ["hi"]


def test_csv(comparison):
    text = to_csv(comparison)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "# recipes: CLAS 123456789abc" in comments
    body = io.StringIO("\n".join(text.splitlines()[len(comments) :]))
    lines = list(csv.DictReader(body))
    assert len(lines) == len(comparison.differences)
    assert float(lines[1]["gain"]) == pytest.approx(0.3)
    assert lines[1]["language"] == "es"


def test_json(comparison):
    data = json.loads(to_json(comparison))
    assert data["about"] == {**ABOUT, "seed": 0}
    assert data["differences"][1]["gain"] == pytest.approx(0.3)
    assert data["control_wins"][0] == {
        "condition": "CLAS",
        "task": "a task",
        "metric": "accuracy",
        "share": pytest.approx(0.625),
    }


def test_json_comes_back(comparison):
    back = from_json(to_json(comparison))
    assert back.differences == comparison.differences
    assert back.control_wins == comparison.control_wins
    for text in ("[]", "no", '{"about": {}}'):
        with pytest.raises(ClasError, match="no comparison"):
            from_json(text)


def test_the_verdict_names_what_is_more_than_chance(comparison):
    (first,) = verdict(comparison)
    assert first.startswith("a task, accuracy: +16.25 points (95 % between ")
    assert " in the mean of 2 languages; better in Spanish; English −5.00 points" in first
    assert first.endswith("do better in 62% of cases, where 50% is chance.")
    assert verdict(comparison, "random control 0")[0].startswith("a task, accuracy: +2.50 points")


def test_one_language_is_told_by_itself(comparison):
    one = replace(
        comparison,
        differences=tuple(d for d in comparison.differences if d.language in ("en", "es")),
    )
    assert headline(one) == "it helps in a task"
    assert verdict(one)[0].startswith("a task, accuracy: +30.00 points (95 % between ")
    assert " in Spanish; better in Spanish; English" in verdict(one)[0]


def test_the_headline_goes_by_the_mean(comparison):
    assert headline(comparison) == "it helps in a task"
    # 40 items: the paper reports 1.93 points at most.
    assert headline(comparison, "random control 0") == (
        "too few items to tell (they could show 9.52 points at best)"
    )
    assert answer(comparison)[0] == "CLAS: it helps in a task."
    swept = [replace(d, condition="alpha=1") for d in comparison.differences]
    assert answer(replace(comparison, differences=tuple(swept))) == []


def test_the_anchor_alone_answers_nothing(comparison):
    english = tuple(d for d in comparison.differences if d.language == "en")
    alone = replace(comparison, differences=english)
    assert headline(alone) == "no language was steered for"
    assert verdict(alone)[0].startswith("a task, accuracy: English −5.00 points")


def test_what_the_paper_reports_stands_beside_tasks_like_its_own():
    assert paper_sentence("a task", "accuracy") == ""
    found = paper_sentence("village-nli", "accuracy")
    assert found.endswith("XNLI's languages (accuracy): Llama-3.1-8B +1.93, Qwen2.5-7B +0.45.")
    assert [one.gain for one in published_for("xquad, 3 examples", "f1")] == [0.94, 1.10]


def test_latex(comparison):
    text = to_latex(comparison)
    assert "% model: a <model> (revision abc, weights 0123)" in text
    first = text.split("\\end{tabular}")[0].splitlines()
    assert "a task, accuracy & es & hi & mean & en \\\\" in first
    assert "unsteered, score & 50.00 & 50.00 & 50.00 & 50.00 \\\\" in first
    assert "CLAS & \\textbf{$+30.00$} & $+2.50$ & \\textbf{$+16.25$} & $-5.00$ \\\\" in first
    assert text.count("\\begin{tabular}") == 2


def test_the_report_stands_alone(comparison):
    html = to_html(comparison)
    assert "Does steering help a &lt;model&gt;?" in html
    assert "<model>" not in html
    assert "+30.00" in html
    assert (
        "How often random controls of CLAS (the same numbers on random neurons) did better, "
        "where 50% is chance: CLAS 62" in html
    )
    page = html[html.index("</head>") :]
    assert "http://" not in page
    assert "https://" not in page
    assert "<script src" not in html
    assert "<link" not in html


def test_the_figure_shows_every_gain_in_points(comparison):
    figure = gains_figure(comparison, "a task", "accuracy")
    traces = {trace.name: trace for trace in figure.data}
    assert [trace.name for trace in figure.data] == ["CLAS", *["random control"] * 2]
    assert traces["CLAS"].x == ("mean", "English", "Spanish", "Hindi")
    assert traces["CLAS"].y == pytest.approx((16.25, -5.0, 30.0, 2.5))
    es = comparison.get("CLAS", "a task", "accuracy", "es").gain
    assert traces["CLAS"].error_y.array[2] == pytest.approx(100 * (es.high - es.estimate))
    assert [trace.showlegend for trace in figure.data] == [True, True, False]
    assert gains_figure(comparison, "a task", "bits_per_byte").data[0].y == pytest.approx((-0.5,))
