"""Batches laid side by side write on as each would alone, in every family."""

from functools import lru_cache

import pytest
import torch
from oracles import make_plan
from tiny import FAMILIES, make_tokenizer, windowed_model

from clas_core.model.loading import load
from clas_core.running.batch import new_cache, next_logits
from clas_core.running.decoding import Rows
from clas_core.running.joining import RoomyLayer, right
from clas_core.steering.plan import steered


@lru_cache
def windowed(family):
    return load(windowed_model(family), make_tokenizer())


def read(lm, plans, texts):
    rows = Rows(lm, plans, *lm.pad(texts), new_cache(lm, movable=True))
    rows.logits()
    return rows


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_two_batches_write_on_as_alone(family):
    """A long text, two short ones, and one that leaves; the short ones' own words count alone."""
    lm = windowed(family)
    plan = make_plan(lm, 1).at("answer:2")
    long, short, gone, tiny = [*range(5, 35)], [*range(40, 52)], [*range(60, 65)], [70, 71]
    one, two = read(lm, [None, plan], [gone, short]), read(lm, [plan, None], [long, tiny])
    one.append(torch.tensor([80, 81]))
    two.append(torch.tensor([82, 83]))
    both = Rows.joined([(one, [1]), (two, [0, 1])])
    texts = [[*short, 81], [*long, 82], [*tiny, 83]]
    prompts = [len(short), len(long), len(tiny)]
    assert both.lengths.tolist() == [13, 31, 3]
    for step in range(3):
        found = both.logits()
        for row, (text, own) in enumerate(zip(texts, (plan, plan, None))):
            with torch.inference_mode(), steered(lm, own, prompt=prompts[row], past=0):
                wanted = lm.model(torch.tensor([text]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(found[row], wanted, atol=2e-4, rtol=0)
        both.append(torch.tensor([90 + step, 95, 99]))
        texts = [[*text, token] for text, token in zip(texts, (90 + step, 95, 99))]
    left = Rows.joined([(both, [2])])
    assert left.lengths.tolist() == [6]  # the columns of the long text went with it
    wanted = next_logits(lm, None, *lm.pad([texts[2]]))[0, -1]
    torch.testing.assert_close(left.logits()[0], wanted, atol=2e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_takes_the_place_of_one_that_is_done(family):
    """Wherever all that is kept are keys and values; a longer one has no room there."""
    lm = windowed(family)
    plan = make_plan(lm, 1).at("answer:2")
    long, done, new = [*range(5, 35)], [*range(60, 65)], [*range(40, 52)]
    rows, other = read(lm, [None, plan], [long, done]), read(lm, [None, plan], [[70, 71], new])
    rows.append(torch.tensor([80, 81]))
    other.append(torch.tensor([82, 83]))
    assert not rows.put([1], other, [1])  # has nothing to spare yet
    rows = Rows.joined([(rows, [0, 1])])
    if not rows.put([1], other, [1]):
        assert family in ("qwen3_5_text", "lfm2")  # which keep states too
        return
    texts, prompts = [[*long, 80], [*new, 83]], [len(long), len(new)]
    for step in range(3):
        found = rows.logits()
        for row, (text, own) in enumerate(zip(texts, (None, plan))):
            with torch.inference_mode(), steered(lm, own, prompt=prompts[row], past=0):
                wanted = lm.model(torch.tensor([text]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(found[row], wanted, atol=2e-4, rtol=0)
        rows.append(torch.tensor([90 + step, 95]))
        texts = [[*text, token] for text, token in zip(texts, (90 + step, 95))]
    longer = read(lm, [None], [[*range(5, 55)]])
    longer.append(torch.tensor([80]))
    assert not rows.put([1], longer, [0])


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mpt", "qwen3_5_text", "lfm2"])
def test_a_prompt_read_in_pieces(family):
    """Of unequal texts, so that a piece may be all padding for one of them."""
    lm = windowed(family)
    texts, plans = [[*range(5, 35)], [40, 41, 42]], [make_plan(lm, 1), None]
    rows = Rows(lm, plans, *lm.pad(texts), new_cache(lm, movable=True))
    for columns in (11, 1, 9):
        rows.read(columns)
    assert rows.unread == 9
    found = rows.logits()
    for row, (text, plan) in enumerate(zip(texts, plans)):
        with steered(lm, plan):
            wanted = next_logits(lm, None, *lm.pad([text]))[0, -1]
        torch.testing.assert_close(found[row], wanted, atol=2e-4, rtol=0)


def test_a_roomy_layer_grows_as_others_do():
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, tokens, 4) for tokens in (5, 1, 1, 40, 1)]
    layer = RoomyLayer(parts[0], -parts[0], 5)
    for count in range(2, 6):
        keys, values = layer.update(parts[count - 1], -parts[count - 1])
        wanted = torch.cat(parts[:count], dim=-2)
        assert torch.equal(keys, wanted)
        assert torch.equal(values, -wanted)
        assert layer.get_seq_length() == wanted.shape[-2]


def test_right_keeps_the_ends():
    x = torch.arange(1, 7).reshape(2, 3, 1)
    y = torch.tensor([[[8]]])
    assert right([x, y], 2)[..., 0].tolist() == [[2, 3], [5, 6], [0, 8]]
    assert right([x, y], 4)[..., 0].tolist() == [[0, 1, 2, 3], [0, 4, 5, 6], [0, 0, 0, 8]]
    assert right([y], 2, room=1)[..., :2, 0].tolist() == [[0, 8]]
    assert right([y], 2, room=1).shape == (1, 3, 1)
    assert right([x[:, None]], 4)[:, 0].equal(right([x], 4))
