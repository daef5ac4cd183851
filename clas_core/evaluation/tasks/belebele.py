"""Belebele: a question on a passage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...text.languages import canonical_codes
from ..judging.items import ChoiceItem, Item, Split
from .base import ChoiceBenchmark, part, shuffled
from .sources import choose, hub_configs, hub_rows, is_hub, language_files, read_rows, value

_REPO = "facebook/belebele"


@dataclass(frozen=True)
class Belebele(ChoiceBenchmark):
    """Four choices (Bandarkar et al., 2023), from its files <code>.jsonl, as eng_Latn.jsonl.

    The model picks a letter, prompted as its authors and lm-evaluation-harness do. There is only
    one split, so a fifth of the pages that the passages come from is for validation here.
    """

    source: str
    name: str = "belebele"

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Those of the folder's files, or of the data set's configurations."""
        if is_hub(self.source):
            return tuple(self._configs)
        return tuple(language_files(self.source, "*.jsonl"))

    @cached_property
    def _configs(self) -> dict[str, str]:
        """The name of each language there."""
        spellings = canonical_codes(hub_configs(self.source, _REPO))
        return {code: spelling for spelling, code in spellings.items()}

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """Questions, dealt to the splits by page: a fifth for validation."""
        if is_hub(self.source):
            rows = hub_rows(self.source, _REPO, self._configs[language], "test")
        else:
            rows = read_rows(language_files(self.source, "*.jsonl")[language])
        found: list[Item] = []
        seen: dict[str, int] = {}
        for row in rows:
            names = ("link", "question_number", "flores_passage", "question", "correct_answer_num")
            link, number, passage, question, right = (str(value(row, n, "Belebele")) for n in names)
            answers = [str(value(row, f"mc_answer{n}", "Belebele")) for n in range(1, 5)]
            listed = "".join(f"{letter}: {text}\n" for letter, text in zip("ABCD", answers))
            prompt = f"P: {passage}\nQ: {question.strip()}\n{listed}Answer:"
            key = f"{link}#{number}"  # a page may have given two passages
            seen[key] = seen.get(key, 0) + 1
            found.append(
                ChoiceItem(
                    f"{key}.{seen[key]}",
                    link,
                    prompt,
                    (" A", " B", " C", " D"),
                    choose("1234", right, "Belebele"),
                )
            )
        return shuffled(part(found, split, 0.2))
