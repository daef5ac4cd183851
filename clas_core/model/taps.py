"""See and change what flows through a model's MLPs, in this context only.

Hooks are installed when a model is loaded and do nothing until a tap is active. Which taps are
active belongs to the calling context (a ContextVar), so two threads use one model without meeting,
and an error can't leave a model tapped.

Compiled code can't be tapped: it may have been compiled before the hooks came, or for another model
of the same class, and is run again without looking at them. So while any tap is active, what
`torch.compile` made runs as if it hadn't been compiled.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from ..errors import ClasError
from .architecture import MLP, Experts, LanguageModel, find_mlps
from .experts import ROUTED, Routed, listen


@dataclass(frozen=True, eq=False)
class Site:
    """Which neurons of which tokens a tensor holds.

    neurons: the part of the layer's axis. In a dense MLP the tensor is [batch, length, neurons].
    Of `num_experts` routed experts, which fill that part one after the other, it is [rows, neurons
    of one expert]: row r holds expert `experts[r]`'s neurons for token `tokens[r]` of a batch of
    shape `batch` (texts, length), padding included; both [rows] int64, tokens numbered text after
    text. gated: whether `Tap.gate` is called here too.
    """

    layer: int
    neurons: slice
    gated: bool
    num_experts: int = 0
    tokens: torch.Tensor | None = None
    experts: torch.Tensor | None = None
    batch: tuple[int, int] = (0, 0)


class Tap:
    """What to see or change at each site of a forward pass; override what you need.

    A method that returns a tensor replaces the value, one that returns None leaves it. Tensors are
    [batch, length, width], also where an architecture flattens its tokens, but for routed experts'
    (see `Site`).
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
# (texts, length) of the batch in the decoder layer that runs in this context.
_batch: ContextVar[tuple[int, int] | None] = ContextVar("batch", default=None)


@contextmanager
def tapped(lm: LanguageModel, tap: Tap) -> Iterator[None]:
    """Let `tap` see every forward pass of `lm` made in this context.

    Nested taps act in the order they were entered. Never put this round a `yield`: a generator may
    be resumed in another context.

    Raises ClasError if modules of `lm` were replaced since it was loaded, as adapters do, or inside
    a function that is being compiled.
    """
    key = install(lm)
    taps = _active.get()
    with _eager:
        token = _active.set({**taps, key: (*taps.get(key, ()), tap)})
        shape = _batch.set(None)
        try:
            yield
        finally:
            _batch.reset(shape)
            _active.reset(token)


def is_tapped(lm: LanguageModel) -> bool:
    """Whether a tap sees forward passes of `lm` made in this context."""
    there = _installations.get(lm.model)
    return there is not None and bool(_active.get().get(there.key))


class _Eager:
    """Entered, by any number of threads, while compiled code must not run."""

    def __init__(self) -> None:
        self.entered = 0  # a trace of unsteered code may read it: it is guarded like any global
        self._lock = threading.Lock()
        self._stance: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self.entered == 0:
                try:
                    self._stance = torch.compiler.set_stance("force_eager")
                except RuntimeError as error:
                    raise ClasError(
                        "A compiled function can't steer or measure: compile the model alone, and "
                        "call it inside `with steered(...)`."
                    ) from error
            self.entered += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.entered -= 1
            if self.entered == 0:
                self._stance.__exit__(None, None, None)


_eager = _Eager()


