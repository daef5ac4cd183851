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
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from .models import LanguageModel


class Tap:
    """What to do at each site of a forward pass; override what you need.

    A method that returns a tensor replaces the value, one that returns None leaves it. Tensors are
    [batch, length, width]; an architecture that flattens its tokens gives [batch * length, width].
    """

    def gate(self, layer: int, gate: torch.Tensor) -> None:
        """The gate before its activation function. Never called in MLPs without a gate."""

    def neurons(self, layer: int, h: torch.Tensor) -> torch.Tensor | None:
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
            for mlp, block in zip(lm.mlps, lm.blocks, strict=True):
                mlp.down.register_forward_pre_hook(_neurons_hook(key, mlp.layer, mlp.down))
                block.register_forward_hook(_hidden_hook(key, mlp.layer, block))
                if mlp.gate is not None:
                    mlp.gate.register_forward_hook(
                        _gate_hook(key, mlp.layer, mlp.gate, mlp.gate_slice)
                    )
            _keys[lm.model] = key
        return key


# A deep copy of a model carries these hooks, with the original's key: each therefore remembers
# the module that it was made for, and is silent on any other.


def _neurons_hook(key: _Key, layer: int, site: nn.Module) -> Callable[..., Any]:
    own = weakref.ref(site)

    def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        taps = _active.get().get(key)
        if not taps or module is not own():
            return None
        h = args[0]
        for tap in taps:
            changed = tap.neurons(layer, h)
            h = h if changed is None else changed
        return (h, *args[1:])

    return hook


def _gate_hook(key: _Key, layer: int, site: nn.Module, part: slice) -> Callable[..., Any]:
    own = weakref.ref(site)

    def hook(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        taps = _active.get().get(key)
        if taps and module is own():
            for tap in taps:
                tap.gate(layer, output[..., part])

    return hook


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
