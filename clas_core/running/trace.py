"""What a forward pass did, block by block, so that its last blocks can be run again alone.

A plan on the bridge layers leaves everything below them as it is, so only the blocks from its first
one on need to run, on the states that came to them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import Cache

from ..model.architecture import LanguageModel
from ..model.taps import Tap, tapped
from ..steering.plan import LayerPlan, Prompts, SteeringPlan, steered
from .batch import Plan, arguments, new_cache


class Trace(Tap):
    """One forward: the states before every block and after the last, and each block's call.

    stream: [layers + 1] tensors [rows, tokens, hidden]; l is the output of block l - 1, on the
    device of that block.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self.stream: list[Tensor] = []
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._prompt: Prompts = None
        self._past = 0

    @torch.inference_mode()
    def run(
        self,
        plan: Plan,
        ids: Tensor,
        mask: Tensor,
        cache: Cache | None = None,
        prompt: Prompts = None,
    ) -> Trace:
        """Read `ids` under `plan`, as `batch.next_logits` does; without the vocabulary's logits."""
        self._prompt, self._past = prompt, mask.shape[1] - ids.shape[1]
        body = self._lm.model.base_model
        # `steered` comes first: it acts before the trace sees the last block's output.
        with self._steered(plan), tapped(self._lm, self):
            body(**arguments(body, ids, mask, cache))
        return self

    @torch.inference_mode()
    def rerun(self, plan: Plan, start: int, end: int, cache: Cache | None = None) -> Tensor:
        """The states after block `end` - 1 if blocks `start` to `end` - 1 are steered by `plan`.

        [rows, tokens, hidden]. Instead of the forward's own cache these blocks get `cache`.
        """
        hidden = self.stream[start]
        with self._steered(plan):
            for layer in range(start, end):
                args, kwargs = self._calls[layer]
                output = self._lm.blocks[layer](
                    hidden,
                    *(cache if isinstance(arg, Cache) else arg for arg in args),
                    **{k: cache if isinstance(arg, Cache) else arg for k, arg in kwargs.items()},
                )
                hidden = output[0] if isinstance(output, tuple) else output
        return hidden

    def _steered(self, plan: Plan) -> AbstractContextManager[None]:
        return steered(self._lm, plan, prompt=self._prompt, past=self._past)

    def forget_below(self, start: int) -> None:
        """Keep only what running blocks from `start` on takes."""
        nothing = torch.empty(0)
        self.stream = [nothing if k != start else states for k, states in enumerate(self.stream)]
        self._calls[:start] = [((), {})] * start

    def call(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        self.stream.append(args[0] if args else kwargs.pop("hidden_states"))
        self._calls.append((args[1:], kwargs))

    def hidden(self, layer: int, hidden: Tensor) -> None:
        if layer == self._lm.num_layers - 1:
            self.stream.append(hidden)


_able: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def reruns(lm: LanguageModel) -> bool:
    """Whether calling this model's blocks again does what the model does, found by trying once."""
    if lm.model not in _able:
        middle, layers = lm.num_layers // 2, lm.num_layers
        plan = SteeringPlan({middle: LayerPlan(shift=torch.full((lm.hidden_size,), 0.01))})
        ids = torch.arange(10, device=lm.device).reshape(2, 5) + 3
        mask = torch.ones_like(ids)
        mask[1, :2] = 0
        trunk, branch, whole = (new_cache(lm, movable=True) for _ in range(3))
        split, plain = [], []
        for piece in (slice(0, 3), slice(3, 5)):
            now, so_far = ids[:, piece], mask[:, : piece.stop]
            trace = Trace(lm).run(None, now, so_far, trunk)
            branch.layers[:middle] = trunk.layers[:middle]
            split.append(trace.rerun(plan, middle, layers, branch))
            plain.append(Trace(lm).run(plan, now, so_far, whole).stream[layers])
        text = mask.bool().to(plain[0].device)
        found, wanted = (torch.cat(parts, dim=1)[text].float() for parts in (split, plain))
        _able[lm.model] = bool((found - wanted).abs().max() <= 1e-3 * wanted.std())
    return _able[lm.model]
