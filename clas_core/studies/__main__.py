"""`python -m clas_core.studies`: measure the embedded model, and write down what was found."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from ..atlas.atlas import Atlas
from ..atlas.selection import select
from ..errors import ClasError
from ..model.loading import load
from ..paths import ASSETS, replacing
from ..text.corpus import ParallelCorpus
from ..village.grammar import CODES
from ..village.train import Settings
from .card import card
from .first_screen import write_first_screen
from .scores import evaluate, table
from .settings import save, study

VILLAGE = ASSETS / "village"


def write_measures(run: Path, workers: int) -> None:
    """Measure what the page needs of the embedded model: atlas, opening settings, what they do.

    What `run` holds of a killed measurement is not measured again.
    """
    lm = load("village")
    atlas = Atlas.measure(lm, ParallelCorpus.bundled("village"))
    atlas.save(VILLAGE / "atlas.safetensors")
    with tqdm(unit="item") as bar:

        def progress(stage: str, done: int, total: int) -> None:
            if bar.desc != stage + ": ":
                bar.set_description(stage)
                bar.reset(total)
            bar.update(done - bar.n)

        settings, measured = study(lm, atlas, run, workers=workers, progress=progress)
    save(VILLAGE / "settings.json", settings)
    save(VILLAGE / "measured.json", measured)


def write_card(folder: Path, items: int, tau: float) -> None:
    """Measure the model in `folder` on `items` test items a language and task; write its card."""
    lm = load(folder)
    stages = [Settings(**one) for one in json.loads((folder / "settings.json").read_text())]
    bar = tqdm(desc="Measuring languages", total=len(CODES), unit="language")

    def progress(done: int, total: int) -> None:
        bar.update(done - bar.n)

    scores = evaluate(lm, items=items, progress=progress)
    atlas = Atlas.measure(lm, ParallelCorpus.bundled("village"))
    counts = select(atlas, tau=tau).counts().tolist()
    text = card(lm.model, stages, scores, items, counts, tau)
    with replacing(folder / "README.md") as scratch:
        scratch.write_text(text, encoding="utf-8")
    print(table(scores))


def main(arguments: list[str] | None = None) -> int:
    """Do what `arguments` say (default: the command line's); the exit status."""
    parser = argparse.ArgumentParser(prog="python -m clas_core.studies", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measures = commands.add_parser(
        "measure", help="measure the atlas, choose the page's settings, tell what steering does"
    )
    measures.add_argument("--run", type=Path, default=Path("runs/measure"), help="resumes there")
    measures.add_argument("--workers", type=int, default=2, help="processes")
    cards = commands.add_parser("card", help="measure the model, write its card")
    cards.add_argument("--model", type=Path, default=VILLAGE / "model")
    cards.add_argument("--items", type=int, default=300, help="test items a language and task")
    cards.add_argument("--tau", type=float, default=0.1)
    commands.add_parser("first-screen", help="store what the page opens with, and its layouts")
    args = parser.parse_args(arguments)
    try:
        match args.command:
            case "measure":
                write_measures(args.run, args.workers)
            case "card":
                write_card(args.model, args.items, args.tau)
            case "first-screen":
                write_first_screen()
    except ClasError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
