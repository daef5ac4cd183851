"""Read many prompts under several plans: lengths sorted, what all begin with read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..steering.plan import SteeringPlan
from .branches import Branches

Progress = Callable[[int, int], None]
Ids = tuple[int, ...]
Plans = Sequence[SteeringPlan | None]

TOKENS_AT_ONCE = 8192
_WORTH_SHARING = 16  # tokens; below it, spreading the cache costs more than reading


@dataclass(frozen=True)
class Batch:
    """Some prompts, read. `rows`: which ones; `states` [rows, tokens, hidden]: the last block's
    output under each plan, so aligned that every prompt's last token is the last."""

    rows: list[int]
    branches: Branches
    states: list[Tensor]


def read_prompts(
    lm: LanguageModel,
    prompts: Sequence[Ids],
    plans: Plans,
    room: Sequence[int],
    wanted: Sequence[int] | None = None,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> Iterator[Batch]:
    """Read tokenised prompts, shortest first, in batches of about `tokens_at_once` tokens.

    `room[i]`: how many more tokens prompt i will be followed by. `wanted[i]`: of how many of its
    last tokens the states are needed (default 1). Tokens that all prompts begin with, as those of
    few-shot examples, are read once. Raises ClasError where a prompt and its room are longer than
    the model can read.
    """
    _check_length(lm, prompts, room)
    shared = _in_common(prompts, [1] * len(prompts) if wanted is None else wanted)
    start = Branches(lm, plans)
    if shared:
        start.read(*pad(lm, [prompts[0][:shared]], "left"))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    while order:
        rows = _fitting(order, [len(prompts[i]) + room[i] for i in order], tokens_at_once)
        order = order[len(rows) :]
        branches = start.select(torch.zeros(len(rows), dtype=torch.long, device=lm.device))
        states = branches.read(*pad(lm, [prompts[i][shared:] for i in rows], "left"))
        yield Batch(rows, branches, states)


def pad(lm: LanguageModel, rows: Sequence[Ids], side: str) -> tuple[Tensor, Tensor]:
    """Token ids and mask [rows, longest], padded at the "left" or "right"."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), lm.pad_id)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = 1
    return ids.to(lm.device), mask.to(lm.device)


def _in_common(prompts: Sequence[Ids], wanted: Sequence[int]) -> int:
    """How many tokens all begin with, none of the wanted ones; 0 if sharing them isn't worth it."""
    most = min((len(ids) - count for ids, count in zip(prompts, wanted)), default=0)
    same = common_start(prompts, most)
    return same if len(prompts) > 1 and same >= _WORTH_SHARING else 0


def common_start(rows: Sequence[Ids], most: int) -> int:
    """How many tokens, at `most`, all rows begin with."""
    low, high = min(rows, default=()), max(rows, default=())  # what these share, all between do
    return next((k for k in range(most) if low[k] != high[k]), most)


def _fitting(order: list[int], sizes: list[int], tokens_at_once: int) -> list[int]:
    """As many of `order` as stay below `tokens_at_once` when padded alike, at least one."""
    longest = 0
    for count, size in enumerate(sizes):
        longest = max(longest, size)
        if count and longest * (count + 1) > tokens_at_once:
            return order[:count]
    return order


def _check_length(lm: LanguageModel, prompts: Sequence[Ids], room: Sequence[int]) -> None:
    limit = getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)
    longest = max((len(ids) + more for ids, more in zip(prompts, room)), default=0)
    if limit is not None and longest > limit:
        raise ClasError(
            f"An item needs {longest} tokens with its answer, but {lm.name} reads {limit}: "
            "choose shorter items, or fewer examples before them."
        )
