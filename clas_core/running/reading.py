"""Read many prompts under several plans: lengths sorted, what all begin with read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.architecture import LanguageModel
from .batch import Plans, check_length, in_batches
from .branches import Branches

Ids = tuple[int, ...]

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
    last tokens the states are needed (default 1): its prompt's last one, and those of an answer
    behind that. Tokens that all prompts begin with, as those of
    few-shot examples, are read once. Raises ClasError where a prompt and its room are longer than
    the model can read.
    """
    for ids, more in zip(prompts, room):
        check_length(lm, "An item", len(ids), more)
    start = Branches(lm, plans)
    shared = _in_common(prompts, [1] * len(prompts) if wanted is None else wanted)
    if not start.can_move:
        shared = 0
    if shared:
        start.read(*lm.pad([prompts[0][:shared]]))
    sizes = [len(ids) + more for ids, more in zip(prompts, room)]
    for rows in in_batches(sizes, tokens=tokens_at_once):
        longest = max(len(prompts[i]) for i in rows)
        # All ends meet on the right. A shorter prompt's beginning is moved there too, so that no
        # padding comes between, and the few tokens of it that have no place are read again.
        rest = longest - shared
        shift = torch.tensor([longest - len(prompts[i]) for i in rows], device=lm.device)
        branches = start.select(torch.zeros_like(shift), shift if shared else None)
        # What of an answer is read along with its prompt comes last.
        behind = [0 if wanted is None else wanted[i] - 1 for i in rows]
        ends = longest - torch.tensor(behind, device=lm.device)
        states = branches.read(*lm.pad([prompts[i][-rest:] for i in rows]), prompt=ends)
        yield Batch(rows, branches, states)


def _in_common(prompts: Sequence[Ids], wanted: Sequence[int]) -> int:
    """How many tokens all begin with, none of the wanted ones; 0 if sharing them isn't worth it."""
    most = min((len(ids) - count for ids, count in zip(prompts, wanted)), default=0)
    same = common_start(prompts, most)
    return same if len(prompts) > 1 and same >= _WORTH_SHARING else 0


def common_start(rows: Sequence[Ids], most: int) -> int:
    """How many tokens, at `most`, all rows begin with."""
    low, high = min(rows, default=()), max(rows, default=())  # what these share, all between do
    return next((k for k in range(most) if low[k] != high[k]), most)
