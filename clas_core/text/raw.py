"""Text as it was found in files, before anyone says whether it will do."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ClasError

_MARKS = (  # UTF-32's little-endian mark starts with UTF-16's
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SHOWN = 5  # places or problems named before the rest are only counted


@dataclass(frozen=True)
class Column:
    """One language's sentences. `code` is as spelled there, `file` where they were found.

    `numbers` are the sentences' line numbers in the file, from 1. `ids` are the names by which
    other languages know the same sentences, where the format has such; else order tells.
    """

    code: str
    lines: Sequence[str]
    file: str = ""
    numbers: Sequence[int] | None = None
    ids: Sequence[str] | None = None

    def place(self, indices: Sequence[int]) -> str:
        """Where sentences are, counted from 0: "sw.txt, lines 3 and 7"."""
        numbers = [self.numbers[i] if self.numbers else i + 1 for i in indices[:_SHOWN]]
        rest = len(indices) - len(numbers)
        words = [*map(str, numbers), *([f"{rest} more"] if rest else [])]
        kind = "line" if self.numbers else "sentence"
        listed = " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
        return f"{self.file}, " * bool(self.file) + f"{kind}{'s' * (len(words) > 1)} {listed}"


@dataclass(frozen=True)
class RawCorpus:
    """The columns found; sentences that forbid their use, and sentences that only warn."""

    name: str
    columns: tuple[Column, ...]
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_text(path: Path) -> str:
    """A UTF-8 file without byte order mark, its lines parted by newlines alone."""
    data = path.read_bytes()
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            raise ClasError(f"{path.name} is {encoding} text; save it as UTF-8.")
    if b"\0" in data:
        raise ClasError(f"{path.name} is no text, or UTF-16; save it as UTF-8 text.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ClasError(
            f"{path.name}, line {line} is not UTF-8 text but perhaps Latin-1 or another older "
            "encoding; save the file as UTF-8."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without blank ones at its end. Only newlines part lines."""
    lines = read_text(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def parse_json(text: str) -> Any:
    """The value of a JSON text; a `ClasError` starts with what is wrong, to follow the place."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ClasError(f"not valid JSON ({error.msg}).") from error
    except ValueError as error:
        raise ClasError("not valid JSON (a number of too many digits).") from error
    except RecursionError as error:
        raise ClasError("JSON nested too deeply.") from error


def read_json(path: str | Path) -> Any:
    """The value of a JSON file. Raises ClasError that names the file if it holds none."""
    text = read_text(Path(path))
    try:
        return parse_json(text)
    except ClasError as error:
        raise ClasError(f"{path} is {error}") from error


def too_long(size: int, max_bytes: int) -> ClasError:
    """What to say of text of `size` bytes where only `max_bytes` are taken."""
    return ClasError(
        f"The text is at least {size / 1e6:.1f} MB long, but at most {max_bytes / 1e6:.1f} MB can "
        "be taken; give fewer sentences or languages."
    )


def shorten(problems: Sequence[str]) -> list[str]:
    """The first few of `problems` of one kind, and how many more there are."""
    rest = len(problems) - _SHOWN
    more = [f"{rest} more {'lines have' if rest > 1 else 'line has'} such a problem."]
    return [*problems[:_SHOWN], *(more if rest > 0 else [])]
