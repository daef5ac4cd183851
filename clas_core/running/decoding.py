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
from .joining import can_join, can_put, join, put, right


class Rows:
    """Texts that are read and written on together: their next input, and what was read before.

    ids, mask: [rows, tokens], padded at the left, of the prompts; what is appended is answer.
    plans: one for all rows, or one for each. With `cache`, ids follow the texts that it holds, and
    `mask` is of all tokens. prompt: [rows], columns of `mask` that the prompt takes, if not all.
    """

    def __init__(
        self,
        lm: LanguageModel,
        plans: Plan | Plans,
        ids: Tensor,
        mask: Tensor,
        cache: DynamicCache | None = None,
        prompt: Tensor | None = None,
    ) -> None:
        self._lm, self._plans = lm, plans
        self._ids, self._mask = ids, mask
        self._prompt = prompt if prompt is not None else torch.tensor([mask.shape[1]])
        self._cache = new_cache(lm) if cache is None else cache

    @property
    def unread(self) -> int:
        """How many columns the next input has."""
        return self._ids.shape[1]

    @property
    def width(self) -> int:
        """How many columns there are, the next input included."""
        return self._mask.shape[1]

    @property
    def lengths(self) -> Tensor:
        """[rows]: how many tokens each text has, the next input included."""
        return self._mask.sum(1)

    @property
    def can_join(self) -> bool:
        """Whether these can be `joined` with others."""
        return can_join(self._cache)

    def read(self, columns: int) -> None:
        """Read the first columns of the next input, and leave the others for later."""
        end = self._mask.shape[1] - self.unread + columns
        read = self._ids[:, :columns], self._mask[:, :end], self._cache
        next_logits(self._lm, self._plans, *read, prompt=self._prompt)
        self._ids = self._ids[:, columns:]

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
        if len(self._prompt) > 1:
            self._prompt = self._prompt[list(places)]
        if isinstance(self._plans, Sequence):
            self._plans = self._plans_at(places)

    def _plans_at(self, places: Sequence[int]) -> list[Plan]:
        plans = self._plans
        if isinstance(plans, Sequence):
            return [plans[place] for place in places]
        return [plans] * len(places)

    @torch.inference_mode()
    def put(self, places: Sequence[int], other: Rows, chosen: Sequence[int]) -> bool:
        """Let the chosen ones of other rows, one token unread in each, take the places of rows that
        aren't needed any more, which is much less to copy than `joined`.

        False, and nothing is done, where there are too few columns for them.
        """
        taken, ours = torch.tensor(chosen), torch.tensor(places)
        taken, ours = taken.to(self._mask.device), ours.to(self._mask.device)
        mask, width = other._mask[taken], self._mask.shape[1]
        if not can_put(self._cache) or int(mask.sum(1).max()) > width:
            return False
        prompt = other._prompt.expand(len(other._mask))[list(chosen)]
        self._prompt = self._prompt.expand(len(self._mask)).clone()
        self._prompt[list(places)] = prompt + width - mask.shape[1]
        self._plans = self._plans_at(range(len(self._mask)))
        for place, plan in zip(places, other._plans_at(chosen)):
            self._plans[place] = plan
        self._ids[ours] = other._ids[taken]
        self._mask[ours] = right([mask[..., None]], width)[..., 0]
        put(self._cache, ours, other._cache, taken)
        return True

    @staticmethod
    @torch.inference_mode()
    def joined(parts: Sequence[tuple[Rows, Sequence[int]]]) -> Rows:
        """The chosen rows of several, one token unread in each, in as few columns as they need.

        parts: rows, and the places of those to take. What they were is used up.
        """
        if len(parts) == 1 and not parts[0][0].can_join:
            parts[0][0].keep(parts[0][1])
            return parts[0][0]
        chosen = [torch.tensor(places, device=rows._mask.device) for rows, places in parts]
        masks = [rows._mask[places] for (rows, _), places in zip(parts, chosen)]
        width = max(int(mask.sum(1).max()) for mask in masks)
        prompts = [
            rows._prompt.expand(rows._mask.shape[0])[list(places)] + width - rows._mask.shape[1]
            for rows, places in parts
        ]
        caches = [(rows._cache, places) for (rows, _), places in zip(parts, chosen)]
        return Rows(
            parts[0][0]._lm,
            [plan for rows, places in parts for plan in rows._plans_at(places)],
            torch.cat([rows._ids[places] for (rows, _), places in zip(parts, chosen)]),
            right([mask[..., None] for mask in masks], width)[..., 0],
            join(caches, width - 1),
            torch.cat(prompts),
        )


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
