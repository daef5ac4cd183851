"""Log-likelihoods of given continuations. Inside `steered(...)` they are the steered model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..models import LanguageModel

Progress = Callable[[int, int], None]


@torch.inference_mode()
def log_likelihoods(
    lm: LanguageModel,
    prompts: Sequence[str],
    continuations: Sequence[str],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> torch.Tensor:
    """log p(continuation | prompt), summed over the continuation's tokens. [pairs], in nats.

    Prompt and continuation are tokenised apart: the prompt ends where the model starts to write.
    Pairs of like length share a batch. `progress(done, total)` after each.
    """
    starts = lm.tokenizer(list(prompts))["input_ids"]
    ends = lm.tokenizer(list(continuations), add_special_tokens=False)["input_ids"]
    rows = [start + end for start, end in zip(starts, ends)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    scores = torch.zeros(len(rows))
    for begin in range(0, len(order), batch_size):
        part = order[begin : begin + batch_size]
        tokens = torch.full((len(part), max(len(rows[i]) for i in part)), lm.pad_id)
        for row, i in enumerate(part):
            tokens[row, : len(rows[i])] = torch.tensor(rows[i])
        tokens = tokens.to(lm.device)
        # Right padding comes after all that is read, and attention is causal: no mask is needed.
        log_p = lm.model(input_ids=tokens, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        log_p = log_p.gather(-1, tokens[:, 1:, None])[..., 0]  # [rows, positions - 1]
        for row, i in enumerate(part):
            scores[i] = log_p[row, len(starts[i]) - 1 : len(rows[i]) - 1].sum()
        if progress:
            progress(begin + len(part), len(order))
    return scores


def choice_log_likelihoods(
    lm: LanguageModel, prompts: Sequence[str], choices: Sequence[str]
) -> torch.Tensor:
    """log p(choice | prompt) of every choice after every prompt. [prompts, choices], in nats."""
    pairs = [(prompt, choice) for prompt in prompts for choice in choices]
    scores = log_likelihoods(lm, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return scores.reshape(len(prompts), len(choices))
