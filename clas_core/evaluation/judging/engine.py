"""Run tasks under many conditions at once: all answer the same items, and share their forwards.

A `TaskRun` is a task in one language under all conditions. It is worked off in jobs, which any
process may do, and its scores come out together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from ...atlas.atlas import Atlas
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...model.prompts import Prompt, from_nothing
from ...running.answers import write_answers
from ...running.batch import Plans, Progress
from ...running.generation import generate
from ...running.likelihood import log_likelihoods, tokenise
from ...running.states import BridgeCache
from ...steering.plan import SteeringPlan
from ...steering.recipe import Recipe
from ...text.languages import find_code
from .conditions import Condition, check_names, standard_conditions
from .items import (
    ChoiceItem,
    Chosen,
    Items,
    Kind,
    OpenItem,
    PairItem,
    Scores,
    Split,
    StartItem,
    Task,
    Test,
    TextItem,
    Validation,
    Written,
    only,
)
from .prompting import PLAIN, Prompting

S = TypeVar("S", bound=Split)
ANCHOR = "en"
ROWS = 64  # that write side by side


@dataclass(frozen=True)
class ConditionScores(Generic[S]):
    """A condition's scores on one task in one language, one score an item."""

    condition: str
    scores: Scores[S]


@dataclass(frozen=True)
class Job:
    """Some items under some conditions, whose plans are made for the language `target`."""

    kind: Kind
    items: Items[Any]
    conditions: tuple[Condition, ...]
    target: str
    prompting: Prompting = PLAIN


@dataclass(frozen=True)
class TaskRun(Generic[S]):
    """A task in one language, under all conditions that it has a meaning for.

    The anchor's items are dealt out in turn to `others`, the languages that are steered for: what
    steering for another language does to the anchor is what the anchor's run tells.

    `chosen` are the settings that may be reported on test items: raises ClasError for a condition
    of any other, and if one of them was chosen on these items.
    """

    task: Task
    items: Items[S]
    conditions: tuple[Condition, ...]
    others: tuple[str, ...] = ()
    prompting: Prompting = PLAIN
    chosen: tuple[Chosen[Recipe], ...] = ()

    def __post_init__(self) -> None:
        if self.items.split is not Test:
            return
        for one in self.chosen:
            one.admit(only(Test, self.items))
        settings = [one.setting for one in self.chosen]
        for condition in self.conditions:
            if condition.recipe is not None and condition.recipe not in settings:
                raise ClasError(
                    f"{condition.name}: a setting is told of test items after it was chosen on "
                    "validation items; choose it by a sweep first."
                )

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Its pieces: all items, or for the anchor a share of them for each of `others`."""
        kind, items = self.task.kind, self.items
        return tuple(
            Job(
                kind, replace(items, items=items.items[part]), self.conditions, code, self.prompting
            )
            for code, part in self._parts
        )

    def score(self, predictions: Sequence[Sequence[Any]]) -> tuple[ConditionScores[S], ...]:
        """All conditions' scores, of what `predict` gave for each job, [jobs][conditions]."""
        found = []
        for number, condition in enumerate(self.conditions):
            parts = [of_work[number] for of_work in predictions]
            merged = self._merge(parts) if len(parts) > 1 else parts[0]
            found += [
                ConditionScores(condition.name, scores)
                for scores in self.task.score(self.items, merged)
            ]
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


def tuning_runs(
    loaded: Sequence[tuple[Task, Items[Validation]]],
    conditions: Sequence[Condition],
    anchor: str = ANCHOR,
    prompting: Prompting = PLAIN,
) -> tuple[TaskRun[Validation], ...]:
    """A run for each task and language, under any conditions: settings may be tried out here.

    Raises ClasError for other than validation items, and for two conditions of one name.
    """
    return _runs(
        [(task, only(Validation, items)) for task, items in loaded], conditions, anchor, prompting
    )


