"""Log-likelihoods, token by token."""

import pytest
import torch

from clas_core.evaluation.choices import choice_log_likelihoods, log_likelihoods


def test_log_likelihoods_token_by_token(tiny_lm):
    """Batched and padded, against one text at a time, one token at a time."""
    prompts = ["a story about a house", "a", "the boat and the moon see"]
    answers = [" here", " the bread is warm", " a house"]
    found = log_likelihoods(tiny_lm, prompts, answers, batch_size=2)
    for prompt, answer, value in zip(prompts, answers, found.tolist(), strict=True):
        start = tiny_lm.tokenizer(prompt)["input_ids"]
        end = tiny_lm.tokenizer(answer, add_special_tokens=False)["input_ids"]
        total = 0.0
        for k, token in enumerate(end):
            with torch.inference_mode():
                logits = tiny_lm.model(torch.tensor([start + end[:k]])).logits[0, -1]
            total += float(logits.double().log_softmax(-1)[token])
        assert value == pytest.approx(total, abs=1e-4)


def test_choices_are_scored_like_single_continuations(tiny_lm):
    prompts, choices = ["a house", "the moon is"], [" yes", " no no"]
    both = choice_log_likelihoods(tiny_lm, prompts, choices)
    assert both.shape == (2, 2)
    assert float(both[1, 0]) == pytest.approx(
        float(log_likelihoods(tiny_lm, prompts[1:], choices[:1])), abs=1e-4
    )
