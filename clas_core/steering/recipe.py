"""A recipe: everything that defines a result, as JSON, as a URL and as Python code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ..atlas.atlas import Atlas
from ..atlas.selection import RANKINGS, select
from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..model.prompts import CHAT, Rendered, render
from ..paths import ASSETS
from ..text.corpus import BUNDLED
from ..text.languages import canonical_code, is_code
from ..text.raw import parse_json, read_text
from .methods import METHODS, Composition
from .plan import SteeringPlan
from .where import ALL, check_where

_NUMBERS = {  # name: lowest and highest value
    "alpha": (-10.0, 10.0),
    "beta": (-10.0, 10.0),
    "gamma": (-10.0, 10.0),
    "lam": (-100.0, 100.0),
    "tau": (0.0, 1.0),
    "temperature": (0.0, 10.0),
}
_WHOLE_NUMBERS = {
    "shared_from": (2, 1000),
    "k": (1, 10_000_000),
    "max_new_tokens": (1, 100_000),
    "seed": (0, 2**63 - 1),
}
_CHOICES = {
    "method": tuple(METHODS),
    "tau_mode": ("absolute", "quantile"),
    "specific": ("any", "target", "others"),
    "ranking": RANKINGS,
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "chat": CHAT,
}
_RANGES = ("layers", "early")
_OPTIONAL = ("revision", "source", "shared_from", "k", *_RANGES)
# Not in the hash at their defaults: older recipes keep theirs.
_LATER = ("chat", "system", "k", "ranking", "early", "where", "first")
# What `first` may say: all that makes a method's plan from a selection.
_STEERING = (
    "method", "alpha", "beta", "gamma", "lam", "source", "specific", "k", "ranking", "early",
    "layers", "target", "first",
)  # fmt: skip
MOST_FIRST = 3  # steerings that act before a recipe's own
_ADDED = ("fbclid", "gclid", "msclkid", "view", "deep_link")  # by those who pass a link on


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to run on what, and how. Checked when made; every field is a plain value.

    `layers` counts from 0 and is half-open, so (6, 8) is 6 and 7, as does `early`, the range of
    there and back's way there. None in these, in `shared_from`, `source` and `k` means the default
    of the method. `source` is a language or "others", `lam` language arithmetic's lambda, `k` and
    `ranking` choose the units of Kojima et al., `where` is the part of a text that is steered (see
    `steering.where`). A method reads only the fields it has. `corpus` is a bundled name or a path.
    `chat` and `system` are as in `prompts.render`.

    `first` is a steering that acts before this one, in the form that `as_first` gives it, and may
    have one before itself; without a target it is for this one's. Thresholds and the part of the
    text are one for all of them.
    """

    model: str = "village"
    revision: str | None = None
    dtype: str = "auto"
    corpus: str = "village"
    method: str = "CLAS"
    alpha: float = 0.5
    beta: float = 1.2
    gamma: float = 0.8
    lam: float = 1.0
    source: str | None = None
    tau: float = 0.2
    tau_mode: str = "absolute"
    shared_from: int | None = None
    specific: str = "any"
    k: int | None = None
    ranking: str = "both"
    early: tuple[int, int] | None = None
    where: str = ALL
    first: str = ""
    layers: tuple[int, int] | None = None
    target: str = "sw"
    prompt: str = ""
    chat: str = "auto"
    system: str = ""
    temperature: float = 0.0
    max_new_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or field.name not in _OPTIONAL:
                object.__setattr__(self, field.name, _checked(field.name, value))
        if self.chat == "off" and self.system.strip():
            raise ClasError("A system prompt needs a chat: set chat to on, or leave it empty.")

    @classmethod
    def suggested(cls, model: str) -> Recipe:
        """What a sweep suggested for the embedded model (`python -m clas_core.studies measure`);
        the general defaults for any other."""
        path = ASSETS / "village" / "settings.json"
        if model != "village" or not path.is_file():
            return cls(model=model)
        found = json.loads(path.read_text(encoding="utf-8"))
        setting = found["table"][found["suggested"]]
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in setting.items() if name in names})

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that change with any field (SHA-256)."""
        default = {field.name: field.default for field in dataclasses.fields(self)}
        values = dataclasses.asdict(self)
        kept = {k: v for k, v in values.items() if k not in _LATER or v != default[k]}
        content = json.dumps(kept, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def steering(self) -> Any:
        """The method with its settings, as in `clas_core.CLAS(alpha=0.5, ...)`; a `Composition`
        where another acts before it."""
        method, earlier = self._method(self.method), self.earlier
        if earlier is None:
            return method
        return Composition(earlier.steering, method, _read_first(self.first).get("target"))

    @property
    def earlier(self) -> Recipe | None:
        """This recipe with the steering that acts before its own, in its place."""
        if not self.first:
            return None
        plain = {field.name: field.default for field in dataclasses.fields(Recipe)}
        own = {name: plain[name] for name in _STEERING} | {"target": self.target}
        return dataclasses.replace(self, **{**own, **_read_first(self.first)})

    @property
    def chain(self) -> tuple[Recipe, ...]:
        """All steerings in the order in which they act, this recipe's own the last."""
        earlier = self.earlier
        return (*(earlier.chain if earlier else ()), self)

    def as_first(self, target: bool = True) -> str:
        """This steering as `first` of another recipe; `target`: for its own, whatever the other's.

        What it says is in one spelling: equal steerings give equal texts.
        """
        default = {field.name: field.default for field in dataclasses.fields(Recipe)}
        said = {name: getattr(self, name) for name in _STEERING if name != "target"}
        said = {k: v for k, v in said.items() if k == "method" or v != default[k]}
        return _query(said | ({"target": self.target} if target else {}))

    def build(self, atlas: Atlas, lm: LanguageModel | None = None) -> SteeringPlan:
        """The plan of this recipe on `atlas`, which with `lm` must be of that model.

        Raises ClasError where they don't fit.
        """
        if lm is not None:
            atlas.check(lm)
        selection = select(atlas, tau=self.tau, shared_from=self.shared_from, mode=self.tau_mode)
        return self.steering.plan(atlas, selection, target=self.target).at(self.where)

    def render(self, lm: LanguageModel) -> Rendered:
        """The prompt as `lm` reads it, for `generate` and `compare`."""
        return render(lm, self.prompt, chat=self.chat, system=self.system)

    def to_json(self) -> str:
        """All fields as JSON, which `from_json` reads."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read `to_json`'s form; fields that are left out have their default."""
        try:
            values = parse_json(text)
        except ClasError as error:
            raise ClasError(f"The recipe is {error}") from error
        if not isinstance(values, dict):
            raise ClasError('The recipe must be a JSON object such as {"method": "CLAS"}.')
        return cls._of(values)

    def to_query(self) -> str:
        """The query of a URL, without the question mark."""
        return _query(dataclasses.asdict(self))

    @classmethod
    def from_query(cls, query: str) -> Recipe:
        """Read `to_query`'s form, or a whole URL with it, also one with a fragment.

        What others add to links (`utm_source`, `fbclid`, Gradio's `__theme`) is passed over.
        """
        query = query.partition("#")[0]
        head, mark, tail = query.partition("?")
        # Behind a field's name, a question mark is a part of the value.
        if mark and ("=" not in head or head.startswith(("http://", "https://"))):
            query = tail
        try:
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
        except UnicodeDecodeError as error:
            raise ClasError("This link is broken: a value in it is no UTF-8 text.") from error
        return cls._of({k: _parsed(k, v) for k, v in pairs if not is_added(k)})

    def to_python(self) -> str:
        """Code that runs this recipe and leaves its two texts in `unsteered` and `steered`."""
        opener = "bundled" if self.corpus in BUNDLED else "load"
        at = "" if self.where == ALL else f".at({self.where!r})"
        prompt = f"clas.render(lm, {self.prompt!r}, chat={self.chat!r}, system={self.system!r})"
        if not self.prompt.strip():
            prompt = "clas.from_nothing(lm)"
        return f"""\
import clas_core as clas

lm = clas.load({self.model!r}, dtype={self.dtype!r}, revision={self.revision!r})
corpus = clas.ParallelCorpus.{opener}({self.corpus!r})
atlas = clas.Atlas.measure(lm, corpus)
selection = clas.select(
    atlas, tau={self.tau!r}, shared_from={self.shared_from!r}, mode={self.tau_mode!r}
)
method = {_code(self.steering)}  # layers count from 0, without the second
plan = method.plan(atlas, selection, target={self.target!r}){at}

prompt = {prompt}
for step in clas.generate(
    lm,
    prompt,
    plans=[None, plan],
    max_new_tokens={self.max_new_tokens!r},
    temperature={self.temperature!r},
    seed={self.seed!r},
):
    unsteered, steered = step.texts
print(unsteered, steered, sep="\\n")
"""

    def _method(self, name: str) -> Any:
        cls = METHODS[name]
        names = [field.name for field in dataclasses.fields(cls)]
        settings = {n: getattr(self, n) for n in names if getattr(self, n, None) is not None}
        if "of" in names:
            settings["of"] = self._method("CLAS")
        return cls(**settings)

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Recipe:
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [str(name) for name in values if name not in known]:
            raise ClasError(
                f"A recipe has no field {', '.join(unknown)}; its fields are {', '.join(known)}."
            )
        return cls(**values)


