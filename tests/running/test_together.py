"""Work of several threads in one go: each gets its own result, or the error that is its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from clas_core.running.together import Together

SOON = 60


def test_what_waits_is_done_in_one_go() -> None:
    begun, go_on = threading.Event(), threading.Event()
    batches = []

    def work(asked):
        batches.append(list(asked))
        begun.set()
        assert go_on.wait(SOON)
        return [2 * one for one in asked]

    call = Together(work, most=4)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(call, 0)
        assert begun.wait(SOON)
        rest = [threads.submit(call, k) for k in range(1, 8)]
        while len(call._waiting) < 7:
            pass
        go_on.set()
        assert [one.result(SOON) for one in (first, *rest)] == [2 * k for k in range(8)]
    assert [len(batch) for batch in batches] == [1, 4, 3]
    assert sorted(one for batch in batches for one in batch) == list(range(8))


def test_an_error_is_of_the_one_whose_fault_it_is() -> None:
    def work(asked):
        return [1 / one for one in asked]

    call = Together(work)
    call._turn.acquire()
    with ThreadPoolExecutor(3) as threads:
        found = [threads.submit(call, one) for one in (1, 0, 2)]
        while len(call._waiting) < 3:
            pass
        call._turn.release()
        assert [found[0].result(SOON), found[2].result(SOON)] == [1.0, 0.5]
        with pytest.raises(ZeroDivisionError):
            found[1].result(SOON)
