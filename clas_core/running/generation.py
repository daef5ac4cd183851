"""The decode loop: several rows, each with its own plan, in one forward pass a token."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..model.prompts import Prompt, Rendered, as_rendered
from ..model.streaming import Answer
from ..steering.plan import SteeringPlan, steered

Plans = SteeringPlan | Sequence[SteeringPlan | None] | None  # as `steered` takes them


@dataclass(frozen=True)
class Step:
    """Everything generated up to and with token `index` (0 the first), without the prompt.

    `texts` holds whole characters only: a letter whose bytes are still under way is not yet there.
    `token_ids` includes an end-of-sequence token, `texts` doesn't. `done[r]`: row r ended itself,
    rather than being cut at `max_new_tokens`. `prompt_ids`: each row's prompt, without padding.
    """

    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    done: tuple[bool, ...]
    index: int
    prompt_ids: tuple[tuple[int, ...], ...]


def generate(
    lm: LanguageModel,
    prompt: Prompt | Sequence[Prompt],
    plans: Sequence[SteeringPlan | None] = (None,),
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    stop: threading.Event | None = None,
    stop_at_newline: bool = False,
) -> Iterator[Step]:
    """Continue `prompt` once for each plan, side by side; yields after every token.

    One prompt is continued under every plan; several prompts need one plan each. A prompt is a text
    to read as it stands, or one from `prompts.render`, with a chat template. Temperature 0 is
    greedy. Above it, a token is argmax(logits / temperature + g) with Gumbel noise g (Gumbel 1954;
    Maddison et al. 2014), which is a draw from the softmax; all rows share one g a token, so rows
    differ only by what their plans did. g depends on `seed` and the token's index alone.

    A row ends at one of its prompt's `end_ids`, or with `stop_at_newline` at the first line break
    after some text (left out of its text). Set `stop` from any thread to end all at the next token.
    The model is steered during each forward only, never while the caller holds a step.

    Raises ClasError at once for an empty or too long prompt and for settings out of range.
    """
    prompts = [prompt] * len(plans) if isinstance(prompt, (str, Rendered)) else list(prompt)
    _check_settings(max_new_tokens, temperature, seed)
    if not plans or len(prompts) != len(plans):
        raise ClasError(f"Give one plan for each row: {len(prompts)} prompts, {len(plans)} plans.")
    # Rows that can't differ share a lane, and then don't, not even by rounding.
    rendered = {one: as_rendered(lm, one) for one in prompts}
    lanes: dict[tuple[Rendered, SteeringPlan | None], int] = {}
    active = [None if plan is None or plan.is_identity else plan for plan in plans]
    keys = [(rendered[one], plan) for one, plan in zip(prompts, active)]
    lane_of = [lanes.setdefault(key, len(lanes)) for key in keys]
    lane_ids = [one.token_ids for one, _ in lanes]
    _check_length(lm, max(map(len, lane_ids)), max_new_tokens)
    lane_plans = tuple(plan for _, plan in lanes)
    forward = _Forward(lm, lane_ids, lane_plans[0] if len(set(lane_plans)) == 1 else lane_plans)
    choose = _Chooser(temperature, seed)
    rows = [_Row(lm, lane, one, stop_at_newline) for lane, (one, _) in zip(lane_of, keys)]
    return _decode(forward, choose, rows, max_new_tokens, stop)


def generate_batch(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    plan: SteeringPlan | None = None,
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    stop_at_newline: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The greedy continuation of every prompt under one plan, in the order given.

    Prompts of like length share a batch. `progress(done, total)` after each batch.
    """
    rendered = [as_rendered(lm, prompt) for prompt in prompts]
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(rendered[i].text))
    for begin in range(0, len(order), batch_size):
        chosen = order[begin : begin + batch_size]
        steps = generate(
            lm,
            [rendered[i] for i in chosen],
            [plan] * len(chosen),
            max_new_tokens=max_new_tokens,
            stop_at_newline=stop_at_newline,
        )
        for step in steps:
            last = step
        for i, text in zip(chosen, last.texts):
            texts[i] = text
        if progress:
            progress(begin + len(chosen), len(order))
    return texts


