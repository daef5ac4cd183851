"""XNLI: does the hypothesis follow from the premise?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..judging.items import ChoiceItem, Item, Split, Validation
from .base import ChoiceBenchmark, shuffled
from .sources import choose, find_file, hub_rows, is_hub, read_rows, value

_Row = tuple[str, str, str, str, int]  # key, group, premise, hypothesis, answer
_VERDICTS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Verdicts:
    """How a premise and a hypothesis are joined: premise, `ask`, a word, `comma`, hypothesis."""

    ask: str
    yes: str
    also: str
    no: str
    comma: str = ", "

    def join(self, premise: str, hypothesis: str) -> tuple[str, ...]:
        """The three whole texts: entailed, neutral, contradicted."""
        words = (self.yes, self.also, self.no)
        return tuple(f" {premise}{self.ask}{word}{self.comma}{hypothesis}" for word in words)


ENGLISH = Verdicts(", right? ", "Yes", "Also", "No")
VERDICTS = {
    "ar": Verdicts("، صحيح؟ ", "نعم", "أيضا", "لا", "، "),
    "bg": Verdicts(", нали? ", "Да", "Също", "Не"),
    "de": Verdicts(", richtig? ", "Ja", "Auch", "Nein"),
    "el": Verdicts(", σωστά; ", "Ναι", "Επίσης", "Όχι"),
    "en": ENGLISH,
    "es": Verdicts(", ¿verdad? ", "Sí", "También", "No"),
    "fr": Verdicts(", n'est-ce pas ? ", "Oui", "Aussi", "Non"),
    "hi": Verdicts(", है ना? ", "हाँ", "साथ ही", "नहीं"),
    "ru": Verdicts(", верно? ", "Да", "Также", "Нет"),
    "sw": Verdicts(", sivyo? ", "Ndiyo", "Pia", "Hapana"),
    "th": Verdicts(" ใช่ไหม ", "ใช่", "อีกทั้ง", "ไม่", " "),
    "tr": Verdicts(", değil mi? ", "Evet", "Ayrıca", "Hayır"),
    "ur": Verdicts("، ہے نا؟ ", "جی ہاں", "نیز", "نہیں", "، "),
    "vi": Verdicts(", phải không? ", "Đúng", "Ngoài ra", "Không"),
    "zh": Verdicts("，对吗？", "是的", "另外", "不是", "，"),
}


@dataclass(frozen=True)
class XNLI(ChoiceBenchmark):
    """Three choices (Conneau et al., 2018), from the files of XNLI-1.0: xnli.dev.tsv
    and xnli.test.tsv, or .jsonl.

    Each choice is the whole text, "premise, right? Yes, hypothesis", as XGLM (Lin et al., 2022)
    has it. The English words are lm-evaluation-harness's too, the others are our own, because some
    of its are wrong (the Arabic no is the word for number). `verdicts` takes any; with
    `dict.fromkeys(VERDICTS, ENGLISH)` all languages have the English ones.
    """

    source: str
    verdicts: Mapping[str, Verdicts] = field(default_factory=lambda: VERDICTS)
    name: str = "xnli"

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Those of the validation file that `verdicts` has words for."""
        if is_hub(self.source):
            return tuple(self.verdicts)
        found = {value(row, "language", "XNLI") for row in read_rows(self._file(Validation))}
        return tuple(code for code in self.verdicts if code in found)

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """The rows of the split's file."""
        rows = self._hub_rows if is_hub(self.source) else self._file_rows
        found: list[Item] = []
        for key, group, premise, hypothesis, answer in rows(language, split):
            texts = self.verdicts[language].join(premise, hypothesis)
            found.append(
                ChoiceItem(f"{split.name}/{key}", f"{split.name}/{group}", "", texts, answer)
            )
        return shuffled(found)

    def _file(self, split: type[Split]) -> Path:
        stem = "xnli.dev" if split is Validation else "xnli.test"
        return find_file(self.source, f"{stem}.tsv", f"{stem}.jsonl")

    def _file_rows(self, language: str, split: type[Split]) -> list[_Row]:
        names = ("pairID", "promptID", "sentence1", "sentence2")
        found = []
        for row in read_rows(self._file(split)):
            if value(row, "language", "XNLI") == language:
                key, group, premise, hypothesis = (str(value(row, n, "XNLI")) for n in names)
                answer = choose(_VERDICTS, value(row, "gold_label", "XNLI"), "XNLI")
                found.append((key, group, premise, hypothesis, answer))
        return found

    def _hub_rows(self, language: str, split: type[Split]) -> list[_Row]:
        rows = hub_rows(self.source, "facebook/xnli", language, split.name)
        # There are no names; three hypotheses a premise follow each other.
        return [
            (str(n), str(n // 3), row["premise"], row["hypothesis"], row["label"])
            for n, row in enumerate(rows)
        ]
