"""The village's own tasks, in the formats that the embedded model was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...village.grammar import CODES, Grammar
from ...village.tasks import NLIItem, QAItem, nli_items, qa_items
from ..judging.items import ChoiceItem, Items, OpenItem, Split
from .base import Benchmark, ChoiceBenchmark
from .scoring import contains, exact_match, token_f1

# All languages have the same items, and it takes a while to draw them.
_nli_items, _qa_items = lru_cache(nli_items), lru_cache(qa_items)

ALL = 300  # a split has no end: so many are all, as on the model's card


@dataclass(frozen=True)
class AskedItem(OpenItem):
    """A question of the village; `asked` are the words of the answer that it asks for."""

    asked: str = ""


@dataclass(frozen=True)
class VillageNLI(ChoiceBenchmark):
    """Does a statement follow from a story? Yes, no, or one can't tell; chance: a third."""

    name: str = "village-nli"

    @property
    def languages(self) -> tuple[str, ...]:
        """The village's."""
        return CODES

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[ChoiceItem]:
        """Of stories of the split; no story is in both."""
        found = []
        for number, item in enumerate(_nli_items(split.name, count or ALL)):
            prompt = item.render(Grammar.load(language))
            right = prompt.choices.index(prompt.answer)
            found.append(ChoiceItem(*_names(number, item), prompt.text, prompt.choices, right))
        return found


@dataclass(frozen=True)
class VillageQA(Benchmark):
    """A question about a story, answered in a whole sentence."""

    name: str = "village-qa"
    kind = "generate"
    metrics = ("f1", "exact", "asked")

    @property
    def languages(self) -> tuple[str, ...]:
        """The village's."""
        return CODES

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[AskedItem]:
        """Of stories of the split; no story is in both."""
        found = []
        for number, item in enumerate(_qa_items(split.name, count or ALL)):
            prompt = item.render(Grammar.load(language))
            names = _names(number, item)
            found.append(AskedItem(*names, prompt.text, (prompt.answer,), 40, asked=prompt.asked))
        return found

    def judge(self, items: Items[Any], predictions: Any) -> Iterable[Sequence[float]]:
        """Token F1, exact match, and whether the asked-for words are said; predictions [items]."""
        pairs = list(zip(predictions, items.of(AskedItem)))
        code = items.language
        return (
            [token_f1(said, item.answers[0], code) for said, item in pairs],
            [exact_match(said, item.answers[0]) for said, item in pairs],
            [contains(said, item.asked, code) for said, item in pairs],
        )


def _names(number: int, item: QAItem | NLIItem) -> tuple[str, str]:
    """Key and group. A story decides by itself which split it is in, so it is the group."""
    story = hashlib.blake2b(item.story.key.encode(), digest_size=8).hexdigest()
    return str(number), story
