"""Guesses along written texts: as one token after another has them, whatever is read beside."""

from __future__ import annotations

import pytest
import torch
from oracles import make_plan

from clas_core.running.along import Along, read_along
from clas_core.running.batch import next_logits


@pytest.mark.parametrize("where", [None, "prompt", "answer", "answer:2"])
def test_texts_that_are_read_together_are_read_as_alone(any_lm, where) -> None:
    plans = [make_plan(any_lm, layer, seed) for layer, seed in ((1, 3), (0, 4), (2, 5))]
    plans = [plan if where is None else plan.at(where) for plan in plans]
    asked = [
        Along((5, 6, 7), (8, 9, 10, 11), (None, plans[0])),
        Along((9,), (12, 6), (None, plans[1], plans[2])),
        Along((7, 8, 9, 5, 6, 11, 13), (5,), (None, None)),
    ]
    found = read_along(any_lm, asked)
    for one, of_plans in zip(asked, found):
        assert len(of_plans) == len(one.plans)
        for plan, log_p in zip(one.plans, of_plans):
            assert log_p.shape[0] == len(one.ids) + 1
            for t, row in enumerate(log_p):
                read = any_lm.pad([[*one.prompt_ids, *one.ids[:t]]])
                wanted = next_logits(any_lm, plan, *read, prompt=len(one.prompt_ids))
                assert torch.allclose(row, wanted[0, -1].log_softmax(-1), atol=2e-4)
    assert torch.equal(*found[2])  # no plan is no plan, also beside others
