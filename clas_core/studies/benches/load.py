"""`make load`: so many people on one page for so long, by the page's own protocol on loopback.

The server is a process of its own, as `python app.py` starts it; the people share its machine. Each
does what a browser would send: a prompt of their own or a move of the strength and what it brings,
a drag over stored answers, a map, a measurement. Stored answers are drawn by the page itself: when
they are seen is measured in one real browser among those who drag (playwright, and the system's
Chromium); how long the server takes to hear of a drag is a row of its own. Nothing is asserted but
`--until-it-breaks`, which doubles the people until the promise isn't kept, and says what broke.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...text.corpus import ParallelCorpus

ROOT = Path(__file__).resolve().parents[3]
MOST_PEOPLE, MOST_SECONDS = 500, 3600
PATIENCE = 120.0  # seconds that anyone waits for the next word
FIRST, WHOLE, DRAG = 1.5, 6.0, 0.1  # seconds, promised of 95 in 100
STRENGTHS = [step / 20 for step in range(1, 40)]  # of prompts of one's own
STORED = [step / 4 for step in range(-4, 9)]  # at which the page has stored answers
Data = dict[str, Any]
_NUMBERS = itertools.count()  # of people: nobody asks what somebody asked before, which is known
_CONFIG = "window.gradio_config ="


class Failed(Exception):
    """What a person gets in place of an answer."""


@dataclass
class Tally:
    """What all people saw: seconds of each kind of thing, tokens, errors. For many threads."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)  # tokens a second of one person's panes
    tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, seconds: float) -> None:
        """Note that something of this kind took so long."""
        with self._lock:
            self.seconds.setdefault(kind, []).append(seconds)

    def wrote(self, tokens: int, seconds: float) -> None:
        """Note that one person got so many tokens, all panes together."""
        with self._lock:
            self.tokens += tokens
            self.rates.append(tokens / seconds)

    def fail(self, what: str) -> None:
        """Note an error."""
        with self._lock:
            self.errors[what] += 1

    def at(self, kind: str, share: float) -> float:
        """The time within which this share of a kind was done; infinite if there was none."""
        return at_share(self.seconds.get(kind, []), share)


