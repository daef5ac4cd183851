"""The protocol on any model, in small; it goes on where it was killed."""

import json

import pytest

from clas_core.errors import ClasError
from clas_core.model.loading import load
from clas_core.studies import logged
from clas_core.studies.__main__ import main
from clas_core.studies.real import Sizes, command_of, forcing_settings, study_real

SMALL = Sizes(begun=1, told=2, tokens=4, scored=2, judged=3, moved=3)
CODES = ("en", "de", "sw", "es", "tr")


@pytest.fixture(scope="module")
def found(tiny_lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    stages = []
    data = study_real(
        tiny_lm, folder, {"model": "tiny"}, languages=CODES, sizes=SMALL,
        progress=lambda stage, *_: stages.append(stage),
    )  # fmt: skip
    return folder, data, list(dict.fromkeys(stages))


def test_it_tells_all_that_was_asked(found, tiny_lm):
    _, data, stages = found
    json.dumps(data, allow_nan=False)
    assert data["model"] == "tiny"
    assert data["languages"] == list(CODES)
    assert len(data["categories"]["layers"]) == tiny_lm.num_layers
    assert {sum(layer) for layer in data["categories"]["layers"]} == {tiny_lm.num_neurons}
    assert set(data["forcing"]) == {"DiffMean", "Kojima"}
    for told in data["forcing"].values():
        assert set(told["steered"]["languages"]) == {*CODES} - {"en"}
        assert len(told["controls"]) == 2
    assert set(data["gains"]) == {"bits-per-byte", "retrieval"}
    methods = {"CLAS", "IntMu", "LAPE", "LanguageArithmetic", "DiffMean", "Kojima"}
    assert methods < set(data["gains"]["retrieval"])
    assert sum("random" in name for name in data["gains"]["bits-per-byte"]) == 3
    assert data["gains"]["bits-per-byte"]["CLAS"]["setting"]["alpha"] > 0
    assert data["the other way"]["bits-per-byte"]["CLAS"]["setting"]["alpha"] < 0
    assert {one["task"] for one in data["apart"]} == {"bits-per-byte", "retrieval"}
    assert stages[0] == "Measuring"
    assert stages[-1] == "Moving"


def test_sentences_for_choosing_tell_nothing(found):
    _, data, _ = found
    assert sum(data["sentences"].values()) == 120


def test_a_killed_one_goes_on(found, tiny_lm, monkeypatch):
    """What is on disk isn't measured again, and the numbers are the same."""
    folder, data, _ = found

    def nothing(lm, atlas, runs, progress=None):
        assert not runs
        return iter(())

    monkeypatch.setattr(logged, "run_tasks", nothing)
    again = study_real(
        tiny_lm, folder, {"model": "tiny"}, languages=CODES, sizes=SMALL, progress=lambda *_: None
    )
    assert again == {**data, "date": again["date"]}


def test_its_folder_is_for_one_study(found, tiny_lm):
    folder, _, _ = found
    other = Sizes(**{**vars(SMALL), "begun": 2})
    with pytest.raises(ClasError):
        study_real(
            load("village"), folder, {}, languages=CODES, sizes=other, progress=lambda *_: None
        )


def test_its_command_is_the_one_that_repeats_it():
    assert command_of("owner/name", "DIR", Sizes()) == (
        "python -m clas_core.studies real owner/name --out DIR"
    )
    assert command_of("m", "DIR", Sizes(told=9)).endswith("--out DIR --told 9")


@pytest.mark.parametrize("layers", [1, 2, 18, 30])
def test_settings_fit_any_depth(layers):
    for settings in forcing_settings(layers).values():
        for one in settings:
            assert one.layers is None or 0 <= one.layers[0] < one.layers[1] <= layers


def test_a_missing_model_is_a_sentence(tmp_path, capsys):
    assert main(["real", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "Traceback" not in capsys.readouterr().err
