"""`make fuzz`: bad input by the hundred thousand, at everything that reads what others wrote.

Recipes and links, parallel text in every format, published neurons and vectors, GGUF control
vectors, atlases, plans, layouts and results; and events posted straight to the page's server. An
input may be refused by a ClasError and by nothing else; no file appears outside its folder, no
answer of the server holds a traceback, and memory stays flat. Seeded: `--seed 3` is the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_server import ODD_VALUES, served_page, spoil_events, watched_files
from tiny import SENTENCES

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.items import Validation
from clas_core.evaluation.judging.results import Results
from clas_core.evaluation.judging.sweep import load_chosen
from clas_core.evaluation.telling.tables import from_json
from clas_core.running.layout import Layout
from clas_core.steering.control_vectors import read_control_vector, write_control_vector
from clas_core.steering.plan import LayerPlan, SteeringPlan
from clas_core.steering.published import PublishedNeurons, read_neurons, read_vectors
from clas_core.steering.recipe import Recipe, read_recipe
from clas_core.text.report import check_corpus
from clas_core.ui.behind.memory import give_back

WARM_UP = 500  # events, after which the page has made what it keeps
Case = tuple[str, Callable[[Path], object], bytes]  # file name, what reads it, a good file

_RECIPE = json.loads(Recipe(prompt="Who sleeps?", target="sw").to_json())


class Failures(Counter[str]):
    """What went wrong, by kind, the first of each kind shown in full."""

    _lock = threading.Lock()

    def note(self, kind: str, case: str) -> None:
        with self._lock:
            self[kind] += 1
            if self[kind] == 1:
                print(f"\n{case}: {kind}\n{traceback.format_exc()}", file=sys.stderr)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, or replaced by numbers at the edges of their type."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place, size = rng.randrange(len(found) + 1), rng.randint(1, 16)
        match rng.randrange(6):
            case 0:
                found[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del found[place : place + size]
            case 2:
                found[place:place] = found[max(0, place - size) : place]
            case 3:
                edge = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1))
                found[place : place + 8] = edge.to_bytes(8, "little")
            case 4:
                found[place:place] = rng.choice((b"\x00", b"\xff\xfe", b'"', b"[" * 40, b"\t\n"))
            case _:
                del found[place:]
    return bytes(found)


def files(folder: Path) -> list[Case]:
    """A good file of every kind that is read, to be spoilt."""
    rows = list(zip(*SENTENCES.values()))
    lines = ["\t".join(SENTENCES), *("\t".join(row) for row in rows)]
    jsonl = [json.dumps(dict(zip(SENTENCES, row)), ensure_ascii=False) for row in rows]
    plan = SteeringPlan({1: LayerPlan(torch.ones(8), None, torch.ones(4))})
    shifts = SteeringPlan({1: LayerPlan(shift=torch.ones(4)), 2: LayerPlan(shift=torch.ones(4))})
    sizes = (2, 2, 6)
    atlas = Atlas(
        ("en", "sw"), torch.rand(sizes), torch.rand(sizes),
        residual=torch.rand(2, 2, 4), norm=torch.rand(2, 2), precision=torch.rand(sizes).half(),
        median=torch.rand(sizes).half(), tokens=torch.tensor([5, 6]),
    )  # fmt: skip
    neurons = PublishedNeurons(torch.ones(2, 2, 6, dtype=torch.bool), ("en", "sw"), (6, 6))
    write = {
        "plan": plan.save, "atlas": atlas.save, "neurons": neurons.save,
        "layout": Layout(torch.rand(12, 2), torch.rand(12, 4)).save,
        "control": lambda path: write_control_vector(shifts, path, "llama"),
        "lape": lambda path: torch.save([[torch.tensor([1, 2])] * 2] * 2, path),
        "vectors": lambda path: torch.save({"en": torch.rand(2, 4)}, path),
    }  # fmt: skip
    made = {}
    for name, save in write.items():
        save(folder / name)
        made[name] = (folder / name).read_bytes()
        (folder / name).unlink()
    Results(()).save(folder / "results")
    results = (folder / "results").read_bytes()
    (folder / "results").unlink()
    comparison = {"about": {}, "anchor": "en", "differences": [], "control_wins": []}
    return [
        ("text.tsv", check_corpus, "\n".join(lines).encode()),
        ("text.csv", check_corpus, "\n".join(lines).replace("\t", ",").encode()),
        ("text.jsonl", check_corpus, "\n".join(jsonl).encode()),
        ("text.en.txt", lambda path: check_corpus([path]), lines[1].encode()),
        ("recipe.json", lambda path: read_recipe(str(path)), json.dumps(_RECIPE).encode()),
        ("comparison.json", lambda path: from_json(path.read_text("utf-8", "replace")),
         json.dumps(comparison).encode()),
        ("results.json", lambda path: Results.load(path, Validation), results),
        ("chosen.json", load_chosen, b'{"format": "clas-chosen-1", "chosen": []}'),
        ("a.safetensors", Atlas.load, made["atlas"]),
        ("p.safetensors", SteeringPlan.load, made["plan"]),
        ("l.safetensors", Layout.load, made["layout"]),
        ("n.safetensors", PublishedNeurons.load, made["neurons"]),
        ("c.gguf", read_control_vector, made["control"]),
        ("lape.pth", lambda path: read_neurons(path, ("en", "sw"), 6), made["lape"]),
        ("vectors.pt", read_vectors, made["vectors"]),
    ]  # fmt: skip


def spoil_files(count: int, rng: random.Random, failures: Failures) -> Counter[str]:
    """Read `count` spoilt files; how many were refused, by kind of file."""
    refused: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = files(folder)
        for number in range(count):
            file, read, good = cases[number % len(cases)]
            path = folder / file
            path.write_bytes(mutate(good, rng))
            _try(file, lambda read=read, path=path: read(path), failures, refused)
            path.unlink()
            if stray := list(folder.iterdir()):
                failures.note(f"left {stray[0].name}", file)
    return refused


def spoil_recipes(count: int, rng: random.Random, failures: Failures) -> Counter[str]:
    """Read `count` odd recipes and links; how many were refused."""
    refused: Counter[str] = Counter()
    link = Recipe(prompt="Who sleeps?", target="sw", layers=(1, 2)).to_query()
    for number in range(count):
        if number % 2:
            data = dict(_RECIPE)
            for _ in range(rng.randint(1, 3)):
                data[rng.choice([*data, "unknown"])] = rng.choice(ODD_VALUES)
            text = json.dumps(data)
            _try("recipe", lambda text=text: Recipe.from_json(text), failures, refused)
        else:
            text = mutate(link.encode(), rng).decode("utf-8", "surrogateescape")
            _try("link", lambda text=text: Recipe.from_query(text), failures, refused)
    return refused


def _try(what: str, call: Callable[[], object], failures: Failures, refused: Counter[str]) -> None:
    try:
        call()
    except ClasError as error:
        refused[what] += 1
        if "Traceback" in str(error) or not str(error).strip():
            failures.note("refused without a sentence", what)
    except (Exception, SystemExit) as error:
        failures.note(f"{type(error).__name__}: {str(error)[:80]}", what)


def memory() -> float:
    """Resident memory of this process in MB, without what is free inside of it."""
    gc.collect()
    give_back()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng, failures, began = random.Random(arguments.seed), Failures(), time.monotonic()
    shares = {"recipes and links": 0.5, "files": 0.4, "events": 0.1}
    counts = {name: round(arguments.inputs * share) for name, share in shares.items()}
    spoil_files(200, rng, failures)  # what is imported and cached at first use
    print(f"memory at the start: {memory():.0f} MB\n")
    print("| what | inputs | refused or answered | memory after |\n|---|---|---|---|")

    def told(name: str, found: Counter[str], count: int) -> None:
        said = ", ".join(f"{key} {number}" for key, number in sorted(found.items()))
        print(f"| {name} | {count} | {said} | {memory():.0f} MB |", flush=True)

    with watched_files(failures.note):
        for name, spoil in (("recipes and links", spoil_recipes), ("files", spoil_files)):
            told(name, spoil(counts[name], rng, failures), counts[name])
        with served_page(failures.note) as address:
            spoil_events(WARM_UP, -1, failures.note, address)
            for thread in threading.enumerate():
                if thread.name == "warm-up":
                    thread.join()
            print(f"| page warmed up | {WARM_UP} | | {memory():.0f} MB |", flush=True)
            for part in range(4):
                quarter = counts["events"] // 4
                seed = 4 * arguments.seed + part
                told("events", spoil_events(quarter, seed, failures.note, address), quarter)
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{sum(failures.values())} failures in {arguments.inputs} inputs, {minutes:.1f} minutes"
    )
    for kind, number in failures.most_common():
        print(f"  {number} x {kind}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
