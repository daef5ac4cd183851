"""One HTML file of everything a measurement found. It opens offline, anywhere, for good."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite
from pathlib import Path

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from ...paths import replacing
from ..judging.comparison import MEAN, SIGNIFICANCE, Comparison, Difference
from ..judging.conditions import CONTROL_IS
from ..judging.finding import Finding
from ..judging.statistics import Interval
from ..judging.sweep import Ranking
from .figures import (
    describe,
    finding_figure,
    gains_figure,
    retrieval_figure,
    sweep_caption,
    sweep_heatmap,
)
from .numbers import bounds, name_of, number, scaled
from .paper import paper_sentence
from .tables import cell_text, origin, render, score_text
from .verdict import answer

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1a1a1a; background: #fff }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
td.sure { font-weight: 700 } td.anchor, th.anchor { border-inline: 2px solid #999 }
dt { font-weight: 600 } dd { margin: 0 0 .4rem } .note { color: #555 }
pre { overflow-x: auto; background: #f5f5f5; padding: 1rem; font-size: 13px }
"""


def write_report(
    path: str | Path,
    comparison: Comparison,
    findings: Sequence[Finding] = (),
    sweep: tuple[Ranking, int] | None = None,
) -> None:
    """Write settings, tables and plots as one HTML file; `sweep` with the model's layers."""
    with replacing(path) as scratch:
        scratch.write_text(to_html(comparison, findings, sweep), encoding="utf-8")


def to_html(
    comparison: Comparison,
    findings: Sequence[Finding] = (),
    sweep: tuple[Ranking, int] | None = None,
) -> str:
    """The report's text."""
    model = str(comparison.about.get("model", "a model"))
    parts = [
        f"<h1>Does steering help {escape(model)}?</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in answer(comparison)),
        _definitions(origin(comparison.about)),
        *_measures(comparison),
    ]
    for finding in findings:
        parts += _finding(finding)
    if sweep is not None:
        parts += _sweep(*sweep)
    settings = escape(json.dumps(comparison.about, indent=1, ensure_ascii=False))
    parts.append(f"<h2>Everything it takes to repeat this</h2><pre>{settings}</pre>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Steering {escape(model)}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head>\n<body>\n{body}\n</body></html>\n"
    )


def _measures(comparison: Comparison) -> Iterable[str]:
    for task, metric in comparison.measures:
        yield f"<h2>{escape(task)}: {escape(metric)}</h2>"
        yield _table(comparison, task, metric)
        apart = escape(name_of(comparison.anchor))
        yield (
            '<p class="note">Gain over the unsteered model on the same items, in points where the '
            "score is a share. Bold: more than chance, as the interval leaves out 0 and p, "
            f"corrected over the languages (Holm), is at most {SIGNIFICANCE:g}. {apart} stands "
            "apart: what steering for the others does to it. Hover for intervals.</p>"
        )
        wins = [
            f"{condition} {100 * share:.0f} %"
            for (condition, of_task, of_metric), share in comparison.control_wins.items()
            if (of_task, of_metric) == (task, metric)
        ]
        if wins:
            whose = f"random controls of {comparison.conditions[0]} ({CONTROL_IS})"
            than = ", ".join(wins)
            yield f"<p>{escape(f'How often {whose} did better, where 50% is chance: {than}.')}</p>"
        if smallest := _smallest(comparison, task, metric):
            yield f"<p>{escape(smallest)}</p>"
        if beside := paper_sentence(task, metric):
            yield f"<p>{escape(beside)}</p>"
        yield _plot(gains_figure(comparison, task, metric))


def _table(comparison: Comparison, task: str, metric: str) -> str:
    def score(cell: Difference | None, code: str) -> str:
        return f"<td{_anchor_class(comparison, code)}>{score_text(cell)}</td>"

    def gain(cell: Difference | None, code: str) -> str:
        if cell is None:
            return "<td></td>"
        classes = {"sure": cell.shown, "anchor": code == comparison.anchor}
        shade = min(1.0, abs(cell.gain.estimate) / max(cell.detectable, 1e-9)) * 0.35
        colour = "0, 114, 178" if cell.better > 0 else "213, 94, 0"
        return (
            f'<td class="{" ".join(name for name, on in classes.items() if on)}" '
            f'style="background: rgba({colour}, {shade:.2f})" '
            f'title="{escape(describe(cell))}">{cell_text(cell)}</td>'
        )

    table = render(comparison, task, metric, score=score, gain=gain)
    head = "".join(
        f"<th{_anchor_class(comparison, code)}>{escape(name_of(code))}</th>" for code in table
    )
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>" for name, *cells in table.itertuples()
    )
    return f'<div class="wide" tabindex="0"><table><tr><th></th>{head}</tr>{body}</table></div>'


def _anchor_class(comparison: Comparison, code: str) -> str:
    return ' class="anchor"' if code == comparison.anchor else ""


def _smallest(comparison: Comparison, task: str, metric: str) -> str:
    """The sentence on what so many items could have shown of the first condition."""
    first = comparison.conditions[0]
    cells = [d for d in comparison.cells(first, task, metric) if isfinite(d.detectable)]
    mean = [number(scaled(d.detectable, metric), metric) for d in cells if d.language == MEAN]
    one = [scaled(d.detectable, metric) for d in comparison.steered(cells)]
    if not one:
        return ""
    sentence = (
        f"The smallest gain of {first} that so many items would have shown: "
        f"{number(min(one), metric)} to {number(max(one), metric)} in one language"
    )
    return f"{sentence}, {mean[0]} in the mean." if mean else sentence + "."


def _finding(finding: Finding) -> Iterable[str]:
    yield f"<h2>Do gains in {escape(finding.task)} go with languages drawing apart?</h2>"
    yield _plot(finding_figure(finding))
    yield "<h3>Apart with their meaning, or without?</h3>"
    yield _plot(retrieval_figure(finding))


def _sweep(sweep: Ranking, num_layers: int) -> Iterable[str]:
    suggested, best = sweep.tried[sweep.suggested], sweep.tried[sweep.best]
    yield "<h2>The sweep</h2>"
    yield (
        f"<p>{len(sweep.tried)} settings on validation items. Best: {escape(best.name)} "
        f"({_gain(best.gain)}). Suggested, the smallest within one standard error of it: "
        f"{escape(suggested.name)} ({_gain(suggested.gain)}). "
        "In these names layers count from 0, without the second; in the plot from 1.</p>"
    )
    yield f"<p>{escape(sweep_caption(sweep))}:</p>"
    yield _plot(sweep_heatmap(sweep, num_layers))


def _gain(gain: Interval) -> str:
    return f"{gain.estimate:+.4f} {bounds(gain, '{:+.4f}'.format)}"


def _plot(figure: go.Figure) -> str:
    html = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        default_height=460,
        config={"displaylogo": False, "showSendToCloud": False, "responsive": True},
    )
    return f'<div class="wide" tabindex="0">{html}</div>'


def _definitions(lines: dict[str, str]) -> str:
    inner = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in lines.items())
    return f"<dl>{inner}</dl>"
