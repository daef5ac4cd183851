"""The Measure tab's markup: tables of gains, sentences, progress."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import isnan

from ...evaluation.judging.comparison import Comparison, Difference
from ...evaluation.judging.conditions import CONTROL
from ...evaluation.judging.finding import Finding
from ...evaluation.judging.items import LOWER_IS_BETTER
from ...evaluation.judging.results import main_measures
from ...evaluation.judging.statistics import Interval
from ...evaluation.tasks import KINDS
from ...evaluation.telling.numbers import is_share, name_of, number, scaled, signed
from ...evaluation.telling.tables import cell_text, render, score_text
from ...evaluation.telling.verdict import headline, shown_in_half
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


def summary_markup(outcome: Outcome) -> str:
    """The answer in one sentence, and what merely asking in words does, apart."""
    comparison = outcome.comparison
    name, said = comparison.conditions[0], in_words(headline(comparison))
    day, model = comparison.about["date"][:10], comparison.about["model"]
    head = f"Does {name} help this model? {said[0].upper()}{said[1:]}."
    parts = []
    for mean in outcome.means:
        asked = mean["asked"]
        if asked is not None:
            unit = " points" if is_share(mean["metric"]) else ""
            gain = signed(scaled(asked.gain.estimate, mean["metric"]), 1)
            parts.append(f"{gain}{unit} ({in_words(mean['task'])})")
    apart = f"Merely asked in words to use the language: {'; '.join(parts)}." if parts else ""
    of = f"{model}: means over languages on {comparison.about['split']} questions"
    below = f"{of}, measured {day}. {apart}"
    return (
        f'<div class="summary-finding"><p class="finding-head">{escape(head)}</p>'
        f'<p class="quiet">{escape(below)}</p></div>'
    )


def in_words(text: str) -> str:
    """The names of tasks as what they ask, in quotation marks."""
    for name, kind in KINDS.items():
        text = text.replace(name, f"“{kind.about}”")
    return text


def rho_markup(finding: Finding) -> str:
    """Both correlations of a finding as a sentence."""

    def said(rho: Interval) -> str:
        if isnan(rho.estimate):
            return "none, as one of them didn't change"
        if not rho.is_known:
            return f"{signed(rho.estimate)} (too few languages for an interval)"
        low, high = signed(rho.low), signed(rho.high)
        return f"{signed(rho.estimate)} (95 % between {low} and {high})"

    text = (
        f"Spearman's ρ between separation and gain: {said(finding.gain)}; between separation and "
        f"translations found: {said(finding.retrieval)}. The paper reports gains that go with "
        "separation."
    )
    return f'<p class="quiet">{text}</p>'


def tables(differences: Sequence[Difference], whole: bool) -> str:
    """A table for each task, as markup, of what is measured so far.

    `whole`: all languages are there, so that p-values are corrected as they should be.
    """
    comparison = Comparison(tuple(differences), {}, {})
    measures = main_measures(comparison.measures)
    return "".join(_table(comparison, *measure, whole) for measure in measures)


def _table(comparison: Comparison, task: str, metric: str, whole: bool) -> str:
    def score(cell: Difference | None, code: str) -> str:
        return f"<td{_apart(code)}>{score_text(cell)}</td>"

    def gain(cell: Difference | None, code: str) -> str:
        return _cell(cell, code, whole)

    table = render(comparison, task, metric, score=score, gain=gain)
    head = "".join(
        f'<th scope="col"{_apart(code)}>{escape(name_of(code))}</th>' for code in table.columns
    )
    before, *after = ("".join(cells) for _, *cells in table.itertuples())
    body = "".join(
        f'<tr class="{"control" if name.startswith(CONTROL) else ""}">'
        f'<th scope="row">{escape(name)}</th>{cells}</tr>'
        for name, cells in zip(table.index[1:], after)
    )
    first = comparison.cells(table.index[1], task, metric)
    unit = ", in points" if is_share(metric) else ""
    unit += ", less is better" if metric in LOWER_IS_BETTER else ""
    middle = shown_in_half(comparison.steered(first))
    note = ""
    if whole and middle is not None:
        smallest = number(scaled(middle.detectable, metric), metric)
        note = (
            f'<p class="quiet">So many items show a gain of {smallest} or more with 80 % '
            "certainty in half of the languages alone; smaller ones would go unseen.</p>"
        )
    name = escape(f"{task}: {metric}")
    return (
        title(f"{task}: {metric}", f"gains over the model left alone{unit}, {first[0].items} items")
        + f'<div class="wide" tabindex="0" role="region" aria-label="{name}">'
        + '<table class="gains"><thead><tr><th></th>'
        + f'{head}</tr></thead><tbody><tr class="before"><th scope="row">left alone</th>{before}'
        + f"</tr>{body}</tbody></table></div>{note}"
    )


def _cell(cell: Difference | None, code: str, whole: bool) -> str:
    """`whole`: all languages are there, so that p is corrected."""
    if cell is None:
        return f"<td{_apart(code)}>…</td>"
    if cell.identity:
        return (
            f'<td class="same"{_apart(code, True)} title="its plan changes nothing">'
            f"{cell_text(cell)}</td>"
        )
    if cell.gain.low == cell.gain.high == 0:
        return f'<td class="same"{_apart(code, True)}>0</td>'
    low, high = (scaled(x, cell.metric) for x in (cell.gain.low, cell.gain.high))
    sure = whole and cell.shown
    most = 0.1 if is_share(cell.metric) else 0.1 * abs(cell.before) or 1.0
    size = min(1.0, abs(cell.better) / most)
    side = "gain" if cell.better > 0 else "loss"
    style = f' style="--size: {size:.2f}"' if cell.better else ""
    classes = f"{side if cell.better else ''} {'sure' if sure else ''}".strip()
    digits = 1 if is_share(cell.metric) else 3
    span = f"{signed(low, digits)} to {signed(high, digits)}"
    if not cell.gain.is_known:
        span = "no interval"
    text = cell_text(cell).replace("-", "−")
    return f'<td class="{classes}"{_apart(code, True)}{style}>{text}<small>{span}</small></td>'


def _apart(code: str, has_class: bool = False) -> str:
    if code != "en":
        return ""
    return ' data-apart="yes"' if has_class else ' class="apart"'
