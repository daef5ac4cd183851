"""Does steering make a model write in another language, and well?

The beginning of a text in `source`, or nothing at all, and the model writes on; the language that
is steered for is the one that is wanted. An item's score is the harmonic mean of two, whether the
output is in the language (0 or 1) and its quality (0 to 1): a right language of no quality, and
good text in another language, are both worth nothing.

An output has quality 0 if it is empty, repeats the prompt and says nothing else, holds unreadable
bytes, or loops.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

from ...errors import ClasError
from ...text.corpus import ParallelCorpus
from ...text.detection import detect
from ...text.languages import get_language
from ...text.profiles import is_like
from ...village.grammar import CODES, Grammar
from ..judging.items import Item, Items, Kind, Split, StartItem, Validation, Written
from .base import Benchmark, part, shuffled
from .scoring import words
from .village_texts import identify, split_story, story_starts

WORDS, LETTERS = 3, 6  # that a prompt takes of a sentence; letters where words aren't apart
TEMPERATURE = 0.7  # of texts from nothing, which greedy would be all the same
SAMPLES = 40  # of them a split
LOOPS = 0.4  # of the pairs of words in a row that are different ones, below which a text loops


class _Forcing(Benchmark):
    """Both tasks; a base class. `source` is the prompts' language, or what there is instead."""

    kind: ClassVar[Kind] = "written"
    metrics = ("forcing", "language", "quality")
    source: str

    def judge(self, items: Items[Any], predictions: Any) -> Iterable[Sequence[float]]:
        """The harmonic mean, whether the language is right, and quality; predictions [items]."""
        asked, code = items.of(StartItem), items.language
        spoken = [float(self._is_in(said.text, code)) for said in predictions]
        quality = [
            0.0 if is_broken(said.text, code, item.prompt) else self._quality(item, said, code)
            for item, said in zip(asked, predictions)
        ]
        both = [2 * a * b / (a + b) if a * b else 0.0 for a, b in zip(spoken, quality)]
        return [both, spoken, quality]

    def _is_in(self, text: str, code: str) -> bool:
        raise NotImplementedError

    def _quality(self, item: StartItem, said: Written, code: str) -> float:
        raise NotImplementedError

    def _from_nothing(self, split: type[Split], most: int) -> list[StartItem]:
        """So many samples of a text without a beginning, drawn by other seeds in each split."""
        seeds = range(0 if split is Validation else 1, 2 * SAMPLES, 2)
        return [StartItem(str(s), str(s), "", (), most, True, TEMPERATURE, s) for s in seeds]


@dataclass(frozen=True)
class VillageForcing(_Forcing):
    """The village: from two words of a story, or from nothing. The language is the one that knows
    most words. Quality is the share of sentences that its grammar can tell, without the one that
    ends the prompt's and one that is cut short.

    Raises ClasError for a source that is no spaced language of the village.
    """

    name: str = "village-forcing"
    source: str = "en"
    nothing: bool = False
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        if self.source not in CODES or not get_language(self.source).spaced:
            raise ClasError(f"There are no first two words in {self.source!r}: take another.")

    @property
    def languages(self) -> tuple[str, ...]:
        """The village's but the prompts' own."""
        return tuple(code for code in CODES if code != self.source)

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """Different beginnings, half of them for validation."""
        if self.nothing:
            return self._from_nothing(split, self.max_new_tokens)
        starts = _starts(self.source)
        items = [StartItem(start, start, start, (), self.max_new_tokens) for start in starts]
        return shuffled(part(items, split, 1 / 2))

    def _is_in(self, text: str, code: str) -> bool:
        other = next(one for one in CODES if one != code)
        return bool(words(text, code)) and identify(text, other) == code

    def _quality(self, item: StartItem, said: Written, code: str) -> float:
        return parsed_share(said.text, code, skip_first=bool(item.prompt))


