"""What is asked for in one go: prompts, a plan for each, and how their answers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..model.prompts import Prompt, Rendered, as_rendered
from ..model.streaming import Answer
from ..steering.plan import placed
from .batch import Plan, Plans, check_length


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


@dataclass(frozen=True, eq=False)
class Request:
    """What `generate` is asked for, with the names and the meaning that its parameters have.

    `guesses`: a decoder keeps what the model thought at each token of the first answer, where that
    isn't much (`Stream.guesses`).
    """

    prompt: Prompt | Sequence[Prompt]
    plans: Plans = (None,)
    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    stop_at_newline: bool = False
    where: str | Sequence[str] | None = None
    guesses: bool = False

    def begin(self, lm: LanguageModel) -> Writing:
        """The empty answers. Raises ClasError as `generate` says."""
        prompts: list[Prompt]
        if isinstance(self.prompt, (str, Rendered)):
            prompts = [self.prompt] * len(self.plans)
        else:
            prompts = list(self.prompt)
        _check_settings(self.max_new_tokens, self.temperature, self.seed)
        if not self.plans or len(prompts) != len(self.plans):
            raise ClasError(
                f"Give one plan for each row: {len(prompts)} prompts, {len(self.plans)} plans."
            )
        plans = placed(self.plans, self.where)
        rendered = {one: as_rendered(lm, one) for one in prompts}
        longest = max(len(one.token_ids) for one in rendered.values())
        check_length(lm, "The prompt", longest, self.max_new_tokens)
        # Answers that can't differ share a row, and then don't, not even by rounding.
        sharing: dict[tuple[Rendered, Plan], list[Answer]] = {}
        answers = []
        for prompt, plan in zip(prompts, plans):
            answers.append(Answer(lm, rendered[prompt], self.stop_at_newline))
            key = rendered[prompt], None if plan is None or plan.is_identity else plan
            sharing.setdefault(key, []).append(answers[-1])
        return Writing(
            tuple(answers),
            tuple(Lane(one.token_ids, plan, each) for (one, plan), each in sharing.items()),
        )


@dataclass(frozen=True, eq=False)
class Lane:
    """A row that a model reads and writes on, for all `answers` that can't differ."""

    prompt_ids: tuple[int, ...]
    plan: Plan
    answers: list[Answer]

    @property
    def done(self) -> bool:
        """Whether all its answers ended themselves."""
        return all(answer.done for answer in self.answers)


@dataclass(frozen=True, eq=False)
class Writing:
    """A request's answers as they grow, in its order, and the lanes that write them."""

    answers: tuple[Answer, ...]
    lanes: tuple[Lane, ...]

    def step(self, index: int) -> Step:
        """What is written once token `index` is."""
        return Step(
            texts=tuple(answer.text for answer in self.answers),
            token_ids=tuple(tuple(answer.token_ids) for answer in self.answers),
            done=tuple(answer.done for answer in self.answers),
            index=index,
            prompt_ids=tuple(answer.prompt_ids for answer in self.answers),
        )


def _check_settings(max_new_tokens: int, temperature: float, seed: int) -> None:
    if max_new_tokens < 1:
        raise ClasError(f"Ask for at least one new token, not {max_new_tokens}.")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ClasError(f"Temperature must be 0 (greedy) or a number above it, not {temperature}.")
    if not -(2**63) <= seed < 2**63:
        raise ClasError(f"The seed must be a whole number below 2^63, not {seed}.")
