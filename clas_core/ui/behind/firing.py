"""Which sentences fire a neuron most: one pass over the map's sentences for all of a layer's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.architecture import Experts, LanguageModel
from ...model.taps import Site, Tap, tapped

_AT_ONCE = 64  # sentences a forward


@dataclass(frozen=True)
class Fired:
    """A sentence, its language, and the neuron's highest value at any of its tokens."""

    text: str
    code: str
    value: float


def can_tell(lm: LanguageModel, layer: int) -> bool:
    """Whether all of a layer's neurons see every token, as those of experts don't."""
    return not any(isinstance(mlp, Experts) for mlp in lm.mlps if mlp.layer == layer)


@torch.inference_mode()
def peaks(lm: LanguageModel, texts: list[str], layer: int) -> Tensor:
    """The highest value of each of a layer's neurons in each text: [texts, neurons]. Runs the
    model; padding and special tokens don't count."""
    found = torch.empty(len(texts), lm.widths[layer])
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(order), _AT_ONCE):
        places = order[start : start + _AT_ONCE]
        batch = lm.encode([texts[place] for place in places])
        tap = _Peaks(layer, batch.content.bool(), found[places])
        with tapped(lm, tap):
            lm.model.base_model(**batch.inputs, use_cache=False)
        found[places] = tap.found
    return found


def most_fired(values: Tensor, texts: list[str], codes: list[str], count: int = 5) -> list[Fired]:
    """Of a neuron's `values` [texts] the `count` highest."""
    top = values.topk(min(count, len(texts)))
    pairs = zip(top.indices.tolist(), top.values.tolist())
    return [Fired(texts[place], codes[place], value) for place, value in pairs]


class _Peaks(Tap):
    def __init__(self, layer: int, content: Tensor, found: Tensor) -> None:
        self._layer, self._content, self.found = layer, content, found

    def neurons(self, site: Site, h: Tensor) -> None:
        if site.layer == self._layer and site.tokens is None:
            outside = ~self._content.to(h.device)[..., None]
            highest = h.float().masked_fill(outside, -torch.inf).amax(1)
            self.found[:, site.neurons] = highest.cpu()