class _Installation:
    """Our hooks in one model, and the way from it to each module that has one."""

    def __init__(self, lm: LanguageModel) -> None:
        self.key = _Key()
        self.of: weakref.WeakSet[LanguageModel] = weakref.WeakSet((lm,))
        hooked = list(_hooked(lm.blocks, lm.mlps))
        self._modules = [weakref.ref(module) for module in hooked]
        self._edges = _edges_to(hooked, lm.model)
        self._handles: list[Any] = []
        for mlp in lm.mlps:
            place = slice(mlp.start, mlp.start + mlp.neurons)
            if isinstance(mlp, Experts):
                listen(mlp.module, _Listener(self.key, mlp, place))
                continue
            site = Site(mlp.layer, place, mlp.gate is not None)
            self._handles.append(mlp.down.register_forward_pre_hook(_NeuronsHook(self.key, site)))
            if mlp.gate is not None:
                hook = _GateHook(self.key, site, mlp.gate_slice)
                self._handles.append(mlp.gate.register_forward_hook(hook))
        for layer, block in enumerate(lm.blocks):
            self._handles += (
                block.register_forward_pre_hook(_CallHook(self.key, layer), with_kwargs=True),
                # First, so that hidden states that others collect here are the steered ones.
                block.register_forward_hook(_HiddenHook(self.key, layer), prepend=True),
            )
        if any(isinstance(mlp, Experts) for mlp in lm.mlps):
            lm.model.set_experts_implementation(ROUTED)

    @property
    def is_intact(self) -> bool:
        """Whether every module with a hook is where it was in the model."""
        for parent, name, child in self._edges:  # at every entry of `tapped`, so no generator
            owner = parent()
            if owner is None or owner._modules.get(name) is not child():
                return False
        return True

    def fits(self, lm: LanguageModel) -> bool:
        """Whether the hooks are on the modules of `lm`."""
        return [module() for module in self._modules] == list(_hooked(lm.blocks, lm.mlps))

    def remove(self) -> None:
        """Take our hooks off; experts only listen to the last installation."""
        for handle in self._handles:
            handle.remove()


_installations: weakref.WeakKeyDictionary[nn.Module, _Installation] = weakref.WeakKeyDictionary()
_installing = threading.Lock()


def install(lm: LanguageModel) -> _Key:
    """Put the hooks into `lm` unless they are there; done as soon as a model is loaded.

    Raises ClasError if modules of `lm` were replaced since it was loaded.
    """
    with _installing:
        there = _installations.get(lm.model)
        if there is None or lm not in there.of:
            blocks, mlps = find_mlps(lm.model)
            if list(_hooked(blocks, mlps)) != list(_hooked(lm.blocks, lm.mlps)):
                raise _replaced(lm)
            if there is not None and there.is_intact and there.fits(lm):
                there.of.add(lm)
            else:
                if there is not None:
                    there.remove()
                there = _installations[lm.model] = _Installation(lm)
        if not there.is_intact:
            raise _replaced(lm)
        return there.key


def _replaced(lm: LanguageModel) -> ClasError:
    return ClasError(
        f"Modules of {lm.name} were replaced since it was loaded, as adding an adapter does: load "
        "it again, load(model, tokenizer)."
    )


def _hooked(blocks: Sequence[nn.Module], mlps: Sequence[MLP | Experts]) -> Iterator[nn.Module]:
    """Every module that gets a hook."""
    for mlp in mlps:
        if isinstance(mlp, MLP):
            yield from (mlp.down,) if mlp.gate is None else (mlp.down, mlp.gate)
        else:
            yield mlp.module
    yield from blocks


_Edge = tuple["weakref.ref[nn.Module]", str, "weakref.ref[nn.Module]"]  # parent, name, child


def _edges_to(modules: list[nn.Module], root: nn.Module) -> list[_Edge]:
    """Every step of the ways from `root` to `modules`."""
    wanted = {id(module) for module in modules}
    edges: dict[str, _Edge] = {}
    for path, module in root.named_modules():
        if id(module) not in wanted:
            continue
        parent, way = root, ""
        for name in path.split("."):
            child, way = parent.get_submodule(name), f"{way}.{name}"
            edges[way] = (weakref.ref(parent), name, weakref.ref(child))
            parent = child
    return list(edges.values())


class _Silent:
    """A hook that does nothing: what copying or pickling a model makes of ours."""

    def __call__(self, *args: object, **kwargs: object) -> None:
        return None


