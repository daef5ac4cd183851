"""Try many settings on validation items, and choose one of them.

Several settings run together share the forwards of the layers below them. What is done is on disk
at once, a task in a language at a time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ...atlas.atlas import Atlas
from ...errors import ClasError
from ...paths import replacing
from ...steering.methods import bridge_layers
from ...steering.recipe import Recipe
from ...text.raw import read_json
from .conditions import UNSTEERED, Condition
from .engine import ANCHOR, TaskRun, tuning_runs
from .items import LOWER_IS_BETTER, Chosen, Items, Scores, Task, Validation, only
from .prompting import PLAIN, Prompting
from .results import Results, main_measures
from .statistics import Interval, one_standard_error_choice, paired_interval, sign_flip_any

TOGETHER = 8
SWEPT = (
    "alpha", "beta", "gamma", "lam", "tau", "shared_from", "layers", "method", "specific",
    "source", "k", "ranking", "early", "where",
)  # fmt: skip
_FORMAT = "clas-chosen-1"


@dataclass(frozen=True)
class Between:
    """All numbers from `low` to `high`: what a random search may draw from."""

    low: float
    high: float


Values = Mapping[str, "Sequence[Any] | Between"]


def grid(base: Recipe, values: Values) -> tuple[Recipe, ...]:
    """`base` with every combination of these fields' values, the last field changing fastest.

    Raises ClasError for a field that no sweep changes, for a range in place of values, and for
    values that a recipe refuses.
    """
    _check_fields(values)
    lists = {name: some for name, some in values.items() if not isinstance(some, Between)}
    if ranges := sorted(values.keys() - lists.keys()):
        raise ClasError(f"A grid has no ranges: list values of {ranges[0]}, or search at random.")
    return tuple(
        replace(base, **dict(zip(lists, combination))) for combination in product(*lists.values())
    )


def random_search(base: Recipe, values: Values, count: int, seed: int = 0) -> tuple[Recipe, ...]:
    """`count` different combinations, drawn by `seed`; all of them if there are no more.

    Raises ClasError as `grid` does, but for ranges, and for a count below 1.
    """
    _check_fields(values)
    if count < 1:
        raise ClasError(f"Draw at least one setting, not {count}.")
    rng = random.Random(seed)
    found: dict[Recipe, None] = {}
    for _ in range(100 * count):
        drawn = {name: _draw(rng, options) for name, options in values.items()}
        found[replace(base, **drawn)] = None
        if len(found) == count:
            break
    return tuple(found)


def setting_conditions(settings: Iterable[Recipe]) -> tuple[Condition, ...]:
    """A condition for each setting, named by the fields in which they differ."""
    settings = tuple(dict.fromkeys(settings))
    varied = [n for n in SWEPT if len({getattr(recipe, n) for recipe in settings}) > 1]
    return tuple(
        Condition(
            " ".join(f"{n}={_short(getattr(recipe, n))}" for n in varied) or recipe.method, recipe
        )
        for recipe in settings
    )


def active_settings(
    settings: Iterable[Recipe],
    atlas: Atlas,
    loaded: Sequence[tuple[Task, Items[Validation]]],
    anchor: str = ANCHOR,
) -> tuple[Recipe, ...]:
    """Those settings that change something for one of the languages, the anchor left out, at least:
    of any other there is nothing to try."""
    codes = {items.language for _, items in loaded} - {anchor}
    return tuple(
        one for one in settings if len(Condition("", one).idle_for(atlas, codes)) < len(codes)
    )


def sweep_runs(
    loaded: Sequence[tuple[Task, Items[Validation]]],
    settings: Iterable[Recipe],
    *,
    together: int = TOGETHER,
    anchor: str = ANCHOR,
    prompting: Prompting = PLAIN,
) -> tuple[TaskRun[Validation], ...]:
    """The runs of a sweep: `together` settings at a time, after the unsteered model.

    Who is killed loses the task and language that it was at; `together=1` makes that one setting's.
    """
    conditions = setting_conditions(settings)
    found = tuning_runs(loaded, [Condition(UNSTEERED)], anchor, prompting)
    for begin in range(0, len(conditions), max(1, together)):
        some = conditions[begin : begin + max(1, together)]
        found += tuning_runs(loaded, some, anchor, prompting)
    return found


@dataclass(frozen=True)
class Tried:
    """A setting and its mean gain over tasks and languages, the anchor left out, on the tasks'
    main metrics, all of them turned so that more is better. Where these are several metrics, each
    is in standard deviations of its unsteered scores, so that none counts for more."""

    name: str
    recipe: Recipe
    gain: Interval


@dataclass(frozen=True)
class Ranking:
    """How settings did. `suggested`: the smallest one within a standard error of the best."""

    tried: tuple[Tried, ...]
    suggested: int
    best: int

    @property
    def drawn(self) -> tuple[Tried, ...]:
        """Those that differ from the suggested one in strength and layers alone."""

        def rest(one: Tried) -> tuple[Any, ...]:
            return tuple(getattr(one.recipe, name) for name in _NOT_DRAWN)

        centre = rest(self.tried[self.suggested])
        return tuple(one for one in self.tried if rest(one) == centre)


_NOT_DRAWN = ("method", "beta", "gamma", "lam", "tau", "shared_from", "specific")


@dataclass(frozen=True)
class Sweep(Ranking):
    """What a sweep found, with all scores. `p`: how likely some setting would gain as clearly as
    the clearest did if none had an effect."""

    results: Results[Validation]
    p: float
    anchor: str = ANCHOR

    @property
    def chosen(self) -> Chosen[Recipe]:
        """The suggested setting, with the scores that speak for it."""
        return self.choose(self.suggested)

    def choose(self, number: int) -> Chosen[Recipe]:
        """The setting of this number, with its validation scores."""
        tried = self.tried[number]
        scores = (one.scores for one in self.results.scores if one.condition == tried.name)
        return Chosen(tried.recipe, tuple(scores))


def summarise(
    results: Results[Validation],
    settings: Iterable[Recipe],
    *,
    num_layers: int,
    anchor: str = ANCHOR,
    seed: int = 0,
) -> Sweep:
    """Rank the settings of a finished sweep. Raises ClasError if one of them isn't measured."""
    conditions = setting_conditions(settings)
    gains = [_gains(results, condition.name, anchor) for condition in conditions]
    table = np.array([changes for changes, _ in gains])  # [settings, items of all languages]
    groups = gains[0][1]
    tried = tuple(
        Tried(condition.name, condition.recipe, paired_interval(changes, groups=groups, seed=seed))
        for condition, changes in zip(conditions, table)
        if condition.recipe is not None
    )
    sizes = [strength(one.recipe, num_layers) for one in tried]
    suggested = one_standard_error_choice(table, sizes, groups=groups)
    p = sign_flip_any(table, groups=groups, seed=seed)
    return Sweep(tried, suggested, int(table.mean(1).argmax()), results, p, anchor)


