"""What a measurement found, whether it was just made or comes with the embedded model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...evaluation.judging.comparison import MEAN, Comparison
from ...evaluation.judging.conditions import CONTROL
from ...evaluation.judging.finding import Finding
from ...evaluation.judging.results import main_measures
from ...evaluation.judging.statistics import Interval
from ...evaluation.judging.sweep import Ranking, Tried
from ...evaluation.telling.numbers import is_share, signed
from ...evaluation.telling.paper import paper_sentence
from ...evaluation.telling.report import write_report
from ...evaluation.telling.tables import from_json, idle_notes, to_csv, to_json, to_latex
from ...evaluation.telling.verdict import headline, verdict
from ...paths import replacing
from ...steering.methods import METHODS
from ...steering.recipe import Recipe


@dataclass(frozen=True)
class Outcome:
    """`ranking`: the sweep by which the first condition's setting was chosen, if it was."""

    comparison: Comparison
    findings: tuple[Finding, ...]
    ranking: Ranking | None
    num_layers: int

    @property
    def measures(self) -> list[tuple[str, str]]:
        """Each task with its main metric."""
        return main_measures(self.comparison.measures)

    def finding(self, task: str, metric: str) -> Finding | None:
        """The finding on a task; None where there were too few languages."""
        return next((f for f in self.findings if (f.task, f.metric) == (task, metric)), None)

    @property
    def means(self) -> list[dict[str, Any]]:
        """Of each task with a score of the first task's kind what people ask for first: the mean
        gain over languages of the first condition (`steered`), of its random controls, of the
        `others` that steer, by name, and of the model merely `asked` in words (None if it
        wasn't)."""
        comparison = self.comparison
        first, *rest = comparison.conditions
        found = []
        for task, metric in self.measures:
            mean = comparison.get(first, task, metric, MEAN)
            if mean is None or is_share(metric) != is_share(self.measures[0][1]):
                continue
            means = {name: comparison.get(name, task, metric, MEAN) for name in rest}
            known = {name: one for name, one in means.items() if one is not None}
            found.append(
                {
                    "task": task,
                    "metric": metric,
                    "steered": mean,
                    "controls": [one for name, one in known.items() if name.startswith(CONTROL)],
                    "others": {name: one for name, one in known.items() if name in METHODS},
                    "asked": known.get("asked"),
                }
            )
        return found

    @property
    def sentences(self) -> list[str]:
        """What it says of the first condition, and what the paper says where that is alike; and
        what changes nothing."""
        beside = [paper_sentence(*measure) for measure in self.measures]
        said = zip(verdict(self.comparison), beside)
        return [f"{text} {more}".strip() for text, more in said] + idle_notes(self.comparison)

    def write(self, folder: Path) -> list[Path]:
        """The comparison as CSV, JSON, LaTeX and a report that opens offline: their paths.

        Raises CantWrite on a full disk.
        """
        texts = {"csv": to_csv, "json": to_json, "tex": to_latex}
        paths = [folder / f"clas-measure.{ending}" for ending in texts]
        for path, form in zip(paths, texts.values()):
            with replacing(path) as scratch:
                scratch.write_text(form(self.comparison), "utf-8")
        report = folder / "clas-report.html"
        swept = None if self.ranking is None else (self.ranking, self.num_layers)
        write_report(report, self.comparison, self.findings, swept)
        return [*paths, report]


def read_outcome(measured: Path, settings: Mapping[str, Any]) -> Outcome:
    """The embedded model's, from the two files that `clas_core.studies measure` writes."""
    text = measured.read_text("utf-8")
    findings = tuple(map(Finding.from_dict, json.loads(text)["findings"]))
    comparison = from_json(text)
    ranking = Ranking(
        tuple(map(_tried, settings["table"])), settings["suggested"], settings["best"]
    )
    return Outcome(comparison, findings, ranking, comparison.about["layers"])


def told(outcome: Outcome) -> str:
    """Whether steering helps the model, for who never opens the Measure tab."""
    answer = headline(outcome.comparison)
    text = f"Does it help this model? {answer[0].upper()}{answer[1:]}. "
    if ranking := outcome.ranking:
        gain = ranking.tried[ranking.best].gain
        text += (
            f"Of {len(ranking.tried)} settings that were tried, the best changed the "
            f"log-probability of a true answer by {signed(gain.estimate, 3)} nats, on the very "
            "questions it was picked by, which flatters it. Told of here is the smallest setting "
            "that is not clearly worse. On questions it was not chosen by: "
        )
    return text + " ".join(verdict(outcome.comparison))


def _tried(row: Mapping[str, Any]) -> Tried:
    """A row of the stored sweep: fields of a recipe, and the gain it brought."""
    names = {field.name for field in fields(Recipe)}
    changed = {name: value for name, value in row.items() if name in names}
    said = {**changed, "layers": "{}-{}".format(*changed["layers"])}
    label = " ".join(f"{name}={value}" for name, value in said.items())
    return Tried(label, Recipe(**changed), Interval.from_dict(row))
