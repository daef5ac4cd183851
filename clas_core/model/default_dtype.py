"""What torch takes for a float where nobody says, kept from changing under other threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from transformers import modeling_utils

_MAKING = {
    torch.arange, torch.asarray, torch.empty, torch.eye, torch.full, torch.linspace,
    torch.logspace, torch.ones, torch.rand, torch.randn, torch.tensor, torch.zeros,
}  # fmt: skip
_mine: ContextVar[torch.dtype | None] = ContextVar("default dtype", default=None)
_processes = torch.get_default_dtype


@contextmanager
def threads_own_default() -> Iterator[None]:
    """Let transformers make models of any dtype in here without touching the process's default.

    It sets torch's default dtype meanwhile, which all threads share: a text that another one is
    writing would be drawn, and its log-probabilities kept, in bfloat16.
    """
    with (
        patch.object(modeling_utils, "local_torch_dtype", _own),
        patch.object(torch, "get_default_dtype", lambda: _mine.get() or _processes()),
    ):
        yield


@contextmanager
def _own(dtype: torch.dtype, model_class_name: str | None = None) -> Iterator[None]:
    token = _mine.set(dtype)
    try:
        with _Default(dtype):
            yield
    finally:
        _mine.reset(token)


class _Default(TorchFunctionMode):
    """In this thread, tensors that would be of the default dtype are of `dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func not in _MAKING or kwargs.get("dtype") is not None:
            return made
        return made.to(self._dtype) if made.dtype == _processes() else made
