"""`make bench-libraries`: one steering, by this project and by others, on the same weights.

The embedded model's residual stream is shifted by the same vector after the same layer, and all
write the same tokens greedily: a library whose tokens differ from ours isn't timed. They take
turns, a row is the median over rounds. It runs in an environment of its own, as some of the
libraries ask for other versions than this project does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ...atlas.atlas import Atlas
from ...atlas.selection import select
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...model.loading import load
from ...model.prompts import as_rendered
from ...paths import ASSETS
from ...running.generation import generate
from ...steering.baking import bake
from ...steering.methods import DiffMean
from ...steering.plan import LayerPlan, SteeringPlan
from ...village.grammar import Grammar
from ...village.tasks import qa_items

TOKENS, LAYER = 40, 3  # the layer after which all shift, counted from 0
STRENGTH = 1.0  # of the shift, in shares of the residual stream's typical norm
Run = Callable[[], Sequence[int]]  # writes, and gives the new tokens


def fresh() -> LanguageModel:
    """The embedded model, a copy of its own: libraries put their modules into it."""
    lm = load("village", dtype="float32")
    config: Any = lm.model.generation_config
    config.eos_token_id = None  # no text ends early
    return lm


def write(model: Any, ids: torch.Tensor) -> list[int]:
    """The new tokens of transformers' own `generate`, or of what has one like it."""
    found: list[int] = model.generate(ids, **options())[0, ids.shape[1] :].tolist()
    return found


