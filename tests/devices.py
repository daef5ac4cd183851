"""Several devices on a machine that has one, to tell code that mixes them.

A tensor "on" one of them is kept on the CPU under a wrapper that says where it is. Any operation on
tensors of two devices raises, as it does on GPUs: only numbers (tensors without a dimension) on the
CPU go with all others, and places on the CPU (of indexing) with tensors elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

FIRST, SECOND = torch.device("lazy:0"), torch.device("lazy:1")  # a type that torch has no code for
_CPU = torch.device("cpu")
_aten = torch.ops.aten
_TAKES_PLACES = (_aten.index, _aten.index_put, _aten.index_put_, _aten._unsafe_index)
_COPIES = (_aten.copy_, _aten._to_copy)


class Elsewhere(torch.Tensor):
    """A tensor on one of the devices; `held` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(
        cls,
        held: torch.Tensor,
        device: torch.device | None = None,
        requires_grad: bool = False,
    ) -> Elsewhere:
        if isinstance(held, Elsewhere):  # accelerate makes parameters of their own class
            held, device = held.held, held.device
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
            requires_grad=requires_grad or held.requires_grad,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held!r}, {self.device})"

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Devices(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._can_decompose():  # in inference mode torch leaves that to us
            with self:
                found = func.decompose(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return _run(func, args, kwargs or {})


@contextmanager
def several_devices() -> Iterator[None]:
    """Let tensors be made on FIRST and SECOND in this thread."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # so that `torch.tensor` goes this way too
    try:
        with _Devices():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    kwargs = dict(kwargs)
    flat, spec = tree_flatten((args, kwargs))
    place = _place_of(func, flat)
    wanted = kwargs.get("device")
    if wanted is not None:
        place = kwargs["device"] = torch.device(wanted)
    if place.type != "lazy":
        place = _CPU
    if "device" in kwargs and place.type == "lazy":
        kwargs["device"] = _CPU
        flat, spec = tree_flatten((args, kwargs))
    real = [one.held if isinstance(one, Elsewhere) else one for one in flat]
    real = [_CPU if isinstance(one, torch.device) and one.type == "lazy" else one for one in real]
    args, kwargs = tree_unflatten(real, spec)
    found = func(*args, **kwargs)
    if func._schema.name.split("::")[1].endswith("_") or _writes(func):
        # What is changed in place is the caller's own.
        ours = {id(one.held): one for one in flat if isinstance(one, Elsewhere)}
        return tree_map(lambda one: ours.get(id(one), one), found)
    # Looked at in inference mode, an ordinary tensor stays one.
    plain = func.is_view and not any(one.is_inference() for one in flat if torch.is_tensor(one))
    with torch.inference_mode(torch.is_inference_mode_enabled() and not plain):
        return tree_map(lambda one: _put(one, place), found)


def _writes(func: Any) -> bool:
    return any(a.is_out for a in func._schema.arguments)


def _put(one: Any, place: torch.device) -> Any:
    if isinstance(one, torch.Tensor) and place.type == "lazy":
        return Elsewhere(one, place)
    return one


def _place_of(func: Any, flat: list[Any]) -> torch.device:
    """Where the tensors of a call are; RuntimeError if there are two places."""
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    if func.overloadpacket in _COPIES:
        return tensors[0].device
    if func.overloadpacket in _TAKES_PLACES:  # the values, and those put there, come first
        on_cpu = [one for one in tensors[1:] if one.device == _CPU and not one.is_floating_point()]
        tensors = [one for one in tensors if not any(one is other for other in on_cpu)]
    places = {one.device for one in tensors if one.ndim or one.device != _CPU}
    if len(places) > 1:
        raise RuntimeError(
            f"{func}: expected all tensors to be on the same device, found "
            f"{', '.join(sorted(map(str, places)))}"
        )
    return places.pop() if places else _CPU
