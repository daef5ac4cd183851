"""The same protocol on any model: what its neurons are, what steers it, and whether that helps.

On the bundled everyday text. A third of its sentences is for the atlas and for choosing settings,
the rest for telling what they do: the paper's direction (CLAS with alpha above 0) and the other
methods, each beside random controls of its own, on bits per byte and retrieval; of CLAS the other
way there are only the sentences for choosing. How well a method
makes the model write in another language is told of beginnings from that rest, its setting chosen
on some of them. What is done is in a folder: a killed run goes on from there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

from ..atlas.atlas import Atlas
from ..atlas.cache import measure_cached
from ..atlas.fingerprint import fingerprint
from ..atlas.selection import CATEGORIES, select
from ..evaluation.judging.comparison import (
    MEAN,
    Comparison,
    Difference,
    beyond_controls,
    compare,
)
from ..evaluation.judging.conditions import CONTROL, own_controls
from ..evaluation.judging.engine import load_items, reporting_runs
from ..evaluation.judging.finding import find_all, measure_shifts
from ..evaluation.judging.items import Chosen, Test, Validation
from ..evaluation.judging.results import Results, describe
from ..evaluation.judging.sweep import Sweep, grid, summarise, sweep_runs
from ..evaluation.tasks.parallel import BitsPerByte, Retrieval
from ..evaluation.telling.real import FORMAT
from ..model.architecture import LanguageModel
from ..steering.recipe import Recipe
from ..text.corpus import ParallelCorpus
from .forcing import force
from .logged import Progress, run_logged

LANGUAGES = ("en", "de", "es", "fr", "ru", "bg", "hi", "sw", "tr", "ar", "th", "vi", "zh")
FORCED = ("de", "es", "fr", "ru", "hi", "sw", "tr")  # that are written in: it takes longest
FORCING = ("DiffMean", "Kojima")
TAU = 0.2
CLAS: dict[str, list[Any]] = {
    "method": ["CLAS"],
    "alpha": [-0.5, -0.25, 0.25, 0.5, 1.0],
}  # at the paper's directions
OTHERS: tuple[dict[str, list[Any]], ...] = (  # the other methods, and what is tried of each
    {"method": ["IntMu"], "alpha": [0.25, 1.0]},
    {"method": ["LAPE"], "alpha": [1.0], "source": ["en"]},
    {"method": ["LanguageArithmetic"], "alpha": [0.25, 1.0]},
    {"method": ["DiffMean"], "alpha": [0.02, 0.1], "source": ["en"]},
    {"method": ["Kojima"], "alpha": [0.1, 1.0]},
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured of each language. `begun` texts are tried for choosing how to force a
    language, `told` are told of, `tokens` long; `scored` sentences are tried for choosing what
    helps, and `judged` told of, twice as many where translations are looked for, under `controls`
    random controls of each method; `moved` sentences tell how far languages move apart."""

    begun: int = 2
    told: int = 6
    tokens: int = 16
    scored: int = 4
    judged: int = 8
    controls: int = 2
    moved: int = 8


