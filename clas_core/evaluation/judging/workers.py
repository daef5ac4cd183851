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
from uuid import uuid4

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
RETRIES = 3  # of a job whose process or node dies under it, on a cluster


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
_sweep = ""  # what it works for, where Ray lets it go on with another one


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
    """Tasks of Ray rather than actors: what a node or a process takes along with it is done again
    elsewhere, those that find no free processor wait, and a node that joins gets its share."""
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise ClasError(
            'A cluster is reached through Ray, which isn\'t here: pip install "clas-studio[ray]".'
        ) from error
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False)
        except (ConnectionError, RuntimeError) as error:  # nobody there; another Python or Ray
            said = str(error).strip().partition("\n")[0].rstrip(".")
            raise ClasError(f"Ray's cluster can't be reached ({said}).") from error
    # Of the cluster, not of this machine. After a GPU's task a process would end, and its model.
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    do = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, max_calls=0)(_do_there)
    sweep, shared = uuid4().hex, [ray.put(setup)]  # in a list, so that each process reads it once
    queue = iter(enumerate(jobs))
    under_way: list[Any] = []
    try:
        while True:
            more = islice(queue, workers - len(under_way))
            under_way += [do.remote(sweep, shared, *job) for job in more]
            if not under_way:
                return
            finished, under_way = ray.wait(under_way)
            yield from ray.get(finished)
    except RayTaskError as error:
        if isinstance(error.cause, ClasError):  # as it was said, without the traceback of there
            raise ClasError(str(error.cause)) from None
        if isinstance(error.cause, ImportError):
            raise ClasError(
                f"A machine of the cluster lacks what this one has ({error.cause}): install the "
                "same clas-studio on all of them."
            ) from error
        raise
    except RayError as error:
        raise ClasError(
            f"A job's process ended again and again ({type(error).__name__}), perhaps for lack of "
            "memory: take fewer workers. What was scored is kept where there is a log."
        ) from error
    finally:
        for one in under_way:
            ray.cancel(one, force=True)


def _do_there(sweep: str, shared: list[Any], place: int, job: Job) -> tuple[int, list[Any]]:
    """A job, in a process of Ray's, which keeps the model of the `sweep` that it is working for."""
    global _worker, _sweep
    if _worker is None or _sweep != sweep:
        import ray

        _worker, _sweep = None, sweep  # one model at a time
        _worker = _Worker(ray.get(shared[0]), 1)
    return _worker.do(place, job)
