"""How well each method makes the embedded model write in another language, told on test items.

Each method's setting is the best of a small grid on validation items, in all languages alike. Then
it is told on test items, with random controls of its own, from the first words of English stories
(and into English from Spanish ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ..atlas.atlas import Atlas
from ..evaluation.judging.comparison import Comparison, compare
from ..evaluation.judging.conditions import CONTROL
from ..evaluation.judging.engine import load_items, reporting_runs
from ..evaluation.judging.items import Chosen, Items, Task, Test, Validation
from ..evaluation.judging.sweep import grid, summarise, sweep_runs
from ..evaluation.tasks.forcing import Forcing, VillageForcing
from ..model.architecture import LanguageModel
from ..steering.recipe import Recipe
from ..text.corpus import ParallelCorpus
from .logged import Progress, run_logged

NOBODY = "none"  # no language stands apart: English is steered for like the others
# Of each method the settings to choose from: fields that all have, and grids.
METHODS: dict[str, tuple[dict[str, Any], ...]] = {
    "DiffMean": (
        {"source": ["en"], "layers": [(0, 4)], "alpha": [0.7, 0.8, 0.9, 1.0]},
        {"source": ["others"], "layers": [(0, 4)], "alpha": [0.6, 1.0]},
    ),
    "Kojima": ({"k": [200, 600, 1500], "alpha": [1.0]},),
    "UnitDiffMean": ({"k": [600, 1500], "alpha": [1.0, 2.0, 4.0]},),
    "ThereAndBack": ({"alpha": [0.1, 0.25, 0.5]},),
    "CLAS": (
        {
            "beta": [1.0],
            "gamma": [0.0],
            "specific": ["others"],
            "layers": [(0, 8), (4, 8)],
            "alpha": [1.0, 2.0],
        },
    ),
    "IntMu": ({"layers": [(0, 8), (4, 8)], "alpha": [1.0]},),
    "LanguageArithmetic": ({"layers": [(0, 8)], "lam": [1.0, 5.0, 20.0], "source": ["en"]},),
}


def settings_of(method: str, base: Recipe) -> tuple[Recipe, ...]:
    """The settings of a method to choose from, on `base`."""
    return tuple(
        one for values in METHODS[method] for one in grid(replace(base, method=method), values)
    )


def force(
    lm: LanguageModel,
    atlas: Atlas,
    method: str,
    settings: Sequence[Recipe],
    corpus: ParallelCorpus | None = None,
    languages: Sequence[str] | None = None,
    *,
    tried: int = 6,
    told: int = 20,
    controls: int = 1,
    asked: bool = True,
    folder: Path | None = None,
    max_new_tokens: int = 24,
    progress: Progress,
) -> tuple[Chosen[Recipe], Comparison]:
    """Choose a method's setting on validation items, tell it of test items: `tried` and `told`
    of a language. `corpus`: of any other model than the village, which writes `max_new_tokens`.
    `asked`: tell of the model asked in words, too. A killed one goes on from what is in `folder`.
    """
    main = VillageForcing() if corpus is None else Forcing(corpus, max_new_tokens=max_new_tokens)
    loaded = load_items([main], Validation, languages, tried)
    runs = sweep_runs(loaded, settings, together=4, anchor=NOBODY)
    stage = f"Choosing for {method}"
    results = run_logged(lm, atlas, Validation, runs, stage, folder, progress)
    found = summarise(results, settings, num_layers=lm.num_layers, anchor=NOBODY)
    chosen = found.choose(found.best)
    items: list[tuple[Task, Items[Test]]] = load_items([main], Test, languages, told)
    if corpus is None and (languages is None or "en" in languages):
        other = VillageForcing(source="es")
        items.append((other, other.items("en", Test, told)))
    reported = [
        replace(run, conditions=tuple(one for one in run.conditions if asked or not one.ask))
        for run in reporting_runs(items, [chosen], controls, anchor=NOBODY)
    ]
    stage = f"Telling of {method}"
    told_of = run_logged(lm, atlas, Test, reported, stage, folder, progress)
    return chosen, compare(told_of, anchor=NOBODY)


def lines_of(method: str, recipe: Recipe, found: Comparison) -> list[str]:
    """A method's rows of the Markdown table: share of outputs in the language and quality, in
    percent, by language; then the random controls' and the unsteered share in the language."""
    (task,) = {name for name, _ in found.measures}
    codes = [code for code in found.languages(task) if code != "mean"]

    def row(name: str, condition: str, metric: str, before: bool = False) -> str:
        cells = [found.get(condition, task, metric, code) for code in codes]
        shares = [100 * (c.before if before else c.after) for c in cells if c is not None]
        texts = " | ".join(f"{share:.0f}" for share in (fmean(shares), *shares))
        return f"| {name} | {texts} |"

    said = f"{method} {recipe.alpha:g}"
    controls = [name for name in found.conditions if name.startswith(CONTROL)]
    return [
        row(f"{said}, in the language", method, "language"),
        row(f"{said}, quality", method, "quality"),
        row(f"{said}, both", method, "forcing"),
        *(row(f"{said}, {name}", name, "language") for name in controls),
        row("unsteered, in the language", method, "language", before=True),
    ]
