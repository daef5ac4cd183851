"""The shell's `evaluate`, `sweep`, `report` and `lm_eval`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..atlas.atlas import Atlas
from ..errors import ClasError
from ..evaluation.judging.comparison import SIGNIFICANCE, Comparison, compare
from ..evaluation.judging.conditions import Condition, standard_conditions, with_baselines
from ..evaluation.judging.engine import (
    ConditionScores,
    TaskRun,
    load_items,
    reporting_runs,
    run_tasks,
    tuning_runs,
)
from ..evaluation.judging.finding import Finding, Shift, find_all, measure_shifts
from ..evaluation.judging.items import Chosen, Split, Task, Test, Validation
from ..evaluation.judging.prompting import Prompting
from ..evaluation.judging.results import Log, Results, collect, describe
from ..evaluation.judging.sweep import (
    Between,
    Sweep,
    active_settings,
    grid,
    load_chosen,
    random_search,
    save_chosen,
    setting_conditions,
    summarise,
    sweep_runs,
)
from ..evaluation.judging.workers import WorkerSetup, run_in_processes
from ..evaluation.marks import GOALS, find_marks, goal_recipe, save_marks
from ..evaluation.tasks import Likelihood, open_task
from ..evaluation.telling.numbers import bounds
from ..evaluation.telling.report import write_report
from ..evaluation.telling.tables import to_csv, to_json, to_latex, to_text
from ..evaluation.telling.verdict import answer
from ..model.architecture import LanguageModel
from ..paths import replacing
from ..steering.recipe import Recipe
from ..text.corpus import ParallelCorpus
from .options import RECIPE_OPTIONS, atlas_of, bar, open_model, recipe_of

S = TypeVar("S", bound=Split)


def evaluate(arguments: argparse.Namespace) -> None:
    """Score a recipe on validation items, or chosen settings on test items."""
    tasks, codes = _tasks(arguments), arguments.languages
    chosen = [one for path in arguments.chosen or () for one in load_chosen(path)]
    recipe = _recipe_of(arguments, chosen) if chosen else recipe_of(arguments)
    lm = open_model(arguments, recipe)
    atlas, prompting = atlas_of(arguments, recipe, lm), Prompting.of(recipe, lm)
    if chosen:
        loaded = load_items(tasks, Test, codes, arguments.items)
        runs = reporting_runs(loaded, chosen, arguments.controls, prompting=prompting)
        results: Results[Any] = _measure(arguments, recipe, lm, atlas, Test, runs)
        conditions = runs[0].conditions
    else:
        recipes = with_baselines(recipe) if arguments.baselines else (recipe,)
        conditions = standard_conditions(recipes, arguments.controls)
        tried = load_items(tasks, Validation, codes, arguments.items)
        tuned = tuning_runs(tried, conditions, prompting=prompting)
        results = _measure(arguments, recipe, lm, atlas, Validation, tuned)
    results.save(arguments.out)
    if arguments.finding:
        results = _with_shifts(results, lm, atlas, recipe, conditions)
        results.save(arguments.out)
    _put_out(arguments, results)


def sweep(arguments: argparse.Namespace) -> None:
    """Try settings on validation items and write down the one to take."""
    recipe, tasks, codes = recipe_of(arguments), _tasks(arguments), arguments.languages
    if arguments.finding and not arguments.results:
        raise ClasError("--finding is kept with the results: name a file for them by --results.")
    if arguments.likelihood:
        tasks = [Likelihood(task) for task in tasks]
    values = dict(_values(text) for text in arguments.grid)
    if arguments.random is None:
        settings = grid(recipe, values)
    else:
        settings = random_search(recipe, values, arguments.random, recipe.seed)
    lm = open_model(arguments, recipe)
    atlas, prompting = atlas_of(arguments, recipe, lm), Prompting.of(recipe, lm)
    loaded = load_items(tasks, Validation, codes, arguments.items)
    drawn, settings = len(settings), active_settings(settings, atlas, loaded)
    if not settings:
        raise ClasError(
            "None of these settings changes anything in these languages: try other thresholds, "
            "layers, or a strength that isn't 0."
        )
    if left_out := drawn - len(settings):
        print(f"{left_out} of {drawn} settings change nothing and are left out.", file=sys.stderr)
    runs = sweep_runs(loaded, settings, together=arguments.together, prompting=prompting)
    results = _measure(arguments, recipe, lm, atlas, Validation, runs)
    found = summarise(results, settings, num_layers=lm.num_layers)
    save_chosen(arguments.out, [found.chosen])
    if arguments.results:
        results.save(arguments.results)
        if arguments.finding:
            conditions = setting_conditions(settings)
            _with_shifts(results, lm, atlas, recipe, conditions).save(arguments.results)
    _print_sweep(found, arguments.json)


def report(arguments: argparse.Namespace) -> None:
    """Write what stands in a file of results as tables and plots."""
    if arguments.sweep and not arguments.html:
        raise ClasError("A sweep is drawn in the report: name a file for it by --html.")
    _put_out(arguments, _load_any(arguments.results))


def marks(arguments: argparse.Namespace) -> None:
    """Find from which strength a method is seen, where it does best, and where it breaks."""
    recipe = recipe_of(arguments)
    given = {name for name in GOALS.get(arguments.goal, ()) if hasattr(arguments, name)}
    if arguments.recipe is None and "method" not in given:
        wished = {name: getattr(recipe, name) for name in given}
        recipe = dataclasses.replace(goal_recipe(arguments.goal, recipe), **wished)
    strengths = None
    if arguments.strengths:
        _, strengths = _values(f"alpha={arguments.strengths}")
    if isinstance(strengths, Between):
        raise ClasError("List the strengths, such as 0.1,0.2,0.5.")
    lm = open_model(arguments, recipe)
    atlas = atlas_of(arguments, recipe, lm)
    with bar("trying", "prompt") as progress:
        found = find_marks(
            lm,
            atlas,
            ParallelCorpus.open(recipe.corpus),
            arguments.goal,
            recipe,
            languages=arguments.languages,
            prompts=arguments.prompts,
            strengths=strengths,
            progress=progress,
        )
    if arguments.out:
        save_marks(arguments.out, found.as_dict())
    if arguments.json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
        return
    print(
        f"{'strength':>8} {'differs':>8} {'reached':>8} {'broken':>8} {'score':>8} {'control':>8}"
    )
    for one in found.points:
        shares = (f"{share:>8.0%}" for share in (one.differs, one.reached, one.broken))
        print(f"{one.alpha:>8g}", *shares, f"{one.score:>8.3f}", f"{one.control:>8.3f}")
    print(found.sentence)


def run_harness(arguments: argparse.Namespace) -> None:
    """lm-evaluation-harness's own command line, with our model in its registry."""
    try:
        from lm_eval.__main__ import cli_evaluate
    except ImportError as error:
        raise ClasError(
            "lm-evaluation-harness isn't here: pip install 'clas-studio[lm-eval]'."
        ) from error
    from ..evaluation.judging import harness  # noqa: F401  # registers our model

    sys.argv = ["lm_eval", *arguments.options]
    cli_evaluate()