def forcing_settings(num_layers: int) -> dict[str, tuple[Recipe, ...]]:
    """What is tried of each method that forces a language: a shift that is split over the layers
    behind the middle, and units by their medians."""
    base = Recipe(tau=TAU)
    behind = (num_layers // 2, 3 * num_layers // 4 + 1)
    shift: dict[str, list[Any]] = {"method": ["DiffMean"], "source": ["en"], "layers": [behind],
             "alpha": [0.07, 0.1, 0.15, 0.25]}  # fmt: skip
    units: dict[str, list[Any]] = {"method": ["Kojima"], "alpha": [1.0], "k": [300, 1000]}
    return {"DiffMean": grid(base, shift), "Kojima": grid(base, units)}


def study_real(
    lm: LanguageModel,
    folder: Path,
    about: dict[str, Any],
    *,
    languages: Sequence[str] = LANGUAGES,
    sizes: Sizes = Sizes(),
    methods: Sequence[str] = FORCING,
    progress: Progress,
) -> dict[str, Any]:
    """Run all of it; plain data for one JSON file. `about` the model is put in front of it.
    `methods`: those that force a language, of `FORCING`.

    Raises ClasError for languages that the text hasn't, and if `folder` is of another study.
    """
    corpus = ParallelCorpus.bundled("everyday").subset(languages)
    chosen_on, told_on = _halves(corpus)

    def measuring(done: int, total: int) -> None:
        progress("Measuring", done, total)

    atlas = measure_cached(lm, chosen_on, folder=folder, progress=measuring)
    tried = [*grid(Recipe(tau=TAU), CLAS)]
    for values in OTHERS:
        tried += grid(Recipe(tau=TAU), values)
    swept = _sweep(lm, atlas, corpus, tried, sizes, folder, progress)
    paper = _best(swept, "CLAS")
    rest = [_best(swept, values["method"][0]) for values in OTHERS]
    gains, found = _tell(lm, atlas, corpus, [paper, *rest], sizes, folder, progress)
    # A plan of Kojima's is another one for each language from the first layer on.
    conditions = [
        one
        for one in reporting_runs(_items(corpus, Test, sizes.judged), [paper, *rest])[0].conditions
        if one.recipe is not None and one.recipe.method != "Kojima"
    ]

    def moving(done: int, total: int) -> None:
        progress("Moving", done, total)

    shifts = measure_shifts(lm, atlas, conditions, told_on, sentences=sizes.moved, progress=moving)
    forced = [code for code in FORCED if code in atlas.languages]
    forcing = {}
    for method, settings in forcing_settings(lm.num_layers).items():
        if method not in methods:
            continue
        chosen, made = force(
            lm, atlas, method, settings, told_on, forced, tried=sizes.begun, told=sizes.told,
            asked=False, folder=folder, max_new_tokens=sizes.tokens, progress=progress,
        )  # fmt: skip
        forcing[method] = {"setting": _setting(chosen.setting), **_forced(method, made)}
    facts = describe(lm, atlas, Test, [])
    return {
        "format": FORMAT,
        **about,
        "date": facts["date"][:10],
        "versions": facts["versions"],
        "dtype": facts["dtype"],
        "weights": fingerprint(lm).as_dict()["weights"],
        "layers": lm.num_layers,
        "neurons": lm.num_neurons,
        "languages": list(atlas.languages),
        "sentences": {"atlas and choosing": len(chosen_on), "telling": len(told_on)},
        "sizes": asdict(sizes),
        "categories": {
            "tau": TAU,
            "names": list(CATEGORIES),
            "layers": select(atlas, tau=TAU).counts().tolist(),
        },
        "forcing": forcing,
        "tried": [
            {"setting": _setting(one.recipe), **_round(one.gain.as_dict())} for one in swept.tried
        ],
        "gains": gains,
        "apart": [
            {
                "task": one.task,
                "points": len(one.points),
                "rho": _round(one.gain.as_dict()),
                "rho with retrieval": _round(one.retrieval.as_dict()),
            }
            for one in find_all(found, shifts)
        ],
    }


def _halves(corpus: ParallelCorpus) -> tuple[ParallelCorpus, ParallelCorpus]:
    """The sentences to choose on and those to tell of, as tasks on the text part them."""
    task = BitsPerByte(corpus)
    code = corpus.languages[0]

    def only(keys: Iterable[str], name: str) -> ParallelCorpus:
        lines = sorted(map(int, keys))
        sentences = {c: [text[n] for n in lines] for c, text in corpus.sentences.items()}
        return ParallelCorpus(f"{corpus.name}, {name}", sentences)

    return (
        only(task.items(code, Validation).keys, "for choosing"),
        only(task.items(code, Test).keys, "for telling"),
    )


def _items(corpus: ParallelCorpus, split: Any, count: int) -> Any:
    return [
        *load_items([BitsPerByte(corpus)], split, None, count),
        *load_items([Retrieval(corpus)], split, None, 2 * count),
    ]


def _sweep(
    lm: LanguageModel,
    atlas: Atlas,
    corpus: ParallelCorpus,
    settings: Sequence[Recipe],
    sizes: Sizes,
    folder: Path,
    progress: Progress,
) -> Sweep:
    """All settings on validation sentences, by bits per byte alone."""
    codes = [code for code in corpus.languages if code != "en"]
    loaded = load_items([BitsPerByte(corpus)], Validation, codes, sizes.scored)
    runs = sweep_runs(loaded, settings, together=len(settings))
    results = run_logged(lm, atlas, Validation, runs, "Choosing", folder, progress)
    return summarise(results, settings, num_layers=lm.num_layers)


def _best(swept: Sweep, method: str) -> Chosen[Recipe]:
    """The method's setting that did best, of those in its own direction."""
    number = max(
        (
            n
            for n, one in enumerate(swept.tried)
            if one.recipe.method == method and one.recipe.alpha > 0
        ),
        key=lambda n: swept.tried[n].gain.estimate,
    )
    return swept.choose(number)


def _tell(
    lm: LanguageModel,
    atlas: Atlas,
    corpus: ParallelCorpus,
    chosen: Sequence[Chosen[Recipe]],
    sizes: Sizes,
    folder: Path,
    progress: Progress,
) -> tuple[dict[str, Any], Comparison]:
    """What the settings gain on test sentences, by task and condition, and beyond what their random
    controls do; as data and as it is."""
    runs = reporting_runs(_items(corpus, Test, sizes.judged), chosen, sizes.controls)
    others = own_controls([one.setting for one in chosen[1:]], sizes.controls)
    found_of = [
        run_logged(lm, atlas, Test, some, stage, folder, progress)
        for stage, some in (
            ("Telling", runs),
            ("Telling of controls", [replace(run, conditions=others) for run in runs]),
        )
    ]
    idle = {name: codes for one in found_of for name, codes in one.about["idle"].items()}
    scores = tuple(score for one in found_of for score in one.scores)
    results = Results(scores, {**found_of[0].about, "idle": idle})
    found = compare(results)
    settings = {one.setting.method: _setting(one.setting) for one in chosen}
    data: dict[str, Any] = {}
    for task, metric in found.measures:
        data[task] = {
            name: _told(found.cells(name, task, metric))
            for name in found.conditions
            if found.cells(name, task, metric)
        }
        for name, setting in settings.items():
            beyond = beyond_controls(results, name, task, metric)
            data[task][name] |= {"setting": setting, "beyond": beyond and _mean_of(beyond)}
    return data, found


def _mean_of(mean: Difference) -> dict[str, Any]:
    names = ("before", "after", "gain", "low", "high", "p")
    whole = mean.as_dict()
    return {**_round({name: whole[name] for name in names}), "shown": mean.shown}


def _told(cells: Sequence[Difference]) -> dict[str, Any]:
    """A condition on a task: the mean over languages with its interval, and each language, but for
    random controls."""
    (mean,) = (cell for cell in cells if cell.language == MEAN)
    if mean.condition.startswith(CONTROL):
        return _mean_of(mean)
    return {
        **_mean_of(mean),
        "languages": {
            cell.language: {
                **_round({name: cell.as_dict()[name] for name in ("before", "gain")}),
                "shown": cell.shown,
                "identity": cell.identity,
            }
            for cell in cells
            if cell.language != MEAN
        },
    }


def _forced(method: str, found: Comparison) -> dict[str, Any]:
    """Share of outputs in the language, quality and both, and the controls' share in it."""
    ((task, _), *_) = found.measures
    codes = [code for code in found.languages(task) if code != "mean"]
    controls = [name for name in found.conditions if name.startswith(CONTROL)]

    def cell(name: str, metric: str, code: str) -> dict[str, Any]:
        one = found.get(name, task, metric, code)
        assert one is not None
        low, high = (
            None if isnan(bound) else max(0.0, min(1.0, one.before + bound))
            for bound in (one.gain.low, one.gain.high)
        )
        return _round({"share": one.after, "low": low, "high": high, "unsteered": one.before})

    def told(name: str, metrics: Sequence[str]) -> dict[str, Any]:
        whole = {metric: cell(name, metric, MEAN) for metric in metrics}
        each = {
            code: {metric: cell(name, metric, code)["share"] for metric in metrics}
            for code in codes
        }
        return {"mean": whole, "languages": each}

    metrics = ("language", "quality", "forcing")
    return {
        "steered": told(method, metrics),
        "controls": {name: told(name, metrics) for name in controls},
    }


def _setting(recipe: Recipe) -> dict[str, Any]:
    """The fields that say what was done."""
    names = ("method", "alpha", "beta", "gamma", "source", "k", "layers", "tau")
    default = Recipe()
    fields = {name: getattr(recipe, name) for name in names}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if name in ("method", "alpha") or value != getattr(default, name)
    }


def _round(numbers: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in numbers.items()}


def command_of(model: str, out: str, sizes: Sizes, methods: Sequence[str] = FORCING) -> str:
    """The command that repeats a study of `model`."""
    changed = [
        f" --{name} {value}"
        for name, value in asdict(sizes).items()
        if value != getattr(Sizes(), name)
    ]
    if tuple(methods) != FORCING:
        changed.append(f" --forcing {' '.join(methods)}")
    return f"python -m clas_core.studies real {model} --out {out}" + "".join(changed)


def tell_progress() -> Progress:
    """A line on the error stream whenever a stage begins or a tenth of it is done."""
    told: set[tuple[str, int]] = set()

    def progress(stage: str, done: int, total: int) -> None:
        key = stage, 10 * done // max(1, total)
        if key not in told:
            told.add(key)
            print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)

    return progress