def at_share(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of `values` doesn't exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else float("inf")


class PageEvents:
    """The page's events as a browser finds them in its config: by whom they are of."""

    def __init__(self, config: Data) -> None:
        self._values = {one["id"]: one["props"].get("value") for one in config["components"]}
        self._ids = {
            one["props"].get("elem_id"): one["id"]
            for one in config["components"]
            if one["props"].get("elem_id")
        }
        self._events: list[Data] = config["dependencies"]

    def of(self, name: str, event: str) -> list[Data]:
        """What the server hears of an event of the component with this elem_id."""
        target = [self._ids[name], event]
        return [one for one in self._events if target in one["targets"] and one["backend_fn"]]

    @property
    def first(self) -> list[Data]:
        """What the server hears of once the page is there."""
        return [
            one
            for one in self._events
            if one["backend_fn"] and any(event == "load" for _, event in one["targets"])
        ]

    def after(self, event: Data) -> Data:
        """What follows an event, whatever came of it."""
        return next(
            one
            for one in self._events
            if one.get("trigger_after") == event["id"] and not one.get("trigger_only_on_failure")
        )

    def data(self, event: Data, values: Mapping[int, Any]) -> list[Any]:
        """An event's inputs: `values` by component, else what the page opened with."""
        return [values.get(one, self._values.get(one)) for one in event["inputs"]]

    def id(self, name: str) -> int:
        """The component with this elem_id."""
        found: int = self._ids[name]
        return found


def config_of(page: str) -> Data:
    """The config that Gradio writes into its page."""
    begin = page.index(_CONFIG) + len(_CONFIG)
    config: Data = json.JSONDecoder().raw_decode(page[begin:].lstrip())[0]
    return config


class Person:
    """One visitor: a session, and what is set on their page."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._port, self._rng, self._tally = port, random.Random(next(_NUMBERS)), tally
        self._session = uuid.uuid4().hex
        self._values: dict[int, Any] = {}
        self._ticket, self._warned = "", ""
        self._page: PageEvents
        self._prompts = list(ParallelCorpus.bundled("village").sentences.values())

    def open(self) -> None:
        """Get the page, and what it asks for first."""
        start = time.monotonic()
        self._page = PageEvents(config_of(self._get("/")))
        self._follow(self._page.first)
        self._tally.add("page", time.monotonic() - start)

    def ask(self) -> None:
        """Type a prompt of one's own, and wait for both panes."""
        text = " ".join(self._rng.sample(self._rng.choice(self._prompts), 2))
        self._values[self._page.id("prompt")] = text
        self._values[self._page.id("strength")] = self._rng.choice(STRENGTHS)
        self._values[self._page.id("control")] = False
        self._follow(self._page.of("prompt", "change"))
        (begin,) = self._page.of("again", "click")
        start = time.monotonic()
        *_, self._ticket = self._call(begin, [self._ticket])
        run = self._page.after(begin)
        first, view = 0.0, ""
        for view in self._frames(run, [self._ticket, *self._page.data(run, self._values)[1:]]):
            if not first and any(pane["spans"] for pane in json.loads(view)["panes"]):
                first = time.monotonic() - start
        whole = time.monotonic() - start
        self._call(self._page.after(run), [self._ticket])
        shown = json.loads(view) if view else {}
        if shown.get("state") != "done":
            raise Failed(self._warned or shown.get("sentence") or "no answer")
        self._tally.add("first text", first)
        self._tally.add("whole answer", whole)
        self._tally.wrote(sum(_tokens(pane) for pane in shown["panes"]), whole)

    def drag(self) -> None:
        """Move the strength from one stored answer to another: what the server says of it."""
        self._values[self._page.id("strength")] = self._rng.choice(STORED)
        start = time.monotonic()
        self._follow(self._page.of("strength", "input"))
        self._tally.add("drag heard", time.monotonic() - start)

    def look(self) -> None:
        """Move the strength with the map open."""
        for chosen in self._page.of("map-tab", "select"):
            self._call(chosen, [])
        self._values[self._page.id("strength")] = self._rng.choice(STRENGTHS)
        start = time.monotonic()
        self._follow(self._page.of("map-layer", "input"))
        self._tally.add("map", time.monotonic() - start)

    def measure(self) -> None:
        """Measure as the tab stands, with the fewest items."""
        self._values[self._page.id("measure-items")] = 20
        (begin,) = self._page.of("measure", "click")
        start = time.monotonic()
        *_, ticket = self._call(begin, [""])
        run = self._page.after(begin)
        for _ in self._heard((run, [ticket, *self._page.data(run, self._values)[1:]])):
            pass
        self._tally.add("measurement", time.monotonic() - start)

    def _follow(self, events: Sequence[Data]) -> None:
        asked = [(one, self._page.data(one, self._values)) for one in events]
        for one, data in asked:
            if not one["queue"]:
                self._call(one, data)
        for _ in self._heard(*(pair for pair in asked if pair[0]["queue"])):
            pass

    def _frames(self, event: Data, data: list[Any]) -> Iterator[str]:
        """The result panel's value, whenever it changes."""
        place = event["outputs"].index(self._page.id("result"))
        shown: Any = None
        for message in self._heard((event, data)):
            values = message.get("data") or []
            if len(values) <= place:
                continue
            if shown is None or not message["differences"]:
                new = values[place]
            else:
                new = shown
                for action, path, change in values[place]:
                    if path:
                        raise Failed("a frame that isn't one string")
                    new = new + change if action == "append" else change
            if isinstance(new, str) and new != shown:
                yield new
            shown = new

    def _heard(self, *asked: tuple[Data, list[Any]]) -> Iterator[Data]:
        """Join the queue with events and their data, all at once as a browser does, and what is
        heard of them: {data, differences} until the end of the last one."""
        joined = set[str]()
        for event, data in asked:
            body = {"fn_index": event["id"], "data": data, "session_hash": self._session}
            joined.add(json.loads(self._post("/gradio_api/queue/join", body))["event_id"])
        line = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            line.request("GET", f"/gradio_api/queue/data?session_hash={self._session}")
            answer = line.getresponse()
            begun = False
            while joined:
                text = answer.readline()
                if not text:
                    raise Failed("the stream ended")
                if not text.startswith(b"data: "):
                    continue
                message = json.loads(text[6:])
                if message.get("event_id") not in joined:
                    continue
                if message["msg"] == "log":
                    self._warned = str(message["log"])
                if message["msg"] == "process_generating":
                    yield {"data": message["output"]["data"], "differences": begun}
                    begun = True
                if message["msg"] == "process_completed":
                    if not message["success"]:
                        raise Failed(str(message["output"].get("error") or "an error"))
                    if not begun:
                        yield {"data": message["output"]["data"], "differences": False}
                    joined.discard(message["event_id"])
        finally:
            line.close()

    def _call(self, event: Data, data: list[Any]) -> list[Any]:
        body = {"fn_index": event["id"], "data": data, "session_hash": self._session}
        found: list[Any] = json.loads(self._post("/gradio_api/run/predict", body))["data"]
        return found

    def _get(self, path: str) -> str:
        return self._request("GET", path, None)

    def _post(self, path: str, body: Data) -> str:
        return self._request("POST", path, json.dumps(body).encode())

    def _request(self, method: str, path: str, body: bytes | None) -> str:
        line = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            line.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = line.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                raise Failed(f"{answer.status} at {path}")
            return text
        finally:
            line.close()


# Moves the slider, and tells the seconds until the answer's text is another and is painted.
_DRAG = """async (strength) => {
  const range = document.getElementById("strength-range");
  const cells = Object.values(window.clasStored);
  const { of } = window.clasStored[window.clasNow.steer];
  const to = cells.find((cell) => cell.of === of && cell.alpha === strength);
  const wanted = to.view.panes[1].spans.map(([text]) => text).join("").trim();
  const begun = performance.now();
  range.value = strength;
  range.dispatchEvent(new Event("input", { bubbles: true }));
  const shown = () => document.querySelector(".pane.steered .pane-text").textContent.trim();
  do await new Promise(requestAnimationFrame);
  while (shown() !== wanted && performance.now() - begun < 10000);
  await new Promise((done) => setTimeout(done, 0));
  return (performance.now() - begun) / 1000;
}"""


class Onlooker(threading.Thread):
    """One of those who drag, in a real browser: when they see what they dragged to."""

    def __init__(self, port: int, tally: Tally) -> None:
        super().__init__(daemon=True)
        self._port, self._tally, self._end = port, tally, threading.Event()

    def run(self) -> None:
        """Drag each second until `stop`; nothing where there is no browser."""
        names = ("chromium", "chromium-browser", "google-chrome")
        chromium = next(filter(None, map(shutil.which, names)), None)
        try:
            from playwright.sync_api import Error, sync_playwright
        except ImportError:
            return
        if chromium is None:
            return
        try:
            with sync_playwright() as play:
                page = play.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox"]
                ).new_page(reduced_motion="reduce")
                page.goto(f"http://127.0.0.1:{self._port}/")
                page.wait_for_function("window.clasOpened && window.clasNow && window.clasStored")
                rng, before = random.Random(0), 0.0
                while not self._end.wait(1.0):
                    to = rng.choice([one for one in STORED if one != before])
                    self._tally.add("drag seen", page.evaluate(_DRAG, to))
                    before = to
        except Error as error:
            self._tally.fail(f"the browser: {error}"[:120])

    def stop(self) -> None:
        """End it, and wait until it has."""
        self._end.set()
        self.join()


