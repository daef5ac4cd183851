"""What all tasks share: languages are checked, items come in one order everywhere."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from ...errors import ClasError
from ..judging.items import ChoiceItem, Item, Items, Kind, S, Scores, Split, Validation


class Benchmark(ABC):
    """A `Task` whose subclasses say where items come from, and how predictions are scored."""

    name: str
    kind: ClassVar[Kind]
    metrics: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def languages(self) -> tuple[str, ...]:
        """See `Task.languages`."""

    @abstractmethod
    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """At least `count` items, if there are so many, in the same order in every language."""

    @abstractmethod
    def judge(self, items: Items[Any], predictions: Any) -> Iterable[Sequence[float]]:
        """For each metric one score an item."""

    def items(self, language: str, split: type[S], count: int | None = None) -> Items[S]:
        """See `Task.items`."""
        if language not in self.languages:
            raise ClasError(
                f"{self.name} has no {language}; its languages are {', '.join(self.languages)}."
            )
        found = self.draw(language, split, count)
        return Items(self.name, language, split, tuple(found[:count]))

    def score(self, items: Items[S], predictions: Any) -> tuple[Scores[S], ...]:
        """See `Task.score`."""
        found = zip(self.metrics, self.judge(items, predictions))
        return tuple(items.scored(metric, values) for metric, values in found)


class ChoiceBenchmark(Benchmark):
    """Scored by whether the right choice is the likeliest."""

    kind = "choice"
    metrics = ("accuracy",)

    def judge(self, items: Items[Any], predictions: Any) -> Iterable[Sequence[float]]:
        """1 where the likeliest choice is the answer; predictions [items][choices], in nats."""
        pairs = zip(items.of(ChoiceItem), predictions)
        return [[float(np.argmax(scores) == item.answer) for item, scores in pairs]]


def shuffled(items: Iterable[Item]) -> list[Item]:
    """Groups in an order of chance that is the same in every language and on every machine, so
    that the first few items are a fair sample of all."""
    return sorted(items, key=lambda item: (_chance(item.group), item.key))


def part(items: Iterable[Item], split: type[Split], share: float) -> list[Item]:
    """The items of `split` where there's only one file: by group, `share` of it validation."""
    wanted = split is Validation
    return [item for item in items if (_chance("part " + item.group) < share) is wanted]


def _chance(text: str) -> float:
    """A number in [0, 1) that only depends on `text`, as good as random."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