@dataclass(frozen=True)
class Forcing(_Forcing):
    """Any model: from the first words of the parallel text's sentences in `source`, or from
    nothing. The language is the detected one; a text that doesn't tell counts as a no.

    Quality is how likely the unsteered model finds the output as the next line after a text of the
    language, a share of real text's: bits a byte of the real line over those of the output, at
    most 1. Times the share of different ones among pairs of words in a row.

    Raises ClasError if the text lacks the source, or has no other language.
    """

    corpus: ParallelCorpus
    name: str = "forcing"
    source: str = "en"
    nothing: bool = False
    max_new_tokens: int = 24

    def __post_init__(self) -> None:
        if self.source not in self.corpus.languages or not self.languages:
            raise ClasError(
                f"Forcing starts from texts in {self.source!r}, but there are "
                f"{', '.join(self.corpus.languages)}: take a text in {self.source!r} and one more."
            )

    @property
    def languages(self) -> tuple[str, ...]:
        """The corpus's but the prompts' own."""
        return tuple(code for code in self.corpus.languages if code != self.source)

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """Different beginnings, a third of them for validation."""
        real = self.corpus.sentences[language]
        if self.nothing:
            samples = self._from_nothing(split, self.max_new_tokens)
            return [self._with_real(item, real) for item in samples]
        lines: dict[str, int] = {}
        for number, text in enumerate(self.corpus.sentences[self.source]):
            lines.setdefault(beginning(text, self.source), number)
        items = [
            StartItem(str(n), start, start, (), self.max_new_tokens, seed=n)
            for start, n in lines.items()
        ]
        return shuffled(part([self._with_real(item, real) for item in items], split, 1 / 3))

    def _with_real(self, item: StartItem, real: Sequence[str]) -> StartItem:
        """Beside the sentence itself in the language, after its neighbour."""
        own, other = real[item.seed % len(real)], real[(item.seed + 1) % len(real)]
        names = item.key, item.group, item.prompt, item.answers, item.max_new_tokens
        return StartItem(*names, True, item.temperature, item.seed, before=other, real=own)

    def _is_in(self, text: str, code: str) -> bool:
        rivals = [one for one in self.corpus.languages if not is_like(one, code)]
        return detect(text, [code, *rivals]).code == code

    def _quality(self, item: StartItem, said: Written, code: str) -> float:
        if said.log_p is None or said.real_log_p is None:
            return 0.0
        return likelihood_share(item, said) * different_pairs(said.text, code)


def likelihood_share(item: StartItem, said: Written) -> float:
    """Bits a byte of the item's real text over those of what was written, at most 1; 0 for none."""
    if said.log_p is None or said.real_log_p is None or not math.isfinite(said.log_p):
        return 0.0
    own = -said.log_p / max(1, len(said.text.encode()))
    real = -said.real_log_p / max(1, len(item.real.encode()))
    return min(1.0, real / own) if own > 0 else 1.0


def is_broken(text: str, code: str, prompt: str = "") -> bool:
    """Whether a text, in the language `code` as far as it is in any, has no quality at all: empty,
    nothing but the prompt's words again, unreadable bytes, or a loop."""
    said = words(text, code)
    if not any(char.isalpha() for char in text) or "\ufffd" in text:
        return True
    return set(said) <= set(words(prompt, code)) or different_pairs(text, code) < LOOPS


def different_pairs(text: str, code: str) -> float:
    """Share of different ones among pairs of words in a row, of letters where words aren't apart
    (distinct-2 of Li et al., arXiv 1510.03055); 1 where there are none."""
    said = words(text, code)
    pairs = list(pairwise(said))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def parsed_share(text: str, code: str, skip_first: bool = False) -> float:
    """Share of a village story's sentences that the grammar of `code` can tell; 0 without any.

    A last one that is cut short isn't counted. `skip_first`: nor the first.
    """
    grammar = Grammar.load(code)
    told = split_story(text, grammar)[int(skip_first) :]
    known = grammar.all_sentences
    if told and told[-1] not in known and any(one.startswith(told[-1]) for one in known):
        told = told[:-1]
    return sum(sentence in known for sentence in told) / len(told) if told else 0.0


@lru_cache(maxsize=len(CODES))
def _starts(code: str) -> tuple[str, ...]:
    """The different first two words of stories, without those that tell no language."""
    return tuple(sorted({*story_starts(code, 600, None, "validation")}))


def beginning(text: str, code: str) -> str:
    """The first words of a sentence, three or six letters, at most half of it."""
    if not get_language(code).spaced:
        return text[: max(1, min(LETTERS, len(text) // 2))]
    parts = text.split()
    return " ".join(parts[: max(1, min(WORDS, len(parts) // 2))])
