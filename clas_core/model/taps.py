"""See and change what flows through a model's MLPs, in this context only.

Hooks are installed once per model and do nothing until a tap is active. Which taps are active
belongs to the calling context (a ContextVar), so two threads use one model without meeting, and
an error can't leave a model tapped.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from .architecture import MLP, Experts, LanguageModel
from .experts import ROUTED, Routed, listen


@dataclass(frozen=True, eq=False)
class Site:
    """Which neurons of which tokens the rows of a tensor hold.

    neurons: the part of the layer's axis. In a dense MLP the tensor has these neurons on its last
    axis, for every token in order. Of `num_experts` routed experts, which fill that part one after
    the other, it is [rows, neurons of one expert]: row r holds expert `experts[r]`'s neurons for
    token `tokens[r]` of the `total` in the batch, padding included; both [rows] int64.
    gated: whether `Tap.gate` is called here too.
    """

    layer: int
    neurons: slice
    gated: bool
    num_experts: int = 0
    tokens: torch.Tensor | None = None
    experts: torch.Tensor | None = None
    total: int = 0


class Tap:
    """What to see or change at each site of a forward pass; override what you need.

    A method that returns a tensor replaces the value, one that returns None leaves it. Tensors are
    [batch, length, width]; an architecture that flattens its tokens gives [batch * length, width].
    """

    def call(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the decoder layer is called with, the hidden states among it."""

    def gate(self, site: Site, gate: torch.Tensor) -> None:
        """The gate before its activation function. Never called in MLPs without a gate."""

    def neurons(self, site: Site, h: torch.Tensor) -> torch.Tensor | None:
        """The input of the down-projection."""

    def hidden(self, layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
        """The output of the decoder layer: the residual stream after it."""


class _Key:
    """Stands for one tapped model in `_active`, without keeping it alive."""


_active: ContextVar[Mapping[_Key, tuple[Tap, ...]]] = ContextVar(
    "active_taps", default=MappingProxyType({})
)
_keys: weakref.WeakKeyDictionary[nn.Module, _Key] = weakref.WeakKeyDictionary()
_installing = threading.Lock()


@contextmanager
def tapped(lm: LanguageModel, tap: Tap) -> Iterator[None]:
    """Let `tap` see every forward pass of `lm` made in this context.

    Nested taps act in the order they were entered. Never put this round a `yield`: a generator may
    be resumed in another context.
    """
    key = _install(lm)
    taps = _active.get()
    token = _active.set({**taps, key: (*taps.get(key, ()), tap)})
    try:
        yield
    finally:
        _active.reset(token)


def _install(lm: LanguageModel) -> _Key:
    with _installing:
        key = _keys.get(lm.model)
        if key is None:
            key = _Key()
            for mlp in lm.mlps:
                place = slice(mlp.start, mlp.start + mlp.neurons)
                if isinstance(mlp, MLP):
                    site = Site(mlp.layer, place, mlp.gate is not None)
                    mlp.down.register_forward_pre_hook(_neurons_hook(key, site, mlp.down))
                    if mlp.gate is not None:
                        hook = _gate_hook(key, site, mlp.gate, mlp.gate_slice)
                        mlp.gate.register_forward_hook(hook)
                else:
                    listen(mlp.module, _routed_listener(key, mlp, place))
            for layer, block in enumerate(lm.blocks):
                block.register_forward_pre_hook(_call_hook(key, layer, block), with_kwargs=True)
                block.register_forward_hook(_hidden_hook(key, layer, block))
            if any(not isinstance(mlp, MLP) for mlp in lm.mlps):
                lm.model.set_experts_implementation(ROUTED)
            _keys[lm.model] = key
        return key


# A deep copy of a model carries these hooks, with the original's key: each therefore remembers
# the module that it was made for, and is silent on any other.


def _call_hook(key: _Key, layer: int, module: nn.Module) -> Callable[..., None]:
    own = weakref.ref(module)

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taps = _active.get().get(key)
        if taps and module is own():
            for tap in taps:
                tap.call(layer, args, kwargs)

    return hook


def _neurons_hook(key: _Key, site: Site, module: nn.Module) -> Callable[..., Any]:
    own = weakref.ref(module)

    def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        taps = _active.get().get(key)
        if not taps or module is not own():
            return None
        return (_through(taps, site, args[0]), *args[1:])

    return hook


def _gate_hook(key: _Key, site: Site, module: nn.Module, part: slice) -> Callable[..., Any]:
    own = weakref.ref(module)

    def hook(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        taps = _active.get().get(key)
        if taps and module is own():
            for tap in taps:
                tap.gate(site, output[..., part])

    return hook


def _routed_listener(
    key: _Key, mlp: Experts, place: slice
) -> Callable[[], Callable[[Routed], torch.Tensor] | None]:
    layer, gated, experts = mlp.layer, mlp.gated, mlp.experts  # not mlp: that keeps the model

    def find() -> Callable[[Routed], torch.Tensor] | None:
        taps = _active.get().get(key)
        return partial(hear, taps) if taps else None

    def hear(taps: tuple[Tap, ...], routed: Routed) -> torch.Tensor:
        site = Site(layer, place, gated, experts, routed.tokens, routed.experts, routed.total)
        if routed.gate is not None:
            for tap in taps:
                tap.gate(site, routed.gate)
        return _through(taps, site, routed.h)

    return find


def _through(taps: tuple[Tap, ...], site: Site, h: torch.Tensor) -> torch.Tensor:
    for tap in taps:
        changed = tap.neurons(site, h)
        h = h if changed is None else changed
    return h


def _hidden_hook(key: _Key, layer: int, site: nn.Module) -> Callable[..., Any]:
    own = weakref.ref(site)

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        taps = _active.get().get(key)
        if not taps or module is not own():
            return None
        hidden = output[0] if isinstance(output, tuple) else output
        for tap in taps:
            changed = tap.hidden(layer, hidden)
            hidden = hidden if changed is None else changed
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return hook