def is_added(name: str) -> bool:
    """Whether a name in a link is no field of a recipe, but was added on the link's way."""
    return name.startswith(("__", "utm_")) or name in _ADDED


def read_recipe(text: str = "", **changes: Any) -> Recipe:
    """The recipe of a .json file, or of a link or its query; the general defaults for "".

    `changes` replace its fields, those that are None excepted. Raises ClasError for a recipe that
    can't be read and OSError for a file that isn't there.
    """
    if text.endswith(".json") and "=" not in text:
        recipe = Recipe.from_json(read_text(Path(text)))
    else:
        recipe = Recipe.from_query(text)
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(recipe, **given)


def _checked(name: str, value: Any) -> Any:
    """`value` in the field's own type, or a ClasError that says what the field takes."""
    if name in _RANGES:
        return _range(name, value)
    if name in _NUMBERS or name in _WHOLE_NUMBERS:
        low, high = _NUMBERS.get(name) or _WHOLE_NUMBERS[name]
        kind = "number" if name in _NUMBERS else "whole number"
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # NaN fails every comparison
            raise ClasError(f"{name} must be a {kind} from {low} to {high}, not {value!r}.")
        if name in _NUMBERS:
            return float(value)
        if value != math.floor(value):
            raise ClasError(f"{name} must be a whole number, not {value!r}.")
        return int(value)
    if not isinstance(value, str):
        raise ClasError(f"{name} must be text, not {value!r}.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ClasError(f"{name} holds half a character, which is no text: write it again.")
    if name == "where":
        return check_where(value)
    if name == "first":
        return _checked_first(value)
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ClasError(f"{name} must be one of {', '.join(_CHOICES[name])}, not {value!r}.")
    if name in ("target", "source") and is_code(value):
        return canonical_code(value)  # as corpora name it: sw for swh_Latn
    return value


def _checked_first(text: str) -> str:
    """The same steering in the spelling of `as_first`. Raises ClasError for what is none."""
    chain: list[dict[str, Any]] = []
    while text:
        if len(chain) == MOST_FIRST:
            raise ClasError(f"At most {MOST_FIRST} steerings may act before a recipe's own.")
        chain.append(_read_first(text))
        text = chain[-1].pop("first", "")
    for values in reversed(chain):
        text = Recipe(**values, first=text).as_first("target" in values)
    return text


def _read_first(text: str) -> dict[str, Any]:
    """The fields that `first` says. Raises ClasError if it can't be read, or says others."""
    try:
        pairs = dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict"))
    except ValueError as error:
        raise ClasError(
            "first must be a steering such as method=DiffMean&alpha=0.75&target=de, not "
            f"{text[:40]!r}."
        ) from error
    if unknown := [name for name in pairs if name not in _STEERING]:
        raise ClasError(f"first can't say {', '.join(unknown)}; it may say {', '.join(_STEERING)}.")
    return {name: _parsed(name, value) for name, value in pairs.items()}


def _query(values: Mapping[str, Any]) -> str:
    """As the query of a URL, without what is None."""
    texts = {
        name: "{}-{}".format(*value) if name in _RANGES else value
        for name, value in values.items()
        if value is not None
    }
    return urlencode(texts)


def _range(name: str, value: Any) -> tuple[int, int]:
    try:
        start, end = value
        whole = int(start) == start and int(end) == end
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or not 0 <= start < end:
        raise ClasError(
            f"{name} must be two whole numbers such as 6 and 8 (layers 6 and 7, counted from 0), "
            f"not {value!r}."
        )
    return int(start), int(end)


def _parsed(name: str, text: str) -> Any:
    """The value that `text` in a URL stands for; unknown names are left to be refused."""
    try:
        if name in _NUMBERS:
            return float(text)
        if name in _WHOLE_NUMBERS:
            return int(text)
        if name in _RANGES:
            start, end = text.split("-")
            return int(start), int(end)
    except ValueError as error:
        raise ClasError(f"{name} in this link can't be read: {text!r}.") from error
    return text


def _code(method: Any) -> str:
    """The call that makes `method`, which may hold another one."""
    arguments = (
        f"{field.name}={_code(value) if dataclasses.is_dataclass(value) else repr(value)}"
        for field in dataclasses.fields(method)
        for value in [getattr(method, field.name)]
    )
    return f"clas.{type(method).__name__}({', '.join(arguments)})"
