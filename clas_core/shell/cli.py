"""The shell: python -m clas_core measure | steer | bake | import | inspect."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..atlas.atlas import Atlas
from ..atlas.preflight import inspect
from ..atlas.selection import select
from ..errors import ClasError
from ..running.effects import compare
from ..running.generation import generate
from ..steering.baking import bake
from ..steering.control_vectors import read_control_vector
from ..steering.published import read_neurons, read_vectors
from ..steering.where import ALL, steered_tokens
from ..text.corpus import ParallelCorpus
from .evaluation_options import add_commands
from .options import RECIPE_OPTIONS, atlas_of, bar, language_codes, open_model, recipe_of
from .publish import add_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 1 refused with one sentence, 2 wrong usage, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        arguments.run(arguments)
    except (ClasError, OSError) as error:
        print(f"clas: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("clas: interrupted", file=sys.stderr)
        return 130
    return 0


def _measure(arguments: argparse.Namespace) -> None:
    recipe = recipe_of(arguments)
    lm = open_model(arguments, recipe)
    corpus = ParallelCorpus.open(recipe.corpus)
    corpus = corpus.subset(arguments.languages, arguments.sentences)
    with bar("measuring", "sentence") as progress:
        atlas = Atlas.measure(
            lm,
            corpus,
            batch_size=arguments.batch_size,
            progress=progress,
            resume=f"{arguments.out}.unfinished",
        )
    if int(os.environ.get("RANK", "0")):
        return  # of the processes that share the work, the first one writes
    atlas.save(arguments.out)
    # Of fewer languages than the recipe is for, all.
    shared_from = min(recipe.shared_from or len(atlas.languages), len(atlas.languages))
    selection = select(atlas, tau=recipe.tau, shared_from=shared_from, mode=recipe.tau_mode)
    print("Neurons by category; layers count from 0:")
    print(f"{'layer':>5} {'dead':>7} {'specific':>8} {'partial':>7} {'shared':>7}")
    for layer, (dead, specific, partial, shared) in enumerate(selection.counts().tolist()):
        print(f"{layer:>5} {dead:>7} {specific:>8} {partial:>7} {shared:>7}")
    print(f"{arguments.out}: {len(corpus)} sentences in {', '.join(atlas.languages)}")


def _steer(arguments: argparse.Namespace) -> None:
    recipe = recipe_of(arguments)
    lm = open_model(arguments, recipe)
    prompt = recipe.render(lm)
    plan = recipe.build(atlas_of(arguments, recipe, lm))
    steps = generate(
        lm,
        prompt,
        plans=[None, plan],
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        seed=recipe.seed,
    )
    with bar("writing", "token") as progress:
        for step in steps:
            progress(step.index + 1, recipe.max_new_tokens)
    unsteered, steered = step.token_ids
    effects = compare(lm, prompt, unsteered, steered, plan)
    if arguments.json:
        result = {
            "recipe": dataclasses.asdict(recipe),
            "hash": recipe.hash,
            "prompt": prompt.text,
            "texts": step.texts,
            "token_ids": step.token_ids,
            "kl": effects.kl.tolist(),
            "sentence": effects.sentence,
            "touched": plan.touched._asdict(),
            "steered_tokens": steered_tokens(plan.where, len(prompt.token_ids), len(steered)),
        }
        print(json.dumps(result, ensure_ascii=False))
    else:
        if prompt.templated:
            print(f"{'prompt':>9}: {prompt.text}")
        for side, text in zip(("unsteered", "steered"), step.texts):
            print(f"{side:>9}: {text}")
        print(effects.sentence)
        part = "" if plan.where == ALL else f", at {plan.where} alone"
        names = ", then ".join(one.method for one in recipe.chain)
        print(f"{names} changes {plan.touched}{part}.")


def _bake(arguments: argparse.Namespace) -> None:
    recipe = recipe_of(arguments)
    lm = open_model(arguments, recipe)
    plan = recipe.build(atlas_of(arguments, recipe, lm))
    bake(lm, plan, arguments.out, dataclasses.asdict(recipe))
    print(f"{arguments.out}: {recipe.model} with {recipe.method} for {recipe.target}")
    print(f"It changes {plan.touched}.")


def _import(arguments: argparse.Namespace) -> None:
    first, *more = arguments.files
    codes = arguments.languages or []
    if arguments.kind == "vectors" and codes:
        if len(codes) != len(arguments.files):
            raise ClasError("Give one file of vectors for each language, or one file and no codes.")
        read_vectors(dict(zip(codes, arguments.files))).save(arguments.out)
    elif more:
        raise ClasError(f"Give one file of {arguments.kind}, not {len(arguments.files)}.")
    elif arguments.kind == "vectors":
        read_vectors(first).save(arguments.out)
    elif arguments.kind == "control":
        read_control_vector(first).save(arguments.out)
    elif not (codes and arguments.neurons):
        raise ClasError("A file of neurons names neither: give --languages and --neurons too.")
    else:
        read_neurons(first, codes, arguments.neurons).save(arguments.out)
    print(f"{arguments.out}: {arguments.kind} from {', '.join(arguments.files)}")


def _inspect(arguments: argparse.Namespace) -> None:
    corpus = arguments.corpus or ("village" if arguments.model == "village" else "everyday")
    seen = inspect(
        arguments.model,
        revision=arguments.revision,
        dtype=arguments.dtype,
        corpus=ParallelCorpus.open(corpus),
    )
    if arguments.json:
        print(json.dumps(seen.to_dict(), ensure_ascii=False))
    else:
        for name, text in seen.rows:
            print(f"{name:>13}: {text}")
        if seen.languages:
            print(f"\n{'language':>13}  tokens a character  against English")
        for one in seen.languages:
            ratio = "" if one.against_english is None else f"{one.against_english:.2f}"
            print(f"{one.language:>13}  {one.tokens_per_character:>18.2f}  {ratio:>15}")
        for sentence in seen.warnings:
            print(f"\n{sentence}")
    if not seen.supported:
        raise ClasError(seen.reason)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clas", description="Cross-lingual activation steering from the shell."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    measure = _command(commands, "measure", _measure, "measure what each neuron does: an atlas")
    measure.add_argument("--out", required=True, help="the atlas file to write (.safetensors)")
    text = "codes such as en,sw (default: the whole corpus)"
    measure.add_argument("--languages", type=language_codes, help=text)
    measure.add_argument("--sentences", type=int, help="use only the first so many")
    measure.add_argument("--batch-size", type=int, default=32, help="sentences a forward pass")

    steer = _command(commands, "steer", _steer, "answer a prompt unsteered and steered")
    steer.add_argument("prompt", nargs="?", default=argparse.SUPPRESS, help="what to continue")
    steer.add_argument("--json", action="store_true", help="print tokens and effects as JSON")

    baking = _command(commands, "bake", _bake, "write the steered model as a checkpoint")
    baking.add_argument(
        "--out", required=True, help="the folder to write; of a GGUF, NAME.gguf too"
    )

    text = "turn published neurons, vectors or a GGUF control vector into our own file"
    importing = commands.add_parser("import", help=text, description=text.capitalize() + ".")
    importing.set_defaults(run=_import)
    importing.add_argument("kind", choices=("neurons", "vectors", "control"))
    importing.add_argument("files", nargs="+", help="as published; of vectors, one a language too")
    text = "codes in the order of the file, or of the files"
    importing.add_argument("--languages", type=language_codes, help=text)
    importing.add_argument("--neurons", type=int, help="how many a layer of the model has")
    importing.add_argument("--out", required=True, help="the file to write (.safetensors)")

    add_commands(commands, _command)
    add_command(commands)
    text = "say what a model is and needs, before its weights are fetched"
    inspecting = commands.add_parser("inspect", help=text, description=text.capitalize() + ".")
    inspecting.set_defaults(run=_inspect)
    inspecting.add_argument("model", help=RECIPE_OPTIONS["model"][1])
    for name in ("revision", "dtype", "corpus"):
        inspecting.add_argument(f"--{name}", help=RECIPE_OPTIONS[name][1])
    inspecting.add_argument("--json", action="store_true", help="print it as JSON")

    for command in (steer, baking):
        command.add_argument("--atlas", help="a measured atlas (default: measure, once)")
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    command.add_argument("--recipe", help="a recipe: .json file, link or query; options override")
    text = "auto: spread a large model over GPUs, then memory and disk, by accelerate"
    command.add_argument("--device-map", metavar="MAP", help=text)
    group = command.add_argument_group("recipe")
    for field, (kind, meaning) in RECIPE_OPTIONS.items():
        option = "--" + field.replace("_", "-")
        group.add_argument(option, type=kind, default=argparse.SUPPRESS, help=meaning)
    return command
