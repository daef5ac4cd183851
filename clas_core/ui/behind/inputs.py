"""From what the page sends to a `Recipe`: every value is checked here, whatever sent it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ...atlas.selection import RANKINGS
from ...errors import ClasError
from ...steering.methods import METHODS as ALL_METHODS
from ...steering.methods import OTHERS, Kojima, bridge_layers
from ...steering.recipe import Recipe
from ...steering.where import ALL
from ...text.detection import detect
from ...text.languages import get_language

ALPHA = (-1.0, 2.0)
BETA = (0.0, 3.0)
GAMMA = (0.0, 3.0)
TAU = (0.0, 1.0)
TEMPERATURE = (0.0, 2.0)
SEED = (0, 2**31 - 1)
MAX_PROMPT = 2000  # characters; the model's own limit, in tokens, is checked by `generate`
METHODS = {  # of clas_core.steering.methods: their name on the page, and what they do
    "CLAS": ("CLAS", "shared neurons are turned up, language-specific ones down"),
    "IntMu": ("Int-μ", "the language's own neurons are set to their mean"),
    "LAPE": ("LAPE", "the neurons of {source} are switched off"),
    "LanguageArithmetic": (
        "Language arithmetic",
        "the language's own neurons get their mean added",
    ),
    "DiffMean": ("DiffMean", "the residual stream is shifted from {source} to the language"),
    "ThereAndBack": (
        "There and back",
        "the residual stream is shifted to {source} early, back to the language late",
    ),
    "Kojima": ("Kojima et al.", "the units that tell the language best are set to its median"),
    "UnitDiffMean": (
        "Difference on units",
        "the units that tell the language best are moved towards its mean",
    ),
    "Silence": ("Silence", "the units that tell the language best are turned down"),
}
AWAY = ("LAPE", "DiffMean", "ThereAndBack")  # methods that steer away from the anchor
SPECIFIC = {"any": "of any language", "target": "the language's own", "others": "everyone else's"}
UNITS = {"both": "highest and lowest", "top": "highest only", "bottom": "lowest only"}
WHERE = {ALL: "all of the text", "prompt": "the prompt", "answer": "the answer"}
AUTO = "auto"
# What makes a steering beside its strength and its language.
STEERED_BY = (
    "method", "beta", "gamma", "tau", "shared_from", "specific", "source", "units", "ranking",
    "where", "from_token", "first_layer", "last_layer", "first",
)  # fmt: skip
FROM_NOTHING = ("DiffMean", "Kojima", "UnitDiffMean")  # that give a text a language by themselves
FIELD = {"units": "k"}  # a control's field of the methods, where it has another name
FROM_TOKEN = (1, 10_000)  # of an answer, from where on it is steered
LENGTH = 40  # tokens that the page writes at first
assert tuple(sorted(UNITS)) == tuple(sorted(RANKINGS))


def is_read(control: str, method: object) -> bool:
    """Whether the method of this name reads what the control sets."""
    known = ALL_METHODS.get(method) if isinstance(method, str) else None
    if known is None:
        return False
    return FIELD.get(control, control) in {field.name for field in dataclasses.fields(known)}


def number(name: str, value: Any, limits: tuple[float, float]) -> float:
    """`value`, which must be a number within `limits`; raises ClasError for all else."""
    low, high = limits
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not right or not low <= value <= high:  # NaN fails every comparison
        raise ClasError(f"{name} must be a number from {low:.12g} to {high:.12g}.")
    return float(value)


def whole(name: str, value: Any, limits: tuple[int, int]) -> int:
    """As `number`, rounded to a whole one."""
    return round(number(name, value, limits))


def choice(name: str, value: Any, options: Mapping[str, Any]) -> str:
    """`value` if it is one of `options`. Raises ClasError, which calls it `name`."""
    if not isinstance(value, str) or value not in options:
        raise ClasError(f"{name} must be one of: {', '.join(options)}.")
    return str(value)


def anchor(codes: tuple[str, ...]) -> str:
    """English, or the first language where there is none."""
    return "en" if "en" in codes else codes[0]


def clean_prompt(value: Any) -> str:
    """The prompt as the model gets it. Raises ClasError if it is empty or too long."""
    if not isinstance(value, str) or not value.strip():
        raise ClasError("Write a prompt, or choose an example above the box.")
    if len(value) > MAX_PROMPT:
        raise ClasError(
            f"The prompt has {len(value)} characters; shorten it to {MAX_PROMPT} or fewer."
        )
    return _one_break(value)


def clean_system(value: Any) -> str:
    """The system prompt, empty if it is blank. Raises ClasError if too long."""
    text = value if isinstance(value, str) and value.strip() else ""
    if len(text) > MAX_PROMPT:
        raise ClasError(f"Shorten the system prompt to {MAX_PROMPT} characters or fewer.")
    return _one_break(text)


def _one_break(text: str) -> str:
    """With one kind of line break, the one that a browser's text box has."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def target_language(
    wanted: Any,
    prompt: Any,
    codes: tuple[str, ...],
    fallback: str,
    examples: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> tuple[str, str]:
    """The language to steer towards, and a sentence that says where it comes from.

    `examples`: ready prompts, each with the languages that have it.
    """
    if wanted != AUTO:
        code = choice("The language", wanted, dict.fromkeys(codes))
        return code, f"Set to {get_language(code).name}."
    if isinstance(prompt, str) and prompt in examples:
        codes = examples[prompt]
        if len(codes) == 1:
            return codes[0], f"{get_language(codes[0]).name}, the language of the example."
        fallback = codes[0]
    found = detect(prompt[:MAX_PROMPT] if isinstance(prompt, str) else "", codes)
    if found.code is None:
        fallback = found.guess or fallback
        name = get_language(fallback).name
        return fallback, f"Can't tell ({found.reason}); taking {name}. Choose it above if it isn't."
    return found.code, f"Detected {get_language(found.code).name}, by {found.reason}."


