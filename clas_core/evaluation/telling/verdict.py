"""What a comparison says, in plain sentences: gain or loss, how sure, and what chance does."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from ...steering.methods import METHODS
from ...text.languages import get_language
from ..judging.comparison import MEAN, Comparison, Difference, claim
from ..judging.conditions import CONTROL_IS
from ..judging.items import LOWER_IS_BETTER
from ..judging.results import main_measures
from ..judging.statistics import holm
from .numbers import is_share, number, scaled, signed
from .paper import worth_showing
from .tables import idle_notes

HELPS, HARMS = "it helps", "it harms"
IDLE_ANSWER = "it changes nothing in the model"
NOTHING = "no gain and no loss beyond chance"
UNASKED = "no language was steered for"
FEW_TEXTS, FEW_ITEMS = "too few texts to tell", "too few items to tell"


def verdict(comparison: Comparison, condition: str | None = None) -> list[str]:
    """A sentence for each task on what `condition` (default: the first) did to its main metric."""
    condition = condition or comparison.conditions[0]
    return [
        _sentence(comparison, condition, task, metric)
        for task, metric in main_measures(comparison.measures)
        if comparison.cells(condition, task, metric)
    ]


def headline(comparison: Comparison, condition: str | None = None) -> str:
    """The answer in a few words, by the means over languages of the tasks' main metrics.

    It claims help or harm in a task only where the test says so with Holm's correction over the
    tasks, and the interval too. Where nothing is claimed, it tells nothing found from too little
    asked: items that would not even have shown as much as the paper reports can't say "no gain".
    """
    condition = condition or comparison.conditions[0]
    means = [
        mean
        for task, metric in main_measures(comparison.measures)
        if (mean := _overall(comparison, condition, task, metric)) is not None
    ]
    found: dict[str, list[Difference]] = {}
    for mean, p in zip(means, holm([mean.p for mean in means])):
        found.setdefault(_answer(mean, claim(mean, float(p))), []).append(mean)
    claimed = [
        f"{said} in {', '.join(mean.task for mean in found.pop(said))}"
        for said in (HELPS, HARMS)
        if said in found
    ]
    alone = not claimed and len(found) == 1
    rest = [_unclaimed(said, some, alone) for said, some in found.items()]
    return "; ".join([*([" and ".join(claimed)] if claimed else []), *rest]) or UNASKED


def answer(comparison: Comparison) -> list[str]:
    """Headline and sentences, where the first condition is a method's; for a sweep's settings,
    none of which is the answer, what changes nothing, if anything."""
    first, notes = comparison.conditions[0], idle_notes(comparison)
    if first not in METHODS:
        return notes
    return [f"{first}: {headline(comparison)}.", *verdict(comparison), *notes]


def _answer(mean: Difference, claimed: int) -> str:
    """What may be said of a mean: a claim, nothing found, or why nothing can be told."""
    if mean.identity:
        return IDLE_ANSWER
    if claimed:
        return HELPS if claimed > 0 else HARMS
    if not (mean.gain.is_known and isfinite(mean.detectable)):
        return FEW_TEXTS
    return FEW_ITEMS if _is_blunt(mean) else NOTHING


def _unclaimed(said: str, means: list[Difference], alone: bool) -> str:
    """The same of all these tasks, which are named unless it is the whole answer."""
    tasks = [mean.task for mean in means]
    if said == FEW_ITEMS and len(means) == 1:
        where = "" if alone else f" in {tasks[0]}"
        return f"{said}{where} (they could show {_least(means[0])} at best)"
    if said == FEW_ITEMS:
        could = ", ".join(f"{_least(mean)} in {mean.task}" for mean in means)
        return f"{said} (they could show {could} at best)"
    return said if alone else f"{said} in {', '.join(tasks)}"


def _is_blunt(cell: Difference) -> bool:
    """Whether its items would not have shown a gain that is worth showing."""
    return cell.detectable > worth_showing(cell.task, cell.metric, cell.before)


def _least(cell: Difference) -> str:
    """The smallest gain that its items would have shown, in words."""
    points = " points" if is_share(cell.metric) else ""
    return number(scaled(cell.detectable, cell.metric), cell.metric) + points


def shown_in_half(cells: Sequence[Difference]) -> Difference | None:
    """Of one task's languages the one whose `detectable` is the median; None if none can tell."""
    told = [d for d in cells if d.gain.is_known and isfinite(d.detectable) and not d.identity]
    return sorted(told, key=lambda d: d.detectable)[len(told) // 2] if told else None


def _overall(comparison: Comparison, condition: str, task: str, metric: str) -> Difference | None:
    """The mean over languages; the language itself if only one is steered for."""
    steered = comparison.steered(comparison.cells(condition, task, metric))
    if len(steered) == 1:
        return steered[0]
    return comparison.get(condition, task, metric, MEAN)


def _sentence(comparison: Comparison, condition: str, task: str, metric: str) -> str:
    cells = comparison.cells(condition, task, metric)
    if all(d.identity for d in cells):
        return f"{task}, {metric}: {condition} changes nothing in the model."
    steered, parts = comparison.steered(cells), []
    if mean := _overall(comparison, condition, task, metric):
        where = get_language(steered[0].language).name
        many = f"the mean of {len(steered)} languages"
        parts.append(f"{_gain(mean)} in {many if len(steered) > 1 else where}")
    if steered:
        parts.append(_sure(steered))
    if anchor := comparison.get(condition, task, metric, comparison.anchor):
        parts.append(f"{get_language(comparison.anchor).name} {_gain(anchor)}")
    won = comparison.control_wins.get((condition, task, metric))
    if won is not None:
        whose = f"random controls of {comparison.conditions[0]} ({CONTROL_IS})"
        parts.append(f"{whose} do better in {won:.0%} of cases, where 50% is chance")
    note = " (less is better)" if metric in LOWER_IS_BETTER else ""
    return f"{task}, {metric}{note}: {'; '.join(parts)}."


def _sure(cells: list[Difference]) -> str:
    """The languages in which the difference is more than chance; if there are none, what would
    have been."""
    better, worse = (
        [get_language(d.language).name for d in cells if d.shown == way] for way in (1, -1)
    )
    named = [f"{w} in {', '.join(names)}" for w, names in (("better", better), ("worse", worse))
             if names]  # fmt: skip
    if named:
        return " and ".join(named)
    cells = [d for d in cells if not d.identity]
    middle = shown_in_half(cells)
    if middle is None:
        return f"{FEW_TEXTS} of any language alone"
    note = f" ({_least(middle)} would have shown in half of them)" if _is_blunt(middle) else ""
    return f"no language changed more than chance would{note}"


def _gain(cell: Difference) -> str:
    if cell.gain.low == cell.gain.high == 0:
        return "unchanged"
    share = is_share(cell.metric)
    estimate, low, high = (
        signed(scaled(value, cell.metric), 2 if share else 3)
        for value in (cell.gain.estimate, cell.gain.low, cell.gain.high)
    )
    span = f"95 % between {low} and {high}"
    if not cell.gain.is_known:
        span = f"no interval from {_texts(cell.groups)}"
    return f"{estimate}{' points' if share else ''} ({span})"


def _texts(count: int) -> str:
    return "one text" if count == 1 else f"{count} texts"
