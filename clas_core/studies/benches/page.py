"""`make bench`: the timings that the page promises, measured here and now on the embedded model.

Every row is the median of several runs after one that is not counted. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import torch

from ...paths import ASSETS
from ...running.generation import generate
from ...ui.behind.profile import read_profile
from ...ui.behind.studio import Studio
from ...ui.tabs.neurons import views

TOKENS = 40


def timed(call: Callable[[int], object], runs: int) -> float:
    """Median seconds of `call(run)`, which gets another number each time."""
    call(-1)
    times = []
    for run in range(runs):
        start = time.perf_counter()
        call(run)
        times.append(time.perf_counter() - start)
    return median(times)


def start_up() -> float:
    """Seconds from `python app.py` to a served page, in a fresh process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = time.perf_counter()
    command = [sys.executable, "app.py", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ASSETS.parent, stdout=subprocess.DEVNULL)
    try:
        while time.perf_counter() - begin < 120:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    answer.read()
                return time.perf_counter() - begin
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("The page was not there after two minutes.")
    finally:
        process.terminate()
        process.wait()


def rows(runs: int) -> Iterator[tuple[str, str, str]]:
    """(what, measured, promised) one by one, as they are measured."""
    yield (
        "`python app.py` to a served page",
        f"{median([start_up() for _ in range(3)]):.1f} s",
        "15 s",
    )

    studio = Studio.open(read_profile("local"))
    studio.mapper.warm()
    recipe = studio.recipe({**studio.defaults(), "prompt": studio.examples("sw")[0]})

    prompt = replace(studio.render(recipe), end_ids=frozenset())  # no row ends early

    def panes(count: int) -> float:
        plans = [None, studio.plan(recipe), studio.plan(recipe, True)][:count]

        def run(number: int) -> None:
            *_, last = generate(
                studio.lm, prompt, plans, max_new_tokens=TOKENS, temperature=1, seed=number
            )
            assert all(len(ids) == TOKENS for ids in last.token_ids)

        return timed(run, runs)

    one, two = panes(1), panes(2)
    yield f"Both panes, {TOKENS} tokens", f"{two:.2f} s", "1.5 s"
    yield "Both panes over one pane", f"{two / one:.2f}", "1.4"

    def threshold(run: int) -> object:
        values = {**studio.defaults(), "tau": 0.101 + run / 1000, "prompt": recipe.prompt}
        return views(studio, studio.recipe(values), studio.num_layers, 0)

    yield "Threshold move to counts and bars", f"{1000 * timed(threshold, runs):.0f} ms", "150 ms"

    def strength(run: int) -> object:
        values = {**studio.defaults(), "strength": 0.61 + run / 100, "prompt": recipe.prompt}
        return studio.mapper.compute(studio.plan(studio.recipe(values)), studio.num_layers)

    yield "Strength move to a placed and scored map", f"{timed(strength, runs):.2f} s", "1.5 s"


def main() -> None:
    """Print the table of timings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    print("| what | median | promised |\n|---|---|---|")
    for row in rows(arguments.runs):
        print("| " + " | ".join(row) + " |", flush=True)
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
