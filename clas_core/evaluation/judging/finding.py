"""The paper's finding, put to the test: do gains go with languages drawing apart?

Over languages and settings, the change of a language's separation in the original space is set
against its gain on a task; and against the change of its retrieval, so that languages that take up
functions of their own can be told from languages that lose their meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import silhouette_samples
from torch import Tensor

from ...atlas.atlas import Atlas
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...running.batch import Progress
from ...running.separation import separation_of
from ...running.states import BridgeCache
from ...steering.plan import SteeringPlan
from ...steering.where import ALL
from ...text.corpus import ParallelCorpus
from .comparison import Comparison
from .conditions import Condition
from .engine import ANCHOR
from .results import main_measures
from .statistics import Interval, spearman

SENTENCES = 60  # a language
FEWEST = 4  # languages


@dataclass(frozen=True)
class Shift:
    """What a condition's plan for a language does to its sentences, at the last layer.

    separation: change of their mean silhouette among all languages' (cosine, original space).
    retrieval: change of the share of them that find their translation in the anchor language.
    """

    condition: str
    language: str
    separation: float
    retrieval: float


@dataclass(frozen=True)
class Point:
    """A language under a condition: how far it moved, and what it gained (more is better)."""

    condition: str
    language: str
    separation: float
    retrieval: float
    gain: float


@dataclass(frozen=True)
class Finding:
    """Spearman's rho over the points, with an interval that takes languages whole.

    gain: of separation and task gain, the paper's claim if positive. retrieval: of separation and
    retrieval; strongly negative where languages only fall apart.
    """

    task: str
    metric: str
    points: tuple[Point, ...]
    gain: Interval
    retrieval: Interval

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        rhos = {"gain": self.gain.as_dict(), "retrieval": self.retrieval.as_dict()}
        return {**vars(self), "points": [asdict(point) for point in self.points], **rhos}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Finding:
        """What `as_dict` gave. Raises KeyError or TypeError for anything else."""
        points = tuple(Point(**point) for point in data["points"])
        gain, retrieval = (Interval.from_dict(data[name]) for name in ("gain", "retrieval"))
        return Finding(data["task"], data["metric"], points, gain, retrieval)


def measure_shifts(
    lm: LanguageModel,
    atlas: Atlas,
    conditions: Sequence[Condition],
    corpus: ParallelCorpus,
    languages: Collection[str] | None = None,
    *,
    anchor: str = ANCHOR,
    sentences: int = SENTENCES,
    progress: Progress | None = None,
) -> list[Shift]:
    """Every steered condition's shift of each of `languages` (default all) but the anchor; random
    controls are left out, and plans for a part of a text, which a sentence alone has not.

    Separation is always among all languages that corpus and atlas share. `progress` counts plans.
    Raises ClasError if these lack the anchor or have no other language.
    """
    codes = [code for code in corpus.languages if code in atlas.languages]
    if anchor not in codes or len(codes) < 2:
        raise ClasError(
            f"Separation needs parallel text in {anchor!r} and another language: "
            "choose a corpus that has both."
        )
    corpus = corpus.subset(codes, min(sentences, len(corpus)))
    targets = [c for c in codes if c != anchor and (languages is None or c in languages)]
    plans = {
        (condition.name, code): plan
        for condition in conditions
        if condition.control is None
        for code in targets
        if (plan := condition.plan(atlas, code)) is not None and not plan.is_identity
        if plan.where == ALL
    }
    if not plans:
        return []
    cache = BridgeCache(lm, corpus, min(min(plan.layers) for plan in plans.values()))
    states = cache.unsteered
    before = _places(states.at(-1), states.labels, states.groups, anchor)
    known: dict[str, _Places] = {}
    found = []
    for done, ((name, code), plan) in enumerate(plans.items(), start=1):
        key = fingerprint_plan(plan)
        if key not in known:
            known[key] = _places(cache.states(plan), states.labels, states.groups, anchor)
        moved = known[key].minus(before, code)
        found.append(Shift(name, code, *moved))
        if progress:
            progress(done, len(plans))
    return found


def find(comparison: Comparison, shifts: Sequence[Shift], task: str, metric: str) -> Finding | None:
    """Set shifts against gains on a task; None for fewer than 4 languages, of which no interval
    can be told.

    rho is NaN where nothing moved or nothing gained.
    """
    points = []
    for shift in shifts:
        difference = comparison.get(shift.condition, task, metric, shift.language)
        if difference is not None:
            points.append(Point(**vars(shift), gain=difference.better))
    groups = [point.language for point in points]
    if len(set(groups)) < FEWEST:
        return None
    separation = [point.separation for point in points]

    def rho(values: Sequence[float]) -> Interval:
        return spearman(separation, values, groups=groups)

    return Finding(
        task,
        metric,
        tuple(points),
        gain=rho([point.gain for point in points]),
        retrieval=rho([point.retrieval for point in points]),
    )


def find_all(comparison: Comparison, shifts: Sequence[Shift]) -> list[Finding]:
    """`find` on each task's main metric, where it tells something."""
    found = (find(comparison, shifts, *m) for m in main_measures(comparison.measures))
    return [finding for finding in found if finding is not None]


@dataclass(frozen=True)
class _Places:
    """Of each language: mean silhouette, and share of sentences that find their translation."""

    silhouette: Mapping[str, float]
    retrieval: Mapping[str, float]

    def minus(self, other: _Places, language: str) -> tuple[float, float]:
        return (
            self.silhouette[language] - other.silhouette[language],
            self.retrieval[language] - other.retrieval[language],
        )


def _places(pooled: Tensor, labels: Sequence[str], groups: Sequence[int], anchor: str) -> _Places:
    silhouettes = silhouette_samples(pooled.double().numpy(), labels, metric="cosine")
    owner = np.array(labels)
    return _Places(
        {code: float(silhouettes[owner == code].mean()) for code in dict.fromkeys(labels)},
        separation_of(pooled, labels, groups, anchor).retrieval,
    )


def fingerprint_plan(plan: SteeringPlan) -> str:
    """Equal for plans with the same numbers, as CLAS's often are for all languages."""
    digest = hashlib.sha256(b"" if plan.where == ALL else plan.where.encode())
    for index, layer in plan.layers.items():
        for part in ("scale", "bias", "shift"):
            tensor = getattr(layer, part)
            digest.update(f"{index}.{part}".encode())
            if tensor is not None:
                digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
