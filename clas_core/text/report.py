"""Everything there is to say about a parallel text before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from ..errors import ClasError
from .checks import find_errors, find_warnings
from .reading import TextSource, read


@dataclass(frozen=True)
class CorpusReport:
    """What `check_corpus` found. Errors forbid the text's use, warnings are for the reader.

    `counts` are sentences of each language, `characters` the mean length of one.
    """

    name: str
    counts: Mapping[str, int] = field(default_factory=dict)
    characters: Mapping[str, float] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    sentences: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether `ParallelCorpus.load` would take the text."""
        return not self.errors

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes, in the order they came in; those of unusable text too."""
        return tuple(self.counts)

    @property
    def problems(self) -> tuple[str, ...]:
        """Errors, then warnings."""
        return self.errors + self.warnings

    def preview(self, n: int = 3) -> list[list[str]]:
        """A row for each language: its code and its first `n` sentences, "" where there is none."""
        rows = ((code, *lines[:n]) for code, lines in self.sentences.items())
        return [[*row, *[""] * (n + 1 - len(row))] for row in rows]


def check_corpus(source: TextSource, max_bytes: int | None = None) -> CorpusReport:
    """Report on `source`, in any form `ParallelCorpus.load` takes; nothing in it is refused here.

    More than `max_bytes` of files is an error, and they are not read.
    """
    try:
        raw = read(source, max_bytes)
    except ClasError as error:
        return CorpusReport("parallel text", errors=(str(error),))
    found = find_errors(raw.name, raw.columns) if raw.columns or not raw.errors else []
    return CorpusReport(
        raw.name,
        {column.code: len(column.lines) for column in raw.columns},
        {column.code: fmean(map(len, column.lines or [""])) for column in raw.columns},
        (*raw.errors, *found),
        (*raw.warnings, *find_warnings(raw.columns)),
        {column.code: column.lines for column in raw.columns},
    )
