"""Runs of a study, whose scores are kept on disk as they are found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..atlas.atlas import Atlas
from ..evaluation.judging.engine import TaskRun, run_tasks
from ..evaluation.judging.items import Split
from ..evaluation.judging.results import Log, Results, collect, describe
from ..model.architecture import LanguageModel

S = TypeVar("S", bound=Split)
Progress = Callable[[str, int, int], None]  # stage, items done, items in all


def run_logged(
    lm: LanguageModel,
    atlas: Atlas,
    split: type[S],
    runs: Sequence[TaskRun[S]],
    stage: str,
    folder: Path | None,
    progress: Progress,
) -> Results[S]:
    """The runs' scores. What `folder` has of them isn't measured again; None keeps nothing.

    Raises ClasError if it holds this stage of another model, text or other settings.
    """

    def tell(done: int, total: int) -> None:
        progress(stage, done, total)

    about = describe(lm, atlas, split, runs)
    if folder is None:
        found = [one for some in run_tasks(lm, atlas, runs, tell) for one in some]
        return Results(tuple(found), about)
    log = Log(folder / f"{stage}.jsonl", split, about)
    for _ in collect(log, run_tasks(lm, atlas, log.unfinished(runs), tell)):
        pass
    return log.results(runs)
