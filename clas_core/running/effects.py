"""What steering did to a text, also where the words are the same."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..model.prompts import Prompt, Rendered, as_rendered
from ..model.streaming import TextStream
from ..steering.plan import SteeringPlan
from ..text.detection import detect
from ..text.languages import get_language
from .along import Along, read_along

Span = tuple[str, bool]  # a piece of text, and whether it differs from the other side

COLLAPSED = 0.5  # share of repeated 4-grams above which a text is said to repeat itself
FAINT = 0.001  # nats; a shift below it is nothing to see
_ROUNDED = 1e-5  # nats; by so much the same text may differ that was read at once or by the token


@dataclass(frozen=True, eq=False)
class Effects:
    """Steered against unsteered, for one prompt. Pairs are (unsteered, steered).

    `kl` [tokens]: KL(steered || unsteered) in nats at each token of the unsteered text, both
    models having read that text so far (teacher forcing). `tokens`: the text of each of them,
    empty for one that ends within a character. `bits_per_token`: mean -log2 p of the unsteered
    text. `changed_share`: share of both sides' tokens outside a common alignment, in [0, 1].
    `languages`: detected codes, None where the text doesn't tell. `repetition`: share of 4-grams
    of tokens that were there before (seq-rep-4 of Welleck et al., arXiv 1908.04319).
    """

    kl: Tensor
    tokens: tuple[str, ...]
    bits_per_token: tuple[float, float]
    changed_share: float
    languages: tuple[str | None, str | None]
    repetition: tuple[float, float]

    @property
    def sentence(self) -> str:
        """All of it in one plain sentence."""
        place = int(self.kl.argmax())
        size = in_nats(self.kl[place].item())
        shift = f"largest shift at token {place + 1}, {size}"
        if not self.kl.any():
            shift = "no shift at any token"
        if self.changed_share == 0:
            faint = 0 < self.kl[place] < FAINT
            more = ": more strength shows more" if faint else ""
            return f"Identical text; {shift}{more}."
        parts = [f"{self.changed_share:.0%} of the tokens changed"]
        before, after = self.languages
        if before and after and before != after:
            names = get_language(before).name, get_language(after).name
            parts.append("the language went from {} to {}".format(*names))
        if self.repetition[1] > COLLAPSED and self.repetition[1] > self.repetition[0]:
            parts.append("the steered text repeats itself")
        return f"{', '.join(parts)}; {shift}."


def in_nats(value: float) -> str:
    """`value` as a reader takes it in: nothing is gained by 9.3e-05."""
    return f"{value:.2g} nats" if value >= FAINT or value == 0 else "under 0.001 nats"


def compare(
    lm: LanguageModel,
    prompt: Prompt,
    unsteered_ids: Sequence[int],
    steered_ids: Sequence[int],
    plan: SteeringPlan | None,
    *,
    codes: Sequence[str] | None = None,
) -> Effects:
    """Measure `plan` on what both sides generated after `prompt`; runs the model twice.

    `prompt` is what `generate` was given, a text or one from `prompts.render`.
    `codes` are the languages that an output may be in (default: all of the app's).
    """
    rendered = as_rendered(lm, prompt)
    asked = Along(rendered.token_ids, tuple(unsteered_ids), (None, plan))
    if not unsteered_ids or not steered_ids:
        raise ClasError("There is nothing to compare yet: generate at least one token.")
    ((before, after),) = read_along(lm, [asked])
    return effects_of(lm, rendered, unsteered_ids, steered_ids, before, after, codes=codes)


def effects_of(
    lm: LanguageModel,
    prompt: Rendered,
    unsteered_ids: Sequence[int],
    steered_ids: Sequence[int],
    before: Tensor,
    after: Tensor,
    *,
    codes: Sequence[str] | None = None,
) -> Effects:
    """As `compare`, where the unsteered text is read already.

    before, after: without the plan and with it, as `read_along` or `Stream.guesses` has it.
    """
    unsteered, steered = before[: len(unsteered_ids)], after[: len(unsteered_ids)]
    kl = (steered.exp() * (steered - unsteered)).nan_to_num(0.0).sum(-1)
    kl = kl * (kl > _ROUNDED)
    strip = TextStream(lm, prompt.token_ids, keep_special=True)
    *pieces, last = (strip.push(token) for token in unsteered_ids)
    return Effects(
        kl=kl.cpu(),
        tokens=(*pieces, last + strip.finish()),
        bits_per_token=(_bits(unsteered, unsteered_ids), _bits(steered, unsteered_ids)),
        changed_share=changed_share(unsteered_ids, steered_ids),
        languages=(
            _language(lm, prompt, unsteered_ids, codes),
            _language(lm, prompt, steered_ids, codes),
        ),
        repetition=(repetition(unsteered_ids), repetition(steered_ids)),
    )


def diff_words(a: str, b: str, code: str | None) -> tuple[list[Span], list[Span]]:
    """Which words of `a` and of `b` the other side lacks; each side's spans join to its text.

    Words are parted by white space and punctuation, in scripts without spaces by character.
    """
    spaced = code is None or get_language(code).spaced
    left, right = (_words(text) if spaced else _characters(text) for text in (a, b))
    words = [[i for i, word in enumerate(side) if not word.isspace()] for side in (left, right)]
    matcher = SequenceMatcher(
        None, [left[i] for i in words[0]], [right[j] for j in words[1]], autojunk=False
    )
    same: tuple[set[int], set[int]] = (set(), set())
    for i, j, size in matcher.get_matching_blocks():
        same[0].update(words[0][i : i + size])
        same[1].update(words[1][j : j + size])
    return _spans(left, same[0]), _spans(right, same[1])


def _bits(log_p: Tensor, ids: Sequence[int]) -> float:
    """Mean -log2 p of the tokens `ids`."""
    spoken = torch.tensor(list(ids), device=log_p.device)
    return -log_p.gather(-1, spoken[:, None]).mean().item() / math.log(2)


def changed_share(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Share of both sides' pieces outside a common alignment, in [0, 1]."""
    return 1 - SequenceMatcher(None, a, b, autojunk=False).ratio()


def repetition(pieces: Sequence[Hashable], n: int = 4) -> float:
    """Share of runs of `n` pieces that were there before, in [0, 1]; 0 where there are fewer."""
    grams = [tuple(pieces[i : i + n]) for i in range(len(pieces) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _language(
    lm: LanguageModel, prompt: Rendered, ids: Sequence[int], codes: Sequence[str] | None
) -> str | None:
    stream = TextStream(lm, prompt.token_ids)
    words = [stream.push(token) for token in ids if token not in prompt.end_ids]
    return detect("".join(words) + stream.finish(), codes).code


_PUNCTUATION = re.escape('.,;:!?…।؟،؛。，、！？：；„“”«»"()[]¿¡')
_WORD = re.compile(rf"\s+|[{_PUNCTUATION}]|[^\s{_PUNCTUATION}]+")


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _characters(text: str) -> list[str]:
    """Letters with the marks on them: Unicode marks, and Thai am, as UAX #29 has it."""
    characters: list[str] = []
    for character in text:
        is_mark = unicodedata.category(character)[0] == "M" or character == "\u0e33"
        if characters and is_mark:
            characters[-1] += character
        else:
            characters.append(character)
    return characters


def _spans(pieces: list[str], same: set[int]) -> list[Span]:
    """Runs of pieces that differ or don't; a space differs where both its neighbours do."""
    differs = [index not in same for index in range(len(pieces))]
    for index, piece in enumerate(pieces):
        if piece.isspace():
            ends = index in (0, len(pieces) - 1)
            differs[index] = not ends and index - 1 not in same and index + 1 not in same
    spans: list[Span] = []
    for piece, flag in zip(pieces, differs):
        if spans and spans[-1][1] == flag:
            spans[-1] = (spans[-1][0] + piece, flag)
        else:
            spans.append((piece, flag))
    return spans
