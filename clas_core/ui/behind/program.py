"""Steering for other programs: one call from a recipe to two texts and what parts them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ClasError
from ...running.effects import Effects, compare
from ...running.generation import generate
from ...steering.recipe import Recipe
from ...text.corpus import BUNDLED, ParallelCorpus
from .calls import Tell, only
from .choice import Choice, parse_model
from .inputs import clean_prompt
from .links import open_already
from .shelf import Shelf
from .studio import Studio


@dataclass(frozen=True, eq=False)
class Answered:
    """`texts`: unsteered and steered. `recipe`: all that defines them."""

    texts: tuple[str, str]
    effects: Effects
    recipe: Recipe

    def as_dict(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Texts and effects as JSON has them."""
        found = self.effects
        effects = {
            "sentence": found.sentence,
            "changed_share": found.changed_share,
            "languages": list(found.languages),
            "bits_per_token": list(found.bits_per_token),
            "repetition": list(found.repetition),
            "kl": [round(value, 6) for value in found.kl.tolist()],
            "tokens": list(found.tokens),
        }
        return dict(zip(("unsteered", "steered"), self.texts)), effects


def answer(shelf: Shelf, model: Any, prompt: Any, fields: Any) -> Answered:
    """What a program asks for, within the limits of the page's visitors.

    `model` and `prompt`, unless empty, take the place of the recipe's own. A model that isn't open
    yet is opened and measured first. Raises ClasError for what a visitor couldn't have either.
    """
    recipe = recipe_of(shelf, model, prompt, fields)
    studio = _opened(shelf, recipe)
    if recipe.dtype not in ("auto", str(studio.lm.dtype).removeprefix("torch.")):
        raise ClasError(f"The model is open here as {studio.lm.dtype}: leave dtype out.")
    return only(studio.calls(writing, studio, recipe))


def recipe_of(shelf: Shelf, model: Any, prompt: Any, fields: Any) -> Recipe:
    """The recipe that a program asks for. Raises ClasError for one that can't be run here."""
    if not (fields is None or isinstance(fields, Mapping)):
        raise ClasError('The recipe must be an object such as {"target": "sw", "alpha": 1}.')
    most, first = shelf.profile.max_new_tokens, shelf.first.choice
    values = {
        "model": first.model,
        "corpus": first.name,
        "max_new_tokens": min(Recipe().max_new_tokens, most),
        **(fields or {}),
    }
    if model not in (None, ""):
        values["model"], revision = parse_model(model)
        values["revision"] = revision or values.get("revision")
    if prompt not in (None, ""):
        values["prompt"] = prompt
    recipe = Recipe.from_json(json.dumps(values))
    clean_prompt(recipe.prompt)
    if recipe.max_new_tokens > most:
        raise ClasError(f"max_new_tokens is at most {most} here, not {recipe.max_new_tokens}.")
    return recipe


def _opened(shelf: Shelf, recipe: Recipe) -> Studio:
    """The studio of the recipe's model and text, opened if need be."""
    if (known := open_already(shelf, recipe)) is not None:
        return known
    first = shelf.first  # whose text may be the own of who opened the page
    named = (recipe.model, recipe.corpus, recipe.revision or first.lm.revision)
    if named == (first.choice.model, first.choice.name, first.lm.revision):
        return first
    if recipe.corpus not in BUNDLED:
        raise ClasError(f"corpus must be one of {', '.join(BUNDLED)}, not {recipe.corpus[:80]!r}.")
    revision = shelf.check(recipe.model, recipe.revision)
    text = ParallelCorpus.bundled(recipe.corpus)
    job = shelf.open(Choice(recipe.model, revision, recipe.corpus, text))
    try:
        return job.result.result()
    finally:
        shelf.leave(job)


def writing(
    studio: Studio, recipe: Recipe, *, tell: Tell, stop: threading.Event
) -> Iterator[Answered]:
    """Both texts and their comparison: one result."""
    lm, plan = studio.lm, recipe.build(studio.atlas)
    rendered = recipe.render(lm)
    with studio.gate.answering():
        *_, last = generate(
            lm,
            rendered,
            [None, plan],
            max_new_tokens=recipe.max_new_tokens,
            temperature=recipe.temperature,
            seed=recipe.seed,
            stop=stop,
        )
        unsteered, steered = last.texts
        before, after = last.token_ids
        effects = compare(lm, rendered, before, after, plan, codes=studio.codes)
    yield Answered((unsteered, steered), effects, recipe)
