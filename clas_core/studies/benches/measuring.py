"""`make bench`, the library's part: what measuring and remapping cost, here and now.

On a random Llama of about 100 M parameters, as timings of a model don't depend on what it learnt.
Bare and measured forwards alternate, so that a busy machine is no one's advantage; every figure is
a median. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ...atlas.atlas import Atlas
from ...atlas.measuring import Sums, batches_of, sentences_kept
from ...model.architecture import LanguageModel
from ...model.loading import load
from ...model.taps import tapped
from ...running.states import BridgeCache, hidden_states
from ...steering.methods import bridge_layers
from ...steering.plan import LayerPlan, SteeringPlan
from ...text.corpus import ParallelCorpus


def random_model() -> LanguageModel:
    """12 layers of 3072 neurons, hidden size 768, with the embedded model's tokenizer."""
    tokenizer = load("village", device="cpu").tokenizer
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    return load(LlamaForCausalLM(config), tokenizer)


@torch.inference_mode()
def forward_pairs(
    lm: LanguageModel,
    corpus: ParallelCorpus,
    batches: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of a measured over those of a bare forward, batch by batch."""
    sums = Sums(lm, len(corpus.languages), sentences_kept(lm, corpus))
    every = list(batches_of(corpus, 32, lm.tokenizer))
    chosen = every[:: max(1, len(every) // batches)]
    ratios = []
    for turn, (k, rows, texts) in enumerate([chosen[0], *chosen]):

        def bare(texts=texts) -> None:
            lm.model.base_model(**lm.encode(texts).inputs, use_cache=False)

        def measured(k=k, rows=rows, texts=texts) -> None:
            with tapped(lm, sums):
                sums.add(lm, k, texts, rows)

        first, second = (bare, measured) if turn % 2 else (measured, bare)
        seconds = {}
        for call in (first, second):
            start = clock()
            call()
            seconds[call] = clock() - start
        if turn:  # the first is not counted
            ratios.append(seconds[measured] / seconds[bare])
    return ratios


@torch.inference_mode()
def peak(what: str) -> float:
    """Run in a process of its own: the most memory in use over the whole corpus, in MB."""
    lm, corpus = random_model(), ParallelCorpus.bundled("everyday")
    if what == "measured":
        Atlas.measure(lm, corpus)
    else:
        for _, _, texts in batches_of(corpus, 32, lm.tokenizer):
            lm.model.base_model(**lm.encode(texts).inputs, use_cache=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rows(runs: int, memory: bool) -> Iterator[tuple[str, str, str]]:
    """(what, measured, promised) one by one, as they are measured."""
    lm, corpus = random_model(), ParallelCorpus.bundled("everyday")
    ratio = median(forward_pairs(lm, corpus, 4 * runs))
    yield "Measuring over the bare forward pass", f"{ratio:.2f}", "1.15"

    few = corpus.subset(n=20)
    start = bridge_layers(lm.num_layers)[0]
    cache = BridgeCache(lm, few, start)
    whole: list[float] = []
    cached: list[float] = []
    for run in range(max(3, runs // 2)):
        plan = SteeringPlan({start: LayerPlan(torch.full((3072,), 1 + run / 10))})
        for times, call in (
            (whole, lambda plan=plan: hidden_states(lm, few, plan)),
            (cached, lambda plan=plan: cache.states(plan)),
        ):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
    ratio = median(whole) / median(cached)
    yield "Strength move to hidden states, without over with the cache", f"{ratio:.1f}", "-"

    if memory:
        sizes = {}
        for what in ("bare", "measured"):
            command = [sys.executable, "-m", __spec__.name, "--peak", what]
            sizes[what] = float(subprocess.run(command, capture_output=True, check=True).stdout)
        text = f"{sizes['measured']:.0f} MB, bare {sizes['bare']:.0f} MB"
        yield "Peak memory of measuring 16 languages x 120 sentences", text, "-"


def main() -> None:
    """Print the table of timings; with --peak the memory of that one pass, in MB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--no-memory", action="store_true", help="leave out the two full passes")
    parser.add_argument("--peak", choices=("bare", "measured"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(arguments.peak))
        return
    print("| what | median | promised |\n|---|---|---|")
    for row in rows(arguments.runs, not arguments.no_memory):
        print("| " + " | ".join(row) + " |", flush=True)
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
