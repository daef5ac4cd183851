"""A comparison as CSV, JSON and LaTeX. Each says what model, settings and versions made it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from ...errors import ClasError
from ..judging.comparison import MEAN, Comparison, Difference
from ..judging.statistics import Interval
from .numbers import number, scaled

LEVEL = 0.05
_COLUMNS = (
    *("condition", "task", "metric", "language", "before", "after", "gain", "low", "high"),
    *("p", "p_holm", "detectable", "items"),
)


def to_csv(comparison: Comparison) -> str:
    """A line for each condition, task, metric and language; first, commented, what it is of."""
    text = io.StringIO()
    for name, value in origin(comparison.about).items():
        text.write(f"# {name}: {value}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for difference in comparison.differences:
        flat = _flat(difference)
        writer.writerow([flat[name] for name in _COLUMNS])
    return text.getvalue()


def to_json(comparison: Comparison) -> str:
    """Differences, how often random controls won, and what it is of."""
    wins = [
        {"condition": condition, "task": task, "metric": metric, "share": share}
        for (condition, task, metric), share in comparison.control_wins.items()
    ]
    data = {
        "about": comparison.about,
        "anchor": comparison.anchor,
        "differences": [_flat(difference) for difference in comparison.differences],
        "control_wins": wins,
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Comparison:
    """What `to_json` wrote. Raises ClasError for anything else."""
    try:
        data = json.loads(text)
        return Comparison(
            tuple(map(_unflat, data["differences"])),
            {(w["condition"], w["task"], w["metric"]): w["share"] for w in data["control_wins"]},
            data["about"],
            data["anchor"],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ClasError("This is no comparison: take what was saved as JSON.") from error


def to_latex(comparison: Comparison) -> str:
    """A booktabs table for each task and metric: unsteered scores, and gains by condition.

    Bold where p, corrected over the languages, is below 0.05. The anchor's column stands apart.
    """
    head = "".join(f"% {name}: {value}\n" for name, value in origin(comparison.about).items())
    return head + "\n".join(_latex(comparison, *measure) for measure in comparison.measures)


def origin(about: Mapping[str, Any]) -> dict[str, str]:
    """What a table is of, in short lines."""
    conditions = about.get("conditions", ())
    recipes = ", ".join(f"{one['name']} {one['hash']}" for one in conditions if "hash" in one)
    versions = ", ".join(f"{name} {number}" for name, number in about.get("versions", {}).items())
    found = {
        "model": f"{about.get('model')} (revision {about.get('revision')}, weights "
        f"{about.get('weights')})",
        "recipes": recipes,
        "items": f"{about.get('split')}, bootstrap seed {about.get('seed')}",
        "versions": versions,
        "date": str(about.get("date")),
    }
    return {name: value for name, value in found.items() if value}


def cell_text(cell: Difference | None) -> str:
    """A gain with its sign, in points where the score is a share."""
    if cell is None:
        return ""
    gain = scaled(cell.gain.estimate, cell.metric)
    return ("+" if gain >= 0 else "") + number(gain, cell.metric)


def score_text(cell: Difference | None) -> str:
    """The unsteered score, in percent where it is a share."""
    if cell is None:
        return ""
    return number(scaled(cell.before, cell.metric), cell.metric)


def _latex(comparison: Comparison, task: str, metric: str) -> str:
    codes = comparison.languages(task)
    steered = [code for code in codes if code not in (comparison.anchor, MEAN)]
    ordered = [*steered, *(code for code in (MEAN, comparison.anchor) if code in codes)]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(ordered)}}}",
        r"\toprule",
        " & ".join([_escape(f"{task}, {metric}"), *map(_escape, ordered)]) + r" \\",
        r"\midrule",
        " & ".join(["unsteered, score", *_scores(comparison, task, metric, ordered)]) + r" \\",
        r"\midrule",
    ]
    for condition in comparison.conditions:
        cells = [comparison.get(condition, task, metric, code) for code in ordered]
        if any(cells):
            lines.append(" & ".join([_escape(condition), *map(_latex_cell, cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _scores(comparison: Comparison, task: str, metric: str, codes: list[str]) -> list[str]:
    """The unsteered scores that the gains are counted from."""
    cells = [comparison.get(comparison.conditions[0], task, metric, code) for code in codes]
    return [score_text(cell) or "--" for cell in cells]


def _latex_cell(cell: Difference | None) -> str:
    if cell is None:
        return "--"
    number = f"${cell_text(cell)}$"
    return rf"\textbf{{{number}}}" if cell.p_holm < LEVEL else number


def _escape(text: str) -> str:
    return "".join("\\" + char if char in "&%$#_{}" else char for char in text)


def _unflat(data: Mapping[str, Any]) -> Difference:
    rest = {name: value for name, value in data.items() if name not in ("gain", "low", "high")}
    return Difference(**rest, gain=Interval(data["gain"], data["low"], data["high"]))


def _flat(difference: Difference) -> dict[str, Any]:
    gain = difference.gain
    return {**vars(difference), "gain": gain.estimate, "low": gain.low, "high": gain.high}
