"""Tasks made of other tasks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import ClasError
from ..judging.items import ChoiceItem, Item, Items, Kind, OpenItem, S, Scores, Task, Validation


@dataclass(frozen=True)
class FewShot:
    """`task` after `shots` solved examples, the same for all items.

    `seed` draws them from the first validation items, ten for each, at most one of a group and the
    same ones in every language. Their groups are left out of the validation items.
    """

    task: Task
    shots: int
    seed: int = 0

    @property
    def name(self) -> str:
        """The task's, and how many examples go before."""
        return f"{self.task.name}, {self.shots} examples"

    @property
    def kind(self) -> Kind:
        """The task's."""
        return self.task.kind

    @property
    def languages(self) -> tuple[str, ...]:
        """The task's."""
        return self.task.languages

    @property
    def metrics(self) -> tuple[str, ...]:
        """The task's."""
        return self.task.metrics

    def items(self, language: str, split: type[S], count: int | None = None) -> Items[S]:
        """See `Task.items`. Raises ClasError if there are too few examples, or no answers."""
        pool = self.task.items(language, Validation, 10 * self.shots)
        groups: dict[str, list[Item]] = {}
        for item in sorted(pool.items, key=lambda item: item.key):
            groups.setdefault(item.group, []).append(item)
        if len(groups) <= self.shots:
            raise ClasError(
                f"{self.task.name} has {len(groups)} validation texts in {language}, too few for "
                f"{self.shots} examples: take fewer."
            )
        rng = random.Random(self.seed)
        taken = rng.sample(sorted(groups), self.shots)
        examples = tuple(_solved(rng.choice(groups[group])) for group in taken)
        found = self.task.items(language, split, count and count + len(pool))
        kept = tuple(item for item in found.items if item.group not in taken)
        return replace(found, task=self.name, items=kept[:count], examples=examples)

    def score(self, items: Items[S], predictions: Any) -> tuple[Scores[S], ...]:
        """As the task scores."""
        return self.task.score(items, predictions)


@dataclass(frozen=True)
class Likelihood:
    """How likely the model finds the true answer of `task`, in nats.

    Far more sensitive than answers right or wrong, so it takes fewer items.
    """

    task: Task
    kind: Kind = "choice"
    metrics: tuple[str, ...] = ("log_p",)

    @property
    def name(self) -> str:
        """The task's, and that its true answers are judged by likelihood."""
        return f"{self.task.name}, likelihood"

    @property
    def languages(self) -> tuple[str, ...]:
        """The task's."""
        return self.task.languages

    def items(self, language: str, split: type[S], count: int | None = None) -> Items[S]:
        """See `Task.items`. Raises ClasError if the task has no answers."""
        found = self.task.items(language, split, count)
        return replace(found, task=self.name, items=tuple(map(_truth, found.items)))

    def score(self, items: Items[S], predictions: Sequence[Sequence[float]]) -> tuple[Scores[S]]:
        """Each true answer's log-likelihood in nats; predictions [items][1]."""
        return (items.scored("log_p", [scores[0] for scores in predictions]),)


def by_likelihood(task: Task) -> Task:
    """`Likelihood` of a task that has true answers; any other as it is."""
    if task.kind == "generate":
        (first,) = task.items(task.languages[0], Validation, 1).of(OpenItem)
        return Likelihood(task) if first.answers else task
    return Likelihood(task) if task.kind == "choice" else task


def _truth(item: Item) -> ChoiceItem:
    """An item whose only choice is the right one."""
    if isinstance(item, ChoiceItem):
        return replace(item, choices=(item.choices[item.answer],), answer=0)
    if not isinstance(item, OpenItem) or not item.answers:
        raise ClasError("This task's items have no answers: take another task.")
    # An answer follows a blank, but for a prompt that ends in one or in a line break.
    blank = "" if item.prompt[-1:].isspace() else " "
    return ChoiceItem(item.key, item.group, item.prompt, (blank + item.answers[0],), 0)


def _solved(item: Item) -> tuple[str, str]:
    truth = _truth(item)
    return truth.prompt, truth.choices[0]
