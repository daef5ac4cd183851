"""What a model makes of a text doesn't depend on the texts beside it, in any family."""

import inspect
from functools import lru_cache

import pytest
import torch
from oracles import make_plan
from tiny import FAMILIES, make_tokenizer, windowed_model

from clas_core.errors import ClasError
from clas_core.model.architecture import UnsupportedModel
from clas_core.model.loading import load
from clas_core.running.answers import write_answers
from clas_core.running.batch import (
    arguments,
    check_length,
    fork,
    in_batches,
    new_cache,
    next_logits,
)
from clas_core.running.branches import Branches, logits
from clas_core.running.generation import generate
from clas_core.running.likelihood import Question, log_likelihoods
from clas_core.steering.plan import steered

BEGINNING = tuple(range(5, 35))  # far longer than a window
PROMPTS = [(*BEGINNING, *range(40, 40 + 5 * k)) for k in (1, 2, 4)]
ENDINGS = ((90, 91, 92), (93,))


@lru_cache
def windowed(family):
    return load(windowed_model(family), make_tokenizer())


def alone(lm, prompt, ending, plan):
    """Sum of log p over the ending, in one forward without cache, padding or company."""
    ids = torch.tensor([[*prompt, *ending]])
    with torch.inference_mode(), steered(lm, plan):
        log_p = lm.model(ids, use_cache=False).logits[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(ending) - 1)
    return sum(float(log_p[place, token]) for place, token in zip(places, ending))


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_among_others_are_those_alone(family):
    """Prompts of unequal length that share a long beginning, with several endings each."""
    lm = windowed(family)
    plans = [None, make_plan(lm, 1)]
    found = log_likelihoods(lm, [Question(prompt, ENDINGS) for prompt in PROMPTS], plans)
    for plan, scores in zip(plans, found):
        wanted = [[alone(lm, prompt, e, plan) for e in ENDINGS] for prompt in PROMPTS]
        torch.testing.assert_close(torch.tensor(scores), torch.tensor(wanted), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["gemma3_text", "gpt_neo", "mpt", "qwen3_5_text", "lfm2"])
def test_answers_among_others_are_those_alone(family):
    lm = windowed(family)
    beginning = "The cat sleeps in the house. Two birds sit on the old tree. It rains. "
    prompts = [beginning + end for end in ("Who", "Anna gives Tom a", "The boy goes to the market")]
    plan = make_plan(lm, 1)
    found = write_answers(lm, prompts, [None, plan], max_new_tokens=6, stop_at_newline=False)
    for one, texts in zip((None, plan), found):
        for prompt, text in zip(prompts, texts):
            *_, step = generate(lm, prompt, [one], max_new_tokens=6)
            assert text == step.texts[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_reads_on_from_its_cache(family):
    """It fails if a forward ignores the cache: a token then sees only itself."""
    lm = windowed(family)
    cache = new_cache(lm)
    first, second = lm.pad([PROMPTS[2][:20]]), lm.pad([PROMPTS[2][20:]])
    next_logits(lm, None, *first, cache)
    found = next_logits(lm, None, second[0], torch.cat([first[1], second[1]], dim=1), cache)
    wanted = next_logits(lm, None, *lm.pad([PROMPTS[2]]))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["qwen3_5_text", "lfm2", "gemma3_text"])
def test_forks_go_their_own_ways(family):
    """Two copies of a padded batch, read on in turn, change nothing in each other."""
    lm = windowed(family)
    both = Branches(lm, [None, make_plan(lm, 1)])
    both.read(*lm.pad([PROMPTS[0], PROMPTS[1]]))
    one, two = both.select(torch.tensor([1, 0, 1])), both.select(torch.tensor([1]))
    ones = torch.ones(3, 1, dtype=torch.long)
    for token in (70, 71):
        found = one.read(torch.full((3, 1), token), ones)
        other = two.read(torch.full((1, 1), token + 10), ones[:1])
    for plan, mine, theirs in zip(both.plans, found, other):
        for states, tokens in ((mine[2:], (70, 71)), (theirs, (80, 81))):
            got = next(logits(lm, states[:, -1]))[0].double().log_softmax(-1)
            with steered(lm, plan):
                wanted = next_logits(lm, None, *lm.pad([(*PROMPTS[1], *tokens)]))[0, 0]
            torch.testing.assert_close(got, wanted.double().log_softmax(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["qwen3_5_text", "lfm2"])
def test_a_fork_leaves_the_cache_as_it_was(family):
    lm = windowed(family)
    cache = new_cache(lm)
    ids, mask = lm.pad([PROMPTS[0]])
    next_logits(lm, None, ids, mask, cache)
    more = torch.ones(1, len(PROMPTS[0]) + 1, dtype=torch.long)
    twin = fork(cache)
    next_logits(lm, None, torch.tensor([[99]]), more, twin)
    found = next_logits(lm, None, torch.tensor([[70]]), more, cache)
    wanted = next_logits(lm, None, *lm.pad([(*PROMPTS[0], 70)]))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_the_cache_goes_by_the_name_that_the_model_has(tiny_lm):
    """transformers 5.40 drops `past_key_values`, and forwards swallow unknown keywords."""
    ids, mask = tiny_lm.pad([[5, 6]])
    cache = new_cache(tiny_lm)
    for name in ("cache", "past_key_values"):

        class Model:
            def forward(self):
                """Nothing but a signature."""

        kinds = inspect.Parameter.KEYWORD_ONLY
        Model.forward.__signature__ = inspect.Signature([inspect.Parameter(name, kinds)])
        assert arguments(Model, ids, mask, cache)[name] is cache
    Model.forward.__signature__ = inspect.Signature([])
    with pytest.raises(UnsupportedModel, match="keeps no cache"):
        arguments(Model, ids, mask, cache)
    assert arguments(Model, ids, mask)["use_cache"] is False


def test_batches_hold_like_sizes():
    sizes = [9, 2, 5, 1, 5, 8]
    assert list(in_batches(sizes, rows=4)) == [[3, 1, 2, 4], [5, 0]]
    assert list(in_batches(sizes, tokens=15)) == [[3, 1, 2], [4], [5], [0]]
    assert list(in_batches(sizes, rows=2, tokens=15)) == [[3, 1], [2, 4], [5], [0]]
    assert list(in_batches([30], tokens=15)) == [[0]]
    assert list(in_batches([], rows=3)) == []


def test_too_long_a_text_is_refused(tiny_lm):
    check_length(tiny_lm, "A text", 250, 6)
    with pytest.raises(ClasError, match="A text is too long: 257 tokens exceed the model's 256"):
        check_length(tiny_lm, "A text", 257)
    with pytest.raises(ClasError, match=r"and 300 new ones exceed .*; ask for fewer new tokens"):
        check_length(tiny_lm, "A text", 1, 300)