def _tokens(pane: Data) -> int:
    words = [word for badge in pane["badges"] for word in badge.split()]
    return next((int(word) for word in words if word.isdecimal()), 0)


@dataclass(frozen=True)
class Crowd:
    """Who is there: so many who ask, drag, look at maps, and measure; each every so many seconds,
    without a pause at 0. People come one after another within the first such time."""

    asking: int = 30
    dragging: int = 0
    looking: int = 0
    measuring: int = 0
    every: float = 15.0

    def people(self) -> Iterator[Callable[[Person], None]]:
        """What each of them does."""
        for count, deed in (
            (self.asking, Person.ask),
            (self.dragging, Person.drag),
            (self.looking, Person.look),
            (self.measuring, Person.measure),
        ):
            yield from [deed] * count


def visit(
    port: int, crowd: Crowd, seconds: float, *, opened: bool = False, browser: bool = False
) -> tuple[Tally, float]:
    """Let a crowd in for so long; what they saw, and how long it really was. `opened`: they have
    the page before that. `browser`: one more of those who drag, if any, does so in a browser."""
    tally = Tally()
    deeds = list(crowd.people())
    people = [Person(port, tally) for _ in deeds]
    for person in people if opened else ():
        person.open()
    begin = time.monotonic()
    end = begin + seconds

    def live(number: int, deed: Callable[[Person], None]) -> None:
        person = people[number]
        pause = crowd.every if deed is Person.ask else min(crowd.every, 1.0)
        due = begin + (number + 0.5) / len(deeds) * max(crowd.every, 1.0)
        try:
            time.sleep(max(0.0, due - time.monotonic()))
            if not opened:
                person.open()
        except (Failed, OSError, http.client.HTTPException) as error:
            tally.fail(f"page: {error or type(error).__name__}")
            return
        while time.monotonic() < end:
            try:
                deed(person)
            except (Failed, OSError, http.client.HTTPException, LookupError) as error:
                tally.fail(f"{deed.__name__}: {error or type(error).__name__}"[:120])
                time.sleep(0.5)
            if deed is Person.measure:
                return
            due = max(due + pause, time.monotonic())
            time.sleep(max(0.0, min(due, end) - time.monotonic()))

    threads = [threading.Thread(target=live, args=pair, daemon=True) for pair in enumerate(deeds)]
    onlooker = Onlooker(port, tally) if browser and crowd.dragging else None
    if onlooker:
        onlooker.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=max(0.0, end + PATIENCE - time.monotonic()))
    if onlooker:
        onlooker.stop()
    return tally, time.monotonic() - begin


