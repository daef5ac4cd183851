"""Run tasks under many rows at once: every row answers the same items, and shares their forwards.

A column is a task in one language under all rows. It is worked off in pieces, which any process
may do, and its scores come out together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from ...atlas.atlas import Atlas
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...running.answers import write_answers
from ...running.batch import Plans, Progress
from ...running.likelihood import log_likelihoods, tokenise
from ...running.states import BridgeCache
from ...steering.plan import SteeringPlan
from ...steering.recipe import Recipe
from .items import (
    ChoiceItem,
    Chosen,
    Items,
    Kind,
    OpenItem,
    PairItem,
    Scores,
    Split,
    Task,
    Test,
    TextItem,
    Validation,
    only,
)
from .prompting import PLAIN, Prompting
from .rows import Row, check_names, standard_rows

S = TypeVar("S", bound=Split)
ANCHOR = "en"


@dataclass(frozen=True)
class Cell(Generic[S]):
    """A row's scores on one task in one language, one score an item."""

    row: str
    scores: Scores[S]


@dataclass(frozen=True)
class Work:
    """Some items under some rows, whose plans are made for the language `target`."""

    kind: Kind
    items: Items[Any]
    rows: tuple[Row, ...]
    target: str
    prompting: Prompting = PLAIN


@dataclass(frozen=True)
class Column(Generic[S]):
    """A task in one language, under all rows that it has a meaning for.

    The anchor's items are dealt out in turn to `others`, the languages that are steered for: what
    steering for another language does to the anchor is what the anchor's column tells.

    `chosen` are the settings that may be reported on test items: raises ClasError for a row of any
    other, and if one of them was chosen on these items.
    """

    task: Task
    items: Items[S]
    rows: tuple[Row, ...]
    others: tuple[str, ...] = ()
    prompting: Prompting = PLAIN
    chosen: tuple[Chosen[Recipe], ...] = ()

    def __post_init__(self) -> None:
        if self.items.split is not Test:
            return
        for one in self.chosen:
            one.admit(only(Test, self.items))
        settings = [one.setting for one in self.chosen]
        for row in self.rows:
            if row.recipe is not None and row.recipe not in settings:
                raise ClasError(
                    f"{row.name}: a setting is told of test items after it was chosen on "
                    "validation items; choose it by a sweep first."
                )

    @property
    def works(self) -> tuple[Work, ...]:
        kind, items = self.task.kind, self.items
        return tuple(
            Work(kind, replace(items, items=items.items[part]), self.rows, code, self.prompting)
            for code, part in self._parts
        )

    def cells(self, predictions: Sequence[Sequence[Any]]) -> tuple[Cell[S], ...]:
        """All rows' cells, of the works' predictions [works][rows]."""
        found = []
        for number, row in enumerate(self.rows):
            parts = [of_work[number] for of_work in predictions]
            merged = self._merge(parts) if len(parts) > 1 else parts[0]
            found += [Cell(row.name, scores) for scores in self.task.score(self.items, merged)]
        return tuple(found)

    @property
    def _parts(self) -> list[tuple[str, slice]]:
        targets = self.others[: len(self.items)] or (self.items.language,)
        return [(code, slice(k, None, len(targets))) for k, code in enumerate(targets)]

    def _merge(self, parts: Sequence[Any]) -> Any:
        if self.task.kind == "states":
            return tuple(self._merge_one(list(side)) for side in zip(*parts))
        return list(self._merge_one(parts))

    def _merge_one(self, parts: Sequence[Any]) -> Any:
        order = np.concatenate([np.arange(len(self.items))[part] for _, part in self._parts])
        joined = [prediction for part in parts for prediction in part]
        back = [joined[place] for place in np.argsort(order)]
        return np.stack(back) if self.task.kind == "states" else back


def tuning_columns(
    loaded: Sequence[tuple[Task, Items[Validation]]],
    rows: Sequence[Row],
    anchor: str = ANCHOR,
    prompting: Prompting = PLAIN,
) -> tuple[Column[Validation], ...]:
    """A column for each task and language, under any rows: settings may be tried out here.

    Raises ClasError for other than validation items, and for two rows of one name.
    """
    return _columns(
        [(task, only(Validation, items)) for task, items in loaded], rows, anchor, prompting
    )


def reporting_columns(
    loaded: Sequence[tuple[Task, Items[Test]]],
    chosen: Sequence[Chosen[Recipe]],
    controls: int = 3,
    anchor: str = ANCHOR,
    prompting: Prompting = PLAIN,
) -> tuple[Column[Test], ...]:
    """A column for each task and language, under settings that were chosen before.

    The rows are unsteered, each setting by its method's name, a prompt that asks, and `controls`
    random controls of the first setting. Raises ClasError if a setting was chosen on any of these
    items, and for two settings of one method.
    """
    if not chosen:
        raise ClasError("There is no setting to report on: choose one by a sweep first.")
    rows = standard_rows([one.setting for one in chosen], controls)
    checked = [(task, only(Test, items)) for task, items in loaded]
    return _columns(checked, rows, anchor, prompting, tuple(chosen))


