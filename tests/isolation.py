"""`make isolation`: many visitors at once, and each gets what they would get alone.

Visitors with a plan, seed, temperature, length and prompt of their own step their answers in turn,
in random order and from changing threads; some leave in the middle, and some forwards raise. Every
text that came to its end is compared with the same request alone. Then all that again `--together`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from tiny import SENTENCES, make_tokenizer, tiny_llama_model

from clas_core.model.architecture import LanguageModel
from clas_core.model.loading import load
from clas_core.model.taps import Tap, tapped
from clas_core.running.decoder import Decoder
from clas_core.running.generation import Step, generate
from clas_core.steering.plan import LayerPlan, SteeringPlan

LEAVES, RAISES = 0.1, 0.02  # shares of requests
TEXTS = [text for texts in SENTENCES.values() for text in texts]


@dataclass(frozen=True)
class Request:
    """What one visitor asks: unsteered and under `plan`."""

    prompt: str
    plan: SteeringPlan
    seed: int
    temperature: float
    length: int

    def start(self, lm: LanguageModel) -> Iterator[Step]:
        return generate(
            lm,
            self.prompt,
            [None, self.plan],
            max_new_tokens=self.length,
            temperature=self.temperature,
            seed=self.seed,
        )


class Broken(Exception):
    """Raised in a forward, on purpose."""


class Breaks(Tap):
    def hidden(self, layer: int, hidden: torch.Tensor) -> None:
        raise Broken


def draw(rng: random.Random) -> Request:
    """A request of any kind, the same again now and then."""
    kind = rng.randrange(400)
    own = random.Random(kind)
    scale = torch.tensor([own.uniform(-1, 3) for _ in range(64)])
    plan = SteeringPlan({own.randrange(3): LayerPlan(scale=scale)})
    return Request(own.choice(TEXTS), plan, kind, own.choice((0.0, 0.8)), own.randint(1, 10))


def simulate(requests: int, visitors: int, seed: int = 0, together: bool = False) -> dict[str, int]:
    """How many requests came to an end, left, raised, and differ from the same one alone.

    `together`: they are written by one decoder, which the errors of one's own forwards don't reach.
    """
    lm = load(tiny_llama_model(), make_tokenizer())
    rng = random.Random(seed)
    ends: list[tuple[Request, tuple]] = []
    counts = {"finished": 0, "left": 0, "raised": 0, "different": 0}

    def begin() -> dict:
        request = draw(rng)
        return {"request": request, "steps": request.start(lm), "last": None}

    def advance(visit: dict) -> bool:
        """One token; whether there was one."""
        step = next(visit["steps"], None)
        visit["last"] = step or visit["last"]
        return step is not None

    def fail(visit: dict) -> None:
        try:
            with tapped(lm, Breaks()):
                next(visit["steps"])
        except (Broken, StopIteration):
            pass

    started = min(visitors, requests)
    with ThreadPoolExecutor(4) as pool, Decoder(lm) if together else nullcontext():
        open_visits = [begin() for _ in range(started)]
        while open_visits:
            chosen = rng.sample(range(len(open_visits)), min(4, len(open_visits)))
            jobs = [(k, pool.submit(advance, open_visits[k])) for k in chosen]
            for k, job in jobs:
                visit, going = open_visits[k], job.result()
                if not going:
                    counts["finished"] += 1
                    ends.append((visit["request"], visit["last"].token_ids))
                elif rng.random() < RAISES:
                    pool.submit(fail, visit).result()
                    counts["raised"] += 1
                elif rng.random() < LEAVES:
                    visit["steps"] = None  # the tab is closed
                    counts["left"] += 1
                else:
                    continue
                if started < requests:
                    open_visits[k], started = begin(), started + 1
                else:
                    open_visits[k] = None
            open_visits = [visit for visit in open_visits if visit is not None]
    alone: dict[int, tuple] = {}
    for request, token_ids in ends:
        if request.seed not in alone:
            *_, step = request.start(lm)
            alone[request.seed] = step.token_ids
        counts["different"] += token_ids != alone[request.seed]
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--visitors", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", action="store_true", help="written by one decoder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    counts = simulate(arguments.requests, arguments.visitors, arguments.seed, arguments.together)
    said = ", ".join(f"{number} {name}" for name, number in counts.items())
    print(f"{arguments.requests} requests of {arguments.visitors} visitors: {said}")
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