def reporting_runs(
    loaded: Sequence[tuple[Task, Items[Test]]],
    chosen: Sequence[Chosen[Recipe]],
    controls: int = 3,
    anchor: str = ANCHOR,
    prompting: Prompting = PLAIN,
) -> tuple[TaskRun[Test], ...]:
    """A run for each task and language, under settings that were chosen before.

    The conditions are unsteered, each setting by its method's name, a prompt that asks, and
    `controls` random controls of the first setting. Raises ClasError if a setting was chosen on
    any of these items, and for two settings of one method.
    """
    if not chosen:
        raise ClasError("There is no setting to report on: choose one by a sweep first.")
    conditions = standard_conditions([one.setting for one in chosen], controls)
    checked = [(task, only(Test, items)) for task, items in loaded]
    return _runs(checked, conditions, anchor, prompting, tuple(chosen))


def _runs(
    loaded: Sequence[tuple[Task, Items[S]]],
    conditions: Sequence[Condition],
    anchor: str,
    prompting: Prompting,
    chosen: tuple[Chosen[Recipe], ...] = (),
) -> tuple[TaskRun[S], ...]:
    """Conditions that only ask leave out tasks without a prompt."""
    conditions = tuple(conditions)
    check_names(conditions)
    languages = dict.fromkeys(items.language for _, items in loaded)
    others = tuple(code for code in languages if code != anchor)
    found = []
    for task, items in loaded:
        asked = task.kind in ("choice", "generate", "written")
        mine = tuple(one for one in conditions if asked or not one.ask)
        targets = others if items.language == anchor else ()
        found.append(TaskRun(task, items, mine, targets, prompting, chosen))
    return tuple(found)


def load_items(
    tasks: Sequence[Task], split: type[S], languages: Sequence[str] | None, count: int | None
) -> list[tuple[Task, Items[S]]]:
    """`count` items of each task in each of its languages, or in those of `languages` it has.

    They may be in any spelling: swh_Latn is sw, but por-BR no other Portuguese. Raises ClasError
    for a language that no task has; the anchor may be missing, as where it's what the others are
    compared with.
    """
    wanted = languages or ()
    for code in wanted:
        if not any(find_code(code, there) for there in ((ANCHOR,), *(t.languages for t in tasks))):
            known = sorted({known for task in tasks for known in task.languages})
            raise ClasError(f"No task has the language {code!r}: choose of {known}.")
    chosen = [{find_code(code, task.languages) for code in wanted} for task in tasks]
    return [
        (task, task.items(code, split, count))
        for task, codes in zip(tasks, chosen)
        for code in task.languages
        if languages is None or code in codes
    ]


def run_tasks(
    lm: LanguageModel,
    atlas: Atlas,
    runs: Sequence[TaskRun[S]],
    progress: Progress | None = None,
) -> Iterator[tuple[ConditionScores[S], ...]]:
    """Each run's scores as they are done, here and now. `progress(done, total)` counts items.

    Stop iterating to cancel.
    """
    total, done = sum(len(run.items) for run in runs), 0

    def tell(items_done: int, _: int) -> None:
        if progress:
            progress(done + items_done, total)

    for run in runs:
        predictions = []
        for job in run.jobs:
            predictions.append(predict(lm, atlas, job, tell))
            done += len(job.items)
        yield run.score(predictions)


def predict(
    lm: LanguageModel, atlas: Atlas, job: Job, progress: Progress | None = None
) -> list[Any]:
    """What the model makes of the items under each condition, as `Task.score` takes it."""
    language = job.items.language
    found: dict[Condition, Any] = {}
    prefixes = tuple(dict.fromkeys(one.prefix(language) for one in job.conditions))
    for number, prefix in enumerate(prefixes):

        def tell(done: int, total: int, before: int = number) -> None:
            if progress:
                progress((before * total + done) // len(prefixes), total)

        conditions = [one for one in job.conditions if one.prefix(language) == prefix]
        plans = [one.plan(atlas, job.target) for one in conditions]
        asked = replace(job.items, prefix=prefix + job.items.prefix)
        found.update(zip(conditions, _KINDS[job.kind](lm, asked, plans, job.prompting, tell)))
    return [found[one] for one in job.conditions]


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
            prompting.put(lm, items, item.prompt)
            if item.prompt.strip()
            else items.lead + item.prompt,
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
        [prompting.put(lm, items, item.prompt) for item in asked],
        plans,
        max_new_tokens=max(item.max_new_tokens for item in asked),
        stop_at_newline=asked[0].stop_at_newline,
        progress=progress,
    )


