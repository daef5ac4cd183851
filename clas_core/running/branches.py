"""One batch of texts under several plans: blocks below a plan's first are run once, for all.

A plan on the bridge layers leaves everything below them as it is. So the trunk (the model without
a plan) reads the text once, and each branch reruns only the blocks from its plan's first on, on
the trunk's own states, with a key-value cache of its own from there on.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from ..model.architecture import LanguageModel
from ..model.taps import Tap, tapped
from ..steering.plan import LayerPlan, SteeringPlan, steered

_LOGITS_AT_ONCE = 2**24  # entries, 64 MB in float32


class Branches:
    """A batch of texts under several plans, read piece by piece.

    None stands for the model as it is. Plans that change nothing share the trunk's numbers, and
    plans that are the same object share a branch. Where a model's blocks can't be called on their
    own, every branch runs all of them: slower, and the same numbers.
    """

    def __init__(
        self,
        lm: LanguageModel,
        plans: Sequence[SteeringPlan | None],
        *,
        whole: bool | None = None,
    ) -> None:
        self.lm = lm
        self.plans = tuple(None if plan is None or plan.is_identity else plan for plan in plans)
        for plan in self.plans:
            if plan is not None:
                plan.check(lm)
        self._starts = {
            plan: min(i for i, layer in plan.layers.items() if not layer.is_identity)
            for plan in dict.fromkeys(self.plans)
            if plan is not None
        }
        self._whole = bool(self._starts) and not _replays(lm) if whole is None else whole
        self._mask = torch.empty(1, 0, dtype=torch.long, device=lm.device)  # [rows, read so far]
        self._caches: dict[SteeringPlan | None, DynamicCache] = {
            plan: DynamicCache(config=lm.model.config) for plan in (None, *self._starts)
        }

    @property
    def mask(self) -> Tensor:
        """Which tokens read so far are text, [rows, tokens]."""
        return self._mask

    @torch.inference_mode()
    def read(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Read on: ids, mask [rows, tokens]; padding, where mask is 0, may stand at either side.

        Returns the last block's output [rows, tokens, hidden] under each plan.
        """
        self._mask = torch.cat([self._mask.expand(len(mask), -1), mask], dim=1)
        trunk = self._run(ids, None)
        found: dict[SteeringPlan | None, Tensor] = {None: trunk.last}
        for plan, start in self._starts.items():
            if self._whole:
                found[plan] = self._run(ids, plan).last
            else:
                cache = self._caches[plan]
                cache.layers[:start] = self._caches[None].layers[:start]
                found[plan] = self._rerun(trunk, plan, start)
        return [found[plan] for plan in self.plans]

    def select(self, rows: Tensor) -> Branches:
        """The texts `rows` [new rows] so far, in new branches; these stay as they are."""
        other = copy.copy(self)
        other._mask = self._mask[rows]
        # Below a plan's first block the trunk's cache is its cache too.
        trunk = _fork(self._caches[None], rows=rows)
        other._caches = {None: trunk}
        for plan, start in self._starts.items():
            shared = trunk.layers[: 0 if self._whole else start]
            other._caches[plan] = _fork(self._caches[plan], shared, rows)
        return other

    def cache(self, plan: SteeringPlan | None) -> DynamicCache:
        """What the model under `plan` keeps of the texts so far, to go on with on one's own."""
        return _fork(self._caches[plan])

    def _run(self, ids: Tensor, plan: SteeringPlan | None) -> _Trace:
        trace = _Trace(self.lm)
        options = {"past_key_values": self._caches[plan], "use_cache": True}
        # `steered` comes first: it acts before the trace sees the last block's output.
        with steered(self.lm, plan), tapped(self.lm, trace):
            self.lm.model.base_model(**inputs(self.lm, ids, self._mask), **options)
        return trace

    def _rerun(self, trunk: _Trace, plan: SteeringPlan, start: int) -> Tensor:
        hidden = trunk.stream[start]
        with steered(self.lm, plan):
            for layer in range(start, self.lm.num_layers):
                args, kwargs = trunk.call_again(layer, self._caches[plan])
                output = self.lm.blocks[layer](hidden, *args, **kwargs)
                hidden = output[0] if isinstance(output, tuple) else output
        return hidden