def options() -> dict[str, Any]:
    """What transformers' `generate` is called with by all."""
    return {"max_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}


def the_plan(lm: LanguageModel) -> SteeringPlan:
    """The shift that all of them add: from English to Spanish."""
    atlas = Atlas.load(ASSETS / "village" / "atlas.safetensors", lm)
    method = DiffMean(STRENGTH, layers=(LAYER, LAYER + 1))
    return method.plan(atlas, select(atlas), "es")


def plain(ids: torch.Tensor) -> Run:
    """transformers' own `generate`, unsteered."""
    model = fresh().model
    return lambda: write(model, ids)


def ours(prompt: str, plans: Sequence[SteeringPlan | None], lm: LanguageModel | None = None) -> Run:
    """`clas.generate` with these plans; the last row's tokens."""
    lm = lm or fresh()
    endless = replace(as_rendered(lm, prompt), end_ids=frozenset())

    def run() -> Sequence[int]:
        *_, last = generate(lm, endless, plans, max_new_tokens=TOKENS)
        return last.token_ids[-1]

    return run


def baked(prompt: str, plan: SteeringPlan) -> Run:
    """`clas.generate` on a checkpoint with the plan in its weights."""
    with tempfile.TemporaryDirectory() as folder:
        bake(fresh(), plan, Path(folder) / "baked")
        lm = load(str(Path(folder) / "baked"), dtype="float32")
    return ours(prompt, [None], lm)


def with_repeng(ids: torch.Tensor, vector: torch.Tensor) -> Run:
    """repeng's control vector."""
    from repeng import ControlModel, ControlVector

    model = ControlModel(fresh().model, [LAYER])
    model.set_control(ControlVector("llama", {LAYER: vector.numpy()}), 1.0)
    return lambda: write(model, ids)


def with_steering_vectors(ids: torch.Tensor, vector: torch.Tensor) -> Run:
    """steering-vectors' context."""
    from steering_vectors import SteeringVector

    model = fresh().model
    steering = SteeringVector({LAYER: vector}, "decoder_block")

    def run() -> Sequence[int]:
        with steering.apply(model):
            return write(model, ids)

    return run


def with_nnsight(ids: torch.Tensor, vector: torch.Tensor) -> Run:
    """nnsight's trace of a generation."""
    import nnsight

    lm = fresh()
    model = nnsight.LanguageModel(lm.model, tokenizer=lm.tokenizer)

    def run() -> Sequence[int]:
        with model.generate(ids, **options()) as tracer:
            for _ in tracer.iter[:TOKENS]:
                model.model.layers[LAYER].output = model.model.layers[LAYER].output + vector
            out = tracer.result.save()
        found: list[int] = out[0, ids.shape[1] :].tolist()
        return found

    return run


def with_pyvene(ids: torch.Tensor, vector: torch.Tensor) -> Run:
    """pyvene's intervention by a function on a block's output."""
    import pyvene

    def add(base: torch.Tensor, source: Any) -> torch.Tensor:
        return base + vector

    config = {"layer": LAYER, "component": "block_output", "intervention": add}
    model = pyvene.IntervenableModel([config], model=fresh().model)

    def run() -> Sequence[int]:
        base = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        _, out = model.generate(base, intervene_on_prompt=True, **options())
        found: list[int] = out[0, ids.shape[1] :].tolist()
        return found

    return run


LIBRARIES: dict[str, Callable[[torch.Tensor, torch.Tensor], Run]] = {
    "repeng": with_repeng,
    "steering-vectors": with_steering_vectors,
    "nnsight": with_nnsight,
    "pyvene": with_pyvene,
}


def measure(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each; they take turns, and a first turn isn't counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: median(found) for name, found in times.items()}


def report(rounds: int) -> None:
    """Print both tables: what steering costs, and two answers side by side."""
    lm = fresh()
    prompt = qa_items("test", 1)[0].render(Grammar.load("en")).text
    ids = torch.tensor([as_rendered(lm, prompt).token_ids])
    plan = the_plan(lm)
    vector = plan.layers[LAYER].shift
    assert vector is not None  # of a shift
    wanted = ours(prompt, [plan])()
    half = LayerPlan(scale=torch.full((lm.widths[LAYER],), 0.5))
    rows = [None, *(plan * k for k in (0.25, 0.5, 0.75, 1.0))]
    runs = {
        "plain": plain(ids),
        "ours, unsteered": ours(prompt, [None]),
        "ours, steered": ours(prompt, [plan]),
        "ours, two rows": ours(prompt, [None, plan]),
        "ours, five rows": ours(prompt, rows),
        "ours, baked": baked(prompt, SteeringPlan({LAYER: half}, "baked")),
    }
    if list(runs["plain"]()) == list(wanted):
        raise ClasError("The shift is too small to change what is written: nothing to compare.")
    for name, make in LIBRARIES.items():
        try:
            run = make(ids, vector)
            said = list(run())
        except Exception as error:  # what others raise is theirs to say
            print(f"{name}: not timed, {type(error).__name__}: {str(error)[:120]}", file=sys.stderr)
            continue
        if said != list(wanted):
            print(f"{name}: not timed, it writes other tokens", file=sys.stderr)
            continue
        runs[name] = run
    found = measure(runs, rounds)
    alone, one = found["plain"], found["ours, unsteered"]
    print(
        "| steered by | seconds for 40 tokens | over unsteered | unsteered and steered, over ours |"
    )
    print("|---|---|---|---|")
    both = found["ours, two rows"]
    steered = found["ours, steered"]
    print(f"| this project | {steered:.3f} | {steered / one:.2f} | 1 |")
    for name in LIBRARIES:
        if name in found:
            pair = (alone + found[name]) / both
            print(f"| {name} | {found[name]:.3f} | {found[name] / alone:.2f} | {pair:.2f} |")
    print()
    for what in ("two rows", "five rows", "baked"):
        print(f"ours, {what}, over one: {found[f'ours, {what}'] / one:.2f}")
    print(f"ours, unsteered, over transformers' generate: {one / alone:.2f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench from the command line."""
    parser = argparse.ArgumentParser(prog="python -m clas_core.studies.benches.libraries")
    parser.add_argument("--rounds", type=int, default=9, help="timed turns of each (default 9)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    report(args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
