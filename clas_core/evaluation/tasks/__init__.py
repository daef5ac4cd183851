"""The tasks there are, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ...errors import ClasError
from ...text.corpus import ParallelCorpus
from ..judging.items import Task
from .belebele import Belebele
from .forcing import Forcing, VillageForcing
from .parallel import BitsPerByte, Fidelity, Retrieval
from .village import VillageNLI, VillageQA, VillageRecall
from .wrappers import FewShot, Likelihood, by_likelihood
from .xcopa import XCOPA
from .xnli import XNLI
from .xquad import XQuAD

__all__ = ["KINDS", "FewShot", "Likelihood", "TaskKind", "by_likelihood", "open_task"]


@dataclass(frozen=True)
class TaskKind:
    """`needs`: nothing, parallel text, or the benchmark's published files (or "hub")."""

    make: Any
    needs: Literal["nothing", "corpus", "files"]
    about: str


KINDS: Mapping[str, TaskKind] = {
    "village-nli": TaskKind(VillageNLI, "nothing", "does a statement follow from a story?"),
    "village-qa": TaskKind(VillageQA, "nothing", "a question about a story"),
    "village-recall": TaskKind(VillageRecall, "nothing", "a fact that English alone tells"),
    "village-known": TaskKind(
        partial(VillageRecall, "village-known", everywhere=True),
        "nothing",
        "a fact that every language tells",
    ),
    "village-forcing": TaskKind(
        VillageForcing, "nothing", "does it go on in the language from English words?"
    ),
    "village-from-nothing": TaskKind(
        partial(VillageForcing, "village-from-nothing", nothing=True),
        "nothing",
        "does it write in the language without a prompt?",
    ),
    "retrieval": TaskKind(Retrieval, "corpus", "is the translation the nearest sentence?"),
    "bits-per-byte": TaskKind(BitsPerByte, "corpus", "how well text is predicted"),
    "fidelity": TaskKind(Fidelity, "corpus", "does the model stay in the language?"),
    "forcing": TaskKind(Forcing, "corpus", "does it go on in the language from English words?"),
    "from-nothing": TaskKind(
        partial(Forcing, name="from-nothing", nothing=True),
        "corpus",
        "does it write in the language without a prompt?",
    ),
    "xnli": TaskKind(XNLI, "files", "does a hypothesis follow from a premise?"),
    "xquad": TaskKind(XQuAD, "files", "a question on a paragraph"),
    "xcopa": TaskKind(XCOPA, "files", "which is the cause, or the effect?"),
    "belebele": TaskKind(Belebele, "files", "a question on a passage, four choices"),
}


def open_task(name: str, source: str | None = None, *, shots: int = 0) -> Task:
    """The task `name` of `KINDS`, after `shots` examples.

    `source`: for a task on parallel text what `ParallelCorpus.open` takes (default: the village's),
    for a benchmark a folder with its files, "hub", or "hub:owner/name" for a copy there. Raises
    ClasError for an unknown task, and for a source that is missing or of no use.
    """
    if name not in KINDS:
        raise ClasError(f"There is no task {name[:40]!r}; there are {', '.join(KINDS)}.")
    kind = KINDS[name]
    if kind.needs == "nothing":
        if source is not None:
            raise ClasError(f"{name} brings its own items: leave the source out.")
        task = kind.make()
    elif kind.needs == "corpus":
        task = kind.make(ParallelCorpus.open(source or "village"))
    elif source is None:
        raise ClasError(f"{name} needs its files: name their folder, or hub to fetch them.")
    else:
        task = kind.make(source)
    return FewShot(task, shots) if shots else task
