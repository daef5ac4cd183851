"""Ready prompts in each language: of the village, from worlds that its model never saw; of other
texts their sentences, and for a model that chats their questions."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from ...errors import ClasError
from ...village.grammar import CODES, Grammar
from ...village.tasks import qa_items, render_story
from ...village.world import Story, stories
from .choice import Choice

_MOST = 6  # examples of a language
_ASKS = re.compile(r"[?？؟;;՞]\W*$")  # the Greek mark looks like a semicolon


def examples_of(choice: Choice, chats: bool = False) -> Callable[[str], Sequence[str]]:
    """The village's prompts where its text was measured; elsewhere the text's own beginning, or,
    for a model that `chats`, its questions, if there are any."""
    if choice.corpus.is_bundled and choice.name == "village":
        return village_examples
    sentences = choice.corpus.sentences
    chosen = _questions(sentences) if chats else []
    chosen = (chosen or list(range(_MOST)))[:_MOST]

    def examples(code: str) -> Sequence[str]:
        own = sentences.get(code, ())
        return [own[number] for number in chosen if number < len(own)]

    return examples


def _questions(sentences: Mapping[str, Sequence[str]]) -> list[int]:
    """The numbers of the sentences that most languages end with a question mark: some, as Thai,
    write none."""
    marked = Counter(
        number
        for rows in sentences.values()
        for number, sentence in enumerate(rows)
        if _ASKS.search(sentence)
    )
    return sorted(number for number, count in marked.items() if 2 * count > len(sentences))


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
