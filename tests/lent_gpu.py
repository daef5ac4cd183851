"""A stand-in of `spaces.GPU` on ZeroGPU, which runs generators the same way: in a forked process.

As there: the process is forked at a first call and kept for later ones, arguments and results
cross by pickle, a closed generator is told of at its next result, and of an error only the name of
its class comes back, in an error with a title and a message.
"""

from __future__ import annotations

import functools
import inspect
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from typing import Any

_FORK = multiprocessing.get_context("fork")


class LentError(Exception):
    """As gradio.Error."""

    def __init__(self, message: str, title: str) -> None:
        super().__init__(message)
        self.message, self.title = message, title


class LentGPU:
    """`LentGPU()(duration=...)(work)` is `work` in another process; `forks` counts these."""

    def __init__(self, seconds_left: int = 1000) -> None:
        self.forks, self.asked = 0, list[int]()
        self.seconds_left = seconds_left
        self._idle: list[Any] = []

    def __call__(self, *, duration: Callable[..., int]) -> Callable[[Any], Any]:
        def decorate(work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            assert inspect.isgeneratorfunction(work)

            @functools.wraps(work)
            def run(*args: Any) -> Iterator[Any]:
                self.asked.append(duration(*args))
                if self.asked[-1] > self.seconds_left:
                    raise LentError("60s requested vs. 0s left.", "ZeroGPU quota exceeded")
                process, pipe, stop = self._idle.pop() if self._idle else self._fork(work)
                pipe.send_bytes(pickle.dumps(args))
                while True:
                    if not pipe.poll(30):
                        process.kill()
                        raise TimeoutError("the forked process waits for what stayed behind")
                    kind, value = pickle.loads(pipe.recv_bytes())
                    if kind == "end":
                        self._idle.append((process, pipe, stop))
                        return
                    if kind == "error":
                        raise LentError(value, "ZeroGPU worker error")
                    try:
                        yield value
                    except GeneratorExit:
                        stop.set()
                        while pickle.loads(pipe.recv_bytes())[0] != "end":
                            pass
                        self._idle.append((process, pipe, stop))
                        raise

            return run

        return decorate

    def _fork(self, work: Callable[..., Iterator[Any]]) -> tuple[Any, Any, Any]:
        self.forks += 1
        here, there = _FORK.Pipe()
        stop = _FORK.Event()
        process = _FORK.Process(target=_serve, args=(work, there, stop), daemon=True)
        process.start()
        return process, here, stop

    def close(self) -> None:
        """End the processes that wait for calls."""
        for process, _, _ in self._idle:
            process.kill()
            process.join()
        self._idle.clear()


def _serve(work: Callable[..., Iterator[Any]], pipe: Any, stop: Any) -> None:
    while True:
        args = pickle.loads(pipe.recv_bytes())
        stop.clear()
        found = work(*args)
        try:
            for value in found:
                if stop.is_set():
                    found.close()  # type: ignore[attr-defined]
                    break
                pipe.send_bytes(pickle.dumps(("value", value)))
        except Exception as error:
            pipe.send_bytes(pickle.dumps(("error", type(error).__name__)))
            return
        pipe.send_bytes(pickle.dumps(("end", None)))
