"""XCOPA: which is the cause, or the effect?"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...errors import ClasError
from ..judging.items import ChoiceItem, Item, Split, Validation
from .base import ChoiceBenchmark, shuffled
from .sources import choose, hub_rows, is_hub, language_files, read_rows, value

# Because, therefore.
CONNECTORS = {
    "en": ("because", "therefore"),
    "et": ("sest", "seetõttu"),
    "ht": ("poukisa", "donk sa"),
    "id": ("karena", "maka"),
    "it": ("perché", "quindi"),
    "qu": ("imataq", "chaymi"),
    "sw": ("kwa sababu", "kwa hiyo"),
    "ta": ("காரணமாக", "எனவே"),
    "th": ("เพราะ", "ดังนั้น"),
    "tr": ("çünkü", "bu yüzden"),
    "vi": ("bởi vì", "vì vậy"),
    "zh": ("因为", "所以"),
}


@dataclass(frozen=True)
class XCOPA(ChoiceBenchmark):
    """Two choices (Ponti et al., 2020), from its files val.<code>.jsonl and test.<code>.jsonl;
    COPA's, named with en, fit too.

    "premise because choice", with the connectors of lm-evaluation-harness. That cuts the premise's
    last character, a full stop in most languages but a letter in Thai; here only punctuation goes.
    """

    source: str
    name: str = "xcopa"

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Those of the folder's files. Raises ClasError for one without connectors."""
        if is_hub(self.source):
            return tuple(code for code in CONNECTORS if code != "en")
        found = language_files(self.source, "test.*.jsonl")
        if unknown := found.keys() - CONNECTORS.keys():
            raise ClasError(
                f"XCOPA: there are no connectors for {', '.join(sorted(unknown))}: "
                "take their files away."
            )
        return tuple(found)

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """The rows of the split's file."""
        if is_hub(self.source):
            rows = hub_rows(self.source, "cambridgeltl/xcopa", language, split.name)
        else:
            stem = "val" if split is Validation else "test"
            rows = read_rows(language_files(self.source, f"{stem}.*.jsonl")[language])
        because, therefore = CONNECTORS[language]
        found: list[Item] = []
        for row in rows:
            names = ("idx", "premise", "question", "choice1", "choice2", "label")
            key, premise, asked, *texts, label = (str(value(row, n, "XCOPA")) for n in names)
            link = (because, therefore)[choose(("cause", "effect"), asked, "XCOPA")]
            premise = premise.strip()
            if unicodedata.category(premise[-1])[0] == "P":
                premise = premise[:-1]
            choices = tuple(f" {text[:1].lower()}{text[1:]}" for text in texts)
            answer = choose(("0", "1"), label, "XCOPA")
            name = f"{split.name}/{key}"
            found.append(ChoiceItem(name, name, f"{premise} {link}", choices, answer))
        return shuffled(found)
