"""Parallel text: the same sentences in several languages, in the same order."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ClasError
from .paths import ASSETS

BUNDLED = ("village", "everyday")

_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
_FORMATS = "a .tsv file, a .jsonl file, or a folder with one <code>.txt per language"


@dataclass(frozen=True)
class ParallelCorpus:
    """Sentence i of every language says the same thing.

    `sentences` maps a language code to its sentences. All languages have equally many, none is
    empty; anything else is refused with a `ClasError` that names the place.
    """

    name: str
    sentences: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        if not self.sentences or not len(self):
            raise ClasError(f"{self.name} holds no sentences: give at least one in each language.")
        for code in self.sentences:
            if not _CODE.fullmatch(code):
                raise ClasError(
                    f"{self.name}: {code[:40]!r} is not a language code; name the languages by "
                    "codes such as en or sw, in the first row of a .tsv or as keys of a .jsonl."
                )
        lengths = {code: len(lines) for code, lines in self.sentences.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{code} {count}" for code, count in lengths.items())
            raise ClasError(
                f"{self.name}: parallel text needs the same number of sentences in every language, "
                f"but there are {counts}."
            )
        for code, lines in self.sentences.items():
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    raise ClasError(
                        f"{self.name}: sentence {number} of {code} is empty; fill it in or remove "
                        "that sentence from every language."
                    )

    @property
    def languages(self) -> tuple[str, ...]:
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
        """The languages `codes`, in that order (default all), and the first `n` sentences."""
        codes = self.languages if codes is None else tuple(codes)
        if unknown := [code for code in codes if code not in self.sentences]:
            raise ClasError(
                f"{self.name} has no {', '.join(unknown)}; its languages are "
                f"{', '.join(self.languages)}."
            )
        if n is not None and n < 1:
            raise ClasError(f"Ask for at least one sentence per language, not {n}.")
        return ParallelCorpus(self.name, {code: self.sentences[code][:n] for code in codes})

    @classmethod
    def bundled(cls, name: str) -> ParallelCorpus:
        """A corpus that ships with the project, one of `BUNDLED`."""
        if name not in BUNDLED:
            raise ClasError(f"There is no bundled corpus {name!r}; choose {' or '.join(BUNDLED)}.")
        path = ASSETS / "corpora" / f"{name}.tsv"
        if not path.is_file():
            raise ClasError(f"The bundled corpus isn't here: restore {path}.")
        return cls(name, _read_tsv(path))

    @classmethod
    def open(cls, name: str | Path) -> ParallelCorpus:
        """The bundled corpus of that name, or else the file or folder at that path."""
        return cls.bundled(str(name)) if str(name) in BUNDLED else cls.load(name)

    @classmethod
    def load(cls, path: str | Path) -> ParallelCorpus:
        """Read parallel text in UTF-8 from `path`, in one of three forms.

        `.tsv`: the first row holds the language codes, each further row one sentence in all of
        them. `.jsonl`: one object a line, {"en": "...", "sw": "..."}. Folder: `en.txt`, `sw.txt`,
        ..., aligned line by line.
        """
        path = Path(path)
        if path.is_dir():
            return cls(path.name, _read_folder(path))
        if not path.exists():
            raise ClasError(f"There is no file or folder {path}; give {_FORMATS}.")
        readers = {".tsv": _read_tsv, ".jsonl": _read_jsonl}
        if path.suffix.lower() not in readers:
            raise ClasError(f"{path.name} is not in a form that can be read; give {_FORMATS}.")
        return cls(path.stem, readers[path.suffix.lower()](path))


def _read_tsv(path: Path) -> dict[str, list[str]]:
    header, *rows = (line.split("\t") for line in _lines(path))
    codes = [code.strip() for code in header]
    if len(set(codes)) < len(codes):
        raise ClasError(f"{path.name}: the first row names a language twice: {', '.join(codes)}.")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(codes):
            raise ClasError(
                f"{path.name}, line {number}: {len(row)} columns, but the first row names "
                f"{len(codes)} languages; separate the sentences by one tab each."
            )
    columns = zip(*rows) if rows else [()] * len(codes)
    return {code: list(column) for code, column in zip(codes, columns)}


def _read_jsonl(path: Path) -> dict[str, list[str]]:
    sentences: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ClasError(f"{where}: not valid JSON ({error.msg}).") from error
        if not isinstance(row, dict) or not all(isinstance(text, str) for text in row.values()):
            raise ClasError(f'{where}: expected an object of texts such as {{"en": "Hello."}}.')
        if number == 1:
            sentences = {code: [] for code in row}
        if row.keys() != sentences.keys():
            raise ClasError(
                f"{where}: languages {', '.join(row) or 'none'}, but the first line has "
                f"{', '.join(sentences) or 'none'}; every line needs the same."
            )
        for code, text in row.items():
            sentences[code].append(text)
    return sentences


def _read_folder(folder: Path) -> dict[str, list[str]]:
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise ClasError(f"{folder} holds no .txt file; name one <code>.txt per language.")
    return {file.stem: _lines(file) for file in files}


def _lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file; only a newline parts them, and a last one may end the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClasError(
            f"{path.name} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8."
        ) from error
    return text.removesuffix("\n").split("\n")
