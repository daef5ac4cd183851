"""`python -m clas_core.studies`: check and read the grammars, train and measure the model."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from ..atlas.atlas import Atlas
from ..atlas.selection import select
from ..errors import ClasError
from ..model.loading import load
from ..paths import ASSETS
from ..text.corpus import ParallelCorpus
from ..village.grammar import CODES, VERDICTS, Grammar, GrammarError, all_fillers
from ..village.train import PRESETS, Settings, train
from ..village.world import EVENT_SLOTS, QUESTION_SLOTS, Event, Question, stories
from .card import card
from .scores import evaluate, table
from .settings import save, study

MODEL = ASSETS / "village" / "model"
CORPUS = ASSETS / "corpora" / "village.tsv"


def check(codes: list[str]) -> int:
    bad = 0
    for code in codes:
        try:
            grammar = Grammar.load(code)
            problems = grammar.problems()
        except (GrammarError, OSError) as error:
            problems = [str(error)]
        bad += bool(problems)
        for line in problems[:20]:
            print("  ", line)
        print(f"{code}: {len(problems)} problems" if problems else f"{code}: fine")
    return 1 if bad else 0


def samples(code: str, each: int, seed: int) -> None:
    """Rendered sentences alone, as a reader should see them: `each` of every template."""
    grammar, rng = Grammar.load(code), random.Random(seed)
    for kind, slots in EVENT_SLOTS.items():
        fillers = list(all_fillers(slots))
        for wording in range(grammar.wordings(kind)):
            for one in rng.sample(fillers, min(each, len(fillers))):
                print(grammar.sentence(Event(kind, one), wording))
    for kind, slots in QUESTION_SLOTS.items():
        fillers = list(all_fillers(slots))
        for one in rng.sample(fillers, min(each, len(fillers))):
            question = Question(kind, one)
            for wording in range(len(grammar.questions[kind]["ask"])):
                print(grammar.ask(question, wording), "->", grammar.answer(question).text)
    statement = grammar.sentence(Event("at", {"person": "anna", "place": "garden"}))
    for verdict in VERDICTS:
        print(grammar.verdict_prompt(statement), "->", grammar.inference[verdict])


def model(preset: str, run: Path, out: Path) -> None:
    """Train (or go on training) the model, then put it where `load("village")` finds it."""
    made = train(PRESETS[preset], run)
    if out.resolve() != made.resolve():
        shutil.copytree(made, out, dirs_exist_ok=True)
        shutil.copy(run / "settings.json", out / "settings.json")
    print(f"The model is in {out}.")


def write_corpus(path: Path, count: int = 240) -> None:
    """The village's parallel sentences, from its validation worlds: a TSV, a column a language."""
    rng = random.Random(0)
    events = {event.key: event for story in stories(0, "validation", 600) for event in story.events}
    by_kind = {kind: [e for e in events.values() if e.kind == kind] for kind in EVENT_SLOTS}
    chosen: list[Event] = []
    while len(chosen) < count:  # the kinds in turn, so that all are in it about equally often
        for left in by_kind.values():
            if left and len(chosen) < count:
                chosen.append(left.pop(rng.randrange(len(left))))
    rng.shuffle(chosen)
    rows = ["\t".join(CODES)]
    rows += ["\t".join(Grammar.load(code).sentence(event) for code in CODES) for event in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_measures(run: Path, workers: int) -> None:
    """Measure what the page needs of the embedded model: atlas, opening settings, what they do."""
    lm = load("village")
    folder = MODEL.parent
    atlas = Atlas.measure(lm, ParallelCorpus.bundled("village"))
    atlas.save(folder / "atlas.safetensors")
    with tqdm(unit="item") as bar:

        def progress(stage: str, done: int, total: int) -> None:
            if bar.desc != stage + ": ":
                bar.set_description(stage)
                bar.reset(total)
            bar.update(done - bar.n)

        settings, measured = study(lm, atlas, run, workers=workers, progress=progress)
    save(folder / "settings.json", settings)
    save(folder / "measured.json", measured)


def write_card(folder: Path, items: int, tau: float) -> None:
    """Measure the model in `folder` and write its card."""
    lm = load(folder)
    settings = Settings(**json.loads((folder / "settings.json").read_text()))
    bar = tqdm(desc="Measuring languages", total=len(CODES), unit="language")

    def progress(done: int, total: int) -> None:
        bar.update(done - bar.n)

    scores = evaluate(lm, items=items, progress=progress)
    atlas = Atlas.measure(lm, ParallelCorpus.bundled("village"))
    counts = select(atlas, tau=tau).counts().tolist()
    text = card(lm.model, settings, scores, items, counts, tau)
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(table(scores))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m clas_core.studies", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checks = commands.add_parser("check", help="render everything, report what is wrong")
    checks.add_argument("codes", nargs="*")
    shows = commands.add_parser("samples", help="print rendered sentences to read")
    shows.add_argument("code")
    shows.add_argument("--each", type=int, default=4, help="sentences per template")
    shows.add_argument("--seed", type=int, default=0)
    trains = commands.add_parser("model", help="train the embedded model, or go on training it")
    trains.add_argument("--preset", choices=PRESETS, default="village")
    trains.add_argument("--run", type=Path, default=Path("runs/village"))
    trains.add_argument("--out", type=Path, default=MODEL)
    commands.add_parser("corpus", help="write the parallel sentences")
    measures = commands.add_parser(
        "measure", help="measure the atlas, choose the page's settings, tell what steering does"
    )
    measures.add_argument("--run", type=Path, default=Path("runs/measure"), help="resumes there")
    measures.add_argument("--workers", type=int, default=2, help="processes")
    cards = commands.add_parser("card", help="measure the model, write its card")
    cards.add_argument("--model", type=Path, default=MODEL)
    cards.add_argument("--items", type=int, default=300, help="test items a language and task")
    cards.add_argument("--tau", type=float, default=0.1)
    args = parser.parse_args()
    try:
        return run(args)
    except ClasError as error:
        print(error, file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    match args.command:
        case "check":
            return check(args.codes or list(CODES))
        case "samples":
            samples(args.code, args.each, args.seed)
        case "model":
            model(args.preset, args.run, args.out)
        case "corpus":
            write_corpus(CORPUS)
        case "measure":
            write_measures(args.run, args.workers)
        case "card":
            write_card(args.model, args.items, args.tau)
    return 0


if __name__ == "__main__":
    sys.exit(main())
