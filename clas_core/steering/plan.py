"""A steering plan: what every method compiles to, and how it acts on a model.

In each layer `h' = s * h + b` on the MLP neurons, and a shift of the residual stream after the
layer. Plans are small, immutable and know nothing of where they came from.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Cache

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..model.taps import Site, Tap, tapped
from ..paths import reading, replacing
from .where import ALL, acts, check_where, spread_over

_FORMAT = "clas-plan-1"
_SOMEWHERE = "clas-plan-2"  # of a plan for parts of a text, which older versions would misread
_PARTS = ("scale", "bias", "shift")


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """One layer's affine map. None stands for the identity: scale 1, bias 0, shift 0.

    scale, bias: [neurons], `h' = scale * h + bias` at the input of the down-projection.
    shift: [hidden], added to the output of the decoder layer. All float32 on the CPU.
    """

    scale: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    shift: torch.Tensor | None = None

    def __post_init__(self) -> None:
        for part in _PARTS:
            tensor = getattr(self, part)
            if tensor is None:
                continue
            if tensor.ndim != 1:
                raise ClasError(f"A plan's {part} is one number a unit, not {tuple(tensor.shape)}.")
            if not torch.isfinite(tensor).all():
                raise ClasError(f"A plan's {part} isn't finite: check the strengths and the atlas.")
            object.__setattr__(self, part, tensor.detach().to("cpu", torch.float32))

    @property
    def neurons(self) -> int | None:
        """How many neurons scale and bias are for; None without either."""
        given = self.bias if self.scale is None else self.scale
        return None if given is None else len(given)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing: every scale 1, every bias and shift 0."""
        return (
            (self.scale is None or bool((self.scale == 1).all()))
            and (self.bias is None or not self.bias.any())
            and (self.shift is None or not self.shift.any())
        )

    def __mul__(self, strength: float) -> LayerPlan:
        return LayerPlan(
            None if self.scale is None else 1 + strength * (self.scale - 1),
            None if self.bias is None else strength * self.bias,
            None if self.shift is None else strength * self.shift,
        )

    def __matmul__(self, first: LayerPlan) -> LayerPlan:
        """`first`, then this: s = s2 s1, b = s2 b1 + b2, and the shifts add up."""
        bias = first.bias if first.bias is None or self.scale is None else self.scale * first.bias
        return LayerPlan(
            _combine(torch.mul, self.scale, first.scale),
            _combine(torch.add, self.bias, bias),
            _combine(torch.add, self.shift, first.shift),
        )


