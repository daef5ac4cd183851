"""How surprised a model is by real text of every language: what shows that one was silenced."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ...running.likelihood import log_likelihoods, tokenise
from ...steering.plan import SteeringPlan
from ...steering.recipe import Recipe
from ...steering.where import ALL
from ...text.languages import get_language
from ...village.grammar import CODES, Grammar
from ...village.tasks import qa_items
from .calls import Tell
from .inputs import anchor
from .mapper import affordable
from .studio import Studio, steering_only
from .views import View

METHODS = ("Silence", "LAPE")  # that are about a language's text, whatever the prompt
TEXTS = 12  # of each language; of a slow model fewer
SECONDS = 2.0  # that one pass over all languages may take
LINES = ("unsteered", "steered", "control")


def with_surprise(
    studio: Studio,
    recipe: Recipe,
    control: bool,
    views: Iterable[View],
    stop: threading.Event,
) -> Iterator[View]:
    """`views`, as `Studio.steer` yields them, and one more with what `surprise` found as its
    "bars" under a method that is about a language, where no server writes the texts; else they have
    none. What has no such part leaves what is there as it is."""
    if recipe.method not in METHODS or studio.served is not None:
        yield from ({**view, "bars": None} for view in views)
        return
    view: View = {"state": "none"}
    for view in views:
        yield view
    if view["state"] != "done":
        return
    whole = dataclasses.replace(recipe, where=ALL)  # real text has neither prompt nor answer
    plans = [None, studio.plan(whole), *([studio.plan(whole, True)] if control else [])]
    key = ("bars", steering_only(whole, studio.fallback).hash, control, control and recipe.seed)
    bars = studio.mine.find(*key)
    if bars is None and (bars := surprise(studio, plans, stop)) is not None:
        studio.mine.put(bars, *key)
    if bars is not None:
        yield {**view, "bars": {**bars, "aimed": _aimed(studio, recipe)}}


def steering(
    studio: Studio,
    recipe: Recipe,
    control: bool,
    *,
    tell: Tell,
    stop: threading.Event,
    **options: Any,
) -> Iterator[View]:
    """The Steer tab's panes as they grow, as a whole call (`Calls`)."""
    views = studio.steer(recipe, control, stop, **options)
    yield from with_surprise(studio, recipe, control, views, stop)


def _aimed(studio: Studio, recipe: Recipe) -> str:
    """The language that is to be silenced."""
    if recipe.method == "LAPE":
        return recipe.source or anchor(studio.codes)
    return recipe.target


def surprise(
    studio: Studio, plans: Sequence[SteeringPlan | None], stop: threading.Event
) -> dict[str, Any] | None:
    """Bits a byte of each language's text under each of up to three plans, the first unsteered:
    {codes, names, counts, own, LINES: [languages]}; None once `stop` is set.

    Of the village it is stories that nothing was measured on, of other models the first sentences
    of the text that was measured (`own`). Lower is better predicted.
    """
    texts, own = _texts(studio)
    found: list[list[float]] = []  # [languages][plans]
    for code in studio.codes:
        if stop.is_set():
            return None
        found.append(_bits(studio, code, texts[code], plans))
    return {
        "codes": list(studio.codes),
        "names": [get_language(code).name for code in studio.codes],
        "count": len(texts[studio.codes[0]]),
        "own": own,
        **{line: [round(row[n], 3) for row in found] for n, line in enumerate(LINES[: len(plans)])},
    }


def _texts(studio: Studio) -> tuple[dict[str, Sequence[str]], bool]:
    """The texts of each language, and whether they are those that were measured."""

    def stories() -> dict[str, Sequence[str]]:
        items = qa_items("test", TEXTS)
        prompts = {code: [item.render(Grammar.load(code)) for item in items] for code in CODES}
        # Without the question, which stands on a line of its own.
        return {
            code: [one.text.rstrip("\n").rpartition("\n")[0] for one in found]
            for code, found in prompts.items()
        }

    if studio.stored is not None:
        return studio.mine.get(stories, "stories"), False
    most = studio.mine.get(
        lambda: affordable(studio.lm, studio.corpus, TEXTS, SECONDS), "affordable"
    )
    return {code: studio.corpus.sentences[code][:most] for code in studio.codes}, True


def _bits(
    studio: Studio, code: str, texts: Sequence[str], plans: Sequence[SteeringPlan | None]
) -> list[float]:
    """Bits a byte of a language's texts under each plan; the unsteered ones are kept."""
    asked = [tokenise(studio.lm, "", [text]) for text in texts]
    size = sum(len(text.encode()) for text in texts) * math.log(2)

    def read(under: Sequence[SteeringPlan | None]) -> list[float]:
        with studio.gate.answering(), studio.lock:
            found = log_likelihoods(studio.lm, asked, under)
        return [-sum(nats for (nats,) in column) / size for column in found]

    left_alone = studio.mine.get(lambda: read([None])[0], "surprise", code)
    return [left_alone, *(read(plans[1:]) if len(plans) > 1 else [])]
