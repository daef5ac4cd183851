"""Scores and log-likelihoods, against values worked out by hand or token by token."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clas_core.evaluation.choices import choice_log_likelihoods, log_likelihoods
from clas_core.evaluation.scoring import contains, exact_match, normalise, token_f1


@pytest.mark.parametrize(
    ("said", "true", "code", "f1"),
    [
        ("Anna is in the park.", "Anna is in the park.", "en", 1.0),
        ("Anna is in the garden.", "Anna is in the park.", "en", 0.8),
        ("the the the", "the", "en", 0.5),  # multiset, not set: 2 * 1 / (3 + 1)
        ("安娜在公园。", "安娜在学校。", "zh", 0.6),  # characters: 3 of 5 on both sides
        ("", "Anna", "en", 0.0),
        ("", "", "en", 1.0),
    ],
)
def test_token_f1(said, true, code, f1):
    assert token_f1(said, true, code) == pytest.approx(f1)


@given(st.text(), st.text())
def test_f1_is_symmetric_and_bounded(a, b):
    assert token_f1(a, b, "en") == token_f1(b, a, "en")
    assert 0 <= token_f1(a, b, "en") <= 1


def test_exact_match_ignores_case_and_punctuation():
    assert exact_match("anna is  here", "Anna is here.") == 1
    assert exact_match("अन्ना यहाँ है", "अन्ना यहाँ है।") == 1
    assert exact_match("Anna is there", "Anna is here") == 0
    assert normalise("¿Dónde está?") == "dónde está"


def test_asked_words_are_whole_words():
    assert contains("Anna sees a cat.", "cat", "en") == 1
    assert contains("Anna sees a caterpillar.", "cat", "en") == 0
    assert contains("安娜在公园里。", "公园里", "zh") == 1


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
