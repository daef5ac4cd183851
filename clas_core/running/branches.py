"""One batch of texts under several plans: blocks below a plan's first are run once, for all.

The trunk (the model without a plan) reads the text once, and each branch reruns only the blocks
from its plan's first one on, with a key-value cache of its own from there on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import DynamicCache

from ..model.architecture import LanguageModel
from ..model.taps import Tap, tapped
from .batch import Plan, Plans, can_move, fork, move, new_cache
from .trace import Trace, reruns

_LOGITS_AT_ONCE = 2**24  # entries, 64 MB in float32


class Branches:
    """A batch of texts under several plans, read piece by piece.

    None stands for the model as it is. Plans that change nothing share the trunk's numbers, and
    plans that are the same object share a branch. Where a model's blocks can't be called on their
    own, every branch runs all of them: slower, and the same numbers.
    """

    def __init__(self, lm: LanguageModel, plans: Plans, *, whole: bool | None = None) -> None:
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
        self._whole = bool(self._starts) and not reruns(lm) if whole is None else whole
        self._mask = torch.empty(1, 0, dtype=torch.long, device=lm.device)  # [rows, read so far]
        self._prompt: Tensor | None = None  # [rows], columns of it; None before the answer begins
        self._caches: dict[Plan, DynamicCache] = {
            plan: new_cache(lm, movable=True) for plan in (None, *self._starts)
        }

    @property
    def mask(self) -> Tensor:
        """Which tokens read so far are text, [rows, tokens]."""
        return self._mask

    @property
    def can_move(self) -> bool:
        """Whether `select` can move what was read."""
        return can_move(self._caches[None])

    def read(self, ids: Tensor, mask: Tensor, prompt: Tensor | None = None) -> list[Tensor]:
        """Read on: ids, mask [rows, tokens]; padding, where mask is 0, stands left of all text, or
        right of it where nothing is read on.

        `prompt` [rows]: how many tokens of all that is read then, padding included, the prompt
        takes; to be said once it is read to its end, before which all is prompt.

        Returns the last block's output [rows, tokens, hidden] under each plan, where inputs are.
        """
        self._mask = torch.cat([self._mask.expand(len(mask), -1), mask], dim=1)
        self._prompt = self._prompt if prompt is None else prompt
        ends = self._mask.shape[1] + 1 if self._prompt is None else self._prompt
        end = self.lm.num_layers
        trunk = Trace(self.lm).run(None, ids, self._mask, self._caches[None], ends)
        found: dict[Plan, Tensor] = {None: trunk.stream[end]}
        for plan, start in self._starts.items():
            cache = self._caches[plan]
            if self._whole:
                whole = Trace(self.lm).run(plan, ids, self._mask, cache, ends)
                found[plan] = whole.stream[end]
            else:
                cache.layers[:start] = self._caches[None].layers[:start]
                found[plan] = trunk.rerun(plan, start, end, cache)
        return [found[plan].to(ids.device) for plan in self.plans]

    @torch.inference_mode()
    def select(self, rows: Tensor, shift: Tensor | None = None) -> Branches:
        """The texts `rows` [new rows] so far, in new branches; these stay as they are.

        With `shift` [new rows], each lies so many places further right, padding before it: the
        tokens at its end that find no place any more are to be read again.
        """
        other = copy.copy(self)
        other._mask = self._mask[rows]
        if self._prompt is not None:
            other._prompt = self._prompt[rows] + (0 if shift is None else shift)
        if shift is not None:
            inside = torch.arange(self._mask.shape[1], device=rows.device) >= shift[:, None]
            other._mask = move(other._mask, shift, 1) * inside
        # Below a plan's first block the trunk's cache is its cache too.
        trunk = fork(self._caches[None], rows, shift)
        other._caches = {None: trunk}
        for plan, start in self._starts.items():
            shared = trunk.layers[: 0 if self._whole else start]
            other._caches[plan] = fork(self._caches[plan], rows, shift, shared)
        return other

    @torch.inference_mode()
    def cache(self, plan: Plan) -> DynamicCache:
        """What the model under `plan` keeps of the texts so far, to go on with on one's own."""
        return fork(self._caches[plan])


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


class _Replace(Tap):
    """Lets the last block put out given states."""

    def __init__(self, lm: LanguageModel, hidden: Tensor) -> None:
        self._end = lm.num_layers - 1
        self._hidden = hidden

    def hidden(self, layer: int, hidden: Tensor) -> Tensor | None:
        return self._hidden if layer == self._end else None
