"""What the model writes after many prompts, under several plans at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..model.architecture import LanguageModel
from ..model.prompts import Prompt, as_rendered
from ..model.streaming import Answer
from .batch import Plan, Plans, Progress
from .branches import logits
from .decoding import Chooser, Rows, decode
from .reading import TOKENS_AT_ONCE, read_prompts


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

    The same texts as `generate` writes: an answer ends at an end-of-text token, at the first line
    break after some text if `stop_at_newline`, or after `max_new_tokens`. `progress(done, total)`
    counts prompts. Raises ClasError for an empty prompt, and for one that is too long.
    """
    texts = [[""] * len(prompts) for _ in plans]
    rendered = [as_rendered(lm, prompt) for prompt in prompts]
    tokens = [prompt.token_ids for prompt in rendered]
    room = [max_new_tokens] * len(prompts)
    done = 0
    for batch in read_prompts(lm, tokens, plans, room, tokens_at_once=tokens_at_once):
        written: dict[Plan, list[Answer]] = {}
        for plan, states, column in zip(batch.branches.plans, batch.states, texts):
            if plan not in written:
                answers = [Answer(lm, rendered[i], stop_at_newline) for i in batch.rows]
                first = torch.cat([part.argmax(-1) for part in logits(lm, states[:, -1])])
                mask, cache = batch.branches.mask, batch.branches.cache(plan)
                rows = Rows(lm, plan, mask[:, :0], mask, cache)  # all is read
                each = [[answer] for answer in answers]
                for _ in decode(rows, each, Chooser(), max_new_tokens, first=first, leave=True):
                    pass
                written[plan] = answers
            for i, answer in zip(batch.rows, written[plan]):
                column[i] = answer.text
        done += len(batch.rows)
        if progress:
            progress(done, len(prompts))
    return texts


def generate_batch(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    plan: Plan = None,
    *,
    max_new_tokens: int = 64,
    stop_at_newline: bool = False,
    tokens_at_once: int = TOKENS_AT_ONCE,
    progress: Progress | None = None,
) -> list[str]:
    """The greedy continuation of every prompt under one plan, in the order given; see
    `write_answers`."""
    return write_answers(
        lm,
        prompts,
        (plan,),
        max_new_tokens=max_new_tokens,
        stop_at_newline=stop_at_newline,
        tokens_at_once=tokens_at_once,
        progress=progress,
    )[0]
