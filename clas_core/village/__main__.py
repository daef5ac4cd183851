"""`python -m clas_core.village`: the world alone. Check and read its grammars, train its model."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from ..errors import ClasError
from ..paths import ASSETS
from .corpus import write_corpus
from .grammar import CODES, VERDICTS, Grammar, GrammarError, all_fillers
from .train import PRESETS, train_stages
from .world import EVENT_SLOTS, QUESTION_SLOTS, Event, Question

MODEL = ASSETS / "village" / "model"
CORPUS = ASSETS / "corpora" / "village.tsv"


def check(codes: list[str]) -> int:
    """Print what is wrong with each language; the exit status, 1 if anything is."""
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
    """Print `each` sentences of every template of a language, for a reader of it to judge."""
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
    made = train_stages(PRESETS[preset], run)
    shutil.copytree(made, out, dirs_exist_ok=True)
    stages = [asdict(stage) for stage in PRESETS[preset]]
    (out / "settings.json").write_text(json.dumps(stages, indent=1) + "\n", "utf-8")
    print(f"The model is in {out}.")


def main(arguments: list[str] | None = None) -> int:
    """Do what `arguments` say (default: the command line's); the exit status."""
    parser = argparse.ArgumentParser(prog="python -m clas_core.village", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checks = commands.add_parser("check", help="render everything, report what is wrong")
    checks.add_argument("codes", nargs="*")
    shows = commands.add_parser("samples", help="print rendered sentences to read")
    shows.add_argument("code")
    shows.add_argument("--each", type=int, default=4, help="sentences per template")
    shows.add_argument("--seed", type=int, default=0)
    commands.add_parser("corpus", help="write the parallel sentences")
    trains = commands.add_parser("model", help="train the embedded model, or go on training it")
    trains.add_argument("--preset", choices=PRESETS, default="village")
    trains.add_argument("--run", type=Path, default=Path("runs/village"))
    trains.add_argument("--out", type=Path, default=MODEL)
    try:
        return _run(parser.parse_args(arguments))
    except ClasError as error:
        print(error, file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    match args.command:
        case "check":
            return check(args.codes or list(CODES))
        case "samples":
            samples(args.code, args.each, args.seed)
        case "corpus":
            write_corpus(CORPUS)
        case "model":
            model(args.preset, args.run, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
