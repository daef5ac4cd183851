from __future__ import annotations

import threading

import pytest
import torch

from clas_core.errors import ClasError
from clas_core.running.states import BridgeCache, hidden_states
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered

PLAN = SteeringPlan(
    {
        1: LayerPlan(scale=torch.full((64,), 1.7)),
        2: LayerPlan(bias=torch.full((64,), 0.3), shift=torch.linspace(-1, 1, 32)),
    }
)


def by_hand(lm, text, plan):
    """transformers' own hidden states of one text, each the mean of its tokens but <s>."""
    batch = lm.encode([text])
    last = []
    with torch.no_grad(), steered(lm, plan):
        handle = lm.blocks[-1].register_forward_hook(lambda _, __, output: last.append(output))
        states = lm.model(**batch.inputs, output_hidden_states=True).hidden_states
        handle.remove()
    final = last[0][0] if isinstance(last[0], tuple) else last[0]
    # transformers gives the last layer after the final norm; ours is the raw stream.
    return torch.stack([state[0, 1:].mean(0) for state in (*states[:-1], final)])


@pytest.mark.parametrize("plan", [None, PLAN])
def test_matches_each_sentence_alone(any_lm, tiny_corpus, plan):
    found = hidden_states(any_lm, tiny_corpus, plan, batch_size=5)
    texts = [text for code in tiny_corpus.languages for text in tiny_corpus.sentences[code]]
    expected = torch.stack([by_hand(any_lm, text, plan) for text in texts], dim=1)
    assert found.pooled.shape == (4, 24, 32)
    assert found.pooled.dtype == torch.float32
    assert torch.allclose(found.pooled, expected, atol=1e-5)
    assert found.labels == ("en",) * 6 + ("es",) * 6 + ("hi",) * 6 + ("sw",) * 6
    assert found.groups == tuple(range(6)) * 4


def test_plain_texts_and_progress(tiny_lm):
    seen = []
    found = hidden_states(
        tiny_lm, ["One.", "Two or more."], batch_size=1, progress=lambda *at: seen.append(at)
    )
    assert found.labels == ("", "")
    assert found.groups == (0, 1)
    assert seen == [(1, 2), (2, 2)]


def test_layers_are_named_from_either_end(tiny_lm):
    found = hidden_states(tiny_lm, ["One."])
    assert torch.equal(found.at(-1), found.pooled[3])
    assert torch.equal(found.at(0), found.pooled[0])
    for layer in (4, -5):
        with pytest.raises(ClasError, match=r"no layer -?\d: choose 0 \(embeddings\) to 3"):
            found.at(layer)


@pytest.mark.parametrize("plan", [None, SteeringPlan.identity(), PLAN, PLAN * -0.5])
def test_cache_equals_full_run(any_lm, tiny_corpus, plan):
    cache = BridgeCache(any_lm, tiny_corpus, start=1, batch_size=7)
    full = hidden_states(any_lm, tiny_corpus, plan, batch_size=7)
    for layer in (0, 1, 2, 3, -1):
        assert torch.equal(cache.states(plan, layer), full.at(layer))


def test_cache_runs_only_the_bridge(tiny_lm, tiny_corpus):
    cache = BridgeCache(tiny_lm, tiny_corpus, start=1)
    ran = []
    handles = [
        block.register_forward_hook(lambda *_, n=n: ran.append(n))
        for n, block in enumerate(tiny_lm.blocks)
    ]
    cache.states(PLAN, 2)
    for handle in handles:
        handle.remove()
    assert ran == [1]


def test_cache_refuses_what_it_can_not_know(tiny_lm, tiny_corpus):
    with pytest.raises(
        ClasError, match=r"starts at layer 2 \(from 0\), but the plan steers layer 1"
    ):
        BridgeCache(tiny_lm, tiny_corpus, start=2).states(PLAN)
    with pytest.raises(ClasError, match="from 0 to 2"):
        BridgeCache(tiny_lm, tiny_corpus, start=3)
    with pytest.raises(ClasError, match="no sentences"):
        hidden_states(tiny_lm, [])


def test_a_sentence_beyond_learned_positions_is_refused(tiny_gpt2, tiny_lm):
    long = ["The cat sleeps in the house. " * 60]
    with pytest.raises(ClasError, match=r"A sentence is too long: \d+ tokens exceed .* 256"):
        hidden_states(tiny_gpt2, long)
    assert hidden_states(tiny_lm, long).pooled.isfinite().all()  # rotary ones go on


def test_two_threads_hear_only_themselves(tiny_lm):
    texts = [["The cat sleeps in the house."] * 3, ["Who has the book?"] * 5]
    alone = [hidden_states(tiny_lm, some).pooled for some in texts]
    results: dict[int, list[torch.Tensor]] = {0: [], 1: []}

    def work(user):
        for _ in range(10):
            results[user].append(hidden_states(tiny_lm, texts[user]).pooled)

    threads = [threading.Thread(target=work, args=(user,)) for user in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for user in range(2):
        assert len(results[user]) == 10
        assert all(torch.equal(found, alone[user]) for found in results[user])


def test_leaves_no_hook_behind(tiny_lm):
    def count():
        return [len(b._forward_pre_hooks) + len(b._forward_hooks) for b in tiny_lm.blocks]

    hidden_states(tiny_lm, ["One."])  # the first call installs the lasting ones
    before = count()
    hidden_states(tiny_lm, ["One."])
    assert count() == before
