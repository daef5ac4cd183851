"""The village's own tasks, in the formats that the embedded model was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...village.grammar import CODES, Grammar
from ...village.tasks import NLIItem, Prompt, QAItem, nli_items, qa_items, recall_items
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


class _Asked(Benchmark):
    """Questions of the village, answered in whole sentences; a base class."""

    kind = "generate"

    @property
    def languages(self) -> tuple[str, ...]:
        """The village's."""
        return CODES

    def judge(self, items: Items[Any], predictions: Any) -> Iterable[Sequence[float]]:
        """Token F1, exact match, and whether the asked-for words are said; predictions [items]."""
        pairs = list(zip(predictions, items.of(AskedItem)))
        code = items.language
        scores = {
            "f1": [token_f1(said, item.answers[0], code) for said, item in pairs],
            "exact": [exact_match(said, item.answers[0]) for said, item in pairs],
            "asked": [contains(said, item.asked, code) for said, item in pairs],
        }
        return [scores[metric] for metric in self.metrics]


@dataclass(frozen=True)
class VillageQA(_Asked):
    """A question about a story, answered in a whole sentence."""

    name: str = "village-qa"
    metrics = ("f1", "exact", "asked")

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[AskedItem]:
        """Of stories of the split; no story is in both."""
        found = []
        for number, item in enumerate(_qa_items(split.name, count or ALL)):
            prompt = item.render(Grammar.load(language))
            names = _names(number, item)
            found.append(_asked(*names, prompt))
        return found


@dataclass(frozen=True)
class VillageRecall(_Asked):
    """A fact of the village's canon, which English training text alone tells, asked in every
    language: knowledge that a model has and may not be able to say.

    `everywhere`: the facts that every language's training text tells, the ceiling beside it.
    """

    name: str = "village-recall"
    everywhere: bool = False
    metrics = ("asked", "f1")

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[AskedItem]:
        """Facts of the split; no fact is in both."""
        grammar = Grammar.load(language)
        found = recall_items(split.name, count, self.everywhere)
        return [
            _asked(str(number), item.fact.key, item.render(grammar))
            for number, item in enumerate(found)
        ]


def _asked(key: str, group: str, prompt: Prompt) -> AskedItem:
    return AskedItem(key, group, prompt.text, (prompt.answer,), 40, asked=prompt.asked)


def _names(number: int, item: QAItem | NLIItem) -> tuple[str, str]:
    """Key and group. A story decides by itself which split it is in, so it is the group."""
    story = hashlib.blake2b(item.story.key.encode(), digest_size=8).hexdigest()
    return str(number), story