def _measure(
    arguments: argparse.Namespace,
    recipe: Recipe,
    lm: LanguageModel,
    atlas: Atlas,
    split: type[S],
    runs: Sequence[TaskRun[S]],
) -> Results[S]:
    """The results of these runs; those in the log aren't measured again."""
    about = describe(lm, atlas, split, runs)
    log = Log(arguments.log, split, about) if arguments.log else None
    left = runs if log is None else log.unfinished(runs)
    scores: list[ConditionScores[S]] = []
    with bar("scoring", "item") as progress:
        if arguments.workers == 1 and not arguments.cluster:
            found = run_tasks(lm, atlas, left, progress)
        else:
            setup = WorkerSetup(recipe, atlas)
            found = run_in_processes(
                setup, left, arguments.workers, progress, cluster=arguments.cluster
            )
        for some in collect(log, found):
            scores += some
    return Results(tuple(scores), about) if log is None else log.results(runs)


_OF_MODEL = ("model", "revision", "dtype", "corpus", "chat", "system")


def _recipe_of(arguments: argparse.Namespace, chosen: Sequence[Chosen[Recipe]]) -> Recipe:
    """The model and text that settings were chosen on. Raises ClasError if they are several, or
    others than the options name."""
    if arguments.baselines:
        raise ClasError("--chosen reports settings that were chosen: choose the baselines' too.")
    recipe = chosen[0].setting
    for name in _OF_MODEL:
        wanted = {getattr(one.setting, name) for one in chosen}
        wanted.add(getattr(arguments, name, getattr(recipe, name)))
        if len(wanted) > 1:
            raise ClasError(
                f"The settings were chosen with another {name}: {', '.join(map(str, wanted))}. "
                f"Take files of one {name}, and leave --{name} out."
            )
    return recipe


