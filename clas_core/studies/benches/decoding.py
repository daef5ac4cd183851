"""`make bench`: people served together by one decoder against one after another, here and now.

Each asks for a pair (unsteered and steered) of 40 tokens on the embedded model; medians of several
runs, in which the two ways alternate. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import torch

from ...running.decoder import Decoder
from ...running.generation import generate
from ...running.request import Request
from ...ui.behind.profile import read_profile
from ...ui.behind.studio import Studio

TOKENS = 40
PEOPLE = (1, 2, 8, 16, 30)


def seconds(call: Callable[[], object]) -> float:
    """How long `call` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def rows(runs: int, people: tuple[int, ...] = PEOPLE) -> Iterator[tuple[str, ...]]:
    """Pairs at once, tokens a second one after another and together, and the ratio."""
    studio = Studio.open(read_profile("local"))
    prompts = [prompt for code in studio.atlas.languages for prompt in studio.examples(code)]
    for many in people:
        requests = []
        for k in range(many):
            values = {**studio.defaults(), "prompt": prompts[k % len(prompts)]}
            recipe = studio.recipe({**values, "strength": 0.5 + k / 100})
            prompt = replace(studio.render(recipe), end_ids=frozenset())  # none ends early
            plans = [None, studio.plan(recipe)]
            requests.append(Request(prompt, plans, TOKENS, temperature=1.0, seed=k))

        def in_turn(requests: list[Request] = requests) -> None:
            for one in requests:
                *_, last = generate(
                    studio.lm,
                    one.prompt,
                    one.plans,
                    max_new_tokens=TOKENS,
                    temperature=one.temperature,
                    seed=one.seed,
                )
                assert all(len(ids) == TOKENS for ids in last.token_ids)

        with Decoder(studio.lm) as decoder:

            def together(requests: list[Request] = requests, decoder: Decoder = decoder) -> None:
                for stream in [decoder.submit(one) for one in requests]:
                    *_, last = stream
                    assert all(len(ids) == TOKENS for ids in last.token_ids)

            together()
            times = [(seconds(in_turn), seconds(together)) for _ in range(runs)]
        one, all_at_once = (median(column) for column in zip(*times))
        ratio = median(turn / at_once for turn, at_once in times)
        tokens = 2 * many * TOKENS
        yield (
            str(many),
            f"{tokens / one:.0f}",
            f"{tokens / all_at_once:.0f}",
            f"{ratio:.1f}",
        )


def main() -> None:
    """Print the table of throughput."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print("| pairs | tokens/s, one after another | together | times |\n|---|---|---|---|")
    for row in rows(arguments.runs):
        print("| " + " | ".join(row) + " |", flush=True)
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
