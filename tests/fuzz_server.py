"""Bad events, posted straight to the page's server by several visitors at once.

Most events are what the page itself would send with a few values spoilt, so that they come as far
as our own code; the others are odd from end to end. Visitors read their answers, or leave midway,
or take another's session. Failures are an error of ours that is no ClasError, a traceback in an
answer, no answer, and a file that is written outside of the page's folders.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import gradio as gr
from gradio import queueing, routes

from clas_core.errors import ClasError

VISITORS = 8
PATIENCE = 3.0  # seconds that a visitor waits for the next message
MESSAGES = 30  # of one answer that a visitor reads
ODD_VALUES: tuple[Any, ...] = (
    None, True, [], {}, "", "x" * 3000, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf"),
    "\x00", "\ud800", "<img src=x onerror=alert(1)>", "../../etc/passwd", "🧭" * 50, [[[]]],
    {"a": {"b": {}}}, "1e999", "-0", "٣", "en\nsw", "%00", "a?b#c&d=e",
)  # fmt: skip
_FILES: tuple[Any, ...] = tuple(
    {"path": path, "meta": {"_type": "gradio.FileData"}}
    for path in ("/etc/passwd", "../../x", "", "\x00", "http://127.0.0.1:9/x", None, 1)
)
FOLDERS = (os.path.realpath(tempfile.gettempdir()), "/dev/", "/proc/")
_WRITES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.move"}
_CLOSE = '"msg":"close_stream"'
_OUR_CODE = f"{os.sep}clas_core{os.sep}"

Note = Callable[[str, str], None]  # what went wrong, and where


@contextmanager
def served_page(note: Note = lambda kind, case: None) -> Iterator[str]:
    """The page on a tiny model, with folders of its own; its address. Errors of ours are noted."""
    from tiny_studio import tiny_studio

    from clas_core.ui.behind.profile import Profile
    from clas_core.ui.tabs.page import build, launch_options

    # An event that nobody waits for may still write while the folder is being deleted.
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with scratch as name, mock.patch.dict(os.environ):
        for variable, folder in (("CLAS_CACHE", "cache"), ("GRADIO_TEMP_DIR", "uploads")):
            os.environ[variable] = str(Path(name, folder))
        studio = tiny_studio(Profile(models=(), threads=1, cache_mb=50, map_sentences=4))
        demo = build(studio)
        options = {**launch_options(studio, 0), "server_port": None, "quiet": True}
        with _noted_errors(note):
            _, address, _ = demo.launch(**options, prevent_thread_lock=True)
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            try:
                yield address
            finally:
                demo.close()


@contextmanager
def _noted_errors(note: Note) -> Iterator[None]:
    """Errors that came out of our code are noted; the server's own log stays quiet."""

    def print_exc() -> None:
        error = sys.exc_info()[1]
        if error is None or isinstance(error, (ClasError, gr.Error)):
            return
        frames = traceback.extract_tb(error.__traceback__)
        if any(_OUR_CODE in frame.filename for frame in frames):
            note(f"{type(error).__name__}: {str(error)[:80]}", "event")

    quiet = SimpleNamespace(print_exc=print_exc)
    with (
        mock.patch.object(queueing, "traceback", quiet),
        mock.patch.object(routes, "traceback", quiet),
    ):
        yield


class _Watch:
    """Notes files that are written outside of `FOLDERS`; an audit hook can't be taken away."""

    def __init__(self) -> None:
        self.note: Note | None = None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.note is None:
            return
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in _WRITES:
            path = arguments[0]
        else:
            return
        if isinstance(path, int) or "__pycache__" in str(path):
            return
        where = os.path.realpath(os.fsdecode(path))
        if not where.startswith(FOLDERS):
            self.note(f"wrote {where}", event)


_watch = _Watch()


@contextmanager
def watched_files(note: Note) -> Iterator[None]:
    """Whatever is written, outside of the folder for scratch files, is noted."""
    if _watch not in _hooked:
        sys.addaudithook(_watch)
        _hooked.append(_watch)
    _watch.note = note
    try:
        yield
    finally:
        _watch.note = None


_hooked: list[_Watch] = []


