"""A measurement on its way: tasks under several methods, whose scores arrive one by one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import threading
import time
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...atlas.cache import cache_folder
from ...errors import ClasError
from ...evaluation.judging.comparison import Difference, compare
from ...evaluation.judging.conditions import Condition, standard_conditions, with_baselines
from ...evaluation.judging.engine import TaskRun, load_items, reporting_runs, tuning_runs
from ...evaluation.judging.finding import find_all
from ...evaluation.judging.items import Split, Task, Test, Validation
from ...evaluation.judging.prompting import Prompting
from ...evaluation.judging.results import Log, Results, describe
from ...evaluation.judging.sweep import Sweep, active_settings, grid, summarise, sweep_runs
from ...evaluation.tasks import KINDS, by_likelihood, open_task
from ...steering.recipe import Recipe
from .calls import only
from .disk import make_room, mark_used
from .outcome import Outcome
from .studio import Studio, steering_only
from .texts import MEASUREMENTS, kept_folders
from .threads import run_behind
from .works import judging, shifting

S = TypeVar("S", bound=Split)

STRENGTHS = (-0.5, 0.25, 0.5, 1.0)  # among which a method's own is chosen
JUDGED = 60  # items of a task and language to choose by, at most
CONTROLS = 2
_ONE = threading.Lock()  # measuring takes the whole machine: one at a time


@dataclass(frozen=True)
class Asked:
    """What a visitor wants to know. `choose`: try strengths on validation items, then report the
    chosen ones on test items; else the page's own settings are tried out on validation items.
    `folder`: where a benchmark's published files are; `shots`: solved examples before its items.
    """

    tasks: tuple[str, ...]
    languages: tuple[str, ...]
    baselines: tuple[str, ...]
    items: int
    choose: bool = False
    folder: str = ""
    shots: int = 0


class _Stopped(Exception):
    pass


class Trial:
    """One measurement, in a thread of its own. What is done is kept on disk: asked again, after a
    Cancel too, it goes on from there."""

    def __init__(self, studio: Studio, recipe: Recipe, asked: Asked) -> None:
        self.studio, self.asked = studio, asked
        self.stage = "Waiting for another measurement to end"
        self.done, self.total = 0, 0  # items
        self.differences: dict[tuple[str, str, str, str], Difference] = {}  # so far
        self.outcome: Outcome | None = None  # in the end
        self.error: ClasError | None = None
        self.finished = threading.Event()
        self._prompting = Prompting.of(recipe, studio.lm)
        # What a visitor typed is no part of the measurement, and nobody's business.
        plain = Recipe().target
        self._recipe = dataclasses.replace(steering_only(recipe, plain), target=plain)
        self._stop = threading.Event()
        self._begun = 0.0
        if studio.choice.published:
            raise ClasError("Measuring needs the model's own neurons: open it without the file.")
        self._tasks = [_open(name, studio, asked) for name in asked.tasks]
        if not self._tasks:
            raise ClasError("Choose at least one task.")
        if len(asked.languages) < 2 or "en" not in asked.languages:
            raise ClasError("Choose English, to see what it loses, and at least one more language.")

    def start(self) -> None:
        """Begin; `finished` is set in the end, whatever came of it."""
        # Whose call it is: a GPU's seconds are a visitor's.
        run_behind("measure", self._work, copy_context())

    def cancel(self) -> None:
        """End soon, with what is measured kept on disk; no harm to one that is done."""
        self._stop.set()

    @property
    def seconds_left(self) -> float | None:
        """From the items of this stage so far; None before it can be told."""
        passed = time.monotonic() - self._begun
        if not self.done or passed < 2:
            return None
        return passed / self.done * (self.total - self.done)

    def _work(self) -> None:
        try:
            while not _ONE.acquire(timeout=0.3):
                self._check()
            try:
                profile = self.studio.profile
                make_room(kept_folders(), profile.disk_mb * 10**6)
                self._measure_all()
            finally:
                _ONE.release()
        except _Stopped:
            self.stage = "Cancelled; what was measured is kept"
        except ClasError as error:
            self.error = error
        except Exception as error:
            logging.getLogger(__name__).exception("a measurement failed")
            self.error = ClasError(f"The measurement failed ({type(error).__name__}): try again.")
        finally:
            self.finished.set()

    def _measure_all(self) -> None:
        recipes = [
            recipe
            for number, recipe in enumerate(with_baselines(self._recipe))
            if number == 0 or recipe.method in self.asked.baselines
        ]
        sweeps: list[Sweep] = []
        if self.asked.choose:
            sweeps = [self._choose(recipe) for recipe in recipes]
            chosen = [sweep.chosen for sweep in sweeps]
            self.stage = "Reporting on test items"
            loaded = load_items(self._tasks, Test, self.asked.languages, self.asked.items)
            runs = reporting_runs(loaded, chosen, CONTROLS, prompting=self._prompting)
            conditions: Sequence[Condition] = runs[0].conditions
            results: Results[Any] = self._measure(Test, runs, show=True)
        else:
            self.stage = "Trying out on validation items"
            tried = load_items(self._tasks, Validation, self.asked.languages, self.asked.items)
            conditions = standard_conditions(recipes, CONTROLS)
            tuned = tuning_runs(tried, conditions, prompting=self._prompting)
            results = self._measure(Validation, tuned, show=True)
        self.stage, self.done, self.total = "Measuring how far the languages move", 0, 0
        self._begun = time.monotonic()
        corpus = self.studio.choice.corpus
        shifts = []
        if "en" in corpus.languages:
            asked = conditions, self.asked.languages
            shifts = only(self.studio.calls(shifting, self.studio, *asked, tell=self._tell))
        comparison = compare(results)
        self.differences = {
            (d.condition, d.task, d.metric, d.language): d for d in comparison.differences
        }
        self.outcome = Outcome(
            comparison,
            tuple(find_all(comparison, shifts)),
            sweeps[0] if sweeps else None,
            self.studio.num_layers,
        )

    def _choose(self, recipe: Recipe) -> Sweep:
        """A method's strength and layers, by the true answers' log-likelihoods on validation
        items."""
        self.stage = f"Choosing strength and layers for {recipe.method} on validation items"
        values: dict[str, Any] = {"alpha": STRENGTHS}
        if recipe.method != "DiffMean":  # its shifts would add up over several layers
            values["layers"] = _bridges(self.studio.num_layers)
        settings = grid(recipe, values)
        judged = [by_likelihood(task) for task in self._tasks]
        few = min(self.asked.items, JUDGED)
        loaded = load_items(judged, Validation, self.asked.languages, few)
        # Where a method does nothing at any strength, one of them shows that.
        settings = active_settings(settings, self.studio.atlas, loaded) or settings[:1]
        runs = sweep_runs(loaded, settings, prompting=self._prompting)
        results = self._measure(Validation, runs, show=False)
        return summarise(results, settings, num_layers=self.studio.num_layers)

    def _measure(self, split: type[S], runs: Sequence[TaskRun[S]], show: bool) -> Results[S]:
        lm, atlas = self.studio.lm, self.studio.atlas
        about = describe(lm, atlas, split, runs)
        place = _place(about)
        mark_used(place)
        log = Log(place, split, about)
        left = log.unfinished(runs)
        if show and log.scores:
            self._show(Results(tuple(log.scores), about))
        self.done, self.total, self._begun = 0, 0, time.monotonic()
        for scores in self.studio.calls(judging, self.studio, left, tell=self._tell):
            log.add(scores)
            if show:
                self._show(Results(scores, about))
        return log.results(runs)

    def _show(self, results: Results[Any]) -> None:
        new = compare(results).differences
        self.differences = {
            **self.differences,
            **{(d.condition, d.task, d.metric, d.language): d for d in new},
        }

    def _tell(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self._check()
        self.studio.gate.give_way()

    def _check(self) -> None:
        if self._stop.is_set():
            raise _Stopped


def _bridges(num_layers: int) -> list[tuple[int, int]]:
    """The last layer, the last quarter, the last half."""
    counts = sorted({1, max(1, num_layers // 4), max(1, num_layers // 2)})
    return [(num_layers - count, num_layers) for count in counts]


def _open(name: str, studio: Studio, asked: Asked) -> Task:
    kind = KINDS.get(name)
    if kind is None:
        raise ClasError(f"There is no task {name[:40]!r}: choose one of the list.")
    if kind.needs == "corpus":
        return kind.make(studio.choice.corpus)
    if kind.needs == "nothing":
        return open_task(name)
    if not asked.folder.strip():
        raise ClasError(f"{name} needs its published files: name the folder that they are in.")
    return open_task(name, asked.folder.strip(), shots=asked.shots)


def _place(about: dict[str, Any]) -> Path:
    """The log of this very measurement."""
    same = {k: v for k, v in about.items() if k not in ("date", "device", "versions")}
    digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / MEASUREMENTS / f"{digest}.jsonl"
