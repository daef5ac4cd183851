"""Bars of how surprised the model is, and which goal settings are for."""

from __future__ import annotations

import dataclasses
import math
import threading

import pytest
import torch
from tiny_studio import tiny_studio

from clas_core.errors import ClasError
from clas_core.ui.behind.goals import GOALS, goal_of
from clas_core.ui.behind.inputs import METHODS
from clas_core.ui.behind.standing import asked_in_words
from clas_core.ui.behind.studio import Studio
from clas_core.ui.behind.surprise import surprise, with_surprise


@pytest.fixture(scope="module")
def studio() -> Studio:
    return tiny_studio()


@pytest.fixture
def unstored(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """As a model that isn't the village."""
    monkeypatch.setattr(studio, "stored", None)
    return studio


def bits_alone(studio: Studio, texts: list[str]) -> float:
    """Bits a byte by the model's own logits, a text at a time."""
    nats = 0.0
    tokenizer = studio.lm.tokenizer
    for text in texts:
        ids = torch.tensor(
            [
                [
                    tokenizer.bos_token_id or tokenizer.eos_token_id,
                    *tokenizer(text, add_special_tokens=False)["input_ids"],
                ]
            ]
        )
        with torch.no_grad():
            logits = studio.lm.model(input_ids=ids).logits[0].double().log_softmax(-1)
        nats -= float(sum(logits[i, token] for i, token in enumerate(ids[0, 1:].tolist())))
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def test_bars_are_bits_a_byte_of_real_text(unstored: Studio) -> None:
    values = {**unstored.defaults(), "method": "Silence", "strength": 2.0, "prompt": "Anna"}
    recipe = unstored.recipe({**values, "language": "sw", "units": 8})
    plans = [None, unstored.plan(recipe), unstored.plan(recipe, True)]
    found = surprise(unstored, plans, threading.Event())
    assert found is not None
    assert found["codes"] == list(unstored.codes)
    assert found["own"]
    sentences = list(unstored.corpus.sentences["sw"][: found["count"]])
    at = found["codes"].index("sw")
    assert found["unsteered"][at] == pytest.approx(bits_alone(unstored, sentences), abs=2e-3)
    assert found["steered"] != found["unsteered"] != found["control"]
    again = surprise(unstored, [None], threading.Event())
    assert again is not None
    assert again["unsteered"] == found["unsteered"]
    assert "steered" not in again
    stop = threading.Event()
    stop.set()
    assert surprise(unstored, plans, stop) is None


def test_only_what_is_about_a_language_has_bars(unstored: Studio) -> None:
    halt = threading.Event()
    for method, bars in (("CLAS", None), ("Silence", "sw"), ("LAPE", "en")):
        values = {**unstored.defaults(), "method": method, "language": "sw", "prompt": "Anna"}
        recipe = dataclasses.replace(unstored.recipe(values), max_new_tokens=2, where="answer")
        *_, last = with_surprise(unstored, recipe, False, unstored.steer(recipe, False, halt), halt)
        assert last["state"] == "done"
        assert last["strip"]["read"]["steered"].count(False)  # the prompt, but its last token
        assert (last["bars"] and last["bars"]["aimed"]) == bars
    running, *_ = with_surprise(unstored, recipe, False, unstored.steer(recipe, False, halt), halt)
    assert "bars" not in running  # what is shown stays until the new ones are there


def test_writing_in_a_language_needs_no_prompt(studio: Studio) -> None:
    values = {**studio.defaults(), "prompt": " ", "language": "sw", "length": 3}
    recipe = studio.recipe({**values, "method": "DiffMean"})
    *_, view = studio.steer(recipe, False, threading.Event())
    assert view["state"] == "done"
    assert [pane["badges"] for pane in view["panes"]]
    assert "asked" not in view["panes"][0]
    assert asked_in_words(studio, recipe).endswith("Swahili, from nothing.")
    assert "prompt = clas.from_nothing(lm)" in recipe.to_python()
    for other in ({"method": "CLAS"}, {"method": "DiffMean", "chat": True}):
        with pytest.raises(ClasError, match="Write a prompt"):
            list(studio.steer(studio.recipe({**values, **other}), False, threading.Event()))


def test_every_method_and_goal_belong_together(unstored: Studio) -> None:
    start = {**unstored.defaults(), "prompt": "x"}
    for name, goal in GOALS.items():
        assert goal_of({**start, **goal.settings(unstored, "sw")}) == name
    for method in METHODS:
        assert goal_of({**start, "method": method}) in GOALS
