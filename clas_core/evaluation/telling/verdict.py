"""What a comparison says, in plain sentences: gain or loss, how sure, and what chance does."""

from __future__ import annotations

from ...steering.methods import METHODS
from ...text.languages import get_language
from ..judging.comparison import MEAN, Comparison, Difference
from ..judging.conditions import CONTROL_IS
from ..judging.items import LOWER_IS_BETTER
from ..judging.results import main_measures
from .numbers import is_share, scaled, signed
from .tables import idle_notes


def verdict(comparison: Comparison, condition: str | None = None) -> list[str]:
    """A sentence for each task on what `condition` (default: the first) did to its main metric."""
    condition = condition or comparison.conditions[0]
    return [
        _sentence(comparison, condition, task, metric)
        for task, metric in main_measures(comparison.measures)
        if comparison.cells(condition, task, metric)
    ]


def headline(comparison: Comparison, condition: str | None = None) -> str:
    """The answer in a few words, by the intervals of the means over languages."""
    condition = condition or comparison.conditions[0]
    if _idle(comparison, condition):
        return "it changes nothing in the model"
    helped, harmed = [], []
    for task, metric in main_measures(comparison.measures):
        mean = _overall(comparison, condition, task, metric)
        if mean is None:
            continue
        sign = -1 if metric in LOWER_IS_BETTER else 1
        low, high = sorted((sign * mean.gain.low, sign * mean.gain.high))
        helped += [task] if low > 0 else []
        harmed += [task] if high < 0 else []
    found = [f"it {what} in {', '.join(tasks)}" for what, tasks in
             (("helps", helped), ("harms", harmed)) if tasks]  # fmt: skip
    return " and ".join(found) or "no gain and no loss beyond chance"


def answer(comparison: Comparison) -> list[str]:
    """Headline and sentences, where the first condition is a method's; for a sweep's settings,
    none of which is the answer, what changes nothing, if anything."""
    first, notes = comparison.conditions[0], idle_notes(comparison)
    if first not in METHODS:
        return notes
    return [f"{first}: {headline(comparison)}.", *verdict(comparison), *notes]


def _idle(comparison: Comparison, condition: str) -> bool:
    """Whether its plans change nothing in any language."""
    return all(d.identity for d in comparison.differences if d.condition == condition)


def _overall(comparison: Comparison, condition: str, task: str, metric: str) -> Difference | None:
    """The mean over languages; the language itself if only one is steered for."""
    steered = comparison.steered(comparison.cells(condition, task, metric))
    if len(steered) == 1:
        return steered[0]
    return comparison.get(condition, task, metric, MEAN)


def _sentence(comparison: Comparison, condition: str, task: str, metric: str) -> str:
    steered = comparison.steered(comparison.cells(condition, task, metric))
    if _idle(comparison, condition):
        return f"{task}, {metric}: {condition} changes nothing in the model."
    parts = []
    if mean := _overall(comparison, condition, task, metric):
        where = get_language(steered[0].language).name
        many = f"the mean of {len(steered)} languages"
        parts.append(f"{_gain(mean)} in {many if len(steered) > 1 else where}")
    parts.append(_sure(steered))
    if anchor := comparison.get(condition, task, metric, comparison.anchor):
        parts.append(f"{get_language(comparison.anchor).name} {_gain(anchor)}")
    won = comparison.control_wins.get((condition, task, metric))
    if won is not None:
        whose = f"random controls of {comparison.conditions[0]} ({CONTROL_IS})"
        parts.append(f"{whose} do better in {won:.0%} of cases, ties counted half")
    note = " (less is better)" if metric in LOWER_IS_BETTER else ""
    return f"{task}, {metric}{note}: {'; '.join(parts)}."


def _sure(cells: list[Difference]) -> str:
    """The languages in which the difference is more than chance."""
    better, worse = (
        [get_language(d.language).name for d in cells if d.shown == way] for way in (1, -1)
    )
    named = [f"{w} in {', '.join(names)}" for w, names in (("better", better), ("worse", worse))
             if names]  # fmt: skip
    return " and ".join(named) or "no language changed more than chance would"


def _gain(cell: Difference) -> str:
    if cell.gain.low == cell.gain.high == 0:
        return "unchanged"
    share = is_share(cell.metric)
    estimate, low, high = (
        signed(scaled(value, cell.metric), 2 if share else 3)
        for value in (cell.gain.estimate, cell.gain.low, cell.gain.high)
    )
    return f"{estimate}{' points' if share else ''} (95 % between {low} and {high})"
