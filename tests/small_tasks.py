"""Small tasks of every kind, in four languages, for tests of what runs and compares tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tiny import SENTENCES

from clas_core.evaluation.judging.conditions import standard_conditions
from clas_core.evaluation.judging.engine import load_items, tuning_runs
from clas_core.evaluation.judging.items import (
    ChoiceItem,
    Item,
    Items,
    Kind,
    OpenItem,
    PairItem,
    Split,
    TextItem,
    Validation,
)
from clas_core.steering.recipe import Recipe

LANGUAGES = tuple(SENTENCES)
# Steers the tiny models so hard that scores move.
RECIPE = Recipe(alpha=2.0, beta=2.0, gamma=-1.0, tau=0.3, shared_from=2, layers=(1, 3))
METRICS = {
    "choice": ("accuracy", "log_p"),
    "generate": ("length",),
    "text": ("bits_per_byte",),
    "states": ("closeness",),
}


@dataclass(frozen=True)
class SmallTask:
    """Six items a split from the six sentences, another order in each split."""

    kind: Kind
    prefix: str = ""

    @property
    def name(self) -> str:
        return f"small {self.kind}"

    @property
    def languages(self) -> tuple[str, ...]:
        return LANGUAGES

    @property
    def metrics(self) -> tuple[str, ...]:
        return METRICS[self.kind]

    def items(self, language: str, split: type[Split], count: int | None = None) -> Items[Any]:
        texts = SENTENCES[language]
        rows = range(6) if split is Validation else range(5, -1, -1)
        found = tuple(self._item(language, texts[k], k, split.name) for k in rows)
        return Items(self.name, language, split, found[:count], self.prefix)

    def score(self, items: Items[Any], predictions: Any) -> tuple[Any, ...]:
        return tuple(
            items.scored(metric, self._values(metric, items.items, predictions))
            for metric in self.metrics
        )

    def _item(self, language: str, text: str, k: int, split: str) -> Item:
        names = (f"{split} {k}", f"{split} {k}")
        if self.kind == "choice":
            return ChoiceItem(*names, text, (" the cat", " a house on", " no"), k % 3)
        if self.kind == "generate":
            return OpenItem(*names, text, (), 6)
        if self.kind == "text":
            return TextItem(*names, text)
        return PairItem(*names, text, SENTENCES["en"][k])

    def _values(self, metric: str, items: Sequence[Any], predictions: Any) -> list[float]:
        if metric == "accuracy":
            return [
                float(int(np.argmax(scores)) == item.answer)
                for item, scores in zip(items, predictions)
            ]
        if metric == "log_p":
            return [scores[item.answer] for item, scores in zip(items, predictions)]
        if metric == "length":
            return [float(len(text)) for text in predictions]
        if metric == "bits_per_byte":
            return [
                -value / np.log(2) / len(item.text.encode())
                for item, value in zip(items, predictions)
            ]
        return [float(a @ b) for a, b in zip(*predictions)]


def small_runs() -> Any:
    """Choosing and map items of three languages under the standard conditions of `RECIPE`."""
    tasks = [SmallTask("choice"), SmallTask("states")]
    conditions = standard_conditions([RECIPE], controls=1)
    return tuning_runs(load_items(tasks, Validation, ["en", "sw", "es"], 4), conditions)


def flat(found: Any) -> dict[tuple[str, ...], Any]:
    """The values of every score, by what it is of."""
    return {
        (one.condition, one.scores.task, one.scores.metric, one.scores.language): one.scores.values
        for scores in found
        for one in scores
    }


def check(found: dict[Any, Any], wanted: dict[Any, Any]) -> None:
    """The same scores, with values that are as near as batches of other sizes let them be."""
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key] == pytest.approx(values, abs=1e-4)
