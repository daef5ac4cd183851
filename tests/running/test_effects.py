from __future__ import annotations

import math

import pytest
import torch
from chats import CHATML, LLAMA3, chat_lm
from hypothesis import given
from hypothesis import strategies as st

from clas_core.errors import ClasError
from clas_core.model.prompts import render
from clas_core.running.effects import Effects, compare, diff_words, effects_of
from clas_core.running.generation import generate
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered

PROMPT = "The cat sleeps"


def plan_of(scale: float) -> SteeringPlan:
    return SteeringPlan({layer: LayerPlan(scale=torch.full((64,), scale)) for layer in (1, 2)})


def run(lm, plan, length=12):
    *_, step = generate(lm, PROMPT, [None, plan], max_new_tokens=length)
    return compare(lm, PROMPT, *step.token_ids, plan), step.token_ids


def test_kl_and_bits_by_hand(any_lm):
    plan = plan_of(2.0)
    effects, (unsteered_ids, _) = run(any_lm, plan)
    prompt = any_lm.tokenizer(PROMPT)["input_ids"]
    bits = []
    for t, token in enumerate(unsteered_ids):
        context = torch.tensor([[*prompt, *unsteered_ids[:t]]])
        with torch.no_grad():
            p = any_lm.model(context).logits[0, -1].double().softmax(-1)
            with steered(any_lm, plan):
                q = any_lm.model(context).logits[0, -1].double().softmax(-1)
        kl = sum(b * math.log(b / a) for a, b in zip(p.tolist(), q.tolist()))
        assert effects.kl[t].item() == pytest.approx(kl, abs=1e-4)
        bits.append((-math.log2(p[token]), -math.log2(q[token])))
    mean = tuple(sum(side) / len(bits) for side in zip(*bits))
    assert effects.bits_per_token == pytest.approx(mean, abs=1e-4)
    assert mean[0] < mean[1]


@pytest.mark.parametrize("plan", [None, SteeringPlan.identity(), plan_of(3.0) * 0])
def test_no_steering_no_effect(any_lm, plan):
    effects, _ = run(any_lm, plan)
    assert torch.equal(effects.kl, torch.zeros(12))
    assert effects.changed_share == 0
    assert effects.bits_per_token[0] == effects.bits_per_token[1]
    assert effects.sentence == "Identical text; no shift at any token."


def test_the_strip_ends_as_the_text_does(tiny_lm):
    """Half a character at the end is shown as such, there and in the answer."""
    half = tiny_lm.tokenizer.convert_tokens_to_ids("Ã")  # the first byte of é
    ids = [*tiny_lm.tokenizer("cat", add_special_tokens=False)["input_ids"], half]
    assert compare(tiny_lm, PROMPT, ids, ids, None).tokens[-1] == "\ufffd"


def test_strip_has_a_piece_for_every_token(tiny_lm):
    effects, (ids, _) = run(tiny_lm, plan_of(2.0))
    assert len(effects.tokens) == len(effects.kl) == len(ids)
    assert "".join(effects.tokens) in tiny_lm.tokenizer.decode(ids)


def test_strip_shows_the_end_mark(tiny_lm):
    ids = [*tiny_lm.tokenizer.encode(" house", add_special_tokens=False), 2]
    assert compare(tiny_lm, PROMPT, ids, ids, None).tokens[-1] == "</s>"


def test_outputs_are_described(tiny_lm):
    def ids(text):
        return tiny_lm.tokenizer.encode(text, add_special_tokens=False)

    english = ids(" The boy goes to the market with his sister.")
    hindi = ids("बिल्ली सुबह घर के बाहर सोती है। " * 3)
    effects = compare(tiny_lm, PROMPT, english, hindi, plan_of(1.5))
    assert effects.languages == ("en", "hi")
    assert effects.repetition[0] == 0
    assert effects.repetition[1] > 0.5
    assert effects.changed_share > 0.8
    assert effects.sentence.startswith(f"{effects.changed_share:.0%} of the tokens changed, ")
    assert "the language went from English to Hindi, the steered text repeats" in effects.sentence
    assert compare(tiny_lm, PROMPT, english, hindi, None, codes=["en"]).languages == ("en", None)