class Touched(NamedTuple):
    """How much a plan changes: so many MLP neurons, and coordinates of the residual stream, each
    counted in every layer that changes it."""

    neurons: int
    coordinates: int

    def __str__(self) -> str:
        counts = {"neuron": self.neurons, "residual coordinate": self.coordinates}
        named = [f"{n:,} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n]
        return " and ".join(named) or "nothing"


@dataclass(frozen=True, eq=False)
class SteeringPlan:
    """An affine map for each steered layer; layers that aren't named stay as they are.

    `plan * 0.5` is half way from doing nothing to `plan` (0 is nothing, 1 all of it, any other
    number extrapolates); `second @ first` does `first`, then `second`, like matrices.

    where: the part of a text that it acts on, "all", "prompt", "answer" or "answer:3", as
        `steering.where` explains.
    """

    layers: Mapping[int, LayerPlan] = field(default_factory=dict)
    label: str = ""
    where: str = ALL

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", check_where(self.where))
        if any(layer < 0 for layer in self.layers):
            raise ClasError(f"Layers count from 0; this plan names layer {min(self.layers)}.")
        object.__setattr__(self, "layers", MappingProxyType(dict(sorted(self.layers.items()))))

    def __reduce__(self) -> Any:
        """For another process: a view of a dictionary can't be pickled."""
        return SteeringPlan, (dict(self.layers), self.label, self.where)

    @staticmethod
    def identity() -> SteeringPlan:
        """The plan that does nothing."""
        return SteeringPlan(label="identity")

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing in any layer."""
        return all(layer.is_identity for layer in self.layers.values())

    @property
    def touched(self) -> Touched:
        """How many neurons and residual coordinates it changes."""
        neurons = coordinates = 0
        for layer in self.layers.values():
            moved = [t != n for t, n in ((layer.scale, 1), (layer.bias, 0)) if t is not None]
            neurons += int(torch.stack(moved).any(0).sum()) if moved else 0
            coordinates += 0 if layer.shift is None else int(layer.shift.count_nonzero())
        return Touched(neurons, coordinates)

    def __mul__(self, strength: float) -> SteeringPlan:
        if not math.isfinite(strength):
            raise ClasError(f"Steering strength must be a finite number, not {strength}.")
        layers = {index: layer * strength for index, layer in self.layers.items()}
        return SteeringPlan(layers, f"{strength:g} * ({self.label})", self.where)

    __rmul__ = __mul__

    def __matmul__(self, first: SteeringPlan) -> SteeringPlan:
        nothing = LayerPlan()
        layers = {
            index: self.layers.get(index, nothing) @ first.layers.get(index, nothing)
            for index in {*self.layers, *first.layers}
        }
        wheres = {plan.where for plan in (self, first) if not plan.is_identity} or {self.where}
        if len(wheres) > 1:
            raise ClasError(
                f"A plan for {self.where} and one for {first.where} of a text don't make one plan: "
                "enter them one inside the other, with steered(...)."
            )
        return SteeringPlan(layers, f"({self.label}) @ ({first.label})", *wheres)

    def at(self, where: str) -> SteeringPlan:
        """The same plan for this part of a text. Raises ClasError if there is no such part."""
        where = check_where(where)
        return self if where == self.where else SteeringPlan(self.layers, self.label, where)

    def check(self, lm: LanguageModel) -> None:
        """Raise ClasError unless this plan's layers and sizes are those of `lm`."""
        for index, layer in self.layers.items():
            if index >= lm.num_layers:
                raise ClasError(
                    f"The plan steers layer {index}, but {lm.name} has layers 0 to "
                    f"{lm.num_layers - 1}: make the plan for this model."
                )
            for part in _PARTS:
                tensor = getattr(layer, part)
                size = lm.hidden_size if part == "shift" else lm.widths[index]
                if tensor is not None and len(tensor) != size:
                    raise ClasError(
                        f"The plan's {part} in layer {index} (from 0) has {len(tensor)} entries, "
                        f"but {lm.name} has {size}: make the plan for this model."
                    )

    def save(self, path: str | Path) -> None:
        """Write the plan as one safetensors file."""
        tensors = {
            f"{index}.{part}": getattr(layer, part).contiguous()
            for index, layer in self.layers.items()
            for part in _PARTS
            if getattr(layer, part) is not None
        }
        with replacing(path) as scratch:
            if self.where == ALL:
                save_file(tensors, scratch, {"format": _FORMAT, "label": self.label})
            else:
                more = {"format": _SOMEWHERE, "label": self.label, "where": self.where}
                save_file(tensors, scratch, more)

    @staticmethod
    def load(path: str | Path) -> SteeringPlan:
        """Read a plan that `save` wrote. Raises ClasError if the file is missing or another's."""
        parts: dict[int, dict[str, torch.Tensor]] = {}
        with reading("a steering plan", path), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in (_FORMAT, _SOMEWHERE):
                raise ClasError(f"{path} isn't a steering plan: choose a file plan.save wrote.")
            for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                index, part = name.split(".")
                parts.setdefault(int(index), {})[part] = file.get_tensor(name)
            layers = {index: LayerPlan(**tensors) for index, tensors in parts.items()}
            return SteeringPlan(layers, metadata["label"], metadata.get("where", ALL))


Plan = SteeringPlan | None
Prompts = int | Sequence[int] | torch.Tensor | None  # how many tokens, of all rows or of each


# Which plans are known to fit a model: neither ever changes.
_FITTING: weakref.WeakKeyDictionary[LanguageModel, weakref.WeakSet[SteeringPlan]] = (
    weakref.WeakKeyDictionary()
)


@contextmanager
def steered(
    lm: LanguageModel,
    plan: Plan | Sequence[Plan],
    *,
    where: str | Sequence[str] | None = None,
    prompt: Prompts = None,
    past: int | None = None,
) -> Iterator[None]:
    """Steer every forward pass of `lm` made inside, in this context (thread, task) only.

    One plan steers all rows of a batch; a sequence gives row r its own `plan[r]`, None for a row
    to leave alone. Rows that aren't steered keep every bit. Nested contexts act one after the
    other, the outer one first. Never put this round a `yield`: a generator may be resumed in
    another context.

    `where`, one for all rows or one for each, takes the place of the plans' own. A plan for the
    prompt or the answer must know where that begins: `prompt` is how many tokens of the input the
    prompt takes, left padding included, of all rows or of each. Positions are those in the whole
    text, whatever was read before: that is taken from the cache that the model is called with, or
    is `past` tokens.

    Gradients are those of the steered model, also if taken outside. What `torch.compile` made runs
    as it was before: steered, and as slow.

    Raises ClasError if a plan doesn't fit the model, or lacks `prompt`, or if modules of the model
    were replaced since it was loaded; a forward raises it if the batch has other than `len(plan)`
    rows, or under gradient checkpointing, which would compute layers again outside.
    """
    everywhere = plan is None or isinstance(plan, SteeringPlan)
    plans: tuple[Plan, ...]
    plans = (plan,) if plan is None or isinstance(plan, SteeringPlan) else tuple(plan)
    plans = placed(plans, where)
    if not plans:
        raise ClasError("There is no row to steer: give at least one plan, or None.")
    fitting = _FITTING.setdefault(lm, weakref.WeakSet())
    for one in plans:
        if one is not None and one not in fitting:  # a decode loop asks at every token
            one.check(lm)
            fitting.add(one)
    tap: Tap = _compile(plans, everywhere)
    wheres = [ALL if one is None else one.where for one in plans]
    if any(one != ALL for one in wheres):
        if prompt is None:
            part = next(one for one in wheres if one != ALL)
            raise ClasError(
                f"This plan acts on a part of a text ({part}), and nothing says where its prompt "
                "ends: give the prompt's length, or take plan.at('all')."
            )
        tap = _Somewhere(tap, wheres, torch.as_tensor(prompt), past)
    with tapped(lm, tap):
        yield


def placed(plans: Sequence[Plan], where: str | Sequence[str] | None) -> tuple[Plan, ...]:
    """The plans for these parts of a text, in place of their own; equal ones stay one object."""
    wheres = spread_over(where, len(plans))
    if wheres is None:
        return tuple(plans)
    made = {(plan, place): plan.at(place) for plan, place in zip(plans, wheres) if plan is not None}
    return tuple(None if plan is None else made[plan, w] for plan, w in zip(plans, wheres))


class _Somewhere(Tap):
    """Lets what plans do stand at the tokens that they are for; the others keep every bit.

    `wheres`: one for all rows, or one for each; `prompt`: [] or [rows], columns of the input;
    `past`: columns read before, where the cache needn't be asked.
    """

    def __init__(
        self, of: Tap, wheres: Sequence[str], prompt: torch.Tensor, past: int | None
    ) -> None:
        self._of, self._wheres = of, wheres
        self._prompt, self._given = prompt.reshape(-1, 1), past
        self._past = past or 0

    def call(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._given is None and layer == 0:  # later layers' part of the cache may lie behind
            self._past = _read_before((*args, *kwargs.values()))

    def neurons(self, site: Site, h: torch.Tensor) -> torch.Tensor | None:
        changed = self._of.neurons(site, h)
        if changed is None or site.tokens is None:
            return self._choose(changed, h)
        at = self._at(*site.batch, h.device).expand(site.batch).flatten()[site.tokens]
        return torch.where(at[:, None], changed, h)

    def hidden(self, layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
        return self._choose(self._of.hidden(layer, hidden), hidden)

    def _choose(self, changed: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
        if changed is None:
            return None
        return torch.where(self._at(x.shape[0], x.shape[1], x.device)[..., None], changed, x)

    def _at(self, rows: int, tokens: int, device: torch.device) -> torch.Tensor:
        """Which tokens of this forward are steered: bool [rows or 1, tokens]."""
        if len(self._prompt) not in (1, rows):
            raise ClasError(
                f"There are {len(self._prompt)} prompt lengths for a batch of {rows} rows: "
                "give one for all rows, or one for each."
            )
        columns = self._past + torch.arange(tokens, device=device)
        place = columns - (self._prompt.to(device) - 1)
        if len(self._wheres) == 1:
            return acts(self._wheres[0], place)
        place = place.expand(rows, -1)
        return torch.stack([acts(where, row) for where, row in zip(self._wheres, place)])


def _read_before(arguments: Sequence[Any]) -> int:
    """How many tokens the cache among a block's arguments holds; 0 without one."""
    for value in arguments:
        if isinstance(value, Cache):
            try:
                return int(value.get_seq_length())
            except ValueError as error:
                raise ClasError(
                    "This model's cache doesn't say how much was read: take plan.at('all')."
                ) from error
    return 0


class _Affine(Tap):
    """Applies stacked plans: scale, bias [rows, 1, neurons] and shift [rows, 1, hidden] a layer.

    One plan `everywhere` is a stack of one row, for all tokens of the batch alike.
    """

    def __init__(self, plans: tuple[SteeringPlan | None, ...], everywhere: bool) -> None:
        self._rows = len(plans)
        self._everywhere = everywhere
        self._stacks: dict[tuple[int, str], torch.Tensor] = {}
        self._placed: dict[tuple[int, str, torch.device], torch.Tensor] = {}
        for index in {index for plan in plans if plan is not None for index in plan.layers}:
            layers = [LayerPlan() if p is None else p.layers.get(index, LayerPlan()) for p in plans]
            for part in _PARTS:
                stack = _stack([getattr(layer, part) for layer in layers], _NEUTRAL[part])
                if stack is not None:
                    self._stacks[index, part] = stack

    def neurons(self, site: Site, h: torch.Tensor) -> torch.Tensor | None:
        scale, bias = (self._on(site.layer, part, h) for part in ("scale", "bias"))
        if site.tokens is None:
            return self._apply(h, _part(scale, site.neurons), _part(bias, site.neurons))
        return _affine(h, self._routed(scale, site), self._routed(bias, site))

    def hidden(self, layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
        return self._apply(hidden, None, self._on(layer, "shift", hidden))

    def _apply(
        self, x: torch.Tensor, scale: torch.Tensor | None, offset: torch.Tensor | None
    ) -> torch.Tensor | None:
        if scale is None and offset is None:
            return None
        self._check_rows(len(x))
        return _affine(x, scale, offset)

    def _routed(self, stack: torch.Tensor | None, site: Site) -> torch.Tensor | None:
        """Each routed row's own numbers, [rows, neurons of one expert]."""
        if stack is None or site.tokens is None:
            return None
        texts, length = site.batch
        self._check_rows(texts)
        by_expert = stack[:, 0, site.neurons].unflatten(-1, (site.num_experts, -1))
        text = torch.zeros_like(site.tokens) if self._everywhere else site.tokens // length
        return by_expert[text, site.experts]

    def _check_rows(self, rows: int) -> None:
        if not self._everywhere and rows != self._rows:
            raise ClasError(
                f"There are {self._rows} plans for a batch of {rows} rows: "
                "give one plan for all rows, or one for each."
            )

    def _on(self, layer: int, part: str, like: torch.Tensor) -> torch.Tensor | None:
        stack = self._stacks.get((layer, part))
        if stack is None or stack.device == like.device:
            return stack
        key = (layer, part, like.device)
        if key not in self._placed:
            with torch.inference_mode(False):  # the copy outlives this forward
                self._placed[key] = stack.to(like.device)
        return self._placed[key]


# -0.0, because x + -0.0 is x to the last bit for every x, while -0.0 + 0.0 is 0.0.
_NEUTRAL = {"scale": 1.0, "bias": -0.0, "shift": -0.0}


def _stack(rows: list[torch.Tensor | None], neutral: float) -> torch.Tensor | None:
    """[rows, 1, units], or None where nothing differs from the neutral value."""
    given = [row for row in rows if row is not None]
    if not any((row != neutral).any() for row in given):
        return None
    blank = torch.full_like(given[0], neutral)
    stack = torch.stack([blank if row is None else row for row in rows])[:, None]
    return stack.masked_fill(stack == neutral, neutral)


def _affine(
    x: torch.Tensor, scale: torch.Tensor | None, offset: torch.Tensor | None
) -> torch.Tensor | None:
    """`scale * x + offset` in float32 or wider (the plan's type, promoted), rounded back once."""
    if scale is None and offset is None:
        return None
    y = x if scale is None else x * scale
    if offset is not None:
        y = y + offset
    return y.to(x.dtype)


def _part(stack: torch.Tensor | None, neurons: slice) -> torch.Tensor | None:
    return None if stack is None else stack[..., neurons]


def _compile(plans: tuple[SteeringPlan | None, ...], everywhere: bool) -> _Affine:
    """Cached, because a decode loop enters `steered` with the same plans at every token."""
    return (_compile_few if len(plans) <= 8 else _compile_many)(plans, everywhere)


@lru_cache(maxsize=16)
def _compile_few(plans: tuple[SteeringPlan | None, ...], everywhere: bool) -> _Affine:
    with torch.inference_mode(False):
        return _Affine(plans, everywhere)


@lru_cache(maxsize=2)  # large, and a shared batch changes often
def _compile_many(plans: tuple[SteeringPlan | None, ...], everywhere: bool) -> _Affine:
    with torch.inference_mode(False):
        return _Affine(plans, everywhere)


def _combine(
    operation: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    later: torch.Tensor | None,
    earlier: torch.Tensor | None,
) -> torch.Tensor | None:
    if later is None or earlier is None:
        return earlier if later is None else later
    return operation(later, earlier)
