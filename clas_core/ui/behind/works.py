"""What the page runs a model for, each a whole call that `Calls` takes; panes are in `surprise`.

A work takes a studio, or a model, and plain values; it tells how far it is, ends at `stop`, and
yields what came of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ...atlas.atlas import Atlas
from ...atlas.cache import measure_cached
from ...evaluation.judging.conditions import Condition
from ...evaluation.judging.engine import TaskRun, run_tasks
from ...evaluation.judging.finding import Shift, measure_shifts
from ...model.architecture import LanguageModel
from ...running.states import HiddenStates, hidden_states
from ...steering.plan import SteeringPlan
from ...text.corpus import ParallelCorpus
from .calls import Tell
from .firing import peaks


def measuring(
    lm: LanguageModel, corpus: ParallelCorpus, *, tell: Tell, stop: threading.Event
) -> Iterator[Atlas]:
    """The atlas of a model and a text, kept for another day."""
    yield measure_cached(lm, corpus, progress=tell)


def reading(
    studio: Any, plan: SteeringPlan | None, layer: int | None, *, tell: Tell, stop: threading.Event
) -> Iterator[HiddenStates | Tensor]:
    """The map's sentences as the model holds them under `plan`: at a layer, or (None) at all."""
    found = hidden_states(studio.lm, studio.mapper.corpus, plan, progress=tell)
    yield found if layer is None else found.at(layer)


def peaking(studio: Any, layer: int, *, tell: Tell, stop: threading.Event) -> Iterator[Tensor]:
    """The highest value of a layer's neurons in each of the map's sentences."""
    yield peaks(studio.lm, studio.mapper.texts, layer)


def judging(
    studio: Any, runs: Sequence[TaskRun[Any]], *, tell: Tell, stop: threading.Event
) -> Iterator[Any]:
    """Each run's scores, as they are done."""
    yield from run_tasks(studio.lm, studio.atlas, runs, tell)


def shifting(
    studio: Any,
    conditions: Sequence[Condition],
    languages: Sequence[str],
    *,
    tell: Tell,
    stop: threading.Event,
) -> Iterator[list[Shift]]:
    """How far the languages of the studio's text move under each condition."""
    yield measure_shifts(
        studio.lm, studio.atlas, conditions, studio.choice.corpus, languages, progress=tell
    )
