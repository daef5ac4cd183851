from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable

import pytest
from tiny_studio import tiny_studio

from clas_core.errors import ClasError
from clas_core.evaluation.judging import engine
from clas_core.evaluation.judging.comparison import MEAN
from clas_core.ui.behind.studio import Studio
from clas_core.ui.behind.trial import Asked, Trial
from clas_core.ui.parts.gains import tables, verdict_markup
from clas_core.ui.tabs.measure import _found, chosen_setting

ASKED = Asked(("bits-per-byte", "retrieval"), ("en", "sw", "th"), ("DiffMean",), 20)


@pytest.fixture(scope="module")
def studio() -> Studio:
    return tiny_studio()


@pytest.fixture
def trial(studio, tmp_path, monkeypatch) -> Callable[..., Trial]:
    monkeypatch.setenv("CLAS_CACHE", str(tmp_path))
    values = {**studio.defaults(), "strength": 1.0, "prompt": ""}

    def make(asked: Asked = ASKED, **changes) -> Trial:
        return Trial(studio, studio.recipe({**values, **changes}), asked)

    return make


def done(trial: Trial) -> Trial:
    trial.start()
    assert trial.finished.wait(60)
    return trial


def test_tries_out_on_validation_items(trial) -> None:
    found = done(trial(dataclasses.replace(ASKED, languages=("en", "hi", "tr", "th", "sw"))))
    assert found.error is None
    outcome = found.outcome
    comparison = outcome.comparison
    assert comparison.about["split"] == "validation"
    assert chosen_setting(outcome) is None
    assert comparison.conditions == ("CLAS", "DiffMean", "random control 0", "random control 1")
    assert comparison.languages("bits-per-byte") == (MEAN, "en", "hi", "tr", "th", "sw")
    one = comparison.get("CLAS", "bits-per-byte", "bits_per_byte", "sw")
    assert one.gain.low <= one.gain.estimate <= one.gain.high
    assert one.gain.estimate == pytest.approx(one.after - one.before)
    assert tables(list(found.differences.values()), True).count("<table") == 2
    assert "on validation items, measured" in verdict_markup(outcome)
    assert outcome.findings[0].task == "bits-per-byte"


def test_a_strength_is_chosen_on_validation_items_and_reported_on_test_items(trial) -> None:
    asked = dataclasses.replace(ASKED, tasks=("bits-per-byte",), choose=True)
    outcome = done(trial(asked)).outcome
    comparison = outcome.comparison
    assert comparison.about["split"] == "test"
    strengths = {
        r["name"]: r["recipe"]["alpha"] for r in comparison.about["conditions"] if "hash" in r
    }
    assert set(strengths) == {"CLAS", "DiffMean", "random control 0", "random control 1"}
    assert strengths["CLAS"] == strengths["random control 0"]
    suggested = chosen_setting(outcome)
    assert suggested.alpha == strengths["CLAS"]
    assert {one.recipe.layers for one in outcome.ranking.tried} == {(2, 3)}


def test_strength_off_gains_nothing_anywhere(trial) -> None:
    found = done(trial(strength=0.0)).outcome.comparison
    assert all(d.gain.estimate == 0 for d in found.differences if d.condition != "DiffMean")
    assert {d.condition for d in found.differences if d.identity} == {
        "CLAS", "random control 0", "random control 1",
    }  # fmt: skip


def test_cancelled_it_goes_on_from_there(trial, studio, monkeypatch) -> None:
    first, asked_for = trial(), []

    def give_way() -> None:
        if len(first.differences) >= 6:
            first.cancel()

    def run_tasks(lm, atlas, runs, progress):
        asked_for.append(len(runs))
        return engine.run_tasks(lm, atlas, runs, progress)

    monkeypatch.setattr(studio.gate, "give_way", give_way)
    monkeypatch.setattr("clas_core.ui.behind.works.run_tasks", run_tasks)
    done(first)
    assert first.outcome is None
    assert "kept" in first.stage
    second, third = done(trial()), done(trial())
    assert asked_for == [5, asked_for[1], 0]
    assert 0 < asked_for[1] < 5
    assert [d.gain for d in third.outcome.comparison.differences] == [
        d.gain for d in second.outcome.comparison.differences
    ]


def test_what_can_be_taken_away(trial, tmp_path) -> None:
    table, data, latex, report = done(trial()).outcome.write(tmp_path)
    lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
    assert {line["language"] for line in csv.DictReader(io.StringIO("\n".join(lines)))} == {
        "en", "sw", "th", MEAN,
    }  # fmt: skip
    assert data.read_text().startswith("{")
    assert r"\toprule" in latex.read_text()
    assert "<script" in report.read_text()
    assert "http://" not in report.read_text().split("<script")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, "at least one task"),
        ({"tasks": ("chess",)}, "no task 'chess'"),
        ({"languages": ("sw", "th")}, "Choose English"),
        ({"tasks": ("xnli",)}, "needs its published files"),
    ],
)
def test_what_can_not_be_measured_is_said_at_once(trial, changes, message) -> None:
    with pytest.raises(ClasError, match=message):
        trial(dataclasses.replace(ASKED, **changes))


def test_a_failure_is_a_sentence(trial, monkeypatch) -> None:
    def fail(*args, **options):
        raise RuntimeError("boom")

    monkeypatch.setattr("clas_core.ui.behind.works.run_tasks", fail)
    assert "failed (RuntimeError)" in str(done(trial()).error)


def test_a_benchmark_is_measured_after_solved_examples(trial, tmp_path) -> None:
    """Of a folder of its files; the picture's label still says what it asks."""
    for code in ("en", "hi", "th"):
        paragraphs = [
            {
                "context": f"Red {n}.",
                "qas": [{"id": f"{n}", "question": "Which?", "answers": [{"text": f"{n}"}]}],
            }
            for n in range(120)
        ]
        path = tmp_path / "files" / f"xquad.{code}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), "utf-8")
    asked = Asked(("xquad",), ("en", "hi", "th"), (), 6, folder=str(tmp_path / "files"), shots=1)
    found = done(trial(asked))
    assert found.error is None
    assert found.outcome.comparison.get("CLAS", "xquad, 1 examples", "f1", "th").items == 6
    assert _found(found.outcome)[1]
    with pytest.raises(ClasError, match="name the folder"):
        trial(dataclasses.replace(asked, folder=" "))
