"""The models that are open, shared by all visitors; each visitor holds the key of their own."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import replace
from functools import partial

import torch

from ...atlas.atlas import Atlas
from ...atlas.cache import find_cached, measure_cached
from ...atlas.preflight import inspect
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...model.loading import load
from ...model.sources import check_allowed
from ...text.corpus import ParallelCorpus
from .calls import Tell, only
from .choice import Choice
from .kept import nbytes_of
from .mapper import affordable
from .studio import Studio
from .threads import run_behind
from .works import measuring


class Cancelled(ClasError):
    """Nobody waits for it any more."""


class Job:
    """A model on its way to the shelf. Several visitors may wait for the same one."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.result: Future[Studio] = Future()
        self.stage = "Waiting for another model to be opened"
        self.done, self.total = 0, 0  # sentences measured
        self.visitors = 0
        self._cancelled = threading.Event()
        self._begun = 0.0

    def cancel(self) -> None:
        """Ask the job to end at its next `check`."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise Cancelled if someone asked for an end."""
        if self._cancelled.is_set():
            raise Cancelled("Cancelled: nothing was changed.")

    def progress(self, done: int, total: int) -> None:
        """Note that `done` of `total` sentences are measured."""
        if not self._begun:
            self._begun = time.monotonic()
        self.done, self.total = done, total

    @property
    def seconds_left(self) -> float | None:
        """From the sentences so far; None before it can be told."""
        passed = time.monotonic() - self._begun
        if not self._begun or not self.done or passed < 1:
            return None
        return passed / self.done * (self.total - self.done)


class Shelf:
    """Studios by key. The first one always stays; of the others, those least recently used go.

    How many and how large is the profile's say. A model is loaded once for all texts that it is
    measured on, and a choice once for all visitors who ask at the same time.
    """

    def __init__(self, first: Studio) -> None:
        self.first = first
        self.profile = first.profile
        self._studios: OrderedDict[str, Studio] = OrderedDict()  # the last used one stands last
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()  # round the two above
        self._heavy = threading.Lock()  # one model at a time is loaded or measured

    def get(self, key: object) -> Studio:
        """The studio of a visitor's key. Raises ClasError if it had to make room."""
        if key == self.first.key:
            return self.first
        with self._lock:
            if not isinstance(key, str) or key not in self._studios:
                raise ClasError(
                    "Your model made room for others: open it again in the Model tab. What was "
                    "measured is kept."
                )
            self._studios.move_to_end(key)
            return self._studios[key]

    @property
    def studios(self) -> list[Studio]:
        """All that are open, the first one first and then the last used ones."""
        with self._lock:
            return [self.first, *reversed(self._studios.values())]

    def check(self, model: str, revision: str | None = None) -> str | None:
        """The revision of a model to open for a visitor who asks for this one, or for any (None).

        Raises ClasError if visitors may not open it here.
        """
        first = self.first.choice
        if model == first.model and revision in (None, first.revision, self.first.lm.revision):
            return first.revision
        return check_allowed(model, self.profile.models, revision)

    def open(self, choice: Choice) -> Job:
        """Begin to open a choice, or join those who wait for it. Call `leave` in the end."""
        revision = self.check(choice.model, choice.revision)
        choice = replace(choice, revision=revision)
        with self._lock:
            job = self._jobs.get(choice.key)
            if job is None:
                job = self._jobs[choice.key] = Job(choice)
                # Whose call it is: a GPU's seconds are a visitor's.
                run_behind("open", partial(self._run, job), copy_context())
            job.visitors += 1
            return job

    def leave(self, job: Job) -> None:
        """A visitor waits no longer; the last one to go cancels what is not done."""
        with self._lock:
            job.visitors -= 1
            if job.visitors == 0 and not job.result.done():
                job.cancel()
                self._forget(job)

    def _run(self, job: Job) -> None:
        try:
            studio = self._made(job)
        except ClasError as error:
            job.result.set_exception(error)
        except Exception as error:
            logging.getLogger(__name__).exception("%s could not be opened", job.choice.model)
            failed = ClasError(f"{job.choice.title} could not be opened ({_reason(error)}).")
            job.result.set_exception(failed)
        else:
            job.result.set_result(studio)
        finally:
            with self._lock:
                self._forget(job)

    def _forget(self, job: Job) -> None:
        if self._jobs.get(job.choice.key) is job:
            del self._jobs[job.choice.key]

    def _made(self, job: Job) -> Studio:
        choice, calls = job.choice, self.first.calls
        if (known := self._find(choice.key)) is not None:
            return known
        with self._heavy:
            job.check()
            job.stage = "Loading the model"
            known = self._loaded(choice)
            lm = known.lm if known else calls.model(choice, _load)
            job.check()
            job.stage = "Measuring"

            def progress(done: int, total: int) -> None:
                job.progress(done, total)
                self.first.gate.give_way()
                job.check()

            atlas = self._atlas(lm, choice.corpus, progress)
            studio = Studio(
                lm,
                choice,
                atlas,
                profile=self.profile,
                gate=self.first.gate,
                kept=self.first.kept,
                map_sentences=None
                if calls.forks
                else affordable(lm, choice.corpus, self.profile.map_sentences),
                calls=calls,
                decoder=known.decoder if known else None,
            )
        self.add(studio)
        studio.find_marks()
        return studio

    def _atlas(self, lm: LanguageModel, corpus: ParallelCorpus, progress: Tell) -> Atlas:
        """What was measured before; measured now, where the model is."""
        if not self.first.calls.forks:
            return measure_cached(lm, corpus, progress=progress)
        known = find_cached(lm, corpus)
        return known or only(self.first.calls(measuring, lm, corpus, tell=progress))

    def _find(self, key: str) -> Studio | None:
        return self.first if key == self.first.key else self._studios.get(key)

    def _loaded(self, choice: Choice) -> Studio | None:
        """One with the model and another text, if there is one."""
        for studio in self.studios:
            revisions = (studio.choice.revision, studio.lm.revision)
            if studio.choice.model == choice.model and choice.revision in revisions:
                return studio
        return None

    def add(self, studio: Studio) -> None:
        """Put a studio on the shelf, whatever has to make room for it, and get its map ready."""
        studio.warm_up()
        with self._lock:
            self._studios[studio.key] = studio
            while len(self._studios) > max(1, self.profile.shelf) or (
                len(self._studios) > 1 and self._bytes() > self.profile.shelf_gb * 2**30
            ):
                self._studios.popitem(last=False)
        gc.collect()  # a studio's caches point back at it, and its weights are large

    def _bytes(self) -> int:
        """Memory of the weights, each model's once, and of what was measured on them."""
        studios = self._studios.values()
        models = {id(studio.lm): studio.nbytes for studio in studios}
        return sum(models.values()) + sum(nbytes_of(studio.atlas) for studio in studios)


def _load(choice: Choice) -> LanguageModel:
    """Load a model that fits into memory: one that doesn't would take the page down with it."""
    seen = inspect(choice.model, revision=choice.revision)
    if seen.reason:
        raise ClasError(seen.reason)
    if seen.weights and seen.free is not None and seen.weights > seen.free:
        raise ClasError(
            f"{choice.title} takes {seen.weights / 1e9:.1f} GB, and {seen.free / 1e9:.1f} GB of "
            "memory are free: choose a smaller model."
        )
    return load(choice.model, revision=choice.revision)


def _reason(error: Exception) -> str:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "there is not enough memory: choose a smaller model"
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
