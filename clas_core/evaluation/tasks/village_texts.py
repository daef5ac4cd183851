"""Texts of the village: how stories begin, their sentences, and whose words they are."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from ...text.languages import get_language
from ...village.grammar import CODES, Grammar
from ...village.tasks import render_story
from ...village.world import stories
from .scoring import words


def story_starts(code: str, count: int, tokenizer: Any, split: str = "test") -> list[str]:
    """The first two words of `count` stories; four tokens in scripts without spaces.

    Starts that another language's sentences share ("Sara va", Spanish or French) tell no language
    and are passed over.
    """
    grammar, rng = Grammar.load(code), random.Random(f"starts-{split}")
    starts: list[str] = []
    for story in stories(7, split, 2 * count):
        text = render_story(story, grammar, rng)
        if get_language(code).spaced:
            start = " ".join(text.split(" ")[:2])
        else:
            start = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)[:4])
        if len(starts) < count and not any(
            start in first_words(other) for other in CODES if other != code
        ):
            starts.append(start)
    return starts


@cache
def first_words(code: str) -> frozenset[str]:
    """The first two words of every sentence of a language of the village."""
    return frozenset(" ".join(s.split(" ")[:2]) for s in Grammar.load(code).all_sentences)


def split_story(text: str, grammar: Grammar) -> list[str]:
    """The sentences of a told story; an unfinished last one is one too."""
    if grammar.code == "th":
        return [piece for piece in text.split(" ") if piece]
    found, start = [], 0
    for position, char in enumerate(text):
        if char in ".。।!؟?":
            found.append(text[start : position + 1].strip())
            start = position + 1
    return found + ([text[start:].strip()] if text[start:].strip() else [])


@cache
def vocabulary(code: str) -> frozenset[str]:
    """Every word (or character) of a language of the village."""
    sentences = Grammar.load(code).all_sentences
    return frozenset(word for sentence in sentences for word in words(sentence, code))


def identify(text: str, expected: str) -> str:
    """The village language that knows most words of `text`; `expected` where that is a tie."""
    known: dict[str, float] = {}
    for code in CODES:
        said = words(text, code)
        known[code] = sum(word in vocabulary(code) for word in said) / max(1, len(said))
    best = max(known.values())
    return expected if known[expected] == best else max(CODES, key=lambda code: known[code])
