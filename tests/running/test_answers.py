"""Answers under several plans, against the decode loop one plan at a time."""

import pytest
from oracles import make_plan

from clas_core.running.answers import generate_batch, write_answers
from clas_core.running.generation import generate
from clas_core.steering.plan import SteeringPlan

PROMPTS = ["The cat", "Two birds sit on the old", "It rains", "Who has the book? Anna", "A"]


@pytest.mark.parametrize("stop_at_newline", [True, False])
def test_the_same_texts_as_generate_batch(any_lm, stop_at_newline):
    plans = [None, make_plan(any_lm, 1), make_plan(any_lm, 0, 1), SteeringPlan.identity()]
    settings = {"max_new_tokens": 12, "stop_at_newline": stop_at_newline}
    seen = []
    found = write_answers(
        any_lm, PROMPTS, plans, tokens_at_once=60, progress=lambda *d: seen.append(d), **settings
    )
    for plan, texts in zip(plans, found):
        assert texts == generate_batch(any_lm, PROMPTS, plan, **settings)
    assert found[0] == found[3]
    assert found[0] != found[1]
    assert seen[-1] == (5, 5)


def test_rows_that_end_leave_the_rest_alone(tiny_lm, monkeypatch):
    """Some rows end early, at a token that is made an end; the others write on as before."""
    *_, step = generate(tiny_lm, PROMPTS[0], max_new_tokens=12)
    end = step.token_ids[0][2]
    monkeypatch.setattr(tiny_lm.model.generation_config, "eos_token_id", end)
    found = write_answers(tiny_lm, PROMPTS, max_new_tokens=12)[0]
    assert found == generate_batch(tiny_lm, PROMPTS, max_new_tokens=12)
    kept = step.token_ids[0][: step.token_ids[0].index(end)]
    whole = tiny_lm.tokenizer.decode([*step.prompt_ids[0], *kept], skip_special_tokens=True)
    assert whole == PROMPTS[0] + found[0]
    assert len(found[0]) < max(map(len, found))
