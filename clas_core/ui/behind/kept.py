"""What is worth keeping between calls, within a budget of bytes.

What was used least recently goes first.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch

from ...model.architecture import LanguageModel

T = TypeVar("T")
_OPAQUE = ("umap", "pynndescent", "numba")  # what a layout is fitted with: small beside its points


class Kept:
    """One for all models of a page, as they share its memory.

    The newest entry stays, whatever it takes: it is in use.
    """

    def __init__(self, most: int) -> None:
        """`most`: bytes that all entries may take together."""
        self._most, self._bytes = most, 0
        self._entries: OrderedDict[tuple[object, Hashable], tuple[Any, int]] = OrderedDict()
        self._gone: deque[object] = deque()  # owners, told by the garbage collector at any time
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return self._bytes

    def share(self, owner: object) -> Share:
        """A part for `owner`, with keys of its own, which goes when the owner does."""
        token = object()
        weakref.finalize(owner, self._gone.append, token)
        return Share(self, token)

    def find(self, key: tuple[object, Hashable]) -> Any:
        """The value kept under `key`, now used last; None if there is none."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: tuple[object, Hashable], value: T) -> T:
        """Keep `value`, unless another thread was quicker: what is kept then."""
        size = nbytes_of(value)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]  # type: ignore[no-any-return]
            self._entries[key] = (value, size)
            self._bytes += size
            while self._gone:
                owner = self._gone.popleft()
                for old in [old for old in self._entries if old[0] is owner]:
                    self._bytes -= self._entries.pop(old)[1]
            while self._bytes > self._most and len(self._entries) > 1:
                self._bytes -= self._entries.popitem(last=False)[1][1]
        return value


class Share:
    """One owner's part of what is kept."""

    def __init__(self, kept: Kept, token: object) -> None:
        self._kept, self._token = kept, token

    def find(self, *key: Hashable) -> Any:
        """What is kept under `key`; None if there is nothing."""
        return self._kept.find((self._token, key))

    def put(self, value: T, *key: Hashable) -> T:
        """Keep `value` under `key`; what is kept there now."""
        return self._kept.put((self._token, key), value)

    def get(self, make: Callable[[], T], *key: Hashable) -> T:
        """What is kept under `key`, else what `make` makes."""
        found = self.find(*key)
        return self.put(make(), *key) if found is None else found


def nbytes_of(value: object) -> int:
    """Bytes of all tensors, arrays and texts within `value`, each once, without a model's
    weights."""
    seen: set[Hashable] = set()
    return sum(_sizes(value, seen))


def _sizes(value: object, seen: set[Hashable]) -> Iterator[int]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (LanguageModel, ModuleType)) or callable(one):
            continue
        if type(one).__module__.partition(".")[0] in _OPAQUE:
            continue
        if isinstance(one, torch.Tensor):
            # Two views of the same numbers are two tensors, but one piece of memory.
            key: Hashable = (one.data_ptr(), one.numel(), one.element_size())
            size = one.numel() * one.element_size()
        else:
            key, size = id(one), one.nbytes if isinstance(one, np.ndarray) else 0
            if isinstance(one, (str, bytes)):
                size = sys.getsizeof(one)
        if key in seen:
            continue
        seen.add(key)
        yield size
        if isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, (list, tuple)):
            waiting += one
        elif not isinstance(one, torch.Tensor):
            inside = getattr(one, "__dict__", None)
            waiting += inside.values() if isinstance(inside, dict) else ()
