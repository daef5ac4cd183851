"""Parallel text: the same sentences in several languages, in the same order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import ClasError
from ..paths import ASSETS
from .checks import find_errors
from .languages import find_code
from .raw import Column
from .reading import TextSource, read

BUNDLED = ("village", "everyday")


@dataclass(frozen=True)
class ParallelCorpus:
    """Sentence i of every language says the same thing.

    `sentences` maps a language code to its sentences. All languages have equally many, none is
    empty; anything else is refused with a `ClasError` that names the place.

    `is_bundled`: whether `bundled` opened it, so that it is no one's own text. A text from
    anywhere else isn't, whatever its name.
    """

    name: str
    sentences: Mapping[str, Sequence[str]]
    is_bundled: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        columns = [Column(code, lines) for code, lines in self.sentences.items()]
        if errors := find_errors(self.name, columns):
            raise ClasError(errors[0])

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes, in the order they came in."""
        return tuple(self.sentences)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any sentence, code or order (SHA-256)."""
        content = [[code, *lines] for code, lines in self.sentences.items()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """The number of sentences in each language."""
        return len(next(iter(self.sentences.values())))

    def subset(self, codes: Sequence[str] | None = None, n: int | None = None) -> ParallelCorpus:
        """The languages `codes`, in that order (default all), and the first `n` sentences.

        A language may be named in any spelling: swh_Latn is sw. A region that is asked for is
        given or refused: por-BR is never another Portuguese (`languages.find_code`).
        """
        wanted = self.languages if codes is None else tuple(codes)
        found = [find_code(code, self.languages) for code in wanted]
        if unknown := [code for code, there in zip(wanted, found) if there is None]:
            raise ClasError(
                f"{self.name} has no {', '.join(unknown)}; its languages are "
                f"{', '.join(self.languages)}."
            )
        if n is not None and n < 1:
            raise ClasError(f"Ask for at least one sentence per language, not {n}.")
        sentences = {code: self.sentences[code][:n] for code in found if code}
        return replace(self, sentences=sentences)

    @classmethod
    def bundled(cls, name: str) -> ParallelCorpus:
        """A corpus that ships with the project, one of `BUNDLED`."""
        if name not in BUNDLED:
            raise ClasError(f"There is no bundled corpus {name!r}; choose {' or '.join(BUNDLED)}.")
        path = ASSETS / "corpora" / f"{name}.tsv"
        if not path.is_file():
            raise ClasError(f"The bundled corpus isn't here: restore {path}.")
        return replace(cls.load(path), is_bundled=True)

    @classmethod
    def open(cls, name: TextSource) -> ParallelCorpus:
        """The bundled corpus of that name, or else what `load` finds there."""
        return cls.bundled(name) if name in BUNDLED else cls.load(name)

    @classmethod
    def load(cls, source: TextSource, max_bytes: int | None = None) -> ParallelCorpus:
        """Read parallel text in UTF-8; languages get their shortest codes (swh_Latn is sw).

        A path to a `.tsv` or `.csv` (the first row holds the language codes, each further row one
        sentence in all of them), to a `.jsonl` (one object a line, {"en": "...", "sw": "..."}), to
        a folder of text files named by language (en.txt, sw.txt; NTREX, FLORES and XQuAD as they
        are published), to either file of a Moses pair or their stem; a list of such files; or
        "hub:owner/name?config=en-sw&split=test". `corpora` has the details.

        Raises `ClasError` for the first problem; `check_corpus` reports all of them. `max_bytes`
        limits the size of the files, and of what is unpacked from them.
        """
        raw = read(source, max_bytes)
        if errors := [*raw.errors, *find_errors(raw.name, raw.columns)]:
            raise ClasError(errors[0])
        return cls(raw.name, {column.code: column.lines for column in raw.columns})
