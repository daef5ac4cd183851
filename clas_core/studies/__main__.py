"""`python -m clas_core.studies`: measure the embedded model, and write down what was found."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from ..atlas.atlas import Atlas
from ..atlas.selection import select
from ..errors import ClasError
from ..evaluation.marks import GOALS, VILLAGE_BASE, opening, save_marks
from ..evaluation.telling.real import findings_markdown, read_findings
from ..evaluation.telling.tables import to_json
from ..model.loading import load
from ..paths import ASSETS, replacing
from ..steering.recipe import Recipe
from ..text.corpus import ParallelCorpus
from ..village.grammar import CODES
from ..village.train import Settings
from .card import card
from .first_screen import write_first_screen
from .forcing import METHODS, force, lines_of, settings_of
from .real import FORCING, Sizes, command_of, study_real, tell_progress
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


def print_forcing(
    methods: Sequence[str], tried: int, told: int, out: Path | None, alone: bool
) -> None:
    """How well each of `methods` forces each language of the village, as a Markdown table; with
    `out`, a folder, their comparisons as JSON too. `alone`: a setting for each language, which its
    own validation items choose, English left out; else one for all."""
    lm = load("village")
    atlas = Atlas.load(VILLAGE / "atlas.safetensors", lm)
    base = Recipe(tau=0.1, shared_from=len(CODES))
    with tqdm(unit="item", disable=None) as bar:

        def progress(stage: str, done: int, total: int) -> None:
            bar.set_description(stage)
            bar.total, bar.n = total, done
            bar.refresh()

        for method in methods:
            settings = settings_of(method, base)
            for only in [[code] for code in CODES if code != "en"] if alone else [None]:
                chosen, found = force(
                    lm, atlas, method, settings, None, only, tried=tried, told=told,
                    progress=progress,
                )  # fmt: skip
                name = "".join(only or ["all languages"])
                print(f"{name}: {chosen.setting.steering}")
                print(*lines_of(method, chosen.setting, found), sep="\n")
                sys.stdout.flush()
                if out is not None:
                    save(out / f"{method} {name}.json", json.loads(to_json(found)))


def write_marks() -> None:
    """Find the strengths at which each goal's method says something, for the embedded model."""
    lm = load("village")
    atlas = Atlas.load(VILLAGE / "atlas.safetensors", lm)
    corpus, found = ParallelCorpus.bundled("village"), []
    with TemporaryDirectory() as folder:  # all anew
        for goal in tqdm(GOALS, unit="goal", disable=None):
            marks = opening(lm, atlas, corpus, goal, VILLAGE_BASE, folder=folder)
            found.append(marks.as_dict())
            print(f"{goal}: {marks.sentence}")
    save_marks(VILLAGE / "marks.json", found)


def write_real(args: argparse.Namespace) -> None:
    """Run the whole protocol on a real model; the result is `found.json` in the folder."""
    lm = load(args.model, revision=args.revision)
    sizes = Sizes(**{name: getattr(args, name) for name in vars(Sizes())})
    name = args.name or args.model
    about = {
        "model": name,
        "revision": lm.revision,
        "licence": args.licence,
        "made": args.made,
        "command": command_of(name, "FOLDER", sizes, args.forcing),
    }
    found = study_real(
        lm, args.out, about, sizes=sizes, methods=args.forcing, progress=tell_progress()
    )
    save(args.out / "found.json", found)
    print(args.out / "found.json")


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
    commands.add_parser("marks", help="store at which strengths the goals' methods are seen")
    forcing = commands.add_parser("forcing", help="tell how well methods force a language")
    forcing.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    forcing.add_argument("--tried", type=int, default=6, help="validation items a language")
    forcing.add_argument("--told", type=int, default=20, help="test items a language")
    forcing.add_argument("--out", type=Path, help="a folder for the comparisons as JSON")
    forcing.add_argument("--alone", action="store_true", help="choose a setting a language")
    commands.add_parser("findings", help="print what was found on real models, for the README")
    real = commands.add_parser("real", help="run the same protocol on any model")
    real.add_argument("model", help="a directory, a GGUF file, a hub id")
    real.add_argument("--out", type=Path, required=True, help="a folder; resumes there")
    real.add_argument("--revision", help="of the hub")
    real.add_argument("--name", help="what the result calls the model, where it isn't its place")
    real.add_argument("--licence", help="of the weights, for the result")
    real.add_argument("--made", help="how the weights came to be so, for the result")
    real.add_argument("--forcing", nargs="+", default=list(FORCING), choices=FORCING)
    for name, value in vars(Sizes()).items():
        real.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args(arguments)
    try:
        match args.command:
            case "measure":
                write_measures(args.run, args.workers)
            case "card":
                write_card(args.model, args.items, args.tau)
            case "first-screen":
                write_first_screen()
            case "marks":
                write_marks()
            case "forcing":
                print_forcing(args.methods, args.tried, args.told, args.out, args.alone)
            case "findings":
                print(findings_markdown(read_findings(ASSETS / "findings")))
            case "real":
                write_real(args)
    except ClasError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
