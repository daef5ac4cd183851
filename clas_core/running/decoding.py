"""The decode loop: several rows, each with its own plan, in one forward pass a token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from ..model.architecture import LanguageModel
from ..model.streaming import Answer
from .batch import Plan, Plans, fork, new_cache, next_logits


class Rows:
    """Texts that are read and written on together: their next input, and what was read before.

    ids, mask: [rows, tokens], padded at the left, of the prompts; what is appended is answer.
    plans: one for all rows, or one for each. With `cache`, ids follow the texts that it holds, and
    `mask` is of all tokens.
    """

    def __init__(
        self,
        lm: LanguageModel,
        plans: Plan | Plans,
        ids: Tensor,
        mask: Tensor,
        cache: DynamicCache | None = None,
    ) -> None:
        self._lm, self._plans = lm, plans
        self._ids, self._mask, self._prompt = ids, mask, mask.shape[1]
        self._cache = new_cache(lm) if cache is None else cache

    def logits(self) -> Tensor:
        """Read the next input: logits [rows, vocabulary] of what follows, in float32."""
        read = self._ids, self._mask, self._cache
        return next_logits(self._lm, self._plans, *read, prompt=self._prompt)[:, -1]

    def append(self, tokens: Tensor) -> None:
        """Make `tokens` [rows] the next input."""
        self._ids = tokens[:, None]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)

    @torch.inference_mode()
    def keep(self, places: Sequence[int]) -> None:
        """Let all rows but these leave, with all of their own plan's."""
        chosen = torch.tensor(places, device=self._mask.device)
        self._ids, self._mask = self._ids[chosen], self._mask[chosen]
        self._cache = fork(self._cache, chosen)
        if isinstance(self._plans, Sequence):
            self._plans = [self._plans[place] for place in places]


class Chooser:
    """Picks each row's next token from logits [rows, vocabulary]: the likeliest at temperature 0.

    Above it, argmax(logits / temperature + g), with the same Gumbel noise g for all rows, of `seed`
    and the token's index alone.
    """

    def __init__(self, temperature: float = 0.0, seed: int = 0) -> None:
        self._temperature = temperature
        # Drawn on the CPU, so that every device samples the same.
        self._noise = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def __call__(self, logits: Tensor) -> Tensor:
        if self._temperature > 0:
            exponential = torch.empty(logits.shape[-1]).exponential_(generator=self._noise)
            logits = logits / self._temperature - exponential.log().to(logits.device)
        return logits.argmax(-1)


def decode(
    rows: Rows,
    answers: Sequence[Sequence[Answer]],
    choose: Callable[[Tensor], Tensor],
    most: int,
    *,
    first: Tensor | None = None,
    leave: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[int]:
    """Let `answers` [rows][those who follow the row] grow by `most` tokens; yields each's index.

    It ends when all answers are done, or once `stop` is set. `first` [rows]: each row's first
    token, if the texts are read already. Rows that are done stay, so that the others' numbers
    don't change, unless they may `leave`, which is quicker. The model is steered during each
    forward only, never while the caller holds an index.
    """
    for index in range(most):
        if stop is not None and stop.is_set():
            return
        tokens = choose(rows.logits()) if first is None else first  # [rows]
        first = None
        for row, token in zip(answers, tokens.tolist()):
            for answer in row:
                answer.push(token, last=index + 1 == most)
        yield index
        going = [k for k, row in enumerate(answers) if not all(answer.done for answer in row)]
        if not going:
            return
        rows.append(tokens)
        if leave and len(going) <= 0.75 * len(answers):
            rows.keep(going)
            answers = [answers[k] for k in going]