def spoil_events(count: int, seed: int, note: Note, address: str) -> Counter[str]:
    """Post `count` events from several visitors; the server's answers by status and outcome."""
    host = urlsplit(address).netloc
    page = _Page(json.loads(_request(host, "GET", "/config")[1]))
    answers: Counter[str] = Counter()
    lock = threading.Lock()

    def visit(number: int) -> None:
        visitor = _Visitor(number, seed, host, page, note)
        for _ in range(count // VISITORS + (number < count % VISITORS)):
            found = list(visitor.post())
            with lock:
                answers.update(found)

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(VISITORS)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    if "CLAS" not in _request(host, "GET", "/")[1]:
        note("the page is gone", "server")
    return answers


class _Page:
    """What the page would send: its events, each with the values of its inputs."""

    def __init__(self, config: dict[str, Any]) -> None:
        values = {one["id"]: one["props"].get("value") for one in config["components"]}
        self.events = [
            (event["id"], event["queue"], [values.get(one) for one in event["inputs"]])
            for event in config["dependencies"]
            if event["backend_fn"]
        ]

    def draw(self, rng: random.Random) -> tuple[Any, bool, list[Any]]:
        """An event, whether it is queued, and its values, some of them spoilt."""
        event, queued, good = rng.choice(self.events)
        odd = (*ODD_VALUES, *_FILES, *(value for value in good if value is not None))
        if rng.random() < 0.1:  # nothing is as it should be
            size = rng.choice((len(good), rng.randint(0, 30)))
            number = rng.choice((event, rng.choice(ODD_VALUES)))
            return number, rng.random() < 0.5, [rng.choice(odd) for _ in range(size)]
        values = list(good)
        for _ in range(rng.choice((0, 1, 1, 2, 3)) if values else 0):
            values[rng.randrange(len(values))] = rng.choice(odd)
        return event, bool(queued), values


class _Visitor:
    """Posts events and reads its answers, in a session of its own."""

    def __init__(self, number: int, seed: int, host: str, page: _Page, note: Note) -> None:
        self._rng = random.Random(f"{seed} {number}")
        self._number, self._host, self._page, self._note = number, host, page, note
        self._sessions = 0

    @property
    def _session(self) -> str:
        return f"visitor{self._number}.{self._sessions}"

    def post(self) -> Iterator[str]:
        """One event; yields the status, and how the answer ended if there is one to hear."""
        rng = self._rng
        event, queued, values = self._page.draw(rng)
        others = (None, "../x", f"visitor{rng.randrange(VISITORS)}.0")
        session = rng.choice((*(self._session,) * 30, *others))
        body = {
            "fn_index": event,
            "data": values,
            "session_hash": session,
            "event_data": rng.choice((None, None, {}, {"index": 10**9}, "x")),
        }
        path = f"/gradio_api/{'queue/join' if queued else 'run/predict'}"
        try:
            status, text = _request(self._host, "POST", path, json.dumps(body).encode())
            _check(text, path, self._note)
            yield str(status)
            if queued and status == 200 and session:
                yield self._listen(session)
        except (OSError, http.client.HTTPException) as error:
            self._note(f"no answer: {type(error).__name__}", path)

    def _listen(self, session: str) -> str:
        """Read to the end, or leave."""
        line = http.client.HTTPConnection(self._host, timeout=PATIENCE)
        most = MESSAGES if self._rng.random() < 0.9 else self._rng.randint(0, 2)
        try:
            line.request("GET", f"/gradio_api/queue/data?session_hash={session}")
            answer = line.getresponse()
            for _ in range(most):
                text = answer.readline().decode("utf-8", "replace")
                answer.readline()
                _check(text, "queue/data", self._note)
                if not text or _CLOSE in text:
                    return "heard"
        except TimeoutError:
            pass  # a measurement takes longer
        finally:
            line.close()
        self._sessions += 1  # a new tab: the old one's stream may still be held open
        return "left"


def _check(text: str, path: str, note: Note) -> None:
    if "Traceback (most" in text or '.py\\", line' in text:
        note("a traceback in an answer", path)


def _request(host: str, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    line = http.client.HTTPConnection(host, timeout=600)
    try:
        line.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = line.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        line.close()
