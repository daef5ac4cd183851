"""A comparison as text, CSV, JSON and LaTeX. Files say what model, settings, versions made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from ...errors import ClasError
from ..judging.comparison import MEAN, Comparison, Difference
from .numbers import name_of, number, scaled

IDLE = "="  # in place of a gain where the plan changes nothing
Render = Callable[[Difference | None, str], str]  # of a cell, if it was measured, and its language


def render(
    comparison: Comparison, task: str, metric: str, *, score: Render, gain: Render
) -> pd.DataFrame:
    """A table as all forms show it: texts [1 + conditions, languages].

    `score` renders the first line, the unsteered scores that all gains are counted from; `gain` the
    line of each condition.
    """
    grid = comparison.grid(task, metric)
    anyone = {code: next(iter(cells.dropna()), None) for code, cells in grid.items()}
    lines = {"unsteered, score": [score(cell, code) for code, cell in anyone.items()]}
    for condition, cells in grid.iterrows():
        lines[condition] = [gain(cell, code) for code, cell in cells.items()]
    return pd.DataFrame.from_dict(lines, orient="index", columns=grid.columns)


def to_text(comparison: Comparison, task: str, metric: str) -> str:
    """A table for the shell: gains by condition and language."""
    table = render(comparison, task, metric, score=score_text, gain=cell_text)
    return table.rename_axis(columns=f"{task}, {metric}").to_string() + "\n"


def to_csv(comparison: Comparison) -> str:
    """The comparison's frame; first, commented, what it is of."""
    return _origin_lines("#", comparison) + comparison.frame.to_csv(index=False)


def to_json(comparison: Comparison) -> str:
    """Differences, how often random controls won, and what it is of."""
    wins = [
        {"condition": condition, "task": task, "metric": metric, "share": share}
        for (condition, task, metric), share in comparison.control_wins.items()
    ]
    data = {
        "about": comparison.about,
        "anchor": comparison.anchor,
        "differences": [difference.as_dict() for difference in comparison.differences],
        "control_wins": wins,
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Comparison:
    """What `to_json` wrote. Raises ClasError for anything else."""
    try:
        data = json.loads(text)
        wins = {(w["condition"], w["task"], w["metric"]): w["share"] for w in data["control_wins"]}
        differences = tuple(map(Difference.from_dict, data["differences"]))
        return Comparison(differences, wins, data["about"], data["anchor"])
    except (ValueError, TypeError, KeyError) as error:
        raise ClasError("This is no comparison: take what was saved as JSON.") from error


def to_latex(comparison: Comparison) -> str:
    """A booktabs table for each task and metric: unsteered scores, and gains by condition.

    Bold where a gain or loss is more than chance. The mean and the anchor stand last, apart.
    """
    tables = (_latex(comparison, *measure) for measure in comparison.measures)
    notes = "".join(f"% {note}\n" for note in idle_notes(comparison))
    return _origin_lines("%", comparison) + notes + "\n".join(tables)


def idle_notes(comparison: Comparison) -> list[str]:
    """A sentence on each set of conditions whose plans change nothing, in which languages."""
    found: dict[tuple[str, ...], list[str]] = {}
    alone = comparison.frame[~comparison.frame.language.isin([MEAN, comparison.anchor])]
    for condition, cells in alone.groupby("condition", sort=False):
        if cells.identity.any():
            codes = tuple(cells[cells.identity].language.unique())
            everywhere = len(codes) == cells.language.nunique()
            found.setdefault(() if everywhere else codes, []).append(condition)
    return [
        f"{', '.join(names)}: changes nothing{' in ' if codes else ''}"
        f"{', '.join(map(name_of, codes))}, as its plan selects no neuron there or its strength is "
        f"0 ({IDLE} in tables)."
        for codes, names in found.items()
    ]


def origin(about: Mapping[str, Any]) -> dict[str, str]:
    """What a table is of, in short lines."""
    conditions = about.get("conditions", ())
    recipes = ", ".join(f"{one['name']} {one['hash']}" for one in conditions if "hash" in one)
    versions = ", ".join(f"{name} {number}" for name, number in about.get("versions", {}).items())
    found = {
        "model": f"{about.get('model')} (revision {about.get('revision')}, weights "
        f"{about.get('weights')})",
        "recipes": recipes,
        "items": f"{about.get('split')}, seed {about.get('seed')}",
        "versions": versions,
        "date": str(about.get("date")),
    }
    # A line each, also where a name has a line break: what follows would be no comment any more.
    return {name: " ".join(value.split()) for name, value in found.items() if value}


def cell_text(cell: Difference | None, _: str = "") -> str:
    """A gain with its sign, in points where the score is a share; `IDLE` where the plan changes
    nothing, empty if it wasn't measured."""
    if cell is None:
        return ""
    if cell.identity:
        return IDLE
    gain = scaled(cell.gain.estimate, cell.metric)
    return ("+" if gain >= 0 else "") + number(gain, cell.metric)


def score_text(cell: Difference | None, _: str = "") -> str:
    """The unsteered score, in percent where it is a share; empty if it wasn't measured."""
    return "" if cell is None else number(scaled(cell.before, cell.metric), cell.metric)


def _origin_lines(mark: str, comparison: Comparison) -> str:
    lines = origin(comparison.about).items()
    return "".join(f"{mark} {name}: {value}\n" for name, value in lines)


def _latex(comparison: Comparison, task: str, metric: str) -> str:
    table = render(comparison, task, metric, score=score_text, gain=_latex_cell).replace("", "--")
    last = [code for code in (MEAN, comparison.anchor) if code in table]
    table = table[[*table.columns.drop(last), *last]]
    columns = "l" + "r" * len(table.columns)
    cells = [[f"{task}, {metric}", *table.columns], *table.itertuples()]
    head, first, *rest = (" & ".join([_escape(name), *texts]) + r" \\" for name, *texts in cells)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", first, r"\midrule"]
    return "\n".join([*lines, *rest, r"\bottomrule", r"\end{tabular}", ""])


def _latex_cell(cell: Difference | None, code: str) -> str:
    if cell is None:
        return ""
    return rf"\textbf{{${cell_text(cell)}$}}" if cell.shown else f"${cell_text(cell)}$"


def _escape(text: str) -> str:
    return "".join("\\" + char if char in "&%$#_{}" else char for char in text)
