"""Which neurons belong to which language: pure functions of an atlas and thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from ..errors import ClasError
from .atlas import Atlas

CATEGORIES = ("dead", "specific", "partial", "shared")
NONE, DEAD, SPECIFIC, PARTIAL, SHARED = range(-1, 4)


class OwnedNeurons(Protocol):
    """Any selection that says which neurons are a language's own."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes that `neurons_of` takes."""

    def neurons_of(self, language: str) -> torch.Tensor:
        """[layers, neurons] bool. Raises ClasError if the language isn't in the selection."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The category and the owner of every neuron at given thresholds.

    category: [layers, neurons] int8, an index into CATEGORIES (*Sharing Matters*, Wang et al.,
        arXiv 2406.09265): 0 dead in every language, 1 specific to one, 2 partial, 3 shared; NONE
        (-1) beyond the width of a layer that has fewer neurons than the widest.
    owner: [layers, neurons] int16, the position in `languages` of the one language in which a
        specific neuron is active, else -1.
    active: [layers, languages, neurons] bool, whether the activation probability reaches tau.
    """

    category: torch.Tensor
    owner: torch.Tensor
    active: torch.Tensor
    languages: tuple[str, ...]
    tau: float
    shared_from: int
    mode: str

    def neurons_of(self, language: str) -> torch.Tensor:
        """[layers, neurons] bool: the neurons specific to this language."""
        return self.owner == _position(language, self.languages)

    def counts(self) -> torch.Tensor:
        """[layers, 4] int64: how many neurons of each category a layer has."""
        return torch.stack([(self.category == c).sum(1) for c in range(len(CATEGORIES))], dim=1)

    def overlap(self, layers: Iterable[int] | None = None) -> torch.Tensor:
        """[languages, languages] float32: Jaccard index of the sets of active neurons.

        Over the neurons of `layers` (default all). 0 for two languages without active neurons.
        """
        chosen = list(range(len(self.active)) if layers is None else layers)
        sets = self.active[chosen].transpose(0, 1).flatten(1).float()  # [languages, all neurons]
        both = sets @ sets.T
        sizes = sets.sum(1)
        return both / (sizes[:, None] + sizes - both).clamp_min(1)


def select(
    atlas: Atlas, tau: float = 0.2, shared_from: int | None = None, mode: str = "absolute"
) -> Selection:
    """Sort every neuron into dead, specific, partial or shared.

    A neuron is active in a language if its activation probability p is at least `tau` ("absolute"),
    or at least the `tau` quantile of p in its layer, over neurons and languages ("quantile"). One
    that never opens is active nowhere. Active in one language makes it specific, in `shared_from`
    (2 to all; None is all) or more shared.

    Raises ClasError if a threshold is out of range.
    """
    count = len(atlas.languages)
    if count < 2:
        raise ClasError("Selecting neurons compares languages: measure at least two.")
    if not 0 <= tau <= 1:  # False for NaN too
        raise ClasError(f"The activation threshold tau must be between 0 and 1, not {tau}.")
    shared_from = count if shared_from is None else shared_from
    if not 2 <= shared_from <= count:
        raise ClasError(
            f"Neurons can be shared from 2 to {count} languages (those measured), "
            f"not from {shared_from}."
        )
    p = atlas.probability
    if mode == "absolute":
        bar = torch.full((len(p), 1, 1), tau)
    elif mode == "quantile":
        layers = [layer[:, :width].flatten() for layer, width in zip(p, atlas.widths)]
        bar = torch.stack([layer.quantile(tau) for layer in layers])[:, None, None]
    else:
        raise ClasError(f"Threshold mode must be 'absolute' or 'quantile', not {mode!r}.")
    active = (p >= bar) & (p > 0)  # [layers, languages, neurons]
    n = active.sum(1)  # [layers, neurons]
    category = torch.full_like(n, PARTIAL, dtype=torch.int8)
    category[n == 0] = DEAD
    category[n == 1] = SPECIFIC
    category[n >= shared_from] = SHARED
    category[~_present(atlas)] = NONE
    owner = torch.where(n == 1, active.int().argmax(1), -1).to(torch.int16)
    return Selection(category, owner, active, atlas.languages, tau, shared_from, mode)


