"""What the model writes after many prompts, under several plans at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from ..model.architecture import LanguageModel
from ..model.prompts import Prompt, as_rendered
from ..model.streaming import Answer
from ..steering.plan import SteeringPlan, steered
from .branches import inputs, logits
from .reading import TOKENS_AT_ONCE, Plans, Progress, read_prompts


def write_answers(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    plans: Plans = (None,),
    *,
    max_new_tokens: int,
    stop_at_newline: bool = True,
    tokens_at_once: int = TOKENS_AT_ONCE,
    progress: Progress | None = None,
) -> list[list[str]]:
    """The greedy continuation of every prompt under every plan: [plans][prompts].

    The same texts as `generate_batch` writes: an answer ends at an end-of-text token, at the first
    line break after some text, or after `max_new_tokens`. `progress(done, total)` counts prompts.
    """
    texts = [[""] * len(prompts) for _ in plans]
    rendered = [as_rendered(lm, prompt) for prompt in prompts]
    tokens = [prompt.token_ids for prompt in rendered]
    room = [max_new_tokens] * len(prompts)
    done = 0
    for batch in read_prompts(lm, tokens, plans, room, tokens_at_once=tokens_at_once):
        written: dict[SteeringPlan | None, list[str]] = {}
        for plan, states, column in zip(batch.branches.plans, batch.states, texts):
            if plan not in written:
                rows = [Answer(lm, rendered[i], stop_at_newline) for i in batch.rows]
                first = torch.cat([part.argmax(-1) for part in logits(lm, states[:, -1])])
                cache, mask = batch.branches.cache(plan), batch.branches.mask
                _write(lm, plan, cache, mask, first, rows, max_new_tokens)
                written[plan] = [row.text for row in rows]
            for i, text in zip(batch.rows, written[plan]):
                column[i] = text
        done += len(batch.rows)
        if progress:
            progress(done, len(prompts))
    return texts


@torch.inference_mode()
def _write(
    lm: LanguageModel,
    plan: SteeringPlan | None,
    cache: DynamicCache,
    mask: Tensor,
    tokens: Tensor,
    rows: list[Answer],
    max_new_tokens: int,
) -> None:
    """Let every row write from its first token on; rows that are done leave the batch."""
    for left in range(max_new_tokens - 1, -1, -1):
        for row, token in zip(rows, tokens.tolist()):
            row.push(token)
        going = [place for place, row in enumerate(rows) if not row.done]
        if not going or not left:
            return
        if len(going) <= 0.75 * len(rows):
            places = torch.tensor(going, device=mask.device)
            cache.batch_select_indices(places)
            mask, tokens, rows = mask[places], tokens[places], [rows[place] for place in going]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        with steered(lm, plan):
            output = lm.model(
                **inputs(lm, tokens[:, None], mask), past_key_values=cache, use_cache=True
            )
        tokens = output.logits[:, -1].argmax(-1)
