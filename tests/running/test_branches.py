"""Sharing what plans have in common changes no number: against whole forwards, one text a time."""

import pytest
import torch
from oracles import make_plan
from tiny import FAMILIES, tiny_model

from clas_core.model.loading import load
from clas_core.running import branches, trace
from clas_core.running.branches import Branches, logits
from clas_core.running.states import BridgeCache, hidden_states
from clas_core.running.trace import Trace
from clas_core.steering.plan import SteeringPlan, steered

TEXTS = ["The cat sleeps in the house.", "It rains.", "Anna gives Tom a red apple."]


def plain_logits(lm, text, plan):
    with torch.inference_mode(), steered(lm, plan):
        return lm.model(**lm.encode([text]).inputs).logits[0].float()


def end_logits(lm, hidden):
    return torch.cat(list(logits(lm, hidden[:, -1])))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, tokenizer):
    """Left-padded texts, unsteered and from the second layer on."""
    lm = load(tiny_model(family), tokenizer)
    plans = [None, make_plan(lm, 1)]
    encoded = lm.encode(TEXTS, "left")
    found = Branches(lm, plans).read(encoded.input_ids, encoded.attention_mask)
    for plan, hidden in zip(plans, found):
        wanted = torch.stack([plain_logits(lm, text, plan)[-1] for text in TEXTS])
        torch.testing.assert_close(end_logits(lm, hidden), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("whole", [False, True])
def test_read_in_pieces_and_reordered(tiny_lm, whole):
    """A shared beginning, then each text's own middle, then an end for some rows twice.

    The shorter middle's beginning is moved to the right, and read again where it found no place.
    """
    plans = [make_plan(tiny_lm, 1), None, make_plan(tiny_lm, 2, seed=1), make_plan(tiny_lm, 0, 2)]
    start, middles, ends = [1, 50, 51, 52], [[60, 61, 62], [63]], [[70, 71], [72], [73]]
    owners = [1, 0, 1]
    first = Branches(tiny_lm, plans, whole=whole)
    first.read(torch.tensor([start]), torch.ones(1, 4, dtype=torch.long))
    second = first.select(torch.tensor([0, 0]), torch.tensor([0, 2]))
    second.read(torch.tensor([[60, 61, 62], [51, 52, 63]]), torch.ones(2, 3, dtype=torch.long))
    third = second.select(torch.tensor(owners))
    found = third.read(
        torch.tensor([[70, 71], [72, 0], [73, 0]]), torch.tensor([[1, 1], [1, 0], [1, 0]])
    )
    assert third.mask.tolist()[0] == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    for plan, hidden in zip(plans, found):
        for row, (owner, end) in enumerate(zip(owners, ends)):
            ids = torch.tensor([start + middles[owner] + end])
            with torch.inference_mode(), steered(tiny_lm, plan):
                wanted = tiny_lm.model(input_ids=ids).logits[0, -1]
            got = next(logits(tiny_lm, hidden[row, len(end) - 1][None]))[0]
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_a_branch_goes_on_alone(tiny_lm):
    """`cache` is a copy: writing with it leaves the branches where they were."""
    plan = make_plan(tiny_lm, 1)
    both = Branches(tiny_lm, [plan, None])
    ids, mask = torch.tensor([[1, 50, 51]]), torch.ones(1, 3, dtype=torch.long)
    both.read(ids, mask)
    cache = both.cache(plan)
    with torch.inference_mode(), steered(tiny_lm, plan):
        alone = tiny_lm.model(torch.tensor([[52]]), cache=cache).logits[0, -1]
    again = both.read(torch.tensor([[52]]), mask[:, :1])[0]
    torch.testing.assert_close(end_logits(tiny_lm, again)[0], alone, atol=1e-4, rtol=0)


def test_lower_blocks_run_once(tiny_lm):
    """Of three layers, a plan on the last one reruns that one only."""
    runs = [0] * tiny_lm.num_layers
    plans = [None, make_plan(tiny_lm, 2), make_plan(tiny_lm, 2, 1), SteeringPlan.identity()]
    shared = Branches(tiny_lm, plans)

    def count(layer):
        def hook(*_):
            runs[layer] += 1

        return hook

    handles = [b.register_forward_hook(count(k)) for k, b in enumerate(tiny_lm.blocks)]
    shared.read(torch.tensor([[1, 5]]), torch.ones(1, 2, dtype=torch.long))
    for handle in handles:
        handle.remove()
    assert runs == [1, 1, 3]


def test_blocks_that_do_not_replay_are_run_whole(tiny_qwen2, monkeypatch):
    """A model whose blocks can't be called alone is found out, and its numbers are right."""
    rerun = Trace.rerun
    monkeypatch.setattr(Trace, "rerun", lambda *args: rerun(*args) + 1)
    monkeypatch.setattr(trace, "_able", {})
    plan = make_plan(tiny_qwen2, 1)
    encoded = tiny_qwen2.encode(TEXTS[:1])
    hidden = Branches(tiny_qwen2, [plan]).read(encoded.input_ids, encoded.attention_mask)[0]
    wanted = plain_logits(tiny_qwen2, TEXTS[0], plan)
    torch.testing.assert_close(end_logits(tiny_qwen2, hidden)[0], wanted[-1], atol=1e-4, rtol=0)
    assert trace._able == {tiny_qwen2.model: False}
    states = BridgeCache(tiny_qwen2, TEXTS, 1).states(plan)
    assert torch.equal(states, hidden_states(tiny_qwen2, TEXTS, plan).at(-1))


def test_logits_in_parts(tiny_gpt2, monkeypatch):
    hidden = torch.randn(7, 32)
    whole = torch.cat(list(logits(tiny_gpt2, hidden)))
    monkeypatch.setattr(branches, "_LOGITS_AT_ONCE", 3 * 400)
    parts = list(logits(tiny_gpt2, hidden))
    assert [len(part) for part in parts] == [3, 3, 1]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_it_acts_inside_a_steered_context(tiny_lm):
    """An outer plan comes first, as nested `steered` contexts have it."""
    outer, inner = make_plan(tiny_lm, 1), make_plan(tiny_lm, 2, 1)
    encoded = tiny_lm.encode(TEXTS[:1])
    with steered(tiny_lm, outer):
        found = Branches(tiny_lm, [None, inner]).read(encoded.input_ids, encoded.attention_mask)
    for plan, hidden in zip((outer, inner @ outer), found):
        wanted = plain_logits(tiny_lm, TEXTS[0], plan)[-1]
        torch.testing.assert_close(end_logits(tiny_lm, hidden)[0], wanted, atol=1e-4, rtol=0)
