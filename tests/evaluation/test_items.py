"""Items and scores, and that validation and test can't be mixed up."""

import json
from dataclasses import replace

import pytest

from clas_core import errors
from clas_core.errors import ClasError
from clas_core.evaluation.judging import items
from clas_core.evaluation.judging.items import (
    ChoiceItem,
    Chosen,
    Items,
    Scores,
    Test,
    TextItem,
    Validation,
    only,
)


def make(split, groups=("a", "b"), task="task"):
    items = tuple(TextItem(str(n), group, "text") for n, group in enumerate(groups))
    return Items(task, "sw", split, items)


def test_items_have_keys_of_their_own():
    assert make(Test).keys == ("0", "1")
    assert make(Test).groups == ("a", "b")
    with pytest.raises(ClasError, match="no validation items in sw"):
        Items("task", "sw", Validation, ())
    twice = TextItem("0", "a", "text")
    with pytest.raises(ClasError, match="same key"):
        Items("task", "sw", Test, (twice, twice))


def test_items_are_of_one_kind():
    assert make(Test).of(TextItem)[0].text == "text"
    with pytest.raises(TypeError, match="TextItem is no ChoiceItem"):
        make(Test).of(ChoiceItem)


def test_differences_are_paired():
    before, after = make(Test).scored("f1", [0.5, 1.0]), make(Test).scored("f1", [0.75, 1.0])
    assert after.minus(before) == (0.25, 0.0)
    assert after.mean == 0.875
    for other in (
        replace(before, metric="exact"),
        replace(before, language="en"),
        replace(before, keys=("1", "0")),
        make(Validation).scored("f1", [0, 0]),
    ):
        with pytest.raises(ValueError, match="same items"):
            after.minus(other)
    with pytest.raises(ValueError, match="1 scores for 2 items"):
        make(Test).scored("f1", [1.0])


def test_scores_survive_json():
    scores = make(Test).scored("f1", [0.5, 1.0])
    again = Scores.from_dict(json.loads(json.dumps(scores.as_dict())))
    assert again == scores
    assert only(Test, again) is again


def test_settings_are_chosen_on_validation_items():
    good = make(Validation).scored("f1", [1, 1])
    assert Chosen("setting", (good,)).evidence == (good,)
    with pytest.raises(ClasError, match="these are test items"):
        Chosen("setting", (make(Test).scored("f1", [1, 1]),))
    with pytest.raises(ClasError, match="score some first"):
        Chosen("setting", ())


def test_settings_are_reported_on_other_items():
    chosen = Chosen("setting", (make(Validation).scored("f1", [1, 1]),))
    fresh = make(Test, ("c", "d"))
    assert chosen.admit(fresh) is fresh
    assert chosen.admit(make(Test, ("a",), "another task"))
    with pytest.raises(ClasError, match="chosen on 1 of the groups"):
        chosen.admit(make(Test, ("a", "d")))
    with pytest.raises(ClasError, match="these are validation items"):
        chosen.admit(make(Validation, ("c", "d")))


WRONG = """
from clas_core.evaluation.judging.items import Chosen, Items, Scores, Test, Validation

def sweep(items: Items[Validation]) -> Chosen[str]:
    return Chosen("setting", (items.scored("f1", [1.0]),))

def report(chosen: Chosen[str], items: Items[Test]) -> Scores[Test]:
    return chosen.admit(items).scored("f1", [1.0])

def go(validation: Items[Validation], test: Items[Test]) -> None:
    report(sweep(validation), test)
    {line}
"""


@pytest.mark.parametrize(
    ("line", "fine"),
    [
        ("pass", True),
        ("sweep(test)", False),
        ("report(sweep(validation), validation)", False),
        ('Chosen("setting", (test.scored("f1", [1.0]),))', False),
        ('validation.scored("f1", [1.0]).minus(test.scored("f1", [1.0]))', False),
    ],
)
def test_mypy_refuses_the_other_order(line, fine, tmp_path):
    api = pytest.importorskip("mypy.api")
    code = tmp_path / "order.py"
    code.write_text(WRONG.format(line=line))
    seen = [module.__file__ for module in (items, errors)]
    out, error, _ = api.run(["--follow-imports=skip", *seen, str(code)])
    wrong = [row for row in out.splitlines() if "order.py:" in row]
    assert (not wrong) is fine, out + error
    assert fine or "[arg-type]" in wrong[0]
