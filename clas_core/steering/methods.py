"""Steering methods, each compiled to a plan from the atlas, a selection and the target language.

Every method has a strength `alpha`: its plan at strength 0 does nothing, at 1 it is the full
method, and in between and beyond `h' = (1 - alpha) h + alpha full(h)`. Steered layers are a
half-open range (first, end), counted from 0; None means the method's own, for most the bridge
layers, the model's last quarter.

Shifts of the residual stream have a unit of their own, so that a strength says the same in every
model and layer: at 1 they are as long, all of a range of layers together, as the stream itself is
on average (`Atlas.norm`). A shift after layer l, one of n, is alpha * norm[l] / n in its direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from ..atlas.atlas import Atlas
from ..atlas.selection import (
    DEAD,
    SHARED,
    SPECIFIC,
    OwnedNeurons,
    Selection,
    lape_select,
    telling_units,
)
from ..errors import ClasError
from .plan import LayerPlan, SteeringPlan

Layers = tuple[int, int] | None

OTHERS = "others"  # a source: the mean of all languages but the target


def bridge_layers(num_layers: int) -> tuple[int, int]:
    """The default layers to steer, half-open: the last quarter, at least one (our reading)."""
    return num_layers - max(1, num_layers // 4), num_layers


@dataclass(frozen=True)
class _Full:
    """A method's map at strength 1, for all layers: as in `LayerPlan`, [layers, units] each."""

    scale: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    shift: torch.Tensor | None = None


@dataclass(frozen=True)
class Method:
    """What all methods share: a strength, layers, and how a plan comes of them."""

    alpha: float = 1.0
    layers: Layers = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ClasError(f"{f.name} must be a finite number, not {value}.")

    def plan(self, atlas: Atlas, sel: OwnedNeurons, target: str) -> SteeringPlan:
        """The plan for `target` from the atlas and a selection of the same languages.

        Raises ClasError if atlas, selection, languages and layers don't fit together.
        """
        atlas.index(target)
        if sel.languages != atlas.languages:
            raise ClasError("The selection is of another atlas: select neurons from this one.")
        steered = self._steered(atlas.num_layers)
        full = self._full(atlas, sel, target, steered)
        layers = {}
        for layer in steered:
            width = atlas.widths[layer]
            whole = LayerPlan(
                None if full.scale is None else full.scale[layer, :width],
                None if full.bias is None else full.bias[layer, :width],
                None if full.shift is None else full.shift[layer],
            )
            layers[layer] = whole * self.alpha
        return SteeringPlan(layers, f"{self} for {target}")

    def _steered(self, num_layers: int) -> tuple[int, ...]:
        """The layers to steer, in order."""
        return _within(self.layers or self._default(num_layers), num_layers)

    def _default(self, num_layers: int) -> tuple[int, int]:
        return bridge_layers(num_layers)

    def _full(self, atlas: Atlas, sel: Any, target: str, steered: tuple[int, ...]) -> _Full:
        raise NotImplementedError


