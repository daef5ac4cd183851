"""One decoder, many rows: what different people ask of a model is written together.

A worker reads a newcomer's prompt and lets its rows into the running batch between two tokens. Each
row has its own plan, seed, temperature, length and end, and leaves when it ends or its owner stops.
What a row says doesn't depend on those beside it.

transformers' continuous batching packs all rows into one, [1, tokens], where no tap can tell whose
plan a token has; it changes the attention of the model that others use at the same time, and knows
neither ALiBi nor linear attention nor convolutions. A static cache can't be widened, nor
its rows changed one by one. So `joining` lays the usual caches side by side, and all else is ours
already: the forward with a plan a row, padding, choosing tokens and text.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextvars import Context
from queue import SimpleQueue
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor

from ..errors import ClasError
from ..model.architecture import LanguageModel
from .batch import new_cache
from .decoding import Chooser, Rows
from .request import Lane, Request, Step, Writing
from .waiting import Expected, Line, Load, Room

_IDLE = 5.0  # seconds after which a worker without work ends
_FORETOLD = 0.5  # seconds that what was foretold is good for
_NARROW = 256  # columns, of which a row may waste any number
_FEW = 4  # one row of so many may be nobody's,
_GUESSES = 2**20  # numbers of a request's guesses that are kept, 4 MB
_SPARE = 16  # and so many columns: each is read at every token


class TooLarge(ClasError):
    """A request that is larger than all the room of a decoder."""


class Decoder:
    """Writes answers for many owners with one model; usable from any thread.

    most_rows: of a batch; an owner has at most half of them. most_tokens: kept in the caches, a
        request counting with its whole length from its start; padding between texts of unequal
        length comes on top, at most as much again, or 256 columns a row. most_waiting: requests.
    tokens_at_once: so many tokens of prompts are read between two tokens of an answer.

    Its worker is a thread that starts with the first request and ends when there is none. Inside
    `with Decoder(lm):` every `generate` of that model writes with it.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        most_rows: int = 64,
        most_tokens: int = 16384,
        most_waiting: int = 200,
        tokens_at_once: int = 512,
    ) -> None:
        if min(most_rows, most_tokens, most_waiting, tokens_at_once) < 1:
            raise ClasError("A decoder's limits are whole numbers from 1 on.")
        self.lm = lm
        self._room = Room(most_rows, max(1, most_rows // 2), most_tokens)
        self._most_waiting, self._tokens_at_once = most_waiting, tokens_at_once
        self._changed = threading.Condition()  # guards all that other threads see
        self._line: Line[_Job] = Line(self._room)
        self._running: list[_Job] = []
        self._seconds = 0.0  # of a turn, as of late
        self._foretold: dict[Load, Expected] = {}
        self._foretold_at = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None
        # The worker's own.
        self._unread: deque[_Job] = deque()
        self._reading: _Batch | None = None
        self._batches: list[_Batch] = []
        _open.add(self)

    def submit(
        self,
        request: Request,
        owner: Hashable = None,
        *,
        stop: threading.Event | None = None,
    ) -> Stream:
        """Let `request` be written; its steps come from the stream, as `generate` yields them.

        owner: whoever shares a turn, a visitor for instance; None is one of its own. Set `stop` to
        end it, which `Stream.stop` does too. Raises ClasError as `generate` does and when too many
        wait, and TooLarge for a request beyond the decoder's limits.
        """
        writing = request.begin(self.lm)
        for lane in writing.lanes:
            if lane.plan is not None:
                lane.plan.check(self.lm)
        job = _Job(object() if owner is None else owner, request, writing, stop)
        self._check(job)
        with self._changed:
            if self._closed:
                raise ClasError("This decoder is closed: make another one.")
            if len(self._line) >= self._most_waiting:
                wait = self._expect([job])[job].wait
                raise ClasError(
                    f"{len(self._line)} requests are waiting, which takes about {wait:.0f} s: try "
                    "again then."
                )
            self._line.push(job)
            if self._thread is None or not self._thread.is_alive():
                # A context of its own: nobody's plan is active in it.
                run = Context().run
                self._thread = threading.Thread(target=run, args=(self._work,), daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return Stream(self, job)

    def expected(
        self, rows: int = 1, tokens: int = 64, owner: Hashable = None, prompt_tokens: int = 0
    ) -> Expected:
        """Place and wait of a request of so many rows and new tokens, if it were submitted now."""
        load = Load(
            object() if owner is None else owner, rows, rows * (prompt_tokens + tokens), tokens
        )
        self._check(load)
        with self._changed:
            return self._expect([load])[load]

    @property
    def rows(self) -> int:
        """How many are under way."""
        with self._changed:
            return sum(job.rows for job in self._running)

    def close(self) -> None:
        """End all that is under way or waits, and take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Decoder:
        """From here on `generate` with the same model writes with this decoder."""
        _shared[self.lm] = self
        return self

    def __exit__(self, *error: object) -> None:
        if _shared.get(self.lm) is self:
            del _shared[self.lm]
        self.close()

    def _check(self, load: Load) -> None:
        if load.rows > self._room.rows_each:
            raise TooLarge(
                f"{load.rows} rows are more than one may ask for at once: ask for at most "
                f"{self._room.rows_each}."
            )
        if load.tokens > self._room.tokens:
            raise TooLarge(
                f"{load.rows} rows take up to {load.tokens} tokens of memory, and there are "
                f"{self._room.tokens}: ask for fewer rows, fewer new tokens, or a shorter prompt."
            )

    def _expect(self, more: Sequence[Load] = ()) -> dict[Load, Expected]:
        """Of each that waits, and of `more` if they came now; the lock is held."""
        running = [(job, job.steps - job.index) for job in self._running]
        starts = self._line.starts(running, more)
        return {
            load: Expected(place, steps * self._seconds)
            for place, (load, steps) in enumerate(starts.items())
        }

    def _forget(self) -> None:
        self._unread.clear()
        self._reading = None
        self._batches.clear()
        self._foretold.clear()

    def _place_of(self, job: _Job) -> Expected:
        with self._changed:
            if not job.waits:
                return Expected(0, 0.0)
            old = time.monotonic() - self._foretold_at > _FORETOLD
            if old or job not in self._foretold:  # all of those that wait ask again and again
                self._foretold, self._foretold_at = self._expect(), time.monotonic()
            return self._foretold[job]

    # -- the worker ----------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._admit():
                start = time.perf_counter()
                self._turn()
                took = time.perf_counter() - start
                self._seconds = 0.8 * self._seconds + 0.2 * took if self._seconds else took
        except BaseException as error:
            with self._changed:
                for job in [*self._running, *self._line.drop(lambda _: True)]:
                    job.end(error)
                self._running.clear()
            self._forget()
            raise

    def _admit(self) -> bool:
        """Let go who leaves, let in who may come, and wait if there is nobody; False at the end."""
        with self._changed:
            while True:
                for job in self._line.drop(lambda job: self._closed or job.stopped):
                    job.end()
                for job in self._running:
                    if self._closed or job.stopped:
                        job.end()
                self._running = [job for job in self._running if not job.ended]
                while (new := self._line.pop(self._running)) is not None:
                    new.waits = False
                    self._running.append(new)
                    self._unread.append(new)
                if self._running:
                    return True
                self._forget()
                if self._closed or (not self._changed.wait(_IDLE) and not len(self._line)):
                    self._thread = None
                    return False

    def _turn(self) -> None:
        """One token of every answer, and some of a newcomer's prompt."""
        fresh = self._read()
        for batch in list(self._batches):
            other = fresh if fresh is not None and batch.is_near(fresh) else None
            try:
                if batch.jobs:
                    batch.write()
                batch.join(other)
            except Exception:
                self._part(batch)
                continue
            if other is not None:
                fresh = None
            if not batch.lanes:
                self._batches.remove(batch)
        if fresh is not None and fresh.jobs:
            self._batches.append(fresh)

    def _part(self, batch: _Batch) -> None:
        """After an error: let each job be read again by itself, which tells whose it was."""
        if batch in self._batches:
            self._batches.remove(batch)
        for job in batch.jobs:
            job.alone = True
            self._unread.append(job)

    def _read(self) -> _Batch | None:
        """Read on; a batch with its first tokens when it is read."""
        reading = self._reading
        if reading is not None and not reading.jobs:
            reading = self._reading = None
        jobs = self._next_unread() if reading is None else reading.jobs
        if not jobs:
            return None
        try:
            if reading is None:
                reading = self._reading = _Batch.of(self.lm, jobs)
            columns = max(1, self._tokens_at_once // len(reading.lanes))
            if reading.rows.unread > columns:
                reading.rows.read(columns)
                return None
            reading.write()
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].end(error)
            for job in jobs:
                job.alone = True
                self._unread.append(job)
            reading = None
        self._reading = None
        return reading

    def _next_unread(self) -> list[_Job]:
        """The first, and what can be read at once with it in a batch that is mostly text."""
        jobs: list[_Job] = []
        later: deque[_Job] = deque()
        rows = shortest = longest = 0
        for job in (job for job in self._unread if not job.ended):
            least, most = min(shortest or job.longest, job.longest), max(longest, job.longest)
            fits = most <= 2 * least and (rows + job.rows) * most <= self._tokens_at_once
            if jobs and (job.alone or jobs[0].alone or not fits):
                later.append(job)
                continue
            jobs.append(job)
            rows, shortest, longest = rows + job.rows, least, most
        self._unread = later
        return jobs


_shared: WeakKeyDictionary[LanguageModel, Decoder] = WeakKeyDictionary()
_open: WeakSet[Decoder] = WeakSet()
if hasattr(os, "register_at_fork"):
    # Their threads stay behind: whoever waited for one in a forked process would do so forever.
    os.register_at_fork(after_in_child=_shared.clear)


@atexit.register
def _close_all() -> None:
    """A worker that is torn out of a forward at the interpreter's end aborts the process."""
    for decoder in list(_open):
        decoder.close()


def shared(lm: LanguageModel) -> Decoder | None:
    """The decoder that was entered for this model, if there is one."""
    return _shared.get(lm)


class Stream(Iterator[Step]):
    """The steps of one request, as they come. Closed, or forgotten, it ends the request."""

    def __init__(self, decoder: Decoder, job: _Job) -> None:
        self._decoder, self._job = decoder, job
        answers = job.writing.answers
        self._texts = [""] * len(answers)
        self._token_ids: list[tuple[int, ...]] = [()] * len(answers)
        self._prompt_ids = tuple(answer.prompt_ids for answer in answers)
        self._index = -1
        self._over = False

    @property
    def place(self) -> int:
        """How many requests are let in before this one; 0 once it is under way."""
        return self._decoder._place_of(self._job).place

    @property
    def wait(self) -> float:
        """In about how many seconds it is let in."""
        return self._decoder._place_of(self._job).wait

    @property
    def stopped(self) -> bool:
        """Whether its owner ended it."""
        return self._job.stopped

    @property
    def guesses(self) -> Tensor | None:
        """log p [tokens so far, vocabulary], in float32, of what might have stood in the place of
        every token of the first answer, if the request asked for it and it isn't too much."""
        kept = self._job.guesses
        return torch.stack(kept[:]) if kept else None

    def begun(self, within: float) -> bool:
        """Whether it has a first step, or an end, `within` so many seconds."""
        return self._job.begun.wait(within)

    def newest(self, after: float) -> Step | None:
        """The newest step, so many seconds `after` the next one came, or at the end if that comes
        first; None after it. For who needn't see them all."""
        step = next(self, None)
        if step is None:
            return None
        self._job.over.wait(after)
        while not self._job.events.empty() and (later := next(self, None)) is not None:
            step = later
        return step

    def stop(self) -> None:
        """End it at the next token; no more steps come. Of any thread."""
        self._job.left.set()

    close = stop

    def __del__(self) -> None:
        self.stop()

    def __next__(self) -> Step:
        event = None if self._over or self.stopped else self._job.events.get()
        if isinstance(event, BaseException):
            self._over = True
            raise event
        if event is None or self.stopped:
            self._over = True
            raise StopIteration
        self._index += 1
        for k, (tokens, text, _) in enumerate(event):
            self._token_ids[k] += tokens
            self._texts[k] += text
        done = tuple(done for _, _, done in event)
        texts, token_ids = tuple(self._texts), tuple(self._token_ids)
        return Step(texts, token_ids, done, self._index, self._prompt_ids)


_Event = list[tuple[tuple[int, ...], str, bool]]  # new tokens, new text, done; of each answer


class _Job(Load):
    """A request under way. All but events, of both kinds, is the worker's."""

    def __init__(
        self, owner: Hashable, request: Request, writing: Writing, stop: threading.Event | None
    ) -> None:
        self.writing = writing
        self.left = threading.Event()  # its stream is closed, or nobody's any more
        self.stop = self.left if stop is None else stop  # the owner's own, which isn't ours to set
        self.events: SimpleQueue[_Event | BaseException | None] = SimpleQueue()
        self.begun, self.over = threading.Event(), threading.Event()  # an event, the last one
        self.index = 0  # of the next token
        self.alone = False  # to be read
        self.waits = True  # to be let in
        self.ended = False
        self._choose = Chooser(request.temperature, request.seed)
        self._most = request.max_new_tokens
        self.guesses: list[Tensor] = []  # of the first lane, if they are asked for
        self._most_guesses = _GUESSES if request.guesses else 0
        self._said = [(0, 0)] * len(writing.answers)  # tokens and characters in events so far
        super().__init__(owner, len(writing.lanes), self._tokens(), self._most)

    @property
    def stopped(self) -> bool:
        """Whether its owner wants no more."""
        return self.left.is_set() or self.stop.is_set()

    @property
    def going(self) -> list[Lane]:
        """The lanes that aren't done."""
        return [] if self.ended else [lane for lane in self.writing.lanes if not lane.done]

    @property
    def longest(self) -> int:
        """Tokens of the longest text so far."""
        return max((len(lane.prompt_ids) for lane in self.going), default=0) + self.index

    def write(self, logits: Tensor) -> list[int]:
        """Go on in the lanes that aren't done; their new tokens. logits: [lanes, vocabulary]."""
        if self._most * logits.shape[-1] <= self._most_guesses and not self.writing.lanes[0].done:
            self.guesses.append(logits[0].log_softmax(-1))
        tokens: list[int] = self._choose(logits).tolist()
        last = self.index + 1 == self._most
        for lane, token in zip(self.going, tokens):
            for answer in lane.answers:
                answer.push(token, last=last)
        event: _Event = []
        for k, answer in enumerate(self.writing.answers):
            at, said = self._said[k]
            event.append((tuple(answer.token_ids[at:]), answer.text[said:], answer.done))
            self._said[k] = len(answer.token_ids), len(answer.text)
        self.events.put(event)
        self.begun.set()
        self.index += 1
        if last or not self.going:
            self.end()
        else:
            self.rows, self.tokens = len(self.going), self._tokens()
        return tokens

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes, or why."""
        if not self.ended:
            self.ended, self.waits = True, False
            self.events.put(error)
            self.begun.set()
            self.over.set()

    def _tokens(self) -> int:
        return sum(len(lane.prompt_ids) + self._most for lane in self.going)


class _Batch:
    """Lanes that are written together, each of a job, and all of a job's in a row."""

    def __init__(self, rows: Rows, lanes: list[tuple[_Job, Lane]]) -> None:
        self.rows, self.lanes = rows, lanes

    @staticmethod
    def of(lm: LanguageModel, jobs: Sequence[_Job]) -> _Batch:
        """What these have so far, still to be read."""
        lanes = [(job, lane) for job in jobs for lane in job.going]
        written = [len(lane.answers[0].token_ids) for _, lane in lanes]
        texts = [(*lane.prompt_ids, *lane.answers[0].token_ids) for _, lane in lanes]
        ids, mask = lm.pad(texts)
        prompt = ids.shape[1] - torch.tensor(written)
        plans = [lane.plan for _, lane in lanes]
        return _Batch(Rows(lm, plans, ids, mask, new_cache(lm, movable=True), prompt), lanes)

    @property
    def jobs(self) -> list[_Job]:
        """Those that go on."""
        return [job for job in dict.fromkeys(job for job, _ in self.lanes) if not job.ended]

    @property
    def going(self) -> list[int]:
        """The places of the lanes that go on."""
        return [k for k, (job, lane) in enumerate(self.lanes) if not (job.ended or lane.done)]

    def write(self) -> None:
        """One more token for all; what raises in choosing it ends its own job only."""
        logits = self.rows.logits()
        tokens = [0] * len(self.lanes)
        places: dict[_Job, list[int]] = {}
        for k in self.going:
            places.setdefault(self.lanes[k][0], []).append(k)
        for job, own in places.items():
            try:
                for k, token in zip(own, job.write(logits[own])):
                    tokens[k] = token
            except Exception as error:
                job.end(error)
        self.rows.append(torch.tensor(tokens, device=logits.device))

    @property
    def lengths(self) -> Tensor:
        """[lanes that go on]: how many tokens each has, the next input included."""
        return self.rows.lengths[self.going]

    def is_near(self, other: _Batch) -> bool:
        """Whether one batch with the other's texts would be little padding."""
        if not (self.rows.can_join and other.rows.can_join):
            return False
        lengths = torch.cat([self.lengths, other.lengths])
        return not len(lengths) or int(lengths.max()) <= max(_NARROW, 2 * int(lengths.min()))

    def join(self, other: _Batch | None = None) -> None:
        """Let those who are done leave, and those of the other one in.

        The newcomers take the places of those who left, and some stay empty: to copy all others is
        as much work as half a token of theirs.
        """
        going, new = self.going, [] if other is None else other.going
        free = sorted(set(range(len(self.lanes))).difference(going))
        if 0 <= len(free) - len(new) <= len(self.lanes) // _FEW and self._is_narrow(other):
            if other is None or not new:
                return
            if self.rows.put(free[: len(new)], other.rows, new):
                for place, k in zip(free, new):
                    self.lanes[place] = other.lanes[k]
                return
        batches = [self] if other is None else [self, other]
        parts = [(batch.rows, batch.going) for batch in batches]
        lanes = [batch.lanes[k] for batch, (_, going) in zip(batches, parts) for k in going]
        if lanes:
            self.rows = Rows.joined([part for part in parts if part[1]])
        self.lanes = lanes

    def _is_narrow(self, other: _Batch | None) -> bool:
        """Whether most columns are some text's that goes on: each token is one more."""
        lengths = torch.cat([batch.lengths for batch in (self, other) if batch is not None])
        return len(lengths) > 0 and self.rows.width <= int(lengths.max()) + _SPARE
