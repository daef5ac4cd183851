"""What a result is for: keys that change with all that it was made from, and words for it.

Every result on the page carries its key; the page compares it with the key of what is set now, and
dims what is for other settings.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ...steering.methods import bridge_layers
from ...steering.recipe import Recipe
from ...steering.where import ALL
from ...text.languages import get_language
from . import inputs
from .served import of_text
from .studio import Studio, steering_only

Keys = dict[str, str]  # by what shows results, as in UNKNOWN
_ENDS = tuple(".…?!。？！।؟")  # after which a sentence needs no full stop
Standing = dict[str, Any]  # what a result is for, as the page's stamp takes it
UNKNOWN: Keys = dict.fromkeys(("steer", "link", "map", "neurons", "measure", "curves"), "?")


def keys_of(studio: Studio, recipe: Recipe, control: bool = False, layer: Any = None) -> Keys:
    """The key of every kind of result under `recipe`.

    `control`: whether the panes have a random control. `layer`: the map's, else
    the one that it opens at.
    """
    steering, plain = steering_only(recipe, studio.fallback), Recipe()
    whole = dataclasses.replace(steering, where=plain.where)  # the map's sentences have no prompt
    counted = ("tau", "tau_mode", "shared_from", "layers")
    neurons = {name: getattr(recipe, name) for name in counted}
    measured = dataclasses.replace(
        steering_only(recipe, plain.target),
        target=plain.target,
        chat=recipe.chat,
        system=recipe.system,
    )
    off = dataclasses.replace(measured, alpha=0.0)
    # The plots are of stories in one language, the prompt's.
    spoken = studio.language(inputs.AUTO, recipe.prompt)[0] if recipe.prompt else recipe.target
    text = f"{recipe.hash} {int(control)}" if studio.served is None else of_text(recipe).hash
    return {
        "steer": f"{studio.key} {text}",
        "link": f"{studio.key} {recipe.hash} 0",
        "map": f"{studio.key} {whole.hash} {studio.telling_layer if layer is None else layer}",
        "neurons": f"{studio.key} {Recipe(**neurons).hash}",
        "measure": f"{studio.key} {measured.hash}",
        "curves": f"{studio.key} {off.hash} {spoken}",
    }


def words_of(studio: Studio, recipe: Recipe) -> str:
    """The steering in a few words, as in "CLAS, strength 0.5, layers 7 to 8"."""
    *before, own = (_words_of_one(studio, one) for one in recipe.chain)
    said = "".join(f"{words}, then " for words in before) + own
    if recipe.where == ALL:
        return said
    part, _, begin = recipe.where.partition(":")
    return f"{said}, in {inputs.WHERE[part]}{f' from token {begin} on' if begin else ''}"


def words_of_first(studio: Studio, recipe: Recipe) -> str:
    """What acts before the recipe's own steering, in a sentence; empty if nothing does."""
    *before, _ = (_words_of_one(studio, one, language=True) for one in recipe.chain)
    return f"First {', then '.join(before)}." if before else ""


def _words_of_one(studio: Studio, recipe: Recipe, language: bool = False) -> str:
    first, end = recipe.layers or bridge_layers(studio.num_layers)
    where = f"layer {end}" if end - first == 1 else f"layers {first + 1} to {end}"
    alpha = f"{recipe.alpha:g}".replace("-", "−")
    said = f"{inputs.METHODS[recipe.method][0]}, strength {alpha}, {where}"
    return f"{said}, for {get_language(recipe.target).name}" if language else said


def asked_in_words(studio: Studio, recipe: Recipe) -> str:
    """As `words_of`, with the language and the prompt's beginning: the end of a sentence."""
    line = " ".join(recipe.prompt.split())
    prompt = line if len(line) <= 60 else f"{line[:59]}…"
    end = "" if prompt.endswith(_ENDS) else "."
    asked = f": “{prompt}”{end}" if prompt else ", from nothing."
    if studio.served is not None:
        return f"{' and '.join(studio.served.titles)}{asked}"
    return f"{words_of(studio, recipe)}, {get_language(recipe.target).name}{asked}"


def standing(*keys: str, words: str = "", unfinished: bool = False) -> Standing:
    """A result for what any of `keys` stands for. `unfinished`: dimmed for these too."""
    return {"keys": list(keys), "words": words, "unfinished": unfinished}
