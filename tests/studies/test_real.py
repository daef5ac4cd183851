"""The protocol on any model, in small; it goes on where it was killed."""

import copy
import json

import pytest

from clas_core.errors import ClasError
from clas_core.evaluation.judging.conditions import controls_of
from clas_core.evaluation.telling.real import (
    RealModel,
    findings_markdown,
    read_findings,
    real_headline,
)
from clas_core.model.loading import load
from clas_core.studies import logged
from clas_core.studies.__main__ import main
from clas_core.studies.real import FORCED, Sizes, command_of, forcing_settings, study_real

SMALL = Sizes(begun=1, told=2, tokens=4, scored=2, judged=3, moved=3)
BOUNDED = ("gain", "low", "high")
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
        assert set(told["steered"]["languages"]) == {*CODES} & {*FORCED}
        assert len(told["controls"]) == 1
    assert set(data["gains"]) == {"bits-per-byte", "retrieval"}
    methods = {"CLAS", "IntMu", "LAPE", "LanguageArithmetic", "DiffMean", "Kojima"}
    assert methods < set(data["gains"]["retrieval"])
    for gains in data["gains"].values():
        for name in methods:
            assert len(controls_of(name, gains)) == SMALL.controls
            assert set(gains[name]["beyond"]) == {"before", "after", "p", "shown", *BOUNDED}
    assert data["gains"]["bits-per-byte"]["CLAS"]["setting"]["alpha"] > 0
    assert min(one["setting"]["alpha"] for one in data["tried"]) < 0
    assert {one["task"] for one in data["apart"]} == {"bits-per-byte", "retrieval"}
    assert stages[0] == "Measuring"
    assert stages[-1] == "Telling of Kojima"


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


def test_it_is_told_as_a_table(found, tmp_path):
    """Methods in its rows, numbers with their bounds; a broken file is refused in a sentence."""
    _, data, _ = found
    whole = {**data, "licence": "L", "made": "from a file", "command": "do it"}
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(whole), "utf-8")
    (one,) = read_findings(tmp_path)
    said = " ".join(row.what for row in one.rows)
    assert all(name in said for name in ("DiffMean", "Kojima", "CLAS", "IntMu", "LAPE"))
    text = findings_markdown([one])
    assert text.count("\n| ") == len(one.rows) + 1  # and the head
    assert "English and 4 languages" in text
    path.write_text(json.dumps({**whole, "gains": {}}), "utf-8")
    with pytest.raises(ClasError, match="holds no study"):
        read_findings(tmp_path)


@pytest.mark.parametrize(
    ("signs", "said"),
    [
        ((-1,), "less likely on it"),
        ((-1, -1), "less likely on all"),
        ((0, -1), "likelier on 0 of 2, less likely on 1"),
        ((0, 0), "neither likelier nor less likely"),
        ((1, -1), "likelier on 1 of 2, less likely on 1"),
    ],
)
def test_the_headline_says_what_was_found(found, signs, said):
    _, data, _ = found
    models = []
    for sign in signs:
        one = copy.deepcopy(data)
        one["gains"]["bits-per-byte"]["CLAS"]["shown"] = sign
        models.append(RealModel(one))
    assert said in real_headline(models)
    assert "got likelier" not in real_headline(models)
    for one in models:
        one.data["gains"]["bits-per-byte"]["IntMu"] |= {"shown": 1, "p": 0.001}
    assert (
        f"by IntMu, but {'not surely' if len(signs) == 1 else 'not on all of them'} more"
        in real_headline(models)
    )
    for one in models:
        bits = one.data["gains"]["bits-per-byte"]
        bits["IntMu"] |= {"gain": -0.5, "beyond": {"gain": -0.4, "p": 0.001, "shown": 1}}
    assert "likelier on" in real_headline(models)
    assert "by IntMu, more than under its random controls" in real_headline(models)


def test_many_tried_methods_are_corrected_for(found):
    """A p-value that one method alone would be claimed by isn't enough for one of six."""
    _, data, _ = found
    one = RealModel(copy.deepcopy(data))
    for cell in one.data["gains"]["bits-per-byte"].values():
        cell |= {"shown": 0, "p": 0.9}
    one.data["gains"]["bits-per-byte"]["LAPE"] |= {"shown": 1, "p": 0.03}
    assert one.helped == []
    one.data["gains"]["bits-per-byte"]["LAPE"]["p"] = 0.005
    assert one.helped == ["LAPE"]


def test_a_method_must_beat_each_of_its_random_controls(found):
    _, data, _ = found
    one = RealModel(copy.deepcopy(data))
    bits = one.data["gains"]["bits-per-byte"]
    bits["Kojima"] |= {"shown": 1, "p": 0.001, "gain": -0.2}
    bits["Kojima"]["beyond"] |= {"shown": 1, "p": 0.001}
    for name in controls_of("Kojima", bits):
        bits[name]["gain"] = -0.1
    assert "Kojima" in one.beyond
    bits[controls_of("Kojima", bits)[0]]["gain"] = -0.3
    assert "Kojima" not in one.beyond
