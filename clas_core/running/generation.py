"""Write on from a prompt under several plans side by side, a token at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..model.prompts import Prompt, Rendered, as_rendered
from ..model.streaming import Answer
from ..steering.plan import placed
from .batch import Plan, Plans, check_length
from .decoding import Chooser, Rows, decode


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
    plans: Plans = (None,),
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    stop: threading.Event | None = None,
    stop_at_newline: bool = False,
    where: str | Sequence[str] | None = None,
) -> Iterator[Step]:
    """Continue `prompt` once for each plan, side by side; yields after every token.

    One prompt is continued under every plan; several prompts need one plan each. A prompt is a text
    to read as it stands, or one from `prompts.render`, with a chat template. Temperature 0 is
    greedy. Above it, a token is argmax(logits / temperature + g) with Gumbel noise g (Gumbel 1954;
    Maddison et al. 2014), which is a draw from the softmax; all rows share one g a token, so rows
    differ only by what their plans did. g depends on `seed` and the token's index alone.

    A row ends at one of its prompt's `end_ids`, or with `stop_at_newline` at the first line break
    after some text (left out of its text). Set `stop` from any thread to end all at the next token.
    The model is steered during each forward only, never while the caller holds a step. `where`, one
    for all rows or one for each, takes the place of the plans' own; `steering.where.steered_tokens`
    tells which tokens that steers.

    Raises ClasError at once for an empty or too long prompt and for settings out of range.
    """
    prompts = [prompt] * len(plans) if isinstance(prompt, (str, Rendered)) else list(prompt)
    _check_settings(max_new_tokens, temperature, seed)
    if not plans or len(prompts) != len(plans):
        raise ClasError(f"Give one plan for each row: {len(prompts)} prompts, {len(plans)} plans.")
    plans = placed(plans, where)
    rendered = {one: as_rendered(lm, one) for one in prompts}
    longest = max(len(one.token_ids) for one in rendered.values())
    check_length(lm, "The prompt", longest, max_new_tokens)
    # Answers that can't differ share a row, and then don't, not even by rounding.
    sharing: dict[tuple[Rendered, Plan], list[Answer]] = {}
    answers = []
    for one, plan in zip(prompts, plans):
        answers.append(Answer(lm, rendered[one], stop_at_newline))
        key = rendered[one], None if plan is None or plan.is_identity else plan
        sharing.setdefault(key, []).append(answers[-1])
    active = [plan for _, plan in sharing]
    rows = Rows(
        lm,
        active[0] if len(set(active)) == 1 else active,
        *lm.pad([one.token_ids for one, _ in sharing]),
    )
    choose = Chooser(temperature, seed)
    steps = decode(rows, list(sharing.values()), choose, max_new_tokens, stop=stop)
    return (_step(answers, index) for index in steps)


def _step(answers: Sequence[Answer], index: int) -> Step:
    return Step(
        texts=tuple(answer.text for answer in answers),
        token_ids=tuple(tuple(answer.token_ids) for answer in answers),
        done=tuple(answer.done for answer in answers),
        index=index,
        prompt_ids=tuple(answer.prompt_ids for answer in answers),
    )


def _check_settings(max_new_tokens: int, temperature: float, seed: int) -> None:
    if max_new_tokens < 1:
        raise ClasError(f"Ask for at least one new token, not {max_new_tokens}.")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ClasError(f"Temperature must be 0 (greedy) or a number above it, not {temperature}.")
    if not -(2**63) <= seed < 2**63:
        raise ClasError(f"The seed must be a whole number below 2^63, not {seed}.")
