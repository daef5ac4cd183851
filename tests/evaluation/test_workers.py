"""Processes find what one process finds."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import isolation
import pytest
from small_tasks import check, flat, small_runs

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.engine import run_tasks
from clas_core.evaluation.judging.items import Validation
from clas_core.evaluation.judging.results import Log, collect, describe
from clas_core.evaluation.judging.workers import WorkerSetup, run_in_processes
from clas_core.steering.recipe import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny_lm, tokenizer, tiny_corpus):
    folder = tmp_path_factory.mktemp("model")
    tiny_lm.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return WorkerSetup(Recipe(model=str(folder)), Atlas.measure(tiny_lm, tiny_corpus))


@pytest.fixture(scope="module")
def runs():
    return small_runs()


def test_processes(source, runs, tiny_lm):
    seen = []
    found = flat(run_in_processes(source, runs, 2, lambda *done: seen.append(done)))
    check(found, flat(run_tasks(tiny_lm, source.atlas, runs)))
    assert seen[-1] == (24, 24)


def test_stopping_early(source, runs):
    """Closing the iterator ends the processes, and doesn't wait for all the job."""
    running = run_in_processes(source, runs, 2)
    assert next(running)
    running.close()


def test_a_killed_worker_harms_nobody_else(source, runs, tiny_lm, tmp_path):
    """Visitors generate meanwhile; what was measured is kept, and another try goes on from it."""
    path, about = tmp_path / "log", describe(tiny_lm, source.atlas, Validation, runs)
    log, killed, over = Log(path, Validation, about), threading.Event(), threading.Event()

    def kill(*_):
        if log.scores and not killed.is_set():
            for child in multiprocessing.active_children():  # one alone may have nothing left to do
                os.kill(child.pid, signal.SIGKILL)
            killed.set()

    def visit():
        found = []
        while not over.is_set():
            found.append(isolation.simulate(50, 10))
        return found

    with ThreadPoolExecutor(1) as pool:
        crowds = pool.submit(visit)
        try:
            with pytest.raises(ClasError, match="A worker process was ended"):
                for _ in collect(log, run_in_processes(source, runs, 2, kill)):
                    pass
        finally:
            over.set()
        assert all(crowd["finished"] and not crowd["different"] for crowd in crowds.result())
    assert not multiprocessing.active_children()
    log = Log(path, Validation, about)
    left = log.unfinished(runs)
    assert 0 < len(left) < len(runs)
    for _ in collect(log, run_in_processes(source, left, 2)):
        pass
    check(flat([log.results(runs).scores]), flat(run_tasks(tiny_lm, source.atlas, runs)))


def test_a_refusal_in_a_worker_arrives(source, runs):
    with pytest.raises(ClasError, match="no directory"):
        list(run_in_processes(WorkerSetup(Recipe(model="/nowhere"), source.atlas), runs, 2))


def test_no_worker_is_refused(source, runs):
    with pytest.raises(ClasError, match="at least one worker"):
        list(run_in_processes(source, runs, 0))


def test_nothing_left_to_do_is_no_work(source):
    assert list(run_in_processes(source, [], 2)) == []
