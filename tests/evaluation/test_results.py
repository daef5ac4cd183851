"""Results go to disk and come back; a log goes on where a killed run stopped."""

import json

import pytest
from small_tasks import RECIPE, SmallTask

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.conditions import Condition, standard_conditions
from clas_core.evaluation.judging.engine import load_items, run_tasks, tuning_runs
from clas_core.evaluation.judging.items import Test, Validation
from clas_core.evaluation.judging.results import Log, Results, collect, describe

CONDITIONS = standard_conditions([RECIPE], controls=1)


@pytest.fixture(scope="module")
def atlas(tiny_lm, tiny_corpus):
    return Atlas.measure(tiny_lm, tiny_corpus)


@pytest.fixture(scope="module")
def runs():
    tasks = [SmallTask("choice"), SmallTask("text")]
    return tuning_runs(load_items(tasks, Validation, ["en", "sw"], 4), CONDITIONS)


@pytest.fixture(scope="module")
def about(tiny_lm, atlas, runs):
    return describe(tiny_lm, atlas, Validation, runs)


def fill(log, lm, atlas, runs):
    for _ in collect(log, run_tasks(lm, atlas, runs)):
        pass
    return log


def test_save_and_load(tmp_path, tiny_lm, atlas, runs, about):
    results = fill(Log(tmp_path / "log", Validation, about), tiny_lm, atlas, runs).results(runs)
    results.save(tmp_path / "results.json")
    again = Results.load(tmp_path / "results.json", Validation)
    assert again == results
    frame = results.frame
    assert [*frame.columns] == [
        *("condition", "task", "language", "metric", "item", "group", "value")
    ]
    assert len(frame) == sum(len(one.scores.values) for one in results.scores)
    mean = frame[(frame.condition == "CLAS") & (frame.language == "sw")].groupby("metric").value
    scores = results.get("CLAS", "small text", "bits_per_byte", "sw")
    assert mean.mean()["bits_per_byte"] == pytest.approx(scores.mean)
    assert results.conditions == tuple(condition.name for condition in CONDITIONS)
    assert results.measures == (
        ("small choice", "accuracy"),
        ("small choice", "log_p"),
        ("small text", "bits_per_byte"),
    )
    assert results.languages("small text") == ("en", "sw")
    assert results.get("asked", "small text", "bits_per_byte", "sw") is None
    assert len(results.get("CLAS", "small text", "bits_per_byte", "sw").values) == 4
    with pytest.raises(ClasError, match="these are validation items"):
        Results.load(tmp_path / "results.json", Test)


def test_it_says_what_it_is_of(about):
    assert about["split"] == "validation"
    assert about["conditions"][1]["hash"] == RECIPE.hash
    assert about["conditions"][1]["recipe"]["layers"] == [1, 3]
    assert about["items"]["small choice sw"] == 4
    assert about["versions"].keys() >= {"torch", "transformers", "python", "clas-studio"}
    assert about["date"].endswith("+00:00")
    assert json.loads(json.dumps(about)) == about


def test_a_killed_run_goes_on(tmp_path, tiny_lm, atlas, runs, about):
    """Killed within its second run, in the middle of a line: that run is done again."""
    path = tmp_path / "log"
    whole = fill(Log(path, Validation, about), tiny_lm, atlas, runs).results(runs)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    first_column = 1 + 2 * len(CONDITIONS)
    path.write_text("".join(lines[: first_column + 3]) + lines[first_column + 3][:40], "utf-8")
    log = Log(path, Validation, {**about, "date": "later"})
    assert log.about["date"] == about["date"]
    left = log.unfinished(runs)
    assert left == runs[1:]
    assert fill(log, tiny_lm, atlas, left).results(runs).scores == whole.scores
    again = Log(path, Validation, about)
    assert again.unfinished(runs) == ()
    assert {one.scores.task for one in again.results(runs[:1]).scores} == {"small choice"}
    assert set(again.results(runs).scores) == set(whole.scores)


def test_another_run_s_log_is_refused(tmp_path, about):
    Log(tmp_path / "log", Validation, about)
    other = {**about, "conditions": about["conditions"][:1], "model": "another"}
    with pytest.raises(ClasError, match="a measurement with other model, conditions"):
        Log(tmp_path / "log", Validation, other)


def test_the_same_task_on_another_text_is_refused(tmp_path, about):
    Log(tmp_path / "log", Validation, about)
    other = {**about, "texts": {**about["texts"], "small text sw": "of another"}}
    with pytest.raises(ClasError, match="of another text for small text sw"):
        Log(tmp_path / "log", Validation, other)
    Log(tmp_path / "log", Validation, {**about, "texts": {"another task sw": "of another"}})


def test_an_empty_file_is_begun(tmp_path, about):
    (tmp_path / "log").touch()
    Log(tmp_path / "log", Validation, about)
    assert Log(tmp_path / "log", Validation, about).scores == []


@pytest.mark.parametrize("text", ["no json\n", '{"format": "other"}\n', "[]\n"])
def test_other_files_are_refused(tmp_path, about, text):
    (tmp_path / "other").write_text(text)
    with pytest.raises(ClasError):
        Log(tmp_path / "other", Validation, about)
    with pytest.raises(ClasError):
        Results.load(tmp_path / "other", Validation)


def test_conditions_are_plain_data():
    assert Condition("asked", ask=True).as_dict() == {"name": "asked", "control": None, "ask": True}
