"""The embedded model's study of forcing, in small."""

import pytest

from clas_core.atlas.atlas import Atlas
from clas_core.model.loading import load
from clas_core.paths import ASSETS
from clas_core.steering.recipe import Recipe
from clas_core.studies.forcing import METHODS, force, lines_of, settings_of


def test_every_method_has_settings():
    for method in METHODS:
        settings = settings_of(method, Recipe(tau=0.1))
        assert len(set(settings)) == len(settings) > 0
        assert {one.method for one in settings} == {method}


@pytest.mark.slow
def test_a_shift_forces_spanish_and_a_random_one_does_not():
    """Chosen on validation items, told of test items, as a table."""
    lm = load("village")
    atlas = Atlas.load(ASSETS / "village" / "atlas.safetensors", lm)
    base = Recipe(method="DiffMean", tau=0.1, source="en", layers=(0, 4))
    settings = (base, Recipe(**{**vars(base), "alpha": 1.0}))
    stages = []
    chosen, found = force(
        lm, atlas, "DiffMean", settings, None, ["es"], tried=3, told=4,
        progress=lambda stage, *_: stages.append(stage),
    )  # fmt: skip
    assert list(dict.fromkeys(stages)) == ["Choosing for DiffMean", "Telling of DiffMean"]
    assert found.about["split"] == "test"
    assert found.get("DiffMean", "village-forcing", "language", "es").after == 1
    assert found.get("random control 0", "village-forcing", "language", "es").after == 0
    first, *_ = lines_of("DiffMean", chosen.setting, found)
    assert first.split("|")[2:4] == [" 100 ", " 100 "]