@dataclass(frozen=True)
class CLAS(Method):
    """Cross-lingual activation steering (Pokharel et al., arXiv 2601.16390).

    Shared neurons are scaled by `beta`, language-specific ones by `gamma`, and the result is
    blended with the original by `alpha`: s = 1 + alpha (m - 1). `specific` says which
    language-specific neurons count: of "any" language, the "target"'s own, or all "others".
    It takes a `Selection`.
    """

    alpha: float = 0.5
    beta: float = 1.2
    gamma: float = 0.8
    specific: str = field(default="any", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.specific not in ("any", "target", "others"):
            raise ClasError(f"specific must be 'any', 'target' or 'others', not {self.specific!r}.")

    def _full(self, atlas: Atlas, sel: Selection, target: str, steered: tuple[int, ...]) -> _Full:
        specific = sel.category == SPECIFIC
        if self.specific == "target":
            specific = sel.neurons_of(target)
        elif self.specific == "others":
            specific = specific & ~sel.neurons_of(target)
        m = torch.ones(sel.category.shape)  # [layers, neurons]
        m[sel.category == SHARED] = self.beta
        m[specific] = self.gamma
        return _Full(scale=m)


@dataclass(frozen=True)
class IntMu(Method):
    """Overwrite the target's neurons by their mean activation (Mondal et al., arXiv 2503.17456).

    Measured and written at the same site, the input of the down-projection; the released code
    measures before the activation function.
    """

    def _full(
        self, atlas: Atlas, sel: OwnedNeurons, target: str, steered: tuple[int, ...]
    ) -> _Full:
        own, mu = sel.neurons_of(target), atlas.mean[:, atlas.index(target)]  # [layers, neurons]
        return _Full(scale=torch.where(own, 0.0, 1.0), bias=torch.where(own, mu, 0.0))


@dataclass(frozen=True)
class LAPE(Method):
    """Deactivate the neurons of the `source` language (Tang et al., arXiv 2402.16438).

    The target only names the plan. Which neurons those are is part of the method: `lape_select`
    finds them, unless the selection is a language's neurons from elsewhere (a `LapeSelection` of
    other thresholds, published ones).
    """

    source: str = "en"

    def _full(
        self, atlas: Atlas, sel: OwnedNeurons, target: str, steered: tuple[int, ...]
    ) -> _Full:
        atlas.index(self.source)
        found = lape_select(atlas) if isinstance(sel, Selection) else sel
        return _Full(scale=torch.where(found.neurons_of(self.source), 0.0, 1.0))


@dataclass(frozen=True)
class LanguageArithmetic(Method):
    """Add the target's mean activations, take away the source (Gurgurov et al., arXiv 2507.22608).

    `lam` times the mean is added on the target's neurons; with a `source`, that language's neurons
    are set to zero first. Product site: on `act(gate) * up`, where the released code works on
    `act(gate)`.
    """

    lam: float = 1.0
    source: str | None = None

    def _full(
        self, atlas: Atlas, sel: OwnedNeurons, target: str, steered: tuple[int, ...]
    ) -> _Full:
        own, mu = sel.neurons_of(target), atlas.mean[:, atlas.index(target)]  # [layers, neurons]
        bias = torch.where(own, self.lam * mu, 0.0)
        scale = torch.ones_like(bias)
        if self.source is not None:
            scale[sel.neurons_of(self.source)] = 0.0
        return _Full(scale=scale, bias=bias)


@dataclass(frozen=True)
class Kojima(Method):
    """Overwrite the units that tell the target best by their median (arXiv 2404.02431).

    Ranked over all steered layers, by default all of the model's, by the average precision at
    which a sentence's mean of h tells the target from the other languages: the `k` // 2 highest
    and as many lowest ("both"), the `k` "top" or the `k` "bottom" ones; of fewer neurons than `k`,
    all. The median is that of the target's sentences. Our reading: MLP neurons alone, where the
    authors rank the outputs of attention's linear maps too. The selection plays no part.
    """

    k: int = field(default=1000, kw_only=True)
    ranking: str = field(default="both", kw_only=True)

    def _default(self, num_layers: int) -> tuple[int, int]:
        return 0, num_layers

    def _units(self, atlas: Atlas, target: str, steered: tuple[int, ...]) -> torch.Tensor:
        """[layers, neurons] bool: those that are overwritten."""
        return telling_units(atlas, target, self.k, self.ranking, steered)

    def _full(self, atlas: Atlas, sel: Any, target: str, steered: tuple[int, ...]) -> _Full:
        units = self._units(atlas, target, steered)
        median = atlas.median[:, atlas.index(target)].float()
        return _Full(scale=torch.where(units, 0.0, 1.0), bias=torch.where(units, median, 0.0))


@dataclass(frozen=True)
class UnitDiffMean(Kojima):
    """Move the units that tell the target best (see `Kojima`) by a difference of means.

    Adds mu[target] - mu[source] to each, the mean of all "others" if `source` isn't a language. At
    strength 1 their mean goes the whole way. The neurons' counterpart of `DiffMean`: it reaches
    `k` units only, and leaves what a text does with them as it is.
    """

    source: str = field(default=OTHERS, kw_only=True)

    def _full(self, atlas: Atlas, sel: Any, target: str, steered: tuple[int, ...]) -> _Full:
        units = self._units(atlas, target, steered)
        difference = _difference(atlas, atlas.mean, target, self.source)
        return _Full(bias=torch.where(units, difference, 0.0))


@dataclass(frozen=True)
class Silence(Method):
    """Turn down the units that tell the target best, so that its text gets unlikely.

    The `k` neurons of the highest average precision (see `Kojima`; experts of a concept in Suau et
    al., arXiv 2110.02802) are scaled by 1 - alpha: off at strength 1, turned around at 2. By
    default in all layers. Unlike `LAPE` it finds units for every language. The selection plays no
    part.
    """

    k: int = field(default=100, kw_only=True)

    def _default(self, num_layers: int) -> tuple[int, int]:
        return 0, num_layers

    def _full(self, atlas: Atlas, sel: Any, target: str, steered: tuple[int, ...]) -> _Full:
        units = telling_units(atlas, target, self.k, "top", steered)
        return _Full(scale=torch.where(units, 0.0, 1.0))


@dataclass(frozen=True)
class DiffMean(Method):
    """Shift the residual stream towards the target's mean (CLaS-Bench, arXiv 2601.08331).

    The direction after layer l is that of r[l, target] - r[l, source]; `source` is a language, or
    "others" for the mean of all but the target, where a text is in none of them yet. The length is
    `alpha` in the unit of shifts (see above). By default after one layer, the first bridge layer.
    The selection plays no part.
    """

    alpha: float = 0.5
    source: str = "en"

    def _default(self, num_layers: int) -> tuple[int, int]:
        first = bridge_layers(num_layers)[0]
        return first, first + 1

    def _full(self, atlas: Atlas, sel: Any, target: str, steered: tuple[int, ...]) -> _Full:
        direction = _difference(atlas, atlas.residual, target, self.source)
        return _Full(shift=_shift(atlas, direction, steered))


@dataclass(frozen=True)
class ThereAndBack(Method):
    """Shift to the anchor's mean early, and back to the target's late.

    After the layers of `early` (by default the first quarter) the residual stream is shifted from
    the target towards the anchor `source`, after `layers` (the last quarter) from the anchor
    towards the target: each leg `alpha` long, in the unit of shifts. For a model that thinks best
    in the anchor. The selection plays no part. Raises ClasError where the two ranges overlap.
    """

    source: str = "en"
    early: Layers = field(default=None, kw_only=True)

    def _legs(self, num_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        early = self.early or (0, max(1, num_layers // 4))
        there = _within(early, num_layers)
        back = _within(self.layers or bridge_layers(num_layers), num_layers)
        if there[-1] >= back[0]:
            raise ClasError(
                f"There and back needs two ranges of layers, the early one before the late one: "
                f"not {early} and ({back[0]}, {back[-1] + 1}), which overlap."
            )
        return there, back

    def _steered(self, num_layers: int) -> tuple[int, ...]:
        there, back = self._legs(num_layers)
        return there + back

    def _full(self, atlas: Atlas, sel: Any, target: str, steered: tuple[int, ...]) -> _Full:
        there, back = self._legs(atlas.num_layers)
        direction = _difference(atlas, atlas.residual, target, self.source)
        return _Full(shift=_shift(atlas, direction, back) - _shift(atlas, direction, there))


@dataclass(frozen=True)
class Composition:
    """Two methods, `then` acting on what `first` made: `then.plan(...) @ first.plan(...)`.

    `toward` is the language that the first one steers for; None for the target of both.
    """

    first: Method | Composition
    then: Method
    toward: str | None = None

    def plan(self, atlas: Atlas, sel: Any, target: str) -> SteeringPlan:
        """Both plans as one, from one selection. Raises ClasError as `Method.plan` does."""
        before = self.first.plan(atlas, sel, self.toward or target)
        return self.then.plan(atlas, sel, target) @ before


@dataclass(frozen=True)
class RandomControl:
    """The plan of another method with its numbers dealt to random neurons: the fair comparison.

    In each layer the pairs (s, b) are permuted over the neurons that aren't dead, so the same
    numbers act on as many live neurons of the same layers. A residual shift is permuted over its
    coordinates, in all layers alike, so that shifts are as long and add up as much. The
    permutation depends on `seed` and the layer alone, so moving a strength keeps it.
    """

    of: Method | Composition = field(default_factory=CLAS)
    seed: int = 0

    def plan(self, atlas: Atlas, sel: Selection, target: str) -> SteeringPlan:
        """The plan of the method that it controls, with its numbers on other live neurons.

        Raises ClasError if atlas, selection, languages and layers don't fit together.
        """
        original = self.of.plan(atlas, sel, target)
        layers = {
            index: self._shuffle(layer, sel.category[index] > DEAD, index)
            for index, layer in original.layers.items()
        }
        return SteeringPlan(layers, f"random control (seed {self.seed}) of {original.label}")

    def _shuffle(self, layer: LayerPlan, live: torch.Tensor, index: int) -> LayerPlan:
        def permute(x: torch.Tensor | None, order: torch.Tensor) -> torch.Tensor | None:
            return None if x is None else x[order]

        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        live = live[: layer.neurons]
        order = torch.arange(len(live))
        order[live] = order[live][torch.randperm(int(live.sum()), generator=generator)]
        shift = layer.shift
        everywhere = torch.Generator().manual_seed(self.seed)
        coordinates = torch.randperm(0 if shift is None else len(shift), generator=everywhere)
        return LayerPlan(
            permute(layer.scale, order), permute(layer.bias, order), permute(shift, coordinates)
        )


METHODS: dict[str, type[Any]] = {
    method.__name__: method
    for method in (
        CLAS, IntMu, LAPE, LanguageArithmetic, DiffMean, Kojima, UnitDiffMean, Silence,
        ThereAndBack, RandomControl,
    )
}  # fmt: skip


def _within(layers: tuple[int, int], num_layers: int) -> tuple[int, ...]:
    """The layers of a half-open range. Raises ClasError if there are none such."""
    first, end = layers
    if not 0 <= first < end <= num_layers:
        raise ClasError(
            f"Layers ({first}, {end}) don't fit: choose a half-open range within "
            f"(0, {num_layers}), counted from 0."
        )
    return tuple(range(first, end))


def _difference(atlas: Atlas, means: torch.Tensor, target: str, source: str) -> torch.Tensor:
    """From the source to the target: of means [layers, languages, units], [layers, units].

    Raises ClasError for a source that is no language of the atlas, and if there are no others.
    """
    k, count = atlas.index(target), len(atlas.languages)
    if source != OTHERS:
        return means[:, k] - means[:, atlas.index(source)]
    if count < 2:
        raise ClasError("There are no others to steer away from: measure at least two languages.")
    return means[:, k] - (means.sum(1) - means[:, k]) / (count - 1)


def _shift(atlas: Atlas, direction: torch.Tensor, layers: Iterable[int]) -> torch.Tensor:
    """Shifts [layers, hidden] in this direction after `layers`, together one typical length of the
    residual stream; 0 after the others."""
    chosen = list(layers)
    length = atlas.norm.mean(1, keepdim=True) / len(chosen)  # [layers, 1]
    shift = torch.zeros_like(direction)
    shift[chosen] = (length * torch.nn.functional.normalize(direction, dim=1))[chosen]
    return shift