class _Hook:
    """Shows what passes a module to the active taps of its model."""

    def __init__(self, key: _Key) -> None:
        self._key = key

    def __reduce__(self) -> tuple[type[_Silent], tuple[()]]:
        return _Silent, ()

    def _taps(self) -> tuple[Tap, ...]:
        # A trace of unsteered code ends here: dynamo doesn't know ContextVars.
        return _active.get().get(self._key, ()) if _eager.entered else ()


class _CallHook(_Hook):
    def __init__(self, key: _Key, layer: int) -> None:
        super().__init__(key)
        self._layer = layer

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taps = self._taps()
        if not taps:
            return
        if block.training and getattr(block, "gradient_checkpointing", False):
            raise ClasError(
                "With gradient checkpointing a layer is computed again outside of what steers it, "
                "which gives wrong gradients: call gradient_checkpointing_disable() on the model."
            )
        hidden = args[0] if args else kwargs.get("hidden_states")
        _batch.set(_shape_of(hidden))
        for tap in taps:
            tap.call(self._layer, args, kwargs)


class _NeuronsHook(_Hook):
    def __init__(self, key: _Key, site: Site) -> None:
        super().__init__(key)
        self._site = site

    def __call__(self, down: nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
        taps = self._taps()
        if not taps:
            return None
        h = _through(taps, self._site, _by_text(self._site, args[0]))
        return (h.reshape(args[0].shape), *args[1:])


class _GateHook(_Hook):
    def __init__(self, key: _Key, site: Site, part: slice) -> None:
        super().__init__(key)
        self._site, self._part = site, part

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        taps = self._taps()
        if not taps:
            return
        gate = _by_text(self._site, output[..., self._part])
        for tap in taps:
            tap.gate(self._site, gate)


class _HiddenHook(_Hook):
    def __init__(self, key: _Key, layer: int) -> None:
        super().__init__(key)
        self._layer = layer

    def __call__(self, block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        taps = self._taps()
        if not taps:
            return None
        _batch.set(None)
        hidden = output[0] if isinstance(output, tuple) else output
        for tap in taps:
            changed = tap.hidden(self._layer, hidden)
            hidden = hidden if changed is None else changed
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


class _Listener(_Hook):
    """Gives the experts of one layer who listens to them in this context, or None."""

    def __init__(self, key: _Key, mlp: Experts, place: slice) -> None:
        super().__init__(key)
        self._site = Site(mlp.layer, place, mlp.gated, mlp.experts)

    def __call__(self) -> Callable[[Routed], torch.Tensor] | None:
        taps = self._taps()
        return (lambda routed: self._hear(taps, routed)) if taps else None

    def _hear(self, taps: tuple[Tap, ...], routed: Routed) -> torch.Tensor:
        batch = _batch.get()
        if batch is None or math.prod(batch) != routed.total:
            raise _parted(self._site)
        site = replace(self._site, tokens=routed.tokens, experts=routed.experts, batch=batch)
        if routed.gate is not None:
            for tap in taps:
                tap.gate(site, routed.gate)
        return _through(taps, site, routed.h)


def _shape_of(hidden: Any) -> tuple[int, int] | None:
    if isinstance(hidden, torch.Tensor) and hidden.ndim == 3:
        return hidden.shape[0], hidden.shape[1]
    return None


def _by_text(site: Site, x: torch.Tensor) -> torch.Tensor:
    """`x`, one vector a token however they are laid out, as [batch, length, width]."""
    batch = _batch.get()
    if batch is None:
        if x.ndim == 3:  # the MLP was called on its own
            return x
        raise _parted(site)
    if x.shape[:-1] == batch:
        return x
    if math.prod(x.shape[:-1]) != math.prod(batch):
        raise _parted(site)
    return x.reshape(*batch, -1)


def _parted(site: Site) -> ClasError:
    return ClasError(
        f"The MLP of layer {site.layer} got other tokens than its layer, so it can't be told whose "
        "they are: choose a model whose layers pass on every token."
    )


def _through(taps: tuple[Tap, ...], site: Site, h: torch.Tensor) -> torch.Tensor:
    for tap in taps:
        changed = tap.neurons(site, h)
        h = h if changed is None else changed
    return h
