"""What steering does to the embedded model: chosen on validation items, told of test items.

The same engine as for any other model. Two files under assets keep what it found: `settings.json`,
every setting of the sweep and the one that the page opens with; `measured.json`, the comparison on
test items, with which the page says whether steering helps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from ..atlas.atlas import Atlas
from ..evaluation.judging.comparison import compare
from ..evaluation.judging.conditions import CONTROL, UNSTEERED, Condition, with_baselines
from ..evaluation.judging.engine import (
    ConditionScores,
    TaskRun,
    load_items,
    reporting_runs,
    tuning_runs,
)
from ..evaluation.judging.finding import find_all, measure_shifts
from ..evaluation.judging.items import Chosen, Split, Test, Validation
from ..evaluation.judging.results import Log, Results, collect, describe
from ..evaluation.judging.sweep import (
    Sweep,
    active_settings,
    grid,
    random_search,
    summarise,
    sweep_runs,
)
from ..evaluation.judging.workers import WorkerSetup, run_in_processes
from ..evaluation.tasks import Likelihood, open_task
from ..evaluation.telling.tables import to_json
from ..model.architecture import LanguageModel
from ..paths import replacing
from ..steering.recipe import Recipe
from ..text.corpus import ParallelCorpus

S = TypeVar("S", bound=Split)
Progress = Callable[[str, int, int], None]  # stage, items done, items in all

TASKS = ("village-nli", "village-qa", "village-recall", "village-known")
# As in `s = 1 + alpha (m - 1)` only alpha times a direction counts, beta and gamma are directions
# whose larger part is 1: shared neurons up, specific ones down, or one of the two half as much.
SEARCH = {
    "alpha": (-0.5, -0.25, 0.25, 0.5, 1.0),
    "beta": (1.5, 2.0),
    "gamma": (0.0, 0.5),
    "tau": (0.05, 0.1, 0.2),
    "shared_from": (6, 9, 12),
    "specific": ("any", "target", "others"),
    "layers": ((7, 8), (6, 8), (5, 7), (4, 8)),
}
AROUND = {
    "alpha": (-0.5, 0.25, 0.5, 1.0, 1.5, 2.0),
    "layers": ((7, 8), (6, 8), (4, 8)),
}
STRENGTHS = (-1.0, -0.5, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0)
OTHERS = {"alpha": (0.1, 0.25, 0.5, 1.0)}  # among which the other methods' strength is chosen


class Study:
    """The whole measurement. What is done is in `folder`: a killed one goes on from there."""

    def __init__(
        self, lm: LanguageModel, atlas: Atlas, folder: Path, workers: int, progress: Progress
    ) -> None:
        self.lm, self.atlas = lm, atlas
        self._folder, self._workers, self._progress = folder, workers, progress
        self._tasks = [open_task(name) for name in TASKS]
        self._judged = [Likelihood(task) for task in self._tasks]

    def choose(
        self, settings: Sequence[Recipe], items: int, stage: str, before: Sweep | None = None
    ) -> Sweep:
        """The settings, ranked by how likely the true answers of validation items are.

        What `before` measured isn't measured again: its settings come first in `settings`.
        """
        loaded = load_items(self._judged, Validation, None, items)
        # Where a method does nothing at any strength, one of them shows that.
        settings = active_settings(settings, self.atlas, loaded) or settings[:1]
        known = () if before is None else before.results.scores
        results = self._run(Validation, sweep_runs(loaded, settings), stage, known)
        return summarise(results, settings, num_layers=self.lm.num_layers)

    def follow(
        self, recipe: Recipe, items: int
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The setting and its random control over all strengths, on validation items: mean change
        of log p(true answer), in nats; and whether gains go with separation over strengths and
        languages."""
        conditions = [Condition(UNSTEERED)]
        for alpha in STRENGTHS:
            at = replace(recipe, alpha=alpha)
            conditions += [
                Condition(f"{alpha:g}", at),
                Condition(f"{CONTROL}{alpha:g}", at, control=0),
            ]
        runs = tuning_runs(load_items(self._judged, Validation, None, items), conditions)
        results = self._run(Validation, runs, "Following the strength")
        gains = [
            {
                "alpha": alpha,
                "gain": _mean_gain(results, f"{alpha:g}"),
                "control": _mean_gain(results, f"{CONTROL}{alpha:g}"),
            }
            for alpha in STRENGTHS
        ]
        steered = [one for one in conditions if one.recipe is not None and one.control is None]
        return gains, self._findings(results, steered)

    def report(self, chosen: Sequence[Chosen[Recipe]], items: int) -> dict[str, Any]:
        """The chosen settings on test items, as plain data: comparison and findings."""
        loaded = load_items(self._tasks, Test, None, items)
        runs = reporting_runs(loaded, chosen)
        results = self._run(Test, runs, "Reporting on test items")
        data: dict[str, Any] = json.loads(to_json(compare(results)))
        return {**data, "findings": self._findings(results, runs[0].conditions)}

    def _findings(
        self, results: Results[Any], conditions: Sequence[Condition]
    ) -> list[dict[str, Any]]:
        """Do gains go with languages drawing apart? For each task, as plain data."""
        comparison, corpus = compare(results), ParallelCorpus.bundled("village")
        shifts = measure_shifts(self.lm, self.atlas, conditions, corpus)
        return [finding.as_dict() for finding in find_all(comparison, shifts)]

    def _run(
        self,
        split: type[S],
        runs: Sequence[TaskRun[S]],
        stage: str,
        known: Sequence[ConditionScores[S]] = (),
    ) -> Results[S]:
        about = describe(self.lm, self.atlas, split, runs)
        log = Log(self._folder / f"{stage}.jsonl", split, about)
        if not log.scores:
            log.add(known)
        left = log.unfinished(runs)

        def progress(done: int, total: int) -> None:
            self._progress(stage, done, total)

        found: Iterator[tuple[ConditionScores[S], ...]] = run_in_processes(
            WorkerSetup(Recipe(), self.atlas), left, self._workers, progress
        )
        for _ in collect(log, found):
            pass
        return log.results(runs)


