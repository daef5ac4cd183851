"""Caches of several batches laid side by side, for a batch that changes between two tokens.

Every text ends in the last column, so one more token of each is one more column. Padding stands
left of the texts only, where no window, no ALiBi distance and no learned position counts it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import (
    DummyLayer,
    DynamicLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

_ROOM = 32  # columns


class RoomyLayer(DynamicLayer):
    """Keys and values with columns to spare, so that a new token doesn't copy all before it.

    keys, values: [rows, heads, at least `length`, size]. It writes in place: never `fork` it.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._stores, self._length = [keys, values], length
        self._view()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take up keys and values of [rows, heads, new tokens, size]; returns all there are."""
        start, self._length = self._length, self._length + key_states.shape[-2]
        more = self._length - self._stores[0].shape[-2]
        if more > 0:
            self._stores = [pad(x, (0, 0, 0, more + _ROOM)) for x in self._stores]
        for store, new in zip(self._stores, (key_states, value_states)):
            store[:, :, start : self._length] = new
        return self._view()

    def put(self, places: Tensor, layer: Any, chosen: Tensor) -> None:
        """Let the chosen rows of another layer stand in these places, each ending where ours do."""
        for store, x in zip(self._stores, (layer.keys, layer.values)):
            own = places.to(store.device)
            store[own, :, : self._length] = right([_chosen(x, chosen)], self._length)

    def _view(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (store[:, :, : self._length] for store in self._stores)
        return self.keys, self.values


_JOINABLE = (
    DynamicLayer,
    RoomyLayer,
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    DummyLayer,
)


def can_join(cache: DynamicCache) -> bool:
    """Whether `join` knows all kinds of layers in this cache."""
    return all(type(layer) in _JOINABLE for layer in cache.layers)


def can_put(cache: DynamicCache) -> bool:
    """Whether rows of this cache can be replaced by those of another one: once it was joined."""
    return all(type(layer) in (RoomyLayer, DummyLayer) for layer in cache.layers)


def put(cache: DynamicCache, places: Tensor, other: DynamicCache, chosen: Tensor) -> None:
    """Let the chosen rows of another cache, which isn't wider, take these places of this one."""
    for layer, of_other in zip(cache.layers, other.layers):
        if isinstance(layer, RoomyLayer):
            layer.put(places, of_other, chosen)


def join(parts: Sequence[tuple[DynamicCache, Tensor]], width: int) -> DynamicCache:
    """A cache of `width` columns with the chosen rows of each part, one part after the other.

    parts: caches, and which of their rows to take [chosen], in their order; of wider ones the last
        columns stay.
    """
    twin = copy.copy(parts[0][0])
    rows = [chosen for _, chosen in parts]
    layers = zip(*(cache.layers for cache, _ in parts))
    twin.layers = [_join_layers(each, rows, width) for each in layers]
    return twin


def right(parts: Sequence[Tensor], width: int, room: int = 0) -> Tensor:
    """Tensors [rows, ..., columns, size] below each other, each ending in column `width`.

    Of wider ones the first columns drop out, and before others there are zeros. `room` columns to
    spare come behind, whose values are anything.
    """
    shape = (sum(map(len, parts)), *parts[0].shape[1:-2], width + room, parts[0].shape[-1])
    made, row = parts[0].new_empty(shape), 0
    for part in parts:
        have = min(part.shape[-2], width)
        end = part.narrow(-2, part.shape[-2] - have, have)
        place = made[row : row + len(part)]
        place[..., : width - have, :] = 0  # masked, yet what is no number would spread
        place[..., width - have : width, :] = end
        row += len(part)
    return made


def _join_layers(layers: Sequence[Any], rows: Sequence[Tensor], width: int) -> Any:
    first = layers[0]
    twin = copy.copy(first)
    if isinstance(first, DynamicLayer) and first.is_initialized:
        roomy = type(first) is not LinearAttentionAndFullAttentionLayer
        keys, values = (
            right(
                [_chosen(getattr(layer, name), r) for layer, r in zip(layers, rows)],
                width,
                _ROOM if roomy else 0,
            )
            for name in ("keys", "values")
        )
        if roomy:
            return RoomyLayer(keys, values, width)
        twin.keys, twin.values = keys, values
    for name, value in vars(first).items():
        if isinstance(value, dict):  # states, and what is known of them
            states = [vars(layer)[name] for layer in layers]
            setattr(
                twin, name, {key: _join_states([s[key] for s in states], rows) for key in value}
            )
    return twin


def _join_states(states: Sequence[Any], rows: Sequence[Tensor]) -> Any:
    if not isinstance(states[0], Tensor):
        return states[0]
    return torch.cat([_chosen(state, chosen) for state, chosen in zip(states, rows)])


def _chosen(x: Tensor, rows: Tensor) -> Tensor:
    # They keep their order; each layer's are on its own device.
    return x if len(rows) == len(x) else x[rows.to(x.device)]