@contextmanager
def served(profile: str) -> Iterator[tuple[int, int]]:
    """`python app.py` in a process of its own: its port and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port), "--profile", profile],
            cwd=ROOT,
            env={**os.environ, "CLAS_CACHE": folder},
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_for(port, server)
            yield port, server.pid
        finally:
            server.terminate()
            server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit("The page ended by itself.")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The page was not there after two minutes.")


class Watch(threading.Thread):
    """Watches a process's memory, in MB, every two seconds, and the time that it computes."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process, self._end = process, threading.Event()
        self.seen: list[tuple[float, float]] = []  # since the start, MB
        self.worked = 0.0  # seconds of processors, in the end

    def run(self) -> None:
        """Look until `stop`."""
        start, worked = time.monotonic(), usage(self._process)[1]
        while True:
            memory, now = usage(self._process)
            self.seen.append((time.monotonic() - start, memory))
            self.worked = now - worked
            if self._end.wait(2):
                return

    def stop(self) -> str:
        """What was seen of memory, in a sentence."""
        self._end.set()
        self.join()
        values = [value for _, value in self.seen]
        said = (
            f"{values[0]:.0f} MB at first, {values[-1]:.0f} in the end, at most {max(values):.0f}"
        )
        if (growth := self.growth) is not None:
            said += f", {growth:+.1%} after the first minute"
        return said

    @property
    def growth(self) -> float | None:
        """The share by which it grew from the first minute's end to the last quarter minute."""
        later = [value for at, value in self.seen if 60 <= at < 75]
        last = [value for at, value in self.seen if at >= max(self.seen[-1][0] - 15, 75)]
        return max(last) / max(later) - 1 if later and last else None


def usage(process: int) -> tuple[float, float]:
    """Memory of a process in MB, and seconds of processors that it took, as `ps` says it."""
    command = ["ps", "-o", "rss=,cputimes=", "-p", str(process)]
    said = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return (int(said[0]) / 1000, float(said[1])) if len(said) == 2 else (0.0, 0.0)


