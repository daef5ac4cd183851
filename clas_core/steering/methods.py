"""Steering methods, each compiled to a plan from the atlas, a selection and the target language.

Every method has a strength `alpha`: its plan at strength 0 does nothing, at 1 it is the full
method, and in between and beyond `h' = (1 - alpha) h + alpha full(h)`. Steered layers are a
half-open range (first, end), counted from 0; None means the bridge layers, the model's last
quarter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import torch

from ..atlas.atlas import Atlas
from ..atlas.selection import DEAD, SHARED, SPECIFIC, OwnedNeurons, Selection, lape_select
from ..errors import ClasError
from .plan import LayerPlan, SteeringPlan

Layers = tuple[int, int] | None


def bridge_layers(num_layers: int) -> tuple[int, int]:
    """The default layers to steer, half-open: the last quarter, at least one (our reading)."""
    return num_layers - max(1, num_layers // 4), num_layers


@dataclass(frozen=True)
class CLAS:
    """Cross-lingual activation steering (Pokharel et al., arXiv 2601.16390).

    Shared neurons are scaled by `beta`, language-specific ones by `gamma`, and the result is
    blended with the original by `alpha`: s = 1 + alpha (m - 1). `specific` says which
    language-specific neurons count: of "any" language, the "target"'s own, or all "others".
    """

    alpha: float = 0.5
    beta: float = 1.2
    gamma: float = 0.8
    layers: Layers = None
    specific: str = "any"

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.specific not in ("any", "target", "others"):
            raise ClasError(f"specific must be 'any', 'target' or 'others', not {self.specific!r}.")

    def plan(self, atlas: Atlas, sel: Selection, target: str) -> SteeringPlan:
        """The plan for `target` from the atlas and a selection of the same languages: s alone.

        Raises ClasError if atlas, selection and languages don't fit together.
        """
        _check(atlas, sel, target)
        specific = sel.category == SPECIFIC
        if self.specific == "target":
            specific = sel.neurons_of(target)
        elif self.specific == "others":
            specific = specific & ~sel.neurons_of(target)
        m = torch.ones(sel.category.shape)  # [layers, neurons]
        m[sel.category == SHARED] = self.beta
        m[specific] = self.gamma
        return _plan(self, atlas, target, scale=m)


@dataclass(frozen=True)
class IntMu:
    """Overwrite the target's neurons by their mean activation (Mondal et al., arXiv 2503.17456).

    Measured and written at the same site, the input of the down-projection; the released code
    measures before the activation function.
    """

    alpha: float = 1.0
    layers: Layers = None

    def __post_init__(self) -> None:
        _check_numbers(self)

    def plan(self, atlas: Atlas, sel: OwnedNeurons, target: str) -> SteeringPlan:
        """The plan for `target`: s and b on its own neurons, which `sel` names.

        Raises ClasError if atlas, selection and languages don't fit together.
        """
        _check(atlas, sel, target)
        own, mu = sel.neurons_of(target), atlas.mean[:, atlas.index(target)]  # [layers, neurons]
        scale, bias = torch.where(own, 0.0, 1.0), torch.where(own, mu, 0.0)
        return _plan(self, atlas, target, scale=scale, bias=bias)


@dataclass(frozen=True)
class LAPE:
    """Deactivate the neurons of the `source` language (Tang et al., arXiv 2402.16438).

    Which neurons those are is part of the method: `lape_select` finds them, unless `sel` are a
    language's neurons from elsewhere (a `LapeSelection` of other thresholds, published ones).
    """

    alpha: float = 1.0
    source: str = "en"
    layers: Layers = None

    def __post_init__(self) -> None:
        _check_numbers(self)

    def plan(self, atlas: Atlas, sel: OwnedNeurons, target: str) -> SteeringPlan:
        """The plan for `target`, which only names it: s on the neurons of `source`.

        Raises ClasError if atlas, selection and languages don't fit together.
        """
        _check(atlas, sel, target)
        atlas.index(self.source)
        found = lape_select(atlas) if isinstance(sel, Selection) else sel
        scale = torch.where(found.neurons_of(self.source), 0.0, 1.0)
        return _plan(self, atlas, target, scale=scale)


@dataclass(frozen=True)
class LanguageArithmetic:
    """Add the target's mean activations, take away the source (Gurgurov et al., arXiv 2507.22608).

    `lam` times the mean is added on the target's neurons; with a `source`, that language's neurons
    are set to zero first. Product site: on `act(gate) * up`, where the released code works on
    `act(gate)`.
    """

    alpha: float = 1.0
    lam: float = 1.0
    source: str | None = None
    layers: Layers = None

    def __post_init__(self) -> None:
        _check_numbers(self)

    def plan(self, atlas: Atlas, sel: OwnedNeurons, target: str) -> SteeringPlan:
        """The plan for `target`: b on its own neurons, s on those of `source`.

        Raises ClasError if atlas, selection and languages don't fit together.
        """
        _check(atlas, sel, target)
        own, mu = sel.neurons_of(target), atlas.mean[:, atlas.index(target)]  # [layers, neurons]
        bias = torch.where(own, self.lam * mu, 0.0)
        scale = torch.ones_like(bias)
        if self.source is not None:
            scale[sel.neurons_of(self.source)] = 0.0
        return _plan(self, atlas, target, scale=scale, bias=bias)


@dataclass(frozen=True)
class DiffMean:
    """Shift the residual stream from the source's mean to the target's (arXiv 2601.08331).

    A shift after layer l of r[l, target] - r[l, source]. It stays in the residual stream and adds
    up over layers, so None means one layer here: the first bridge layer.
    """

    alpha: float = 1.0
    source: str = "en"
    layers: Layers = None

    def __post_init__(self) -> None:
        _check_numbers(self)

    def plan(self, atlas: Atlas, sel: OwnedNeurons, target: str) -> SteeringPlan:
        """The plan for `target`: a shift after each of the layers; `sel` plays no part.

        Raises ClasError if atlas, selection and languages don't fit together.
        """
        _check(atlas, sel, target)
        r = atlas.residual  # [layers, languages, hidden]
        shift = r[:, atlas.index(target)] - r[:, atlas.index(self.source)]
        first = bridge_layers(atlas.num_layers)[0]
        return _plan(self, atlas, target, shift=shift, default=(first, first + 1))


@dataclass(frozen=True)
class RandomControl:
    """The plan of another method with its numbers dealt to random neurons: the fair comparison.

    In each layer the pairs (s, b) are permuted over the neurons that aren't dead, so the same
    numbers act on as many live neurons of the same layers; a residual shift is permuted over its
    coordinates. The permutation depends on `seed` and the layer alone, so moving a strength keeps
    it.
    """

    of: CLAS | IntMu | LAPE | LanguageArithmetic | DiffMean = field(default_factory=CLAS)
    seed: int = 0

    def plan(self, atlas: Atlas, sel: Selection, target: str) -> SteeringPlan:
        """The plan of the method that it controls, with its numbers on other live neurons.

        Raises ClasError if atlas, selection and languages don't fit together.
        """
        original = self.of.plan(atlas, sel, target)
        layers = {
            index: self._shuffle(layer, sel.category[index] > DEAD, index)
            for index, layer in original.layers.items()
        }
        return SteeringPlan(layers, f"random control (seed {self.seed}) of {original.label}")

    def _shuffle(self, layer: LayerPlan, live: torch.Tensor, index: int) -> LayerPlan:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)

        def permute(x: torch.Tensor | None, order: torch.Tensor) -> torch.Tensor | None:
            return None if x is None else x[order]

        live = live[: layer.neurons]
        order = torch.arange(len(live))
        order[live] = order[live][torch.randperm(int(live.sum()), generator=generator)]
        shift = layer.shift
        coordinates = torch.randperm(0 if shift is None else len(shift), generator=generator)
        return LayerPlan(
            permute(layer.scale, order), permute(layer.bias, order), permute(shift, coordinates)
        )


Method = CLAS | IntMu | LAPE | LanguageArithmetic | DiffMean | RandomControl

METHODS: dict[str, type[Method]] = {
    method.__name__: method
    for method in (CLAS, IntMu, LAPE, LanguageArithmetic, DiffMean, RandomControl)
}


def _plan(
    method: CLAS | IntMu | LAPE | LanguageArithmetic | DiffMean,
    atlas: Atlas,
    target: str,
    *,
    scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    default: Layers = None,
) -> SteeringPlan:
    """The full method's map, [layers, units] each, in the steered layers at strength alpha."""
    first, end = method.layers or default or bridge_layers(atlas.num_layers)
    if not 0 <= first < end <= atlas.num_layers:
        raise ClasError(
            f"Layers ({first}, {end}) don't fit: choose a half-open range within "
            f"(0, {atlas.num_layers}), counted from 0."
        )
    layers = {}
    for layer in range(first, end):
        width = atlas.widths[layer]
        full = LayerPlan(
            None if scale is None else scale[layer, :width],
            None if bias is None else bias[layer, :width],
            None if shift is None else shift[layer],
        )
        layers[layer] = full * method.alpha
    return SteeringPlan(layers, f"{method} for {target}")


def _check(atlas: Atlas, sel: OwnedNeurons, target: str) -> None:
    atlas.index(target)
    if sel.languages != atlas.languages:
        raise ClasError("The selection is of another atlas: select neurons from this one.")


def _check_numbers(method: object) -> None:
    for f in fields(method):  # type: ignore[arg-type]
        value = getattr(method, f.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ClasError(f"{f.name} must be a finite number, not {value}.")
