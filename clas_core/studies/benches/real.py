"""What steering and measuring cost on a model of real size, as ratios in one run.

    python -m clas_core.studies.benches.real smollm2
    python -m clas_core.studies.benches.real gemma.gguf

Both sides of a ratio alternate and are timed on one thread in processor time, so that a busy
machine is no one's advantage; every figure is a median. Plain means `generate` of transformers,
with greedy search. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch

from ...atlas.measuring import batches_of
from ...model.architecture import LanguageModel
from ...model.loading import load
from ...running.generation import generate
from ...steering.plan import LayerPlan, SteeringPlan
from ...text.corpus import ParallelCorpus
from .measuring import forward_pairs

PROMPT = "The children went to the market early in the morning, and"


def seconds(call: Callable[[], object]) -> float:
    """Processor time that `call` takes, of all its threads."""
    start = time.process_time()
    call()
    return time.process_time() - start


def plain(lm: LanguageModel, tokens: int) -> None:
    """Write so many tokens by transformers' own code."""
    inputs = lm.encode([PROMPT]).inputs
    lm.model.generate(  # type: ignore[operator]  # a mixin's, by what the model is
        **inputs,
        do_sample=False,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        pad_token_id=lm.pad_id,
    )


def ours(lm: LanguageModel, plans: list[SteeringPlan | None], tokens: int) -> None:
    """Write so many tokens under each plan; none ends early, as long as the model says no end."""
    *_, last = generate(lm, PROMPT, plans, max_new_tokens=tokens)
    if not all(len(ids) == tokens for ids in last.token_ids):
        raise SystemExit("The answer ended early: choose another prompt to time.")


def some_plan(lm: LanguageModel) -> SteeringPlan:
    """One that changes every neuron of the two layers in the middle a little."""
    middle = lm.num_layers // 2
    return SteeringPlan(
        {k: LayerPlan(scale=torch.full((lm.widths[k],), 1.01)) for k in (middle, middle + 1)}
    )


def read_rate(lm: LanguageModel) -> float:
    """Seconds in which this machine reads all weights of a token once: what bounds one row."""
    weights = [one.detach().flatten() for one in lm.model.parameters() if one.ndim > 1]
    # Pairs of 16 bits as one number: else adding them up takes longer than reading them.
    read = [one.view(torch.float32) if one.numel() % 2 == 0 else one for one in weights]
    return min(seconds(lambda: [one.sum() for one in read]) for _ in range(3))


def bfloat16_support() -> str:
    """Whether this processor multiplies bfloat16 itself."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    avx = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    found = [name for name, has in (("AMX", amx), ("AVX-512", avx)) if has]
    return f"bfloat16 by {' and '.join(found)}" if found else "no bfloat16 instructions"


def rows(lm: LanguageModel, runs: int, tokens: int) -> Iterator[tuple[str, str]]:
    """(what, figure) one by one, as they are measured."""
    plan = some_plan(lm)
    calls: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(lm, tokens),
        "one": lambda: ours(lm, [None], tokens),
        "steered": lambda: ours(lm, [plan], tokens),
        "pair": lambda: ours(lm, [None, plan], tokens),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            took = seconds(call)
            if run:  # the first is not counted
                times[name].append(took)

    def over(name: str) -> str:
        return f"{median(a / b for a, b in zip(times[name], times['plain'])):.2f}"

    yield f"plain generate, {tokens} tokens", f"{median(times['plain']):.2f} s"
    yield "one answer over plain generate", over("one")
    yield "one steered answer over plain generate", over("steered")
    yield "a pair over plain generate of one", over("pair")
    yield (
        "plain generate, a token, over reading all weights once",
        (f"{median(times['plain']) / tokens / read_rate(lm):.2f}"),
    )
    corpus = ParallelCorpus.bundled("everyday").subset(("en", "de", "hi", "sw"), 64)
    batches = len(list(batches_of(corpus, 32)))
    ratio = median(forward_pairs(lm, corpus, min(batches, runs + 1), time.process_time))
    yield "measuring over the bare forward pass", f"{ratio:.2f}"


def main() -> None:
    """Print the table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="smollm2, a hub id, a directory or a GGUF file")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lm = load(arguments.model, dtype=arguments.dtype)
    print("| what | median |\n|---|---|")
    for row in rows(lm, arguments.runs, arguments.tokens):
        print("| " + " | ".join(row) + " |", flush=True)
    print(f"\ntorch {torch.__version__}, one thread, {lm.dtype}; {bfloat16_support()}")


if __name__ == "__main__":
    main()
