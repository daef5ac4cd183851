"""The Measure tab's markup: tables of gains, sentences, progress."""

from __future__ import annotations

from html import escape
from math import isnan

from ...evaluation.judging.comparison import MEAN, Difference
from ...evaluation.judging.conditions import CONTROL
from ...evaluation.judging.finding import Finding
from ...evaluation.judging.items import LOWER_IS_BETTER
from ...evaluation.judging.results import main_measures
from ...evaluation.judging.statistics import Interval
from ...evaluation.telling.numbers import is_share, number, scaled, signed
from ...evaluation.telling.tables import LEVEL, cell_text, score_text
from ...evaluation.telling.verdict import headline
from ...text.languages import get_language
from ..behind.outcome import Outcome
from .markup import title


def verdict_markup(outcome: Outcome) -> str:
    """What the table says of the first condition."""
    comparison = outcome.comparison
    kind, day = comparison.about["split"], comparison.about["date"][:10]
    answer = headline(comparison)
    head = escape(
        f"{answer[0].upper()}{answer[1:]}. {comparison.conditions[0]} in "
        f"{comparison.about['model']} on {kind} items, measured {day}:"
    )
    lines = "".join(f"<li>{escape(sentence)}</li>" for sentence in outcome.sentences)
    return f'<div class="verdict" role="status"><p>{head}</p><ul>{lines}</ul></div>'


def rho_markup(finding: Finding) -> str:
    """How gains go with separation, as one paragraph: rank correlations and intervals."""

    def said(rho: Interval) -> str:
        if isnan(rho.estimate):
            return "none, as one of them didn't change"
        low, high = signed(rho.low), signed(rho.high)
        return f"{signed(rho.estimate)} (95 % between {low} and {high})"

    text = (
        f"Spearman's ρ between separation and gain: {said(finding.gain)}; between separation and "
        f"translations found: {said(finding.retrieval)}. The paper reports gains that go with "
        "separation."
    )
    return f'<p class="quiet">{text}</p>'


def tables(differences: list[Difference], whole: bool) -> str:
    """A table a task of gains by row and language; `whole`: nothing is still to come."""
    measures = main_measures((d.task, d.metric) for d in differences)
    return "".join(_table(differences, *measure, whole) for measure in measures)


def _table(differences: list[Difference], task: str, metric: str, whole: bool) -> str:
    cells = {
        (d.condition, d.language): d for d in differences if (d.task, d.metric) == (task, metric)
    }
    conditions = list(dict.fromkeys(condition for condition, _ in cells))
    first = {MEAN: 0, "en": 1}  # what all want to know, on a phone too
    codes = sorted(dict.fromkeys(code for _, code in cells), key=lambda c: first.get(c, 2))
    names = ["mean" if code == MEAN else get_language(code).name for code in codes]
    head = "".join(
        f'<th scope="col"{_apart(code)}>{escape(name)}</th>' for code, name in zip(codes, names)
    )
    before = "".join(
        f"<td{_apart(code)}>{score_text(cells.get((conditions[0], code)))}</td>" for code in codes
    )
    body = "".join(
        f'<tr class="{"control" if condition.startswith(CONTROL) else ""}">'
        f'<th scope="row">{escape(condition)}</th>'
        + "".join(_cell(cells.get((condition, code)), code, whole) for code in codes)
        + "</tr>"
        for condition in conditions
    )
    count = next(iter(cells.values())).items
    unit = ", in points" if is_share(metric) else ""
    unit += ", less is better" if metric in LOWER_IS_BETTER else ""
    least = [
        d.detectable for (condition, code), d in cells.items()
        if condition == conditions[0] and code not in (MEAN, "en") and d.detectable == d.detectable
    ]  # fmt: skip
    note = ""
    if whole and least:
        smallest = number(scaled(sorted(least)[len(least) // 2], metric), metric)
        note = (
            f'<p class="quiet">So many items show a gain of {smallest} or more with 80 % '
            "certainty in the middle language; smaller ones would go unseen.</p>"
        )
    return (
        title(f"{task}: {metric}", f"gains over the model left alone{unit}, {count} items")
        + '<div class="wide"><table class="gains"><thead><tr><th></th>'
        + f'{head}</tr></thead><tbody><tr class="before"><th scope="row">left alone</th>{before}'
        + f"</tr>{body}</tbody></table></div>{note}"
    )


def _cell(cell: Difference | None, code: str, whole: bool) -> str:
    """`whole`: all languages are there, so that p is corrected."""
    if cell is None:
        return f"<td{_apart(code)}>…</td>"
    if cell.gain.low == cell.gain.high == 0:
        return f'<td class="same"{_apart(code, True)}>0</td>'
    low, high = (scaled(x, cell.metric) for x in (cell.gain.low, cell.gain.high))
    sure = whole and cell.p_holm < LEVEL
    most = 0.1 if is_share(cell.metric) else 0.1 * abs(cell.before) or 1.0
    size = min(1.0, abs(cell.better) / most)
    side = "gain" if cell.better > 0 else "loss"
    style = f' style="--size: {size:.2f}"' if cell.better else ""
    classes = f"{side if cell.better else ''} {'sure' if sure else ''}".strip()
    digits = 1 if is_share(cell.metric) else 3
    span = f"{signed(low, digits)} to {signed(high, digits)}"
    text = cell_text(cell).replace("-", "−")
    return f'<td class="{classes}"{_apart(code, True)}{style}>{text}<small>{span}</small></td>'


def _apart(code: str, has_class: bool = False) -> str:
    if code != "en":
        return ""
    return ' data-apart="yes"' if has_class else ' class="apart"'
