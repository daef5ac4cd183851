"""Where steering parts two texts: the likeliest next words there, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...model.architecture import LanguageModel
from ...model.prompts import Rendered
from ...model.streaming import TextStream

MOST = 4  # words shown of each side
_BEHIND = 48  # characters of the text before that are shown


@dataclass(frozen=True)
class Parting:
    """`place`: of the token at which the texts part, from 0; where they don't, of the one whose
    guess moved most. `after`: the text up to there. before, now: the likeliest next words unsteered
    and steered, each with its probability at temperature 1, in [0, 1]."""

    place: int
    parts: bool
    after: str
    before: tuple[tuple[str, float], ...]
    now: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the page."""
        return {
            "parts": self.parts,
            "after": self.after,
            "before": [[word, round(share, 4)] for word, share in self.before],
            "now": [[word, round(share, 4)] for word, share in self.now],
        }


def find_parting(
    lm: LanguageModel,
    prompt: Rendered,
    unsteered: Sequence[int],
    steered: Sequence[int],
    before: Tensor,
    now: Tensor,
    peak: int,
) -> Parting:
    """Where the token ids of two answers to `prompt` part, else what is at token `peak`.

    before, now: the model's guesses along the unsteered one, as `read_along` returns them.
    """
    pairs = enumerate(zip(unsteered, steered))
    shorter = min(len(unsteered), len(steered))
    place = next((i for i, (a, b) in pairs if a != b), shorter)
    parts = place < shorter or len(unsteered) != len(steered)
    place = place if parts else peak
    read = [*prompt.token_ids, *unsteered[:place]]
    stream = TextStream(lm, prompt.token_ids)
    said = "".join(stream.push(token) for token in unsteered[:place] if token not in prompt.end_ids)
    text = lm.tokenizer.decode(prompt.token_ids, skip_special_tokens=True) + said
    return Parting(
        place,
        parts,
        _end_of(text),
        _likeliest(lm, prompt, read, before[place]),
        _likeliest(lm, prompt, read, now[place]),
    )


def _end_of(text: str) -> str:
    if len(text) <= _BEHIND:
        return text
    end = text[-_BEHIND:]
    return "…" + (end.partition(" ")[2] or end)  # from a whole word on


def _likeliest(
    lm: LanguageModel, prompt: Rendered, read: list[int], log_p: Tensor
) -> tuple[tuple[str, float], ...]:
    found = log_p.exp().topk(MOST)
    pairs = zip(found.indices.tolist(), found.values.tolist())
    return tuple((_named(lm, prompt, read, token), share) for token, share in pairs)


def _named(lm: LanguageModel, prompt: Rendered, read: list[int], token: int) -> str:
    """What a token says, or what it does."""
    if token in prompt.end_ids:
        return "(end)"
    text = TextStream(lm, read).push(token)
    if text.strip():
        return text.strip()
    return "(new line)" if "\n" in text else "(blank)" if text else "(part of a letter)"