def _columns(
    loaded: Sequence[tuple[Task, Items[S]]],
    rows: Sequence[Row],
    anchor: str,
    prompting: Prompting,
    chosen: tuple[Chosen[Recipe], ...] = (),
) -> tuple[Column[S], ...]:
    """Rows that only ask leave out tasks without a question."""
    rows = tuple(rows)
    check_names(rows)
    languages = dict.fromkeys(items.language for _, items in loaded)
    others = tuple(code for code in languages if code != anchor)
    found = []
    for task, items in loaded:
        mine = rows if task.kind in ("choice", "generate") else tuple(r for r in rows if not r.ask)
        targets = others if items.language == anchor else ()
        found.append(Column(task, items, mine, targets, prompting, chosen))
    return tuple(found)


def load_items(
    tasks: Sequence[Task], split: type[S], languages: Sequence[str] | None, count: int | None
) -> list[tuple[Task, Items[S]]]:
    """`count` items of each task in each of its languages, or in those of `languages` it has.

    Raises ClasError for a language that no task has; the anchor may be missing, as where it's what
    the others are compared with.
    """
    known = {code for task in tasks for code in task.languages}
    if missing := [code for code in languages or () if code not in known and code != ANCHOR]:
        raise ClasError(f"No task has the language {missing[0]!r}: choose of {sorted(known)}.")
    return [
        (task, task.items(code, split, count))
        for task in tasks
        for code in task.languages
        if languages is None or code in languages
    ]


def run(
    lm: LanguageModel,
    atlas: Atlas,
    columns: Sequence[Column[S]],
    progress: Progress | None = None,
) -> Iterator[tuple[Cell[S], ...]]:
    """Each column's cells as they are done, here and now. `progress(done, total)` counts items.

    Stop iterating to cancel.
    """
    total, done = sum(len(column.items) for column in columns), 0

    def tell(items_done: int, _: int) -> None:
        if progress:
            progress(done + items_done, total)

    for column in columns:
        predictions = []
        for work in column.works:
            predictions.append(predict(lm, atlas, work, tell))
            done += len(work.items)
        yield column.cells(predictions)


def predict(
    lm: LanguageModel, atlas: Atlas, work: Work, progress: Progress | None = None
) -> list[Any]:
    """What the model makes of the items under each row, in the form that `Task.score` takes."""
    language = work.items.language
    found: dict[Row, Any] = {}
    prefixes = tuple(dict.fromkeys(row.prefix(language) for row in work.rows))
    for number, prefix in enumerate(prefixes):

        def tell(done: int, total: int, before: int = number) -> None:
            if progress:
                progress((before * total + done) // len(prefixes), total)

        rows = [row for row in work.rows if row.prefix(language) == prefix]
        plans = [row.plan(atlas, work.target) for row in rows]
        asked = replace(work.items, prefix=prefix + work.items.prefix)
        found.update(zip(rows, _KINDS[work.kind](lm, asked, plans, work.prompting, tell)))
    return [found[row] for row in work.rows]


def _choices(
    lm: LanguageModel,
    items: Items[Any],
    plans: Plans,
    prompting: Prompting,
    progress: Progress | None,
) -> Any:
    questions = [
        # Where the choices are whole texts, there's no question to put.
        tokenise(
            lm,
            prompting.put(lm, items.prefix + item.prompt)
            if item.prompt.strip()
            else items.prefix + item.prompt,
            item.choices,
        )
        for item in items.of(ChoiceItem)
    ]
    return log_likelihoods(lm, questions, plans, progress=progress)


def _answers(
    lm: LanguageModel,
    items: Items[Any],
    plans: Plans,
    prompting: Prompting,
    progress: Progress | None,
) -> Any:
    asked = items.of(OpenItem)
    return write_answers(
        lm,
        [prompting.put(lm, items.prefix + item.prompt) for item in asked],
        plans,
        max_new_tokens=max(item.max_new_tokens for item in asked),
        stop_at_newline=asked[0].stop_at_newline,
        progress=progress,
    )


def _texts(
    lm: LanguageModel, items: Items[Any], plans: Plans, _: Prompting, progress: Progress | None
) -> Any:
    questions = [tokenise(lm, items.prefix, [item.text]) for item in items.of(TextItem)]
    found = log_likelihoods(lm, questions, plans, progress=progress)
    return [[scores[0] for scores in column] for column in found]


def _states(
    lm: LanguageModel, items: Items[Any], plans: Plans, _: Prompting, progress: Progress | None
) -> Any:
    pairs = items.of(PairItem)
    texts = [pair.text for pair in pairs] + [pair.anchor for pair in pairs]
    given = [plan for plan in plans if plan is not None]
    start = min((min(plan.layers) for plan in given), default=lm.num_layers - 1)

    def tell(done: int, total: int) -> None:
        if progress:
            progress(done * len(pairs) // total, len(pairs))

    cache = BridgeCache(lm, texts, start, progress=tell)

    def split(plan: SteeringPlan | None) -> tuple[np.ndarray, np.ndarray]:
        states = cache.states(plan).numpy()
        return states[: len(pairs)], states[len(pairs) :]

    return [split(plan) for plan in plans]


_KINDS: Mapping[str, Any] = {
    "choice": _choices,
    "generate": _answers,
    "text": _texts,
    "states": _states,
}