def _with_shifts(
    results: Results[S],
    lm: LanguageModel,
    atlas: Atlas,
    recipe: Recipe,
    conditions: Sequence[Condition],
) -> Results[S]:
    """The same results, and how far every condition's plans move the languages."""
    corpus = ParallelCorpus.open(recipe.corpus)
    codes = {one.scores.language for one in results.scores}
    with bar("moving", "plan") as progress:
        shifts = measure_shifts(lm, atlas, conditions, corpus, codes, progress=progress)
    return Results(results.scores, {**results.about, "shifts": [vars(one) for one in shifts]})


def _put_out(arguments: argparse.Namespace, results: Results[Any]) -> None:
    """Write and print the comparison in the forms that were asked for."""
    comparison = compare(results)
    if arguments.csv:
        _write(arguments.csv, to_csv(comparison))
    if arguments.latex:
        _write(arguments.latex, to_latex(comparison))
    if arguments.html:
        swept = _load_sweep(arguments.sweep) if getattr(arguments, "sweep", None) else None
        findings = _findings(comparison)
        if swept is not None:
            findings += _findings(compare(swept[0].results))
        write_report(arguments.html, comparison, findings, swept)
    if arguments.json:
        print(to_json(comparison), end="")
    else:
        for measure in comparison.measures:
            print(to_text(comparison, *measure))
        print(*answer(comparison), sep="\n")


def _findings(comparison: Comparison) -> list[Finding]:
    """The finding on each task's main metric, if shifts were measured and are enough."""
    shifts = [Shift(**shift) for shift in comparison.about.get("shifts", ())]
    return find_all(comparison, shifts)


def _load_sweep(path: str) -> tuple[Sweep, int]:
    results = Results.load(path, Validation)
    recipes = [one["recipe"] for one in results.about["conditions"] if "recipe" in one]
    settings = [Recipe.from_json(json.dumps(recipe)) for recipe in recipes]
    layers = results.about["layers"]
    return summarise(results, settings, num_layers=layers), layers


def _load_any(path: str) -> Results[Any]:
    """Results of either split: to look at them is no choice."""
    try:
        return Results.load(path, Test)
    except ClasError:
        return Results.load(path, Validation)


def _print_sweep(sweep: Sweep, as_json: bool) -> None:
    if as_json:
        marks = {"best": sweep.best, "suggested": sweep.suggested}
        table = [
            {"setting": one.name, **one.gain.as_dict()}
            | {mark: number == place for mark, place in marks.items()}
            for number, one in enumerate(sweep.tried)
        ]
        print(json.dumps(table, ensure_ascii=False))
        return
    width = max(len(one.name) for one in sweep.tried)
    for number, one in enumerate(sweep.tried):
        gain = f"{one.gain.estimate:+.4f} {bounds(one.gain, '{:+.4f}'.format)}"
        marks_of = [("best", sweep.best), ("suggested", sweep.suggested)]
        said = " ".join(mark for mark, place in marks_of if place == number)
        print(f"{one.name:<{width}}  {gain}  {said}".rstrip())
    if not sweep.tried[sweep.best].gain.is_known:
        print("Too few texts to tell whether any setting gained: take more items.")
    elif sweep.p > SIGNIFICANCE:
        print("No setting gained beyond chance: think of leaving the model as it is.")


def _tasks(arguments: argparse.Namespace) -> list[Task]:
    found = []
    for text in arguments.tasks:
        name, _, source = text.partition("=")
        found.append(open_task(name, source or None, shots=arguments.shots))
    return found


def _values(text: str) -> tuple[str, list[Any] | Between]:
    """A field and its values, of `alpha=0.5,1`, or its range, of `alpha=0..2`."""
    name, _, values = text.partition("=")
    name = name.replace("-", "_")
    if name not in RECIPE_OPTIONS or not values:
        raise ClasError(f"{text!r} is no list of values: write one such as alpha=0.5,1,2.")
    kind = RECIPE_OPTIONS[name][0]
    low, dots, high = values.partition("..")
    try:
        if dots and kind is float:
            return name, Between(float(low), float(high))
        return name, [kind(value) for value in values.split(",")]
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ClasError(f"The values of {name} can't be read: {values!r}.") from error


def _write(path: str, text: str) -> None:
    with replacing(Path(path)) as scratch:
        scratch.write_text(text, encoding="utf-8")
