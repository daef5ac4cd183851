"""What the shell's commands share: a recipe's options, the model and atlas it names, a bar."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from ..atlas.atlas import Atlas
from ..atlas.cache import measure_cached
from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..model.loading import load
from ..steering.methods import METHODS
from ..steering.recipe import Recipe, read_recipe
from ..text.corpus import ParallelCorpus
from ..text.languages import canonical_codes


def _layers(text: str) -> tuple[int, int]:
    try:
        start, end = text.split("-")
        return int(start), int(end)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form 6-8 (layers 6 and 7, from 0)"
        ) from error


def language_codes(text: str) -> list[str]:
    """The codes of a list such as "en, swh_Latn", parted by commas, each in its shortest form.

    Raises `ArgumentTypeError`, so that the shell says which part is no code or says a language
    twice.
    """
    spelled = [part.strip() for part in text.split(",")]
    try:
        codes = list(canonical_codes(spelled).values())
    except ClasError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if len(codes) < len(spelled):
        raise argparse.ArgumentTypeError(f"{text!r} names a language twice.")
    return codes


RECIPE_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {  # field: type, help
    "model": (str, "village, smollm2, a local directory, a GGUF file or a hub id"),
    "revision": (str, "branch, tag or commit of a hub model"),
    "dtype": (str, "auto, float32, bfloat16 or float16"),
    "corpus": (str, "village, everyday, hub:owner/name, or a file or folder of parallel text"),
    "method": (str, f"one of {', '.join(METHODS)}"),
    "alpha": (float, "strength: 0 is off, 1 the method in full; of a shift, a share of the stream"),
    "beta": (float, "CLAS: factor of the shared neurons"),
    "gamma": (float, "CLAS: factor of the language-specific neurons"),
    "lam": (float, "LanguageArithmetic: factor of the target's mean activation"),
    "source": (str, "language to steer away from, or others, where the method has one"),
    "tau": (float, "a neuron is active in a language from this activation probability on"),
    "tau_mode": (str, "absolute, or quantile of each layer"),
    "shared_from": (int, "a neuron is shared from this many languages on (default: all)"),
    "specific": (str, "which specific neurons gamma reaches: any, target or others"),
    "k": (int, "Kojima, UnitDiffMean and Silence: how many units"),
    "ranking": (str, "which of their ranking: both (ends), top or bottom"),
    "early": (_layers, "ThereAndBack: the layers of the way there, as in --layers"),
    "layers": (_layers, "steer layers A up to, not with, B, counted from 0: 6-8 is 6 and 7"),
    "where": (str, "what is steered: all, prompt, answer, or answer:3 (from its third token on)"),
    "first": (str, "a steering that acts before: method=DiffMean&alpha=0.75&target=de"),
    "target": (str, "language to steer for"),
    "chat": (str, "the model's chat template: on, off or auto (on for chat models)"),
    "system": (str, "system prompt of the chat"),
    "temperature": (float, "0 is greedy"),
    "max_new_tokens": (int, "length of the answer"),
    "seed": (int, "for sampling and for the random control"),
}


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """What --recipe says, changed by the options that were given.

    Without one, what is suggested for the embedded model, if it is measured on its own text and
    steered by CLAS; a suggestion says nothing of any other model, text or method.
    """
    names = [field.name for field in dataclasses.fields(Recipe)]
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if arguments.recipe is not None:
        return read_recipe(arguments.recipe, **given)
    plain = Recipe()
    usual = getattr(arguments, "atlas", None) is None and all(
        given.get(name, getattr(plain, name)) == getattr(plain, name)
        for name in ("model", "corpus", "method")
    )
    return dataclasses.replace(Recipe.suggested("village") if usual else plain, **given)


def open_model(arguments: argparse.Namespace, recipe: Recipe) -> LanguageModel:
    """The model that the recipe names, on this process's own GPU, or as --device-map spreads it.

    Raises ClasError if it can't be opened, or if several workers would spread one each.
    """
    spread = arguments.device_map
    if spread and (getattr(arguments, "workers", 1) > 1 or getattr(arguments, "cluster", False)):
        raise ClasError("--device-map spreads one model over the devices: take one worker.")
    place = None if spread else _own_gpu()
    wanted = {"dtype": recipe.dtype, "revision": recipe.revision}
    return load(recipe.model, **wanted, device=place, device_map=spread)


def _own_gpu() -> str | None:
    """A GPU for each of the processes that share this machine; None if this one is alone."""
    if "LOCAL_RANK" not in os.environ or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"


def atlas_of(arguments: argparse.Namespace, recipe: Recipe, lm: LanguageModel) -> Atlas:
    """The one that --atlas names, or the model's kept one, measured now if there is none.

    Raises ClasError if --atlas names another model's.
    """
    if arguments.atlas is not None:
        return Atlas.load(arguments.atlas, lm)
    with bar("measuring", "sentence") as progress:
        return measure_cached(lm, ParallelCorpus.open(recipe.corpus), progress=progress)


@contextmanager
def bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress callback that draws a bar on stderr, gone when it is done."""
    with tqdm(desc=what, unit=f" {unit}s", leave=False, disable=None) as shown:

        def progress(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield progress
