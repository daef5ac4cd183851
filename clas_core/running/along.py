"""What a model thinks of the next token all along texts that are written already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.architecture import LanguageModel
from .batch import Plan, in_batches, next_logits

_MOST = 2**24  # numbers of logits at once


@dataclass(frozen=True)
class Along:
    """Read `ids` behind a prompt, once under each plan."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    plans: tuple[Plan, ...]


@torch.inference_mode()
def read_along(lm: LanguageModel, asked: Sequence[Along]) -> list[list[Tensor]]:
    """Of each, under each of its plans: log p [tokens + 1, vocabulary], in float32, of what might
    stand in the place of every token of `ids`, and behind the last. Runs the model.

    What is asked together is read together, with one forward for all first plans, one for all
    second ones, and so on. These have one shape and so the same sums in the same order: a plan that
    does nothing has exactly the numbers of no plan.
    """
    found: list[list[Tensor]] = [[] for _ in asked]
    sizes = [len(one.prompt_ids) + len(one.ids) for one in asked]
    keep = max((len(one.ids) + 1 for one in asked), default=1)
    most = max(1, _MOST // (keep * lm.model.config.get_text_config().vocab_size))
    for places in in_batches(sizes, rows=most):
        rows = [asked[place] for place in places]
        ids, mask = lm.pad([[*row.prompt_ids, *row.ids] for row in rows])
        keep = max(len(row.ids) + 1 for row in rows)
        prompt = torch.tensor([mask.shape[1] - len(row.ids) for row in rows])
        for k in range(max(len(row.plans) for row in rows)):
            plans = [row.plans[k] if k < len(row.plans) else None for row in rows]
            same = plans[0] if len(set(plans)) == 1 else plans
            logits = next_logits(lm, same, ids, mask, keep=keep, prompt=prompt)
            for place, row, of_row in zip(places, rows, logits):
                if k < len(row.plans):
                    found[place].append(of_row[-len(row.ids) - 1 :].log_softmax(-1))
    return found
