"""Where a call that runs a model runs: in this process, or in one that is forked for it.

On a place whose GPU belongs to nobody for long (ZeroGPU of Hugging Face), a model's weights are on
it only inside of a process that is forked for a call, or for several calls one after another, and
was so before this process knew what it knows now. A call therefore brings all that it needs, by
value: the choice, the recipe, a plan. The models alone are found where the fork left them. No lock,
event, thread or cache of this process is used there: a studio is made anew. Results, progress and
errors come back as values, and Stop goes there as a file. (Values cross pickled, in memory, between
two processes of this one program: no file is ever read so.)

Whatever runs a model for the page goes through `Calls`, so that this is all there is to know of it.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch

from ...atlas.atlas import Atlas
from ...atlas.cache import measure_cached
from ...errors import ClasError
from ...model.architecture import LanguageModel
from .choice import Choice
from .profile import Profile

Work = Callable[..., Iterator[Any]]  # work(studio or lm, *arguments, tell=, stop=), of a module
Tell = Callable[[int, int], None]  # done, total
GPU = Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]  # spaces.GPU
T = TypeVar("T")


class Calls:
    """Calls run here, on the models that are in this process."""

    forks = False

    def __call__(
        self,
        work: Work,
        of: Any,
        *arguments: Any,
        tell: Tell | None = None,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """What `work` yields about a studio, or a model.

        `tell(done, total)` hears how far it is, and may raise to end it; so does `stop`. Raises
        ClasError as `work` does.
        """
        tell, stop = tell or _nothing, stop or threading.Event()
        return work(of, *arguments, tell=tell, stop=stop, **options)

    def model(self, choice: Choice, load: Callable[[Choice], LanguageModel]) -> LanguageModel:
        """The model of a choice that is open nowhere yet. Raises ClasError if it can't be had."""
        return load(choice)


def only(found: Iterator[T]) -> T:
    """The one result of a call."""
    (result,) = found
    return result