def study(
    lm: LanguageModel,
    atlas: Atlas,
    folder: Path,
    *,
    settings: int = 64,
    tried: int = 60,
    told: int = 200,
    workers: int = 2,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose settings, then tell what they do: the contents of both files.

    A seeded random search finds where to look; all strengths and layers are tried around its
    suggestion; of both together the smallest setting within a standard error of the best is taken.
    `tried` validation and `told` test items of each task and language. The other methods' strength
    is chosen in the same way, at the same thresholds.
    """
    whole = Study(lm, atlas, folder, workers, progress)
    drawn = [one for one in random_search(Recipe(), SEARCH, settings) if _changes(one)]
    first = whole.choose(drawn, tried, "Searching")
    around = grid(first.chosen.setting, AROUND)
    swept = whole.choose(tuple(dict.fromkeys([*drawn, *around])), tried, "Looking around", first)
    chosen = swept.chosen
    strengths, apart = whole.follow(chosen.setting, tried)
    broken = [s["alpha"] for s in strengths if s["alpha"] > 0 and s["gain"] < -math.log(2)]
    others = [
        whole.choose(grid(recipe, OTHERS), tried, f"Choosing for {recipe.method}").chosen
        for recipe in with_baselines(chosen.setting)[1:]
    ]
    found = {
        "items": tried,
        "suggested": swept.suggested,
        "best": swept.best,
        "collapse": min(broken, default=None),
        "strengths": strengths,
        "findings": apart,
        "table": [
            {**{name: getattr(one.recipe, name) for name in SEARCH}, **one.gain.as_dict()}
            for one in swept.tried
        ],
    }
    return found, whole.report([chosen, *others], told)


def save(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` as one JSON file, whole or not at all."""
    with replacing(path) as scratch:
        scratch.write_text(
            json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )


def _changes(recipe: Recipe) -> bool:
    """Whether it does anything, in a direction that no other one repeats."""
    return max(recipe.beta - 1, 1 - recipe.gamma) == 1


def _mean_gain(results: Results[Validation], condition: str) -> float:
    """Over the languages that are steered for, English left out, and both tasks."""
    gains: list[float] = []
    for task, metric in results.measures:
        for code in results.languages(task):
            before = results.get(UNSTEERED, task, metric, code)
            after = results.get(condition, task, metric, code)
            if code != "en" and before is not None and after is not None:
                gains += after.minus(before)
    return round(fmean(gains), 4)