def _written(
    lm: LanguageModel,
    items: Items[Any],
    plans: Plans,
    prompting: Prompting,
    progress: Progress | None,
) -> Any:
    asked = items.of(StartItem)
    prompts = [_put(lm, prompting, items, item.prompt) for item in asked]
    texts = [[""] * len(asked) for _ in plans]
    # Sampled rows share their noise, so those of one seed are written together.
    draws = dict.fromkeys((item.temperature, item.seed * bool(item.temperature)) for item in asked)
    done = 0
    for temperature, seed in draws:
        rows = [
            k
            for k, item in enumerate(asked)
            if item.temperature == temperature and (not temperature or item.seed == seed)
        ]
        some = [prompts[k] for k in rows]
        longest = max(asked[k].max_new_tokens for k in rows)
        newline = asked[rows[0]].stop_at_newline
        found = _write_together(lm, some, plans, longest, newline, temperature, seed)
        for column, said in zip(texts, found):
            for k, text in zip(rows, said):
                column[k] = text.strip()
        done += len(rows)
        if progress:
            progress(done, len(asked))
    likely = _how_likely(lm, asked, texts)
    return [
        [
            Written(text, likely.get((item.before, text)), likely.get((item.before, item.real)))
            for item, text in zip(asked, column)
        ]
        for column in texts
    ]


def _write_together(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    plans: Plans,
    max_new_tokens: int,
    stop_at_newline: bool,
    temperature: float,
    seed: int,
) -> list[list[str]]:
    """[plans][prompts]: each prompt's texts under all plans side by side, so that weights are read
    once for many rows."""
    at_once = max(1, ROWS // len(plans))
    found: list[list[str]] = [[] for _ in plans]
    for begin in range(0, len(prompts), at_once):
        some = list(prompts[begin : begin + at_once])
        for step in generate(
            lm,
            some * len(plans),
            [plan for plan in plans for _ in some],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            stop_at_newline=stop_at_newline,
        ):
            last = step
        for number, column in enumerate(found):
            column += last.texts[number * len(some) :][: len(some)]
    return found


def _put(lm: LanguageModel, prompting: Prompting, items: Items[Any], prompt: str) -> Prompt:
    """A prompt as it is read; the mark that begins a text for none."""
    if (items.lead + prompt).strip():
        return prompting.put(lm, items, prompt)
    return from_nothing(lm)


def _how_likely(
    lm: LanguageModel, asked: Sequence[StartItem], texts: Sequence[Sequence[str]]
) -> dict[tuple[str, str], float]:
    """log p, in nats, under the unsteered model of every text and every real one, as the line
    after the item's `before`; by both. Only where there is something to compare with."""
    wanted = dict.fromkeys(
        (item.before, text)
        for item, *said in zip(asked, *texts)
        if item.real
        for text in (item.real, *said)
        if text
    )
    questions = [tokenise(lm, before + "\n", [text]) for before, text in wanted]
    (found,) = log_likelihoods(lm, questions) if questions else ([],)
    return {key: scores[0] for key, scores in zip(wanted, found)}


def _texts(
    lm: LanguageModel, items: Items[Any], plans: Plans, _: Prompting, progress: Progress | None
) -> Any:
    questions = [tokenise(lm, items.lead, [item.text]) for item in items.of(TextItem)]
    found = log_likelihoods(lm, questions, plans, progress=progress)
    return [[scores[0] for scores in of_plan] for of_plan in found]


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
    "written": _written,
    "text": _texts,
    "states": _states,
}