@dataclass(frozen=True, eq=False)
class LapeSelection:
    """Neurons that LAPE calls language-specific; a neuron may belong to several languages.

    belongs: [layers, languages, neurons] bool.
    entropy: [layers, neurons] float32, LAPE's score in nats: low where few languages open a neuron.
    """

    belongs: torch.Tensor
    entropy: torch.Tensor
    languages: tuple[str, ...]

    def neurons_of(self, language: str) -> torch.Tensor:
        """[layers, neurons] bool: the neurons of this language; others may have them too."""
        return self.belongs[:, _position(language, self.languages)]


def lape_select(atlas: Atlas, keep: float = 0.01, bar: float = 0.95) -> LapeSelection:
    """Language activation probability entropy (Tang et al., arXiv 2402.16438), as released.

    p' = p / sum_k p, H = -sum_k p' ln p'. Neurons that exceed the `bar` percentile of all p in no
    language are out; of the rest, the share `keep` of all neurons with the lowest H is kept, and
    belongs to every language whose p exceeds that percentile.
    """
    for name, value in (("keep", keep), ("bar", bar)):
        if not 0 < value <= 1:
            raise ClasError(f"LAPE's {name} is a share between 0 and 1, not {value}.")
    p = atlas.probability  # [layers, languages, neurons]
    present = _present(atlas)
    every = p.transpose(1, 2)[present].flatten()
    threshold = every.kthvalue(max(1, round(bar * every.numel()))).values
    above = p > threshold
    shares = (p / p.sum(1, keepdim=True)).nan_to_num(0.0)
    entropy = torch.special.entr(shares).sum(1)  # [layers, neurons]; 0 ln 0 = 0
    ranked = entropy.masked_fill(~above.any(1), math.inf).flatten()
    kept = torch.zeros(ranked.shape, dtype=torch.bool)
    kept[ranked.argsort(stable=True)[: round(keep * int(present.sum()))]] = True
    belongs = above & kept.view_as(entropy)[:, None]
    return LapeSelection(belongs, entropy, atlas.languages)


RANKINGS = ("both", "top", "bottom")


def telling_units(
    atlas: Atlas, language: str, k: int, ranking: str = "both", layers: Iterable[int] | None = None
) -> torch.Tensor:
    """[layers, neurons] bool: the `k` neurons that tell a language best (arXiv 2404.02431).

    By `Atlas.precision`, among the neurons of `layers` (default all): the highest k // 2 and the
    rest of k the lowest ("both"), the highest ("top") or the lowest ("bottom"). Of equal ones, the
    first; of fewer than k, all. Raises ClasError for a k below 1 and an unknown ranking.
    """
    if k < 1:
        raise ClasError(f"Choose at least one unit, not {k}.")
    if ranking not in RANKINGS:
        raise ClasError(f"ranking must be one of {', '.join(RANKINGS)}, not {ranking!r}.")
    chosen = torch.zeros(atlas.num_layers, 1, dtype=torch.bool)
    chosen[list(range(atlas.num_layers) if layers is None else layers)] = True
    among = (_present(atlas) & chosen).flatten().nonzero()[:, 0]
    ranked = among[
        atlas.precision[:, atlas.index(language)]
        .flatten()[among]
        .argsort(descending=True, stable=True)
    ]
    k = min(k, len(ranked))
    top = {"both": k // 2, "top": k, "bottom": 0}[ranking]
    units = torch.zeros(atlas.num_layers * atlas.num_neurons, dtype=torch.bool)
    units[ranked[:top]] = True
    units[ranked[len(ranked) - (k - top) :]] = True
    return units.view(atlas.num_layers, atlas.num_neurons)


def _present(atlas: Atlas) -> torch.Tensor:
    """[layers, neurons] bool: False beyond a layer's width."""
    return torch.arange(atlas.num_neurons) < torch.tensor(atlas.widths)[:, None]


def _position(language: str, languages: tuple[str, ...]) -> int:
    if language not in languages:
        raise ClasError(
            f"No neurons were selected for {language!r}: choose one of {', '.join(languages)}."
        )
    return languages.index(language)
