"""What measuring costs on the embedded model: `python -m clas_core.studies.benches.evaluation`.

An extra condition against the unsteered run, and the whole protocol (two tasks, twelve languages,
200 items, unsteered and four more conditions). Nothing is asserted.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import torch
from tqdm import tqdm

from ...atlas.atlas import Atlas
from ...evaluation.judging.conditions import CONTROL, UNSTEERED, Condition
from ...evaluation.judging.engine import load_items, run_tasks, tuning_runs
from ...evaluation.judging.items import Validation
from ...evaluation.judging.workers import WorkerSetup, run_in_processes
from ...evaluation.tasks import open_task
from ...model.architecture import LanguageModel
from ...model.loading import load
from ...paths import ASSETS
from ...steering.recipe import Recipe

RECIPE = Recipe(alpha=1.0, beta=2.0, gamma=0.0, tau=0.1, shared_from=6)
CONDITIONS = (
    Condition(UNSTEERED),
    Condition("CLAS", RECIPE),
    Condition("IntMu", replace(RECIPE, method="IntMu")),
    Condition("DiffMean", replace(RECIPE, method="DiffMean")),
    Condition(f"{CONTROL}0", RECIPE, control=0),
)
TASKS = ("village-nli", "village-qa")


def seconds(
    lm: LanguageModel, atlas: Atlas, task: str, conditions: tuple[Condition, ...], items: int
) -> float:
    """How long a task takes in English, Thai and Swahili under these conditions."""
    loaded = load_items([open_task(task)], Validation, ["en", "th", "sw"], items)
    start = time.perf_counter()
    for _ in run_tasks(lm, atlas, tuning_runs(loaded, conditions)):
        pass
    return time.perf_counter() - start


def extra_condition(lm: LanguageModel, atlas: Atlas, task: str, items: int, runs: int) -> float:
    """Seconds of a further condition over those of the unsteered one: median of runs in turn."""
    ratios = []
    for _ in range(runs + 1):
        alone = seconds(lm, atlas, task, CONDITIONS[:1], items)
        together = seconds(lm, atlas, task, CONDITIONS, items)
        ratios.append((together - alone) / (len(CONDITIONS) - 1) / alone)
    return median(ratios[1:])


def protocol(atlas: Atlas, items: int, workers: int) -> float:
    """Seconds of the whole protocol, the workers' start included."""
    loaded = load_items([open_task(task) for task in TASKS], Validation, None, items)
    start = time.perf_counter()
    with tqdm(desc="protocol", unit=" items") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        setup = WorkerSetup(RECIPE, atlas)
        for _ in run_in_processes(setup, tuning_runs(loaded, CONDITIONS), workers, progress):
            pass
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print the rows of the README's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--items", type=int, default=200, help="of the protocol; 0 leaves it out")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    lm = load("village")
    atlas = Atlas.load(ASSETS / "village" / "atlas.safetensors")
    print("| what | measured | promised |\n|---|---|---|")
    for task in TASKS:
        ratio = extra_condition(lm, atlas, task, 40, arguments.runs)
        print(
            f"| A further condition of {task}, over the unsteered run | {ratio:.2f} | 1.2 |",
            flush=True,
        )
    if arguments.items:
        minutes = protocol(atlas, arguments.items, arguments.workers) / 60
        what = f"Two tasks, 12 languages, {arguments.items} items, {len(CONDITIONS)} conditions"
        print(f"| {what}, {arguments.workers} processes | {minutes:.1f} min | 6 min |")
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