def inputs(lm: LanguageModel, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Keyword arguments to read `ids` [rows, tokens]; `mask` [rows, all so far] is 1 at text."""
    options = {"input_ids": ids}
    if not bool(mask.all()):  # without padding the causal mask says it all, and is faster
        options["attention_mask"] = mask
        if "position_ids" in inspect.signature(lm.model.base_model.forward).parameters:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            options["position_ids"] = positions[:, -ids.shape[1] :]
    return options


@torch.inference_mode()
def logits(lm: LanguageModel, hidden: Tensor) -> Iterator[Tensor]:
    """The vocabulary's logits of the last block's outputs [states, hidden], a part at a time.

    Each part is [some states, vocabulary] in float32. The model's own final norm and head do it:
    they get these states in place of a one-token text's.
    """
    vocabulary = lm.model.config.get_text_config().vocab_size
    token = torch.full((1, 1), lm.pad_id, device=lm.device)
    for part in hidden.split(max(1, _LOGITS_AT_ONCE // vocabulary)):
        with tapped(lm, _Replace(lm, part[None])):
            # Some families shape their last states like the one token.
            found = lm.model(input_ids=token, use_cache=False).logits.flatten(0, 1).float()
        yield found


class _Trace(Tap):
    """Each block's call, the states before it, and the last one's output, of one forward."""

    last: Tensor

    def __init__(self, lm: LanguageModel) -> None:
        self._end = lm.num_layers - 1
        self.stream: list[Tensor] = []
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def call(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        self.stream.append(args[0] if args else kwargs.pop("hidden_states"))
        self._calls.append((args[1:], kwargs))

    def hidden(self, layer: int, hidden: Tensor) -> None:
        if layer == self._end:
            self.last = hidden

    def call_again(self, layer: int, cache: Cache) -> tuple[list[Any], dict[str, Any]]:
        """What block `layer` was called with besides the states, but with another cache."""
        args, kwargs = self._calls[layer]
        return (
            [cache if isinstance(arg, Cache) else arg for arg in args],
            {name: cache if isinstance(arg, Cache) else arg for name, arg in kwargs.items()},
        )


class _Replace(Tap):
    """Lets the last block put out given states."""

    def __init__(self, lm: LanguageModel, hidden: Tensor) -> None:
        self._end = lm.num_layers - 1
        self._hidden = hidden

    def hidden(self, layer: int, hidden: Tensor) -> Tensor | None:
        return self._hidden if layer == self._end else None


_able: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def _replays(lm: LanguageModel) -> bool:
    """Whether calling this model's blocks again does what the model does, found by trying once."""
    if lm.model not in _able:
        middle = lm.num_layers // 2
        plan = SteeringPlan({middle: LayerPlan(shift=torch.full((lm.hidden_size,), 0.01))})
        ids = torch.arange(10, device=lm.device).reshape(2, 5) + 3
        mask = torch.ones_like(ids)
        mask[1, :2] = 0
        pieces = list(zip(ids.split(3, 1), mask.split(3, 1)))
        found = []
        for whole in (False, True):
            branches = Branches(lm, [plan], whole=whole)
            states = torch.cat([branches.read(*piece)[0] for piece in pieces], dim=1)
            found.append(states[mask.bool()].float())
        split, plain = found
        _able[lm.model] = bool((split - plain).abs().max() <= 1e-3 * plain.std())
    return _able[lm.model]


def _fork(
    cache: DynamicCache, shared: Sequence[Any] = (), rows: Tensor | None = None
) -> DynamicCache:
    """A cache that grows on its own from here on, with `rows` of this one's texts.

    Its first layers are `shared`, which other caches may have too.
    """
    fork = copy.copy(cache)
    fork.layers = [copy.copy(layer) for layer in cache.layers[len(shared) :]]
    if rows is not None:
        fork.batch_select_indices(rows)
    fork.layers = [*shared, *fork.layers]
    return fork
