"""A batch as a model takes it: one padding, one cache, one order and one limit for all that runs.

Padding stands left of a text, or behind its end where nothing is read on: never between two of its
tokens, where it would use up a sliding window or lengthen an ALiBi distance.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..errors import ClasError
from ..model.architecture import LanguageModel, UnsupportedModel, context_of
from ..steering.plan import Plan as Plan
from ..steering.plan import Prompts, steered

Progress = Callable[[int, int], None]  # done, total
Plans = Sequence[Plan]


def arguments(
    model: Any, ids: Tensor, mask: Tensor, cache: Cache | None = None, keep: int | None = None
) -> dict[str, Any]:
    """Keyword arguments with which `model` (or its body) reads `ids` [rows, tokens].

    `mask` [rows, all tokens so far] is 1 at text. `cache` holds what was read before and takes up
    what is read now. `keep`: of how many last tokens logits are wanted, for a model that can leave
    out the others. Raises UnsupportedModel where a model takes no cache.
    """
    accepted = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"input_ids": ids, "use_cache": cache is not None}
    if cache is not None:
        # Unknown keywords are swallowed, and every token would see only itself.
        named = [name for name in ("cache", "past_key_values") if name in accepted]
        if not named:
            raise UnsupportedModel(f"{type(model).__name__} keeps no cache: choose another model.")
        options[named[0]] = cache
    if keep is not None and "logits_to_keep" in accepted:
        options["logits_to_keep"] = keep
    if not bool(mask.all()):  # without padding the causal mask says it all, and is faster
        options["attention_mask"] = mask
        if "position_ids" in accepted:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            options["position_ids"] = positions[:, -ids.shape[1] :]
    return options


@torch.inference_mode()
def next_logits(
    lm: LanguageModel,
    plans: Plan | Plans,
    ids: Tensor,
    mask: Tensor,
    cache: Cache | None = None,
    keep: int = 1,
    prompt: Prompts = None,
) -> Tensor:
    """Read as `arguments` says, steered: logits after the last `keep` tokens of each row,
    [rows, keep, vocabulary] in float32. `prompt`: how many columns of `mask` the prompt takes."""
    options = arguments(lm.model, ids, mask, cache, keep)
    with steered(lm, plans, prompt=prompt, past=mask.shape[1] - ids.shape[1]):
        return lm.model(**options).logits[:, -keep:].float()


def new_cache(lm: LanguageModel, *, movable: bool = False) -> DynamicCache:
    """An empty cache of the kind this model needs.

    `movable`: its sliding windows keep all they have read, as `fork` needs to move a text.
    """
    cache = DynamicCache(config=lm.model.config)
    if movable:
        cache.layers = [
            DynamicLayer() if type(layer) is DynamicSlidingWindowLayer else layer
            for layer in cache.layers
        ]
    return cache


def can_move(cache: DynamicCache) -> bool:
    """Whether what this cache holds can be moved to the right: not where a state has taken it up,
    as in linear attention and convolutions."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def fork(
    cache: DynamicCache,
    rows: Tensor | None = None,
    shift: Tensor | None = None,
    shared: Sequence[Any] = (),
) -> DynamicCache:
    """A cache that grows on its own from here on, with `rows` [new rows] of this one's texts.

    `shift` [new rows]: how many places each is moved to the right; its last tokens drop out, and
    padding takes the first places. The first layers are `shared`, which other caches may have too.
    """
    twin = copy.copy(cache)
    twin.layers = [*shared, *(_copy(layer, rows, shift) for layer in cache.layers[len(shared) :])]
    return twin


def move(x: Tensor, shift: Tensor, dim: int) -> Tensor:
    """`x` [rows, ...] with each row moved by `shift` [rows] along `dim`, its first entry before."""
    shift = shift.to(x.device)
    places = torch.arange(x.shape[dim], device=x.device) - shift[:, None]  # [rows, length]
    shape = [len(x)] + [1] * (x.ndim - 1)
    shape[dim] = x.shape[dim]
    return x.take_along_dim(places.clamp(min=0).reshape(shape), dim)


def _copy(layer: Any, rows: Tensor | None, shift: Tensor | None) -> Any:
    twin = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, Tensor) and value.ndim > 1 and rows is not None:
            value = _of(value, rows)  # keys and values, [rows, heads, tokens, size]
            setattr(twin, name, value if shift is None else move(value, shift, value.ndim - 2))
        elif isinstance(value, dict):  # states that are changed in place, and what is known of them
            setattr(twin, name, {key: _copy_state(state, rows) for key, state in value.items()})
    return twin


def _copy_state(state: Any, rows: Tensor | None) -> Any:
    if not isinstance(state, Tensor):
        return state
    return state.clone() if rows is None else _of(state, rows)


def _of(x: Tensor, rows: Tensor) -> Tensor:
    """These rows of a layer's cache, which is on the layer's own device."""
    return x[rows.to(x.device)]


def in_batches(
    sizes: Sequence[int], *, rows: int | None = None, tokens: int | None = None
) -> Iterator[list[int]]:
    """Places of `sizes`, the smallest first, so that little of a batch is padding.

    A batch has at most `rows` of them, and stays below `tokens` when all are padded to its largest
    one, but for a single one.
    """
    batch: list[int] = []
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        full = rows is not None and len(batch) >= rows
        large = tokens is not None and sizes[place] * (len(batch) + 1) > tokens
        if batch and (full or large):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def check_length(lm: LanguageModel, what: str, tokens: int, new_tokens: int = 0) -> None:
    """Raise ClasError if `what`, a text of so many tokens, and as many new ones as are to follow it
    are more than the model was made to read; nothing where its config doesn't say."""
    limit = context_of(lm.model.config)
    if limit is None or tokens + new_tokens <= limit:
        return
    room = limit - new_tokens
    more = f" and {new_tokens} new ones" if new_tokens else ""
    advice = f"shorten it to {room}" if room > 0 else "ask for fewer new tokens"
    raise ClasError(
        f"{what} is too long: {tokens} tokens{more} exceed the model's {limit}; {advice}."
    )
