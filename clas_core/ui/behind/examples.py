"""Ready prompts in each language: of the village, from worlds that its model never saw."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache

from ...errors import ClasError
from ...village.grammar import CODES, Grammar
from ...village.tasks import qa_items, render_story
from ...village.world import Story, stories
from .choice import Choice


def examples_of(choice: Choice) -> Callable[[str], Sequence[str]]:
    """The village's prompts where its text was measured; elsewhere the text's own beginning."""
    if choice.corpus.is_bundled and choice.name == "village":
        return village_examples
    sentences = choice.corpus.sentences
    return lambda code: list(sentences.get(code, ()))[:6]


@lru_cache
def village_examples(code: str) -> tuple[str, ...]:
    """Six prompts: beginnings of stories, on which steering shows first, and questions in turn,
    the same ones in every language.

    None for a language outside the village.
    """
    if code not in CODES:
        return ()
    try:
        grammar = Grammar.load(code)
    except (ClasError, OSError):
        return ()
    rng = random.Random(0)
    questions = [item.render(grammar).text for item in qa_items("test", 3)]
    begun = [render_story(Story(story.events[:2]), grammar, rng) for story in stories(5, "test", 3)]
    return tuple(prompt for pair in zip(begun, questions, strict=True) for prompt in pair)
