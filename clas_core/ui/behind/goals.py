"""What a visitor may want to see, as settings of the page: one click each, or a link's goal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...steering.methods import bridge_layers
from ...steering.recipe import Recipe
from ...steering.where import ALL
from .inputs import ALPHA, AUTO, STEERED_BY, anchor, default_units
from .saying import Saying, said_of_marks
from .studio import Studio

Settings = dict[str, Any]
ALONE: Settings = {"where": ALL, "from_token": 1, "first": ""}
# Of a model that isn't the village, until strengths are tried on it: where among the layers a shift
# turns a text around, and how long it is. On Gemma 3 270M 0.1 writes fluent German, and 0.25 none.
DEEP, LONG = 0.7, 0.1


@dataclass(frozen=True)
class Goal:
    """`language`: what the page's language is for it. `settings(studio, code)`: for a visitor whose
    prompt is in the language `code`; what it leaves out stays as it is. `claim`: what it is about,
    and what to do, as a headline that holds of any model, whatever steering does to it."""

    title: str
    language: str
    settings: Callable[[Studio, str], Settings]
    claim: tuple[str, str]


def _forget(studio: Studio, code: str) -> Settings:
    """Language-specific neurons down, as strongly as makes the stored text lose its language."""
    start, end = bridge_layers(studio.num_layers)
    values: Settings = {
        "method": "CLAS", "beta": 1.0, "gamma": 0.0, "specific": "any", "first_layer": start + 1,
        "last_layer": end, "strength": 1.0, "language": AUTO, **ALONE,
    }  # fmt: skip
    if studio.stored is None:
        return values
    opening = {name: value for name, value in studio.defaults().items() if name in STEERED_BY}
    code = code if code in studio.stored.codes else studio.stored.opening
    return {
        **values,
        **opening,
        "strength": melting(studio, code),
        "prompt": studio.stored.of(code)["prompt"],
    }


def _write(studio: Studio, code: str) -> Settings:
    """English turned into another language from inside, by a shift of the residual stream."""
    source = anchor(studio.codes)
    others = [other for other in ("es", studio.fallback, *studio.codes) if other in studio.codes]
    target = code if code != source else next(other for other in others if other != source)
    layers = studio.num_layers
    first, last = (1, max(1, layers // 2)) if studio.stored else (1 + int(DEEP * layers),) * 2
    values: Settings = {
        "method": "DiffMean", "strength": 1.0 if studio.stored else LONG, "language": target,
        "first_layer": first, "last_layer": min(last, layers), "source": source, **ALONE,
    }  # fmt: skip
    known = studio.marks.get("write")
    if known is not None and known.opening is not None:
        found = studio.values_of_steering(known.recipe())
        names = ("method", "strength", "first_layer", "last_layer", "source")
        values |= {name: found[name] for name in names}
    ready = studio.examples(source)
    return {**values, "prompt": ready[0]} if ready else values


def _silence(studio: Studio, code: str) -> Settings:
    """The prompt's own language taken away: the units that tell it are turned around."""
    values: Settings = {
        "method": "Silence", "strength": 2.0, "language": AUTO, "first_layer": 1,
        "last_layer": studio.num_layers, "units": default_units("Silence", studio.units),
        **ALONE,
    }  # fmt: skip
    if studio.stored is None:
        return values
    code = code if code in studio.stored.codes else studio.stored.opening
    return {**values, "prompt": studio.stored.of(code)["prompt"]}


def _help(studio: Studio, code: str) -> Settings:
    """CLAS as it was measured best, or as the paper has it; on a question that it helps with, where
    one is stored."""
    values = studio.values_of_steering(studio.suggested or Recipe())
    settings = {**{name: values[name] for name in (*STEERED_BY, "strength")}, "language": AUTO}
    if studio.stored is None:
        return settings
    shown = studio.stored.helped(code) or studio.stored.helped(studio.fallback)
    return {**settings, "prompt": shown["prompt"]} if shown else settings


GOALS = {
    "forget": Goal(
        "Forget its language", "Language of the prompt", _forget,
        ("Some neurons of a language model fire for one language alone.",
         "Turn them down, then around, and watch."),
    ),
    "write": Goal(
        "Write in another language", "Write in", _write,
        ("Inside a language model, a language is a direction.",
         "Push it that way, and watch what it writes in."),
    ),
    "silence": Goal(
        "Silence one language", "Silence", _silence,
        ("A few neurons tell one language from all others.",
         "Turn them around, and see which languages it hurts."),
    ),
    "help": Goal(
        "Help a weak language (the paper's claim)", "Help", _help,
        ("A model may know the answer, and say it in the wrong language.",
         "Turn up what languages share, and see if that helps."),
    ),
}  # fmt: skip
_OF_METHOD = {
    "DiffMean": "write", "Kojima": "write", "UnitDiffMean": "write", "Silence": "silence",
    "LAPE": "silence",
}  # fmt: skip


def goal_of(settings: Settings) -> str:
    """The goal that the steering in these settings is for: CLAS that only turns down is to forget,
    and what isn't for another goal is meant to help."""
    method = settings["method"]
    if method == "CLAS" and settings["beta"] == 1:
        return "forget"
    return _OF_METHOD.get(method, "help")


def melting(studio: Studio, code: str) -> float:
    """The least strength at which the language melts and one sees it in the stored text; else the
    strongest one."""
    stored = studio.stored
    if stored is None:
        return 1.0
    data, marks = stored.of(code), stored.marks(code)
    cells = [cell for cell in data["cells"] if cell["alpha"] >= (marks.melts or 0.0)]
    for cell in cells:
        if any(other for _, _, other in cell["view"]["panes"][1]["spans"]):
            return float(cell["alpha"])
    return float(data["cells"][-1]["alpha"])


def zones(studio: Studio, code: str, settings: Settings) -> Saying | None:
    """What the slider says, under these settings; None where that isn't known."""
    stored = studio.stored
    if stored is not None and code in stored.codes:
        start = studio.defaults()
        if all(settings[name] == start[name] for name in STEERED_BY):
            return stored.saying(code)
    known = studio.marks_for(studio.recipe(settings))
    return None if known is None else said_of_marks(known.up_to(ALPHA[1]))