def strength(recipe: Recipe, num_layers: int) -> float:
    """How strong a setting is: its factors' distance from 1, times alpha, times its layers."""
    first, end = recipe.layers or bridge_layers(num_layers)
    factors = 1.0
    if recipe.method == "CLAS":
        factors = abs(recipe.beta - 1) + abs(recipe.gamma - 1)
    elif recipe.method == "LanguageArithmetic":
        factors = abs(recipe.lam)
    return abs(recipe.alpha) * factors * (end - first)


def save_chosen(path: str | Path, chosen: Sequence[Chosen[Recipe]]) -> None:
    """Write settings and the validation scores they were chosen by, as JSON."""
    data = {
        "format": _FORMAT,
        "chosen": [
            {"recipe": vars(one.setting), "evidence": [scores.as_dict() for scores in one.evidence]}
            for one in chosen
        ],
    }
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")


def load_chosen(path: str | Path) -> tuple[Chosen[Recipe], ...]:
    """Read what `save_chosen` wrote. Raises ClasError for anything else."""
    try:
        data = read_json(path)
        if data["format"] != _FORMAT:
            raise ValueError
        return tuple(
            Chosen(
                Recipe.from_json(json.dumps(one["recipe"])),
                tuple(only(Validation, Scores.from_dict(scores)) for scores in one["evidence"]),
            )
            for one in data["chosen"]
        )
    except ClasError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise ClasError(
            f"{path} holds no chosen settings: take a file that a sweep wrote."
        ) from error


def _gains(
    results: Results[Validation], condition: str, anchor: str
) -> tuple[list[float], list[str]]:
    """A setting's gain on every item, and the items' groups, over tasks and languages."""
    gains: list[float] = []
    groups: list[str] = []
    measures = main_measures(results.measures)
    mixed = len({metric for _, metric in measures}) > 1
    for task, metric in measures:
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        if mixed:
            sign /= _spread(results, task, metric)
        for language in results.languages(task):
            before = results.get(UNSTEERED, task, metric, language)
            after = results.get(condition, task, metric, language)
            if before is None or after is None:
                raise ClasError(
                    f"The sweep isn't finished: {condition} lacks {task} in {language}."
                )
            if language != anchor:
                gains += [sign * change for change in after.minus(before)]
                groups += [f"{task} {group}" for group in after.groups]
    if not gains:
        raise ClasError(f"A sweep needs a language besides {anchor!r}: add one.")
    return gains, groups


def _spread(results: Results[Validation], task: str, metric: str) -> float:
    """Standard deviation of a task's unsteered scores; 1 where all are the same."""
    found = (results.get(UNSTEERED, task, metric, code) for code in results.languages(task))
    values = [value for scores in found if scores is not None for value in scores.values]
    return float(np.std(values)) or 1.0


def _check_fields(values: Values) -> None:
    if unknown := [name for name in values if name not in SWEPT]:
        raise ClasError(f"A sweep can't change {unknown[0]!r}: choose of {', '.join(SWEPT)}.")
    if empty := [name for name, options in values.items() if options in ((), [])]:
        raise ClasError(f"A sweep needs values for {empty[0]}.")


def _draw(rng: random.Random, options: Sequence[Any] | Between) -> Any:
    if isinstance(options, Between):
        return round(rng.uniform(options.low, options.high), 4)
    return rng.choice(list(options))


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return format(value, "g") if isinstance(value, float) else str(value)
