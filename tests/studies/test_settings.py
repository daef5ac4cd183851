"""The measurement that ships with the embedded model, in small: from a search to test items."""

import json
from functools import partial

import pytest

from clas_core.atlas.atlas import Atlas
from clas_core.evaluation.telling.tables import from_json
from clas_core.model.loading import load
from clas_core.paths import ASSETS
from clas_core.studies import settings as measured
from clas_core.studies.settings import save, study
from clas_core.ui.behind.outcome import read_outcome

pytestmark = pytest.mark.slow


def test_a_small_study(tmp_path, monkeypatch):
    """Chosen on validation items, told of test items; asked again, nothing is measured twice."""
    monkeypatch.setattr(measured, "TASKS", ("village-nli",))
    monkeypatch.setattr(measured, "AROUND", {"alpha": (0.5, 1.0)})
    monkeypatch.setattr(measured, "STRENGTHS", (0.5, 2.0))
    monkeypatch.setattr(measured, "OTHERS", {"alpha": (0.5,)})
    few = partial(measured.measure_shifts, sentences=4)
    monkeypatch.setattr(measured, "measure_shifts", few)
    lm, stages = load("village"), []
    atlas = Atlas.load(ASSETS / "village" / "atlas.safetensors")

    def progress(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    def whole():
        return study(lm, atlas, tmp_path, settings=3, tried=1, told=2, workers=1, progress=progress)

    settings, found = whole()
    assert list(dict.fromkeys(stages))[:3] == [
        "Searching",
        "Looking around",
        "Following the strength",
    ]
    gains = [row["estimate"] for row in settings["table"]]
    assert gains[settings["best"]] == max(gains)
    comparison = from_json(json.dumps(found))
    assert comparison.about["split"] == "test"
    assert {"CLAS", "IntMu", "LAPE", "LanguageArithmetic", "DiffMean"} < set(comparison.conditions)
    assert [one["task"] for one in found["findings"]] == ["village-nli"]
    for name, data in (("settings.json", settings), ("measured.json", found)):
        save(tmp_path / name, data)
        assert "NaN" not in (tmp_path / name).read_text("utf-8")
    outcome = read_outcome(tmp_path / "measured.json", settings)
    assert outcome.comparison.differences == from_json(json.dumps(found)).differences
    assert len(outcome.ranking.tried) == len(settings["table"])
    stages.clear()
    assert whole()[0] == settings
    assert stages == []
