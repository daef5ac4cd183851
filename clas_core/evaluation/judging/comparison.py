"""What steering gained, language by language, and what that number is worth.

Every difference is taken item by item on the same items. For each condition, task and metric the
p-values of the languages are corrected by Holm's method. The anchor (English) stands apart:
it asks another question, whether the anchor kept its score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import inf, isfinite, isnan
from statistics import fmean
from typing import Any

import pandas as pd

from .conditions import CONTROL, UNSTEERED, controls_of
from .engine import ANCHOR
from .items import LOWER_IS_BETTER, Scores
from .results import Results
from .statistics import (
    CONFIDENCE,
    Interval,
    holm,
    mcnemar,
    minimum_detectable_effect,
    paired_interval,
    sign_flip,
)

MEAN = "mean"  # stands for all languages but the anchor
SIGNIFICANCE = 0.05  # the largest corrected p-value that is told as more than chance


@dataclass(frozen=True)
class Difference:
    """A condition against the unsteered model, on one task, metric and language (or `MEAN`).

    before, after: mean scores. gain: their paired difference, after minus before, with an interval
    where there are groups enough for one. p: two-sided, by McNemar's exact test where each item is
    right or wrong and stands alone, else by flipping signs; p_holm: corrected over the languages, p
    itself for the anchor and the mean. detectable: the smallest gain that so many items would have
    shown at the corrected level, infinite if none would. groups: independent ones among the items,
    as translations of one item or questions on one text are not. identity: the plan for the
    language changes nothing in the model, so that there is nothing to gain.
    """

    condition: str
    task: str
    metric: str
    language: str
    before: float
    after: float
    gain: Interval
    p: float
    p_holm: float
    detectable: float
    items: int
    groups: int
    identity: bool = False

    @property
    def shown(self) -> int:
        """1 if it is better by more than chance, -1 if worse, else 0. This is what may be claimed:
        the corrected p-value and the interval both have to say so."""
        return claim(self, self.p_holm)

    @property
    def better(self) -> float:
        """The gain, with the sign that makes more of it the better."""
        return -self.gain.estimate if self.metric in LOWER_IS_BETTER else self.gain.estimate

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: its fields, the gain's interval as `gain`, `low` and `high`.

        None for what no number tells: bounds of an interval that has none, and a gain that would
        have shown where none would.
        """
        gain = self.gain.as_dict()
        return {
            **{name: getattr(self, name) for name in _FIELDS},
            "gain": gain["estimate"],
            "low": gain["low"],
            "high": gain["high"],
            "detectable": self.detectable if isfinite(self.detectable) else None,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Difference:
        """What `as_dict` gave, or a row of `Comparison.frame`. Raises KeyError if something is
        missing."""
        least = data["detectable"]
        return Difference(
            **{
                **{name: data[name] for name in _FIELDS},
                "gain": Interval.from_dict({**data, "estimate": data["gain"]}),
                "detectable": inf if least is None or isnan(least) else least,
            }
        )


_FIELDS = tuple(field.name for field in fields(Difference))
_FIRST = ("condition", "task", "metric", "language", "before", "after", "gain", "low", "high")
_MAY_LACK = ("low", "high", "detectable")


def claim(cell: Difference, p: float) -> int:
    """1 if `cell` is better by more than chance, -1 if worse, else 0, by a p-value `p` of it that
    is corrected as it should be, and by its interval, which must leave 0 out."""
    if p > SIGNIFICANCE or not (cell.gain.low > 0 or cell.gain.high < 0):
        return 0
    return 1 if cell.better > 0 else -1


@dataclass(frozen=True)
class Comparison:
    """All conditions against the unsteered one.

    control_wins: (condition, task, metric) to the share of languages and random controls (its own,
    where it has some), the anchor left out, in which the control gained more; equal gains count
    half. Empty without controls.
    """

    differences: tuple[Difference, ...]
    control_wins: Mapping[tuple[str, str, str], float]
    about: Mapping[str, Any]
    anchor: str = ANCHOR

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All differences, one a row, tidy.

        Text: condition, task, metric, language (`MEAN` stands for all but the anchor). Float:
        before, after, gain, low, high (shares in [0, 1]), p, p_holm, detectable. Int: items,
        groups. Bool: identity. All as in `Difference`, NaN for what `as_dict` has None for.
        """
        columns = dict.fromkeys([*_FIRST, *_FIELDS])
        found = pd.DataFrame([d.as_dict() for d in self.differences], columns=list(columns))
        return found.astype(dict.fromkeys(_MAY_LACK, float))

    def grid(self, task: str, metric: str) -> pd.DataFrame:
        """The differences of a task and metric, [conditions, languages], for tables and figures.

        Languages are in the order of `languages`; None where nothing was measured.
        """
        found = {(d.condition, d.language): d for d in self.differences
                 if (d.task, d.metric) == (task, metric)}  # fmt: skip
        names, codes = dict.fromkeys(name for name, _ in found), self.languages(task)
        cells = [[found.get((name, code)) for code in codes] for name in names]
        return pd.DataFrame(cells, index=list(names), columns=list(codes), dtype=object)

    def cells(self, condition: str, task: str, metric: str) -> list[Difference]:
        """A condition's differences on a task and metric, the mean among them."""
        wanted = (condition, task, metric)
        return [d for d in self.differences if (d.condition, d.task, d.metric) == wanted]

    def steered(self, cells: Sequence[Difference]) -> list[Difference]:
        """Those of `cells` that are of one language, which isn't the anchor."""
        return [d for d in cells if d.language not in (MEAN, self.anchor)]

    def get(self, condition: str, task: str, metric: str, language: str) -> Difference | None:
        """One difference; None if it wasn't measured."""
        return self._index.get((condition, task, metric, language))

    @cached_property
    def _index(self) -> dict[tuple[str, str, str, str], Difference]:
        return {(d.condition, d.task, d.metric, d.language): d for d in self.differences}

    @property
    def conditions(self) -> tuple[str, ...]:
        """Their names, the unsteered one left out, in the order in which they were given."""
        return tuple(dict.fromkeys(d.condition for d in self.differences))

    @property
    def measures(self) -> tuple[tuple[str, str], ...]:
        """(task, metric) pairs; a task's main metric first."""
        return tuple(dict.fromkeys((d.task, d.metric) for d in self.differences))

    def languages(self, task: str) -> tuple[str, ...]:
        """What a table's columns are: `MEAN` and the anchor, which all want to know, then the
        task's other languages."""
        found = dict.fromkeys(d.language for d in self.differences if d.task == task)
        first = {MEAN: 0, self.anchor: 1}
        return tuple(sorted(found, key=lambda code: first.get(code, 2)))


def compare(results: Results[Any], anchor: str = ANCHOR, seed: int = 0) -> Comparison:
    """Every condition of `results` against its unsteered one; `seed` draws sign patterns."""
    found = [
        difference
        for task, metric in results.measures
        for condition in results.conditions
        if condition != UNSTEERED
        for difference in _compare_condition(results, condition, task, metric, anchor, seed)
    ]
    about = {**results.about, "seed": seed}
    return Comparison(tuple(found), _control_wins(found, anchor), about, anchor)


def beyond_controls(
    results: Results[Any],
    condition: str,
    task: str,
    metric: str,
    *,
    anchor: str = ANCHOR,
    seed: int = 0,
) -> Difference | None:
    """`condition` against its own random controls, in the mean over languages: item by item, their
    mean score is `before`. None where it has no controls on this task."""
    pairs = []
    for language in results.languages(task):
        after = results.get(condition, task, metric, language)
        controls = [
            found
            for name in controls_of(condition, results.conditions)
            if (found := results.get(name, task, metric, language)) is not None
        ]
        if language == anchor or after is None or not controls:
            continue
        values = tuple(map(fmean, zip(*(one.values for one in controls), strict=True)))
        pairs.append((replace(controls[0], values=values), after))
    return _difference(condition, MEAN, pairs, seed) if pairs else None


def _compare_condition(
    results: Results[Any], condition: str, task: str, metric: str, anchor: str, seed: int
) -> list[Difference]:
    # In the model's own order: workers are done with runs in any.
    known = [*results.about.get("atlas", {}).get("languages", ()), *results.languages(task)]
    pairs = {
        language: (before, after)
        for language in sorted(results.languages(task), key=known.index)
        if (before := results.get(UNSTEERED, task, metric, language)) is not None
        and (after := results.get(condition, task, metric, language)) is not None
    }
    steered = [language for language in pairs if language != anchor]
    # Holm compares the smallest p with a level that is shared among the languages.
    level = 1 - (1 - CONFIDENCE) / max(1, len(steered))
    own = {
        code: _difference(condition, code, [pair], seed, level if code in steered else CONFIDENCE)
        for code, pair in pairs.items()
    }
    for code, corrected in zip(steered, holm([own[code].p for code in steered])):
        own[code] = replace(own[code], p_holm=float(corrected))
    found = list(own.values())
    if len(steered) > 1:
        found.append(_difference(condition, MEAN, [pairs[code] for code in steered], seed))
    idle = {*results.about.get("idle", {}).get(condition, ())}
    # The anchor is steered for the others, if there are any.
    return [replace(d, identity={*(steered or pairs)} <= idle) if d.language in (MEAN, anchor)
            else replace(d, identity=d.language in idle) for d in found]  # fmt: skip


def _difference(
    condition: str,
    language: str,
    pairs: Sequence[tuple[Scores[Any], Scores[Any]]],
    seed: int,
    level: float = CONFIDENCE,
) -> Difference:
    """Of one language, or of several taken together: translations are then one group."""
    changes = [change for before, after in pairs for change in after.minus(before)]
    groups = [group for before, _ in pairs for group in before.groups]
    befores = [value for before, _ in pairs for value in before.values]
    afters = [value for _, after in pairs for value in after.values]
    alone = len(set(groups)) == len(groups)
    if alone and set(befores) | set(afters) <= {0.0, 1.0}:
        p = mcnemar(befores, afters)
    else:
        p = sign_flip(changes, groups=groups, seed=seed)
    scores = pairs[0][0]
    return Difference(
        condition=condition,
        task=scores.task,
        metric=scores.metric,
        language=language,
        before=fmean(befores),
        after=fmean(afters),
        gain=paired_interval(changes, groups=groups, seed=seed),
        p=p,
        p_holm=p,
        detectable=minimum_detectable_effect(changes, groups=groups, level=level),
        items=len(changes),
        groups=len(set(groups)),
    )


def _control_wins(
    differences: Sequence[Difference], anchor: str
) -> dict[tuple[str, str, str], float]:
    found = {(d.condition, d.task, d.metric, d.language): d.better for d in differences}
    names = list(dict.fromkeys(d.condition for d in differences))
    wins: dict[tuple[str, str, str], list[float]] = {}
    for d in differences:
        if d.condition.startswith(CONTROL) or d.language in (anchor, MEAN):
            continue
        for name in controls_of(d.condition, names):
            control = found.get((name, d.task, d.metric, d.language))
            if control is not None:
                won = 0.5 if control == d.better else float(control > d.better)
                wins.setdefault((d.condition, d.task, d.metric), []).append(won)
    return {key: fmean(shares) for key, shares in wins.items()}