def report(tally: Tally, seconds: float, worked: float) -> str:
    """A table of what a crowd saw, and what it took: the server's seconds of processors."""
    lines = ["| what | times | p50 | p95 | p99 |", "|---|---|---|---|---|"]
    for kind, values in tally.seconds.items():
        shares = " | ".join(f"{at_share(values, share):.2f} s" for share in (0.5, 0.95, 0.99))
        lines.append(f"| {kind} | {len(values)} | {shares} |")
    if tally.rates:
        each = at_share(tally.rates, 0.5)
        pairs = len(tally.rates)
        lines += [
            "",
            f"{pairs} pairs, {tally.tokens / 2 / pairs:.1f} tokens a pane; tokens a second: "
            f"{each:.0f} of one person (median), {tally.tokens / seconds:.0f} of all; the server "
            f"computed {worked / pairs:.2f} s a pair.",
        ]
    errors = ", ".join(f"{count} x {what}" for what, count in tally.errors.most_common(5))
    return "\n".join([*lines, f"Errors: {errors or 'none'}."])


def broken(tally: Tally) -> list[str]:
    """Which promises weren't kept."""
    found = []
    for kind, most in (("first text", FIRST), ("whole answer", WHOLE), ("drag seen", DRAG)):
        if kind in tally.seconds and tally.at(kind, 0.95) > most:
            found.append(f"p95 of {kind} {tally.at(kind, 0.95):.2f} s, promised {most:g} s")
    if tally.errors:
        found.append(f"{sum(tally.errors.values())} errors")
    return found


def main() -> int:
    """Run the crowd that the command line describes; 1 if a promise wasn't kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=30, help="who ask for a pair of panes")
    parser.add_argument("--every", type=float, default=15, help="seconds; 0: without a pause")
    parser.add_argument("--dragging", type=int, default=0, help="people more who drag, each second")
    parser.add_argument("--looking", type=int, default=0, help="people more who move the map")
    parser.add_argument("--measuring", type=int, default=0, help="people more who measure, once")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--rush", type=float, default=20, help="seconds of all at once; 0: none")
    parser.add_argument("--until-it-breaks", action="store_true", help="double the people")
    parser.add_argument("--profile", default="local")
    chosen = parser.parse_args()
    many = chosen.people + chosen.dragging + chosen.looking + chosen.measuring
    if not 0 < many <= MOST_PEOPLE or not 0 < chosen.seconds <= MOST_SECONDS:
        parser.error(f"Ask for at most {MOST_PEOPLE} people and {MOST_SECONDS} seconds.")
    crowd = Crowd(chosen.people, chosen.dragging, chosen.looking, chosen.measuring, chosen.every)
    with served(chosen.profile) as (port, process):
        visit(port, Crowd(2, looking=1, every=0), 15)  # the first ones of all warm the page up
        while True:
            watch = Watch(process)
            watch.start()
            tally, seconds = visit(port, crowd, chosen.seconds, browser=True)
            memory = watch.stop()
            load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
            print(f"\n{crowd}, {seconds:.0f} s; load average {load}\n")
            print(report(tally, seconds, watch.worked))
            print(f"Memory: {memory}.", flush=True)
            failed = broken(tally)
            print(f"Broke: {'; '.join(failed)}." if failed else "All kept.", flush=True)
            if failed or not chosen.until_it_breaks or 2 * crowd.asking > MOST_PEOPLE:
                break
            crowd = Crowd(2 * crowd.asking, *list(vars(crowd).values())[1:])
        if chosen.rush > 0 and chosen.people > 1:
            print(rush(port, chosen.people, chosen.rush), flush=True)
    return 1 if failed and not chosen.until_it_breaks else 0


def rush(port: int, people: int, seconds: float) -> str:
    """Tokens a second of one person who asks again and again, and of all of them at once."""
    rates = []
    for many in (1, people):
        tally, took = visit(port, Crowd(many, every=0), seconds, opened=True)
        rates.append(tally.tokens / took)
    return (
        f"Without a pause: {rates[0]:.0f} tokens a second for one person, {rates[1]:.0f} for "
        f"{people} at once: {rates[1] / rates[0]:.1f} times."
    )


if __name__ == "__main__":
    sys.exit(main())