def _decode(
    forward: _Forward,
    choose: _Chooser,
    rows: list[_Row],
    max_new_tokens: int,
    stop: threading.Event | None,
) -> Iterator[Step]:
    prompt_ids = tuple(row.prompt_ids for row in rows)
    for index in range(max_new_tokens):
        if stop is not None and stop.is_set():
            return
        tokens = choose(forward())  # [lanes]
        written = tokens.tolist()
        for row in rows:
            row.push(written[row.lane])
        yield Step(
            texts=tuple(row.text for row in rows),
            token_ids=tuple(tuple(row.token_ids) for row in rows),
            done=tuple(row.done for row in rows),
            index=index,
            prompt_ids=prompt_ids,
        )
        if all(row.done for row in rows):
            return
        forward.append(tokens)


class _Forward:
    """The model and its cache: each call returns the next token's logits [lanes, vocabulary].

    Lanes that are done stay in the batch, so that the others' numbers don't change.
    """

    def __init__(self, lm: LanguageModel, prompts: Sequence[Sequence[int]], plans: Plans) -> None:
        self._lm = lm
        self._plans = plans
        self._inputs, mask = _pad_left(lm, prompts)
        accepted = inspect.signature(lm.model.forward).parameters
        self._options: dict[str, Any] = {
            "past_key_values": DynamicCache(config=lm.model.config),
            "use_cache": True,
        }
        if "logits_to_keep" in accepted:
            self._options["logits_to_keep"] = 1
        # Without padding the causal mask says it all, and attention takes its fast path.
        self._mask = None if bool(mask.all()) else mask
        self._positions = None
        if self._mask is not None and "position_ids" in accepted:
            self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        options = dict(self._options)
        if self._mask is not None:
            options["attention_mask"] = self._mask
        if self._positions is not None:
            options["position_ids"] = self._positions
        with steered(self._lm, self._plans):
            return self._lm.model(input_ids=self._inputs, **options).logits[:, -1].float()

    def append(self, tokens: Tensor) -> None:
        """Make `tokens` [lanes] the next input."""
        self._inputs = tokens[:, None]
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        if self._positions is not None:
            self._positions = self._positions[:, -1:] + 1


class _Chooser:
    """Picks each lane's next token from logits [lanes, vocabulary]."""

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        # Drawn on the CPU, so that every device samples the same.
        self._noise = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def __call__(self, logits: Tensor) -> Tensor:
        if self._temperature > 0:
            exponential = torch.empty(logits.shape[-1]).exponential_(generator=self._noise)
            logits = logits / self._temperature - exponential.log().to(logits.device)
        return logits.argmax(-1)


class _Row(Answer):
    """What one row has said so far, by the tokens of its lane."""

    def __init__(
        self, lm: LanguageModel, lane: int, prompt: Rendered, stop_at_newline: bool
    ) -> None:
        super().__init__(lm, prompt, stop_at_newline)
        self.lane = lane


def _check_settings(max_new_tokens: int, temperature: float, seed: int) -> None:
    if max_new_tokens < 1:
        raise ClasError(f"Ask for at least one new token, not {max_new_tokens}.")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ClasError(f"Temperature must be 0 (greedy) or a number above it, not {temperature}.")
    if not -(2**63) <= seed < 2**63:
        raise ClasError(f"The seed must be a whole number below 2^63, not {seed}.")


def _check_length(lm: LanguageModel, length: int, max_new_tokens: int) -> None:
    positions = getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and length + max_new_tokens > positions:
        room = positions - max_new_tokens
        advice = f"shorten it to {room}" if room > 0 else "ask for fewer new tokens"
        raise ClasError(
            f"The prompt is too long: {length} tokens and {max_new_tokens} new ones exceed the "
            f"model's {positions}; {advice}."
        )


def _pad_left(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both [rows, length]."""
    length = max(map(len, rows))
    input_ids = [[lm.pad_id] * (length - len(row)) + list(row) for row in rows]
    mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(input_ids, device=lm.device), torch.tensor(mask, device=lm.device)
