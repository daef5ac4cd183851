"""Tasks on any parallel text: find the translation, predict the text, stay in the language.

A third of the sentences is for validation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ClasError
from ...text.corpus import ParallelCorpus
from ...text.detection import detect
from ...text.profiles import is_like
from ..judging.items import Item, Items, OpenItem, PairItem, Split, TextItem
from .base import Benchmark, part, shuffled

_VALIDATION = 1 / 3


@dataclass(frozen=True)
class Retrieval(Benchmark):
    """Is the sentence nearest in the anchor language, by cosine, the translation? All items of a
    language are each other's rivals, so chance is one in as many as there are.

    Raises ClasError if the text lacks the anchor, or has no other language.
    """

    corpus: ParallelCorpus
    anchor: str = "en"
    name: str = "retrieval"
    kind = "states"
    metrics = ("retrieval",)

    def __post_init__(self) -> None:
        if self.anchor not in self.corpus.languages or not self.languages:
            raise ClasError(
                f"Retrieval looks for translations in {self.anchor!r}, but the text has "
                f"{', '.join(self.corpus.languages)}: take a text in {self.anchor!r} and one more."
            )

    @property
    def languages(self) -> tuple[str, ...]:
        """The corpus's but the anchor."""
        return tuple(code for code in self.corpus.languages if code != self.anchor)

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """Sentences with their translations, a third for validation."""
        lines = zip(self.corpus.sentences[language], self.corpus.sentences[self.anchor])
        return _split(
            [PairItem(str(n), str(n), text, anchor) for n, (text, anchor) in enumerate(lines)],
            split,
        )

    def judge(self, items: Items[Any], predictions: Any) -> Iterable[Sequence[float]]:
        """1 where the nearest anchor sentence is the item's own."""
        text, anchor = (np.asarray(side, np.float64) for side in predictions)  # [items, hidden]
        text, anchor = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text, anchor))
        nearest = (text @ anchor.T).argmax(1)
        return [[float(found == n) for n, found in enumerate(nearest)]]


@dataclass(frozen=True)
class BitsPerByte(Benchmark):
    """How well the text is predicted, in bits a byte of UTF-8; lower is better.

    An item's score is its bits over the mean bytes of an item, so that the mean over the items is
    all bits over all bytes.
    """

    corpus: ParallelCorpus
    name: str = "bits-per-byte"
    kind = "text"
    metrics = ("bits_per_byte",)

    @property
    def languages(self) -> tuple[str, ...]:
        """The corpus's."""
        return self.corpus.languages

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """Sentences, a third for validation."""
        lines = enumerate(self.corpus.sentences[language])
        return _split([TextItem(str(n), str(n), text) for n, text in lines], split)

    def judge(self, items: Items[Any], predictions: Any) -> Iterable[Sequence[float]]:
        """Bits of each text over the mean bytes; predictions in nats, [items]."""
        size = sum(len(item.text.encode()) for item in items.of(TextItem)) / len(items)
        return [[-nats / math.log(2) / size for nats in predictions]]


@dataclass(frozen=True)
class Fidelity(Benchmark):
    """Does the model go on in the language? By `detect`; a text that doesn't tell counts as a no:
    a loop of a few words, a short text, a mix. Variants that letters don't tell apart, pt and
    pt-BR, count as one language.

    A sentence of the corpus is the prompt, in the language itself or in `prompts`, whatever the
    language: then it asks whether steering forces the language.
    """

    corpus: ParallelCorpus
    prompts: str | None = None
    max_new_tokens: int = 40
    name: str = "fidelity"
    kind = "generate"
    metrics = ("fidelity",)

    @property
    def languages(self) -> tuple[str, ...]:
        """The corpus's."""
        return self.corpus.languages

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """Sentences to go on from, a third for validation."""
        code = self.prompts or language
        return _split(
            [
                OpenItem(str(n), str(n), text, (), self.max_new_tokens, False)
                for n, text in enumerate(self.corpus.sentences[code])
            ],
            split,
        )

    def judge(self, items: Items[Any], predictions: Any) -> Iterable[Sequence[float]]:
        """1 where the continuation is detected as the item's language; can't tell counts as no."""
        wanted = items.language
        rivals = [code for code in self.languages if not is_like(code, wanted)]
        found = [detect(text, [wanted, *rivals]).code for text in predictions]
        return [[float(code == wanted) for code in found]]


def _split(items: Sequence[Item], split: type[Split]) -> list[Item]:
    return shuffled(part(items, split, _VALIDATION))