def make_recipe(
    values: Mapping[str, Any],
    *,
    model: str,
    revision: str | None = None,
    corpus: str,
    chats: bool = False,
    codes: tuple[str, ...],
    num_layers: int,
    units: int,
    max_new_tokens: int,
    fallback: str,
    examples: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Recipe:
    """The recipe that the page's controls ask for.

    `values` are named as in `controls.NAMES`, with the prompt. Layers count from 1, both ends
    included, as the page shows them. `chats`: whether the model's own default is a chat. `units`:
    how many neurons it has. Raises ClasError, in one sentence, for anything else, also for numbers
    outside the page's ranges.
    """
    prompt = values.get("prompt", "")
    target, _ = target_language(values["language"], prompt, codes, fallback, examples)
    first = whole("The first bridge layer", values["first_layer"], (1, num_layers))
    last = whole("The last bridge layer", values["last_layer"], (1, num_layers))
    if first > last:
        raise ClasError(
            f"The first bridge layer ({first}) lies behind the last ({last}): move one of them."
        )
    method = choice("The method", values["method"], METHODS)
    where = choice("Where in the text", values["where"], WHERE)
    begin = whole("The answer's first steered token", values["from_token"], FROM_TOKEN)
    counted = whole("The number of units", values["units"], (2, max(2, units)))
    ranking = choice("Which units", values["ranking"], UNITS)
    chat = values.get("chat", chats)
    system = values.get("system", "")
    return Recipe(
        model=model,
        revision=revision,
        corpus=corpus,
        method=method,
        source=_source(method, values["source"], codes),
        alpha=number("Strength", values["strength"], ALPHA),
        beta=number("Beta", values["beta"], BETA),
        gamma=number("Gamma", values["gamma"], GAMMA),
        tau=number("The activation threshold", values["tau"], TAU),
        shared_from=whole("Shared from", values["shared_from"], (2, len(codes))),
        specific=choice("Which neurons count as specific", values["specific"], SPECIFIC),
        k=_units(method, counted, units),
        ranking=ranking if is_read("ranking", method) else Recipe().ranking,
        where=f"answer:{begin}" if where == "answer" else where,
        first=_first(values["first"]),
        layers=(first - 1, last),
        target=target,
        prompt=_one_break(prompt) if isinstance(prompt, str) else "",
        chat="auto" if bool(chat) == chats else "on" if chat else "off",
        system=clean_system(system) if chat else "",
        temperature=number("Temperature", values["temperature"], TEMPERATURE),
        max_new_tokens=whole("Length", values["length"], (1, max_new_tokens)),
        seed=whole("The seed", values["seed"], SEED),
    )


def _source(method: str, wanted: Any, codes: tuple[str, ...]) -> str | None:
    """What a method steers away from; None for its own choice and where it has none.

    Raises ClasError for what isn't one of its languages.
    """
    if not is_read("source", method):
        return None
    if wanted == AUTO:
        return anchor(codes) if method in AWAY and "en" not in codes else None
    known = dict.fromkeys(codes)
    return choice("The language to steer away from", wanted, known | {OTHERS: None})


def _first(value: Any) -> str:
    """What acts first, which must be of the page's methods."""
    recipe = Recipe(first=value)
    for one in recipe.chain:
        choice("The method", one.method, METHODS)
        number("The strength of what acts first", one.alpha, ALPHA)
    return recipe.first


def default_units(method: object, units: int) -> int:
    """How many units a method takes by itself, of so many neurons; another's if it takes none."""
    taken = ALL_METHODS[str(method)]() if is_read("units", method) else Kojima()
    return min(taken.k, max(2, units))


def _units(method: str, wanted: int, units: int) -> int | None:
    """A method's number of units, if it reads one; None for its own."""
    own = not is_read("units", method) or wanted == default_units(method, units)
    return None if own else wanted


def _shown(recipe: Recipe, num_layers: int, languages: int, units: int) -> dict[str, Any]:
    """The values that ask for the steering of `recipe`, but for its language."""
    start, end = recipe.layers or bridge_layers(num_layers)
    where, _, begin = recipe.where.partition(":")
    return {
        "strength": recipe.alpha,
        "method": choice("The method", recipe.method, METHODS),
        "beta": recipe.beta,
        "gamma": recipe.gamma,
        "tau": recipe.tau,
        "shared_from": recipe.shared_from or languages,
        "specific": recipe.specific,
        "source": recipe.source or AUTO,
        "units": recipe.k or default_units(recipe.method, units),
        "ranking": recipe.ranking,
        "where": where,
        "from_token": int(begin or 1),
        "first_layer": start + 1,
        "last_layer": end,
        "first": recipe.first,
    }


def defaults(
    num_layers: int,
    languages: int,
    units: int,
    opening: Recipe | None = None,
    max_new_tokens: int = LENGTH,
) -> dict[str, Any]:
    """The page's values before anyone touches it, by name.

    `opening`: what was suggested for the model, in place of the general defaults. `units`: how many
    neurons it has.
    """
    plain = opening or Recipe()
    return {
        **_shown(plain, num_layers, languages, units),
        "language": AUTO,
        "temperature": plain.temperature,
        "length": min(LENGTH, max_new_tokens),
        "seed": plain.seed,
    }


def strength_for(method: Any, strength: Any, suggested: float) -> Any:
    """The strength after another method was chosen: what was suggested for CLAS says nothing of
    the others, and back. One that the visitor set stays."""
    plain = Recipe().alpha
    wanted, other = (suggested, plain) if method == "CLAS" else (plain, suggested)
    return wanted if strength == other else strength


def from_recipe(
    recipe: Recipe, num_layers: int, languages: int, units: int, chats: bool = False
) -> dict[str, Any]:
    """The page's values that ask for `recipe`: what a shared link sets. Not all can be shown."""
    return {
        **_shown(recipe, num_layers, languages, units),
        "language": recipe.target,
        "temperature": recipe.temperature,
        "length": recipe.max_new_tokens,
        "seed": recipe.seed,
        "chat": chats if recipe.chat == "auto" else recipe.chat == "on",
        "system": recipe.system,
    }
