"""Options of the shell's `evaluate`, `sweep`, `report` and `lm_eval`; `commands.py` does them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .options import language_codes

Make = Callable[[Any, str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]


def add_commands(commands: Any, with_recipe: Make) -> None:
    """Add the commands to a parser; `with_recipe` makes one that takes a recipe's options."""
    evaluate = with_recipe(
        commands,
        "evaluate",
        _run("evaluate"),
        "score tasks unsteered, steered, and under random controls",
    )
    _items(evaluate)
    evaluate.add_argument(
        "--chosen",
        nargs="+",
        metavar="FILE",
        help="settings that `sweep` chose: report them on test items (default: try out "
        "the recipe on validation items)",
    )
    evaluate.add_argument(
        "--baselines", action="store_true", help="add IntMu, LAPE, LanguageArithmetic and DiffMean"
    )
    evaluate.add_argument(
        "--controls",
        type=int,
        default=3,
        help="random controls: the same numbers on random neurons",
    )
    evaluate.add_argument("--out", required=True, help="the results to write (.json)")
    _outputs(evaluate)

    sweep = with_recipe(
        commands, "sweep", _run("sweep"), "try many settings on validation items, choose one"
    )
    _items(sweep)
    sweep.add_argument(
        "--grid",
        nargs="+",
        required=True,
        metavar="FIELD=VALUES",
        help="such as alpha=0.5,1,2 tau=0.1,0.2 layers=6-8,4-8 (counted from 0, "
        "without the second); with --random also alpha=0..2",
    )
    sweep.add_argument("--random", type=int, help="draw so many settings instead of all (--seed)")
    sweep.add_argument("--together", type=int, default=8, help="settings that share a forward")
    sweep.add_argument(
        "--likelihood",
        action="store_true",
        help="score the true answers' log-likelihoods, which takes fewer items",
    )
    sweep.add_argument("--out", required=True, help="the chosen setting to write (.json)")
    sweep.add_argument("--results", help="all settings' results, for `report` (.json)")
    sweep.add_argument("--json", action="store_true", help="print the table as JSON")
    for command in (evaluate, sweep):
        command.add_argument(
            "--finding", action="store_true", help="measure how far languages move apart, too"
        )

    marks = with_recipe(
        commands, "marks", _run("marks"), "find the strengths at which a method says something"
    )
    marks.add_argument(
        "--goal",
        default="write",
        help="forget (the language), write (in another), silence (one) or help (a weak one); "
        "each has a method of its own (default: write)",
    )
    text = "codes such as es,sw (default: three that the atlas has)"
    marks.add_argument("--languages", type=language_codes, help=text)
    marks.add_argument("--prompts", type=int, default=6, help="of each language")
    marks.add_argument("--strengths", help="such as 0.1,0.2,0.5 (default: eight that suit it)")
    marks.add_argument("--atlas", help="a measured atlas (default: the kept one, or measure now)")
    marks.add_argument("--out", help="write them as JSON")
    marks.add_argument("--json", action="store_true", help="print them as JSON")

    report = commands.add_parser("report", help="write tables and plots of results")
    report.set_defaults(run=_run("report"))
    report.add_argument("results", help="what evaluate or sweep wrote (.json)")
    report.add_argument("--sweep", help="the results of a sweep, to go with them")
    _outputs(report)

    text = "run lm-evaluation-harness with the model `clas`; all options are its own"
    # With another prefix, the harness's options are no options to this parser.
    harness = commands.add_parser("lm_eval", help=text, add_help=False, prefix_chars="\0")
    harness.set_defaults(run=_run("run_harness"))
    harness.add_argument("options", nargs="*")


def _items(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tasks",
        nargs="+",
        default=["village-nli", "village-qa"],
        metavar="TASK[=SOURCE]",
        help="such as village-qa, xnli=FOLDER, xquad=hub, bits-per-byte=FILE",
    )
    text = "codes such as en,sw (default: all that a task has)"
    command.add_argument("--languages", type=language_codes, help=text)
    command.add_argument("--items", type=int, default=200, help="a task and language")
    command.add_argument(
        "--shots", type=int, default=0, help="solved examples before each item; turns of a chat"
    )
    command.add_argument("--atlas", help="a measured atlas (default: the kept one, or measure now)")
    command.add_argument("--log", help="write scores down as they are done, and go on from there")
    command.add_argument("--workers", type=int, default=1, help="processes")
    command.add_argument("--cluster", action="store_true", help="place the processes by Ray")


def _outputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--csv", help="write the comparison as CSV")
    command.add_argument("--latex", help="write it as LaTeX")
    command.add_argument("--html", help="write a report that opens offline")
    command.add_argument("--json", action="store_true", help="print it as JSON")


def _run(name: str) -> Callable[[argparse.Namespace], None]:
    def run(arguments: argparse.Namespace) -> None:
        from . import evaluation_commands as commands  # what it needs takes a second to import

        getattr(commands, name)(arguments)

    return run
