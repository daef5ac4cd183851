"""Equal requests are answered once, whoever stops or fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from clas_core.ui.behind.answered import Answered
from clas_core.ui.behind.kept import Kept

SOON = 60


class Owner:
    """Whoever keeps something."""


@pytest.fixture
def answered():
    owner = Owner()
    yield Answered(Kept(10_000).share(owner))
    del owner


def view(state, text=""):
    return {"state": state, "panes": [{"text": text, "writing": state == "running"}]}


class Slow:
    """An answer that goes on when it is told to; counts how often it was begun."""

    def __init__(self, end="done"):
        self.begun, self.end, self.go_on = 0, end, threading.Event()
        self.came = threading.Event()

    def __call__(self):
        self.begun += 1
        yield view("running", "a")
        self.came.set()
        assert self.go_on.wait(SOON)
        yield view(self.end, "ab")


def ask(answered, make, stop=None, key="k"):
    return list(answered.views(key, make, stop or threading.Event()))


def test_who_asks_for_the_same_looks_on(answered):
    slow = Slow()
    with ThreadPoolExecutor(5) as visitors:
        first = visitors.submit(ask, answered, slow)
        assert slow.came.wait(SOON)
        rest = [visitors.submit(ask, answered, slow) for _ in range(4)]
        other = ask(answered, lambda: iter([view("done", "other")]), key="other")
        assert other == [view("done", "other")]
        slow.go_on.set()
        assert first.result(SOON) == [view("running", "a"), view("done", "ab")]
        assert all(one.result(SOON)[-1] == view("done", "ab") for one in rest)
    assert slow.begun == 1
    assert ask(answered, slow) == [view("done", "ab")]
    assert slow.begun == 1


def test_who_looks_on_stops_alone(answered):
    slow, stop = Slow(), threading.Event()
    with ThreadPoolExecutor(2) as visitors:
        first = visitors.submit(ask, answered, slow)
        assert slow.came.wait(SOON)
        watching = answered.views("k", slow, stop)
        assert next(watching) == view("running", "a")
        stop.set()
        assert list(watching)[-1] == view("stopped", "a")
        slow.go_on.set()
        assert first.result(SOON)[-1] == view("done", "ab")


def test_one_s_stop_is_nobody_else_s(answered):
    """What another stopped, or what failed for them, is made anew."""
    stopped = Slow(end="stopped")
    with ThreadPoolExecutor(2) as visitors:
        first = visitors.submit(ask, answered, stopped)
        assert stopped.came.wait(SOON)
        second = visitors.submit(ask, answered, lambda: iter([view("done", "mine")]))
        stopped.go_on.set()
        assert first.result(SOON)[-1]["state"] == "stopped"
        assert second.result(SOON)[-1] == view("done", "mine")

    def fails():
        yield view("running")
        raise ValueError("at all")

    with pytest.raises(ValueError, match="at all"):
        ask(answered, fails, key="x")
    left = answered.views("x", Slow(), threading.Event())
    next(left)
    left.close()
    assert ask(answered, lambda: iter([view("done")]), key="x") == [view("done")]