class Forked(Calls):
    """Calls run in a process that `gpu`, as `spaces.GPU`, forks for them.

    `models`: all that there are, ready on the device before the first fork. `seconds`: what a call
    asks for, whatever it takes.
    """

    forks = True

    def __init__(self, gpu: GPU, models: dict[tuple[str, str | None], LanguageModel]) -> None:
        self._there = gpu(duration=_seconds_of)(_run_there)
        self._models = models
        _models.update(models)

    def __call__(
        self,
        work: Work,
        of: Any,
        *arguments: Any,
        tell: Tell | None = None,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """As in `Calls`, from afar."""
        packed = pickle.dumps((work, self._named(of), arguments, options))
        with _flag(stop or threading.Event()) as (flag, stopped):
            found = self._there(packed, flag, SECONDS.get(work.__name__, MOST))
            try:
                for kind, value in map(pickle.loads, _in_words(found)):
                    if kind == "error":
                        raise ClasError(value)
                    if kind == "value":
                        yield value
                    elif tell is not None:
                        tell(*value)
            finally:
                stopped()  # first, as closing may wait for the other process
                found.close()

    def model(self, choice: Choice, load: Callable[[Choice], LanguageModel]) -> LanguageModel:
        """One of those that were ready from the start: no other gets onto the device."""
        return _model_of((choice.model, choice.revision))

    def _named(self, of: Any) -> _Named:
        """What stands for a studio or a model over there."""
        if isinstance(of, LanguageModel):
            key = next(key for key, lm in self._models.items() if lm is of)
            return _Named(key)
        _studios[of.key] = of  # a fork that is yet to come finds it
        choice = of.choice
        return _Named(
            (choice.model, choice.revision),
            type(of),
            choice,
            of.profile,
            of.neurons,
            of.atlas if choice.published else None,
            len(of.mapper.corpus),
        )


MOST = 120  # seconds
SECONDS = {"steering": 25, "writing": 25, "reading": 25, "peaking": 25, "measuring": 100}


@dataclass(frozen=True)
class _Named:
    model: tuple[str, str | None]
    kind: Callable[..., Any] | None = None  # Studio
    choice: Choice | None = None
    profile: Profile | None = None
    neurons: Any = None
    atlas: Atlas | None = None  # where it isn't as measured
    map_sentences: int = 0

    def made(self) -> Any:
        """The studio, anew, or the model. In the forked process."""
        lm = _model_of(self.model)
        if self.choice is None or self.kind is None:
            return lm
        known = _studios.get(self.choice.key)
        atlas = self.atlas or (known.atlas if known else None)
        return self.kind(
            lm,
            self.choice,
            atlas or measure_cached(lm, self.choice.corpus),
            profile=self.profile,
            neurons=self.neurons,
            map_sentences=self.map_sentences,
            stored=known.stored if known else None,
            examples=known.examples if known else None,
        )


_models: dict[tuple[str, str | None], LanguageModel] = {}
_studios: WeakValueDictionary[str, Any] = WeakValueDictionary()
_HOME = os.getpid()  # of whoever forks


def _model_of(key: tuple[str, str | None]) -> LanguageModel:
    if key not in _models:
        raise ClasError(f"{key[0]} is not one of this page's models: {_listed()}.")
    return _models[key]


def _listed() -> str:
    return "choose " + " or ".join(sorted(name for name, _ in _models))


def _seconds_of(packed: bytes, flag: str, seconds: int) -> int:
    return seconds


def _run_there(packed: bytes, flag: str, seconds: int) -> Iterator[bytes]:
    """Run a call in the process that was forked for it, or in this one where nothing forks."""
    if os.getpid() != _HOME:
        torch.set_num_threads(1)  # threads of OpenMP don't outlive a fork: more would wait forever
    items: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    stop = _Flag(flag)
    left = threading.Event()

    def tell(done: int, total: int) -> None:
        if left.is_set() or stop.is_set():
            raise _Ended
        items.put(("told", (done, total)))

    def run() -> None:
        try:
            work, named, arguments, options = pickle.loads(packed)
            for value in work(named.made(), *arguments, tell=tell, stop=stop, **options):
                if left.is_set():
                    break
                items.put(("value", value))
        except _Ended:
            pass
        except ClasError as error:
            items.put(("error", str(error)))
        except BaseException as error:
            items.put(("failed", error))
        finally:
            items.put(("end", None))

    # A thread, so that progress is told while there is no result yet.
    thread = threading.Thread(target=copy_context().run, args=(run,), daemon=True)
    thread.start()
    try:
        while (item := items.get())[0] != "end":
            if item[0] == "failed":
                raise item[1]
            yield pickle.dumps(item)
    finally:
        left.set()
        thread.join()


class _Ended(BaseException):
    """Nobody waits for it any more."""


def _in_words(found: Iterator[T]) -> Iterator[T]:
    """What the place itself refuses (no seconds left, a call that took too long) as a sentence."""
    try:
        yield from found
    except Exception as error:
        said = str(getattr(error, "message", ""))  # a gradio.Error's
        if not said or isinstance(error, ClasError):
            raise
        title = str(getattr(error, "title", "") or "The GPU")
        raise ClasError(f"{title}: {said.rstrip('.')}.") from error


class _Flag(threading.Event):
    """An event that another process sets by making a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def is_set(self) -> bool:
        """Whether the file is there."""
        return super().is_set() or os.path.exists(self._path)

    def wait(self, timeout: float | None = None) -> bool:
        """Look for the file every twentieth of a second."""
        waited = 0.0
        while not self.is_set() and (timeout is None or waited < timeout):
            super().wait(0.05)
            waited += 0.05
        return self.is_set()


@contextmanager
def _flag(stop: threading.Event) -> Iterator[tuple[str, Callable[[], None]]]:
    """A path at which a file appears once `stop` is set, and what makes it appear at once."""
    with tempfile.TemporaryDirectory(prefix="clas-call-", ignore_cleanup_errors=True) as folder:
        path, over = Path(folder) / "stop", threading.Event()

        def appear() -> None:
            with suppress(OSError):
                path.touch()

        def watch() -> None:
            while not over.is_set():
                if stop.wait(0.05):
                    appear()
                    return

        if stop.is_set():
            appear()
        else:
            threading.Thread(target=watch, name="watch-stop", daemon=True).start()
        try:
            yield str(path), appear
        finally:
            over.set()


def _nothing(done: int, total: int) -> None:
    """Nobody listens."""
