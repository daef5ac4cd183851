"""Tokens into text: whatever the tokenizer, what is said in parts is what it says at once."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import SENTENCES
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from clas_core.model.streaming import TextStream

PROMPTS = ("The cat sees", "市场🙂", "")


def byte_fallback_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama's and Gemma's: what is no word of its own is written byte by byte."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"acehst"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="module", params=["byte level", "byte fallback"])
def lm(request, tiny_lm):
    if request.param == "byte level":
        return tiny_lm
    return dataclasses.replace(tiny_lm, tokenizer=byte_fallback_tokenizer())


def behind(lm, prompt, tokens):
    """What the tokenizer itself adds to the prompt's text for these tokens."""
    before = lm.tokenizer.encode(prompt, add_special_tokens=False) if prompt else []
    text = lm.tokenizer.decode([*before, *tokens], skip_special_tokens=True)
    return before, text[len(lm.tokenizer.decode(before, skip_special_tokens=True)) :]


def streamed(lm, before, tokens):
    stream = TextStream(lm, before)
    return [*(stream.push(token) for token in tokens), stream.finish()]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")) | st.lists(
    st.sampled_from([word for row in SENTENCES.values() for word in row]), max_size=4
).map(" ".join)


@settings(max_examples=150)
@given(text=TEXTS, prompt=st.sampled_from(PROMPTS), marks=st.sets(st.integers(0, 60), max_size=5))
def test_the_parts_add_up_to_the_tokenizers_own_text(lm, text, prompt, marks):
    """Also with special tokens between them, which are no text."""
    tokens = lm.tokenizer.encode(text, add_special_tokens=False)
    for place in sorted(marks):
        tokens.insert(min(place, len(tokens)), lm.tokenizer.eos_token_id)
    before, whole = behind(lm, prompt, tokens)
    parts = streamed(lm, before, tokens)
    assert "".join(parts) == whole
    # Nothing but what is no whole character yet waits for the end.
    assert parts[-1] == ""


@settings(max_examples=100)
@given(tokens=st.lists(st.integers(3, 258), max_size=60))
@example(tokens=[228, 131, 131, 131, 3, 3])  # a letter, spoilt by what follows
def test_what_is_no_text_is_held_no_longer_than_four_tokens(lm, tokens):
    said = 0
    parts = streamed(lm, [], tokens)
    for count, part in enumerate(parts[:-1], 1):
        said += len(part)
        first = lm.tokenizer.decode(tokens[: max(0, count - 3)], skip_special_tokens=True)
        assert said >= len(first.rstrip("\ufffd"))
    # Bytes that spoil a run turn the letters before them, given out already, into several.
    assert len(parts[-1]) <= TextStream._WINDOW


def test_invalid_bytes_are_shown_and_cost_no_more_the_longer_they_go_on(lm, monkeypatch):
    tokens = lm.tokenizer.convert_tokens_to_ids(
        ["<0xFF>" if "<0xFF>" in lm.tokenizer.get_vocab() else "ÿ"]
    )
    widths = []
    decode = lm.tokenizer.decode
    monkeypatch.setattr(
        lm.tokenizer, "decode", lambda ids, **how: widths.append(len(ids)) or decode(ids, **how)
    )
    parts = streamed(lm, [], tokens * 4000)
    assert parts[:5] == ["", "", "", "\ufffd", "\ufffd"]
    assert "".join(parts) == "\ufffd" * 4000
    assert max(widths) <= 25
    assert len(widths) < 2 * 4000


def test_a_prompt_that_is_cut_within_a_character_spoils_nothing(lm):
    """Eight tokens back may be in the middle of one, where all is written byte by byte."""
    before = lm.tokenizer.encode("市场市场", add_special_tokens=False)
    tokens = lm.tokenizer.encode("市 a", add_special_tokens=False)
    assert "".join(streamed(lm, before, tokens)) == behind(lm, "市场市场", tokens)[1]


def test_random_tokens_end_as_the_tokenizers_own_text(tiny_lm):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 400, (500,), generator=generator).tolist()
    text = tiny_lm.tokenizer.decode(tokens, skip_special_tokens=True)
    assert "".join(streamed(tiny_lm, [], tokens)).replace("\ufffd", "") == text.replace(
        "\ufffd", ""
    )
