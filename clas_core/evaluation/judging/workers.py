"""Jobs spread over processes of this machine, or over a cluster by Ray (extra `ray`).

A worker opens the model once and then does one job after the other. Results don't depend
on who did what.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch

from ...atlas.atlas import Atlas
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...model.loading import load
from ...running.batch import Progress
from ...steering.recipe import Recipe
from .engine import ConditionScores, Job, TaskRun, predict, run_tasks
from .items import Split

S = TypeVar("S", bound=Split)
Answers = Iterator[tuple[int, list[Any]]]  # which job, and its predictions


@dataclass(frozen=True, eq=False)
class WorkerSetup:
    """A model as workers open it, and the atlas that its plans are made from."""

    recipe: Recipe  # its model, revision and dtype
    atlas: Atlas

    def open(self) -> LanguageModel:
        """The model, loaded in this process. Raises ClasError if it can't be."""
        return load(self.recipe.model, dtype=self.recipe.dtype, revision=self.recipe.revision)


def run_in_processes(
    setup: WorkerSetup,
    runs: Sequence[TaskRun[S]],
    workers: int,
    progress: Progress | None = None,
    *,
    cluster: bool = False,
) -> Iterator[tuple[ConditionScores[S], ...]]:
    """As `engine.run_tasks`, with `workers` processes; `cluster`: placed by Ray, wherever it runs.

    Runs come as they are done, in any order. Raises ClasError if Ray is wanted and missing.
    """
    if workers < 1:
        raise ClasError(f"Take at least one worker, not {workers}.")
    if workers == 1 and not cluster:
        yield from run_tasks(setup.open(), setup.atlas, runs, progress)
        return
    jobs = [(number, job) for number, run in enumerate(runs) for job in run.jobs]
    if not jobs:  # all of it is done already
        return
    spread = _by_ray if cluster else _by_processes
    waiting: list[dict[int, list[Any]]] = [{} for _ in runs]
    done, total = 0, sum(len(run.items) for run in runs)
    for place, predictions in spread(setup, [job for _, job in jobs], workers):
        number, job = jobs[place]
        waiting[number][place] = predictions
        done += len(job.items)
        if progress:
            progress(done, total)
        if len(waiting[number]) == len(runs[number].jobs):
            yield runs[number].score([waiting[number][k] for k in sorted(waiting[number])])


class _Worker:
    """A process's own model, opened by its first job, so that a refusal comes back as one."""

    def __init__(self, setup: WorkerSetup, threads: int) -> None:
        torch.set_num_threads(threads)
        self._setup = setup
        self._lm: LanguageModel | None = None

    def do(self, place: int, job: Job) -> tuple[int, list[Any]]:
        if self._lm is None:
            self._lm = self._setup.open()
        return place, predict(self._lm, self._setup.atlas, job)


_worker: _Worker | None = None  # this process's, once it is one


def _begin(setup: WorkerSetup, threads: int) -> None:
    global _worker
    _worker = _Worker(setup, threads)


def _do(place: int, job: Job) -> tuple[int, list[Any]]:
    assert _worker is not None
    return _worker.do(place, job)


def _by_processes(setup: WorkerSetup, jobs: Sequence[Job], workers: int) -> Answers:
    workers = min(workers, len(jobs))
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (setup, threads))
    try:
        # Only a few at a time are handed out, so that stopping doesn't wait for the rest.
        queue = iter(enumerate(jobs))
        under_way: set[Future[tuple[int, list[Any]]]] = set()
        while True:
            under_way |= {
                pool.submit(_do, *job) for job in islice(queue, workers + 1 - len(under_way))
            }
            if not under_way:
                return
            finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    except BrokenProcessPool as error:
        raise ClasError(
            "A worker process was ended, perhaps for lack of memory: take fewer workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _by_ray(setup: WorkerSetup, jobs: Sequence[Job], workers: int) -> Answers:
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        raise ClasError(
            'A cluster is reached through Ray, which isn\'t here: pip install "clas-studio[ray]".'
        ) from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    gpus = 1 if torch.cuda.is_available() else 0
    actor = ray.remote(num_cpus=1, num_gpus=gpus)(_Worker)
    shared = ray.put(setup)
    pool = ActorPool([actor.remote(shared, 1) for _ in range(min(workers, len(jobs)))])
    yield from pool.map_unordered(lambda worker, job: worker.do.remote(*job), list(enumerate(jobs)))