def test_sentence_for_the_same_words():
    kl = torch.tensor([0.001, 0.0, 0.0213])
    effects = Effects(kl, ("a", "b", "c"), (1.0, 1.1), 0.0, ("en", "en"), (0.0, 0.0))
    assert effects.sentence == "Identical text; largest shift at token 3, 0.021 nats."
    faint = Effects(kl / 100, ("a", "b", "c"), (1.0, 1.1), 0.0, ("en", "en"), (0.0, 0.0))
    assert faint.sentence.endswith("token 3, under 0.001 nats: more strength shows more.")


def test_changed_share(tiny_lm):
    assert compare(tiny_lm, PROMPT, [5, 6, 7, 8], [5, 6, 9, 8], None).changed_share == 0.25


def test_a_chat_is_read_as_it_was_written():
    lm, plan = chat_lm(LLAMA3), plan_of(2.0)
    prompt = render(lm, PROMPT)
    *_, step = generate(lm, prompt, [None, plan], max_new_tokens=6)
    effects = compare(lm, prompt, *step.token_ids, plan)
    context = torch.tensor([[*prompt.token_ids, *step.token_ids[0][:-1]]])
    with torch.no_grad():
        p = lm.model(context).logits[0, -1].double().softmax(-1)
        with steered(lm, plan):
            q = lm.model(context).logits[0, -1].double().softmax(-1)
    assert effects.kl[-1].item() == pytest.approx((q * (q / p).log()).sum().item(), abs=1e-4)
    plain = compare(lm, PROMPT, *step.token_ids, plan)
    assert not torch.allclose(effects.kl, plain.kl)


def test_the_end_of_a_turn_has_no_language():
    lm = chat_lm(CHATML.replace("<|im_end|>", "अंत"))
    lm.tokenizer.add_tokens(["अंत"])  # no special token, and in another script
    english = lm.tokenizer.encode("The cat sleeps in the house.", add_special_tokens=False)
    ids = [*english, *lm.tokenizer.encode("अंत" * 9, add_special_tokens=False)]
    codes = ["en", "hi"]
    chat, plain = (
        compare(lm, render(lm, PROMPT, chat=chat), ids, ids, None, codes=codes).languages
        for chat in ("on", "off")
    )
    assert chat == ("en", "en") != plain


def test_nothing_to_compare(tiny_lm):
    with pytest.raises(ClasError, match="nothing to compare yet"):
        compare(tiny_lm, PROMPT, [], [5], None)


@pytest.mark.parametrize(
    ("a", "b", "code", "left", "right"),
    [
        (
            "The cat sleeps.",
            "The dog sleeps.",
            "en",
            [("The ", False), ("cat", True), (" sleeps.", False)],
            [("The ", False), ("dog", True), (" sleeps.", False)],
        ),
        (
            "one two three",
            "one",
            "en",
            [("one ", False), ("two three", True)],
            [("one", False)],
        ),
        (
            "他去市场",
            "他去学校",
            "zh",
            [("他去", False), ("市场", True)],
            [("他去", False), ("学校", True)],
        ),
        ("น้ำ", "นำ", "th", [("น้ำ", True)], [("นำ", True)]),
        ("किताब है।", "किताबें है।", "hi", [("किताब", True), (" है।", False)], None),
        ("", "new", None, [], [("new", True)]),
    ],
)
def test_diff_words(a, b, code, left, right):
    found = diff_words(a, b, code)
    assert found[0] == left
    assert right is None or found[1] == right


@given(a=st.text(max_size=30), b=st.text(max_size=30), code=st.sampled_from(["en", "th", None]))
def test_diff_keeps_both_texts(a, b, code):
    left, right = diff_words(a, b, code)
    assert "".join(text for text, _ in left) == a
    assert "".join(text for text, _ in right) == b
    if a == b:
        assert not any(differs for _, differs in left)


def test_what_rounding_makes_is_no_shift(tiny_lm):
    """A text that was read by the token is compared with itself, read at once."""
    prompt, ids = render(tiny_lm, PROMPT), [5, 6, 7]
    before = torch.randn(3, tiny_lm.model.config.vocab_size).log_softmax(-1)
    found = [
        effects_of(tiny_lm, prompt, ids, ids, before, (before + shift).log_softmax(-1)).kl
        for shift in (torch.randn_like(before) * 1e-6, torch.randn_like(before) * 0.1)
    ]
    assert not found[0].any()
    assert found[1].all()
