"""What a run found: every item's score under every row, with all that it takes to repeat it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

from ...atlas.atlas import Atlas
from ...atlas.cache import fingerprint
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...paths import replacing
from ...version import __version__
from .engine import Cell, Column
from .items import Items, Scores, Split, only

S = TypeVar("S", bound=Split)
_FORMAT = "clas-results-1"


@dataclass(frozen=True)
class Results(Generic[S]):
    """The cells of a run: rows by tasks, metrics and languages, each with one score an item.

    `about` is plain data: model, revision, rows with their recipes, split, versions, date.
    """

    cells: tuple[Cell[S], ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def measures(self) -> tuple[tuple[str, str], ...]:
        """(task, metric) pairs, in the order in which they came; a task's main metric first."""
        return tuple(dict.fromkeys((c.scores.task, c.scores.metric) for c in self.cells))

    def languages(self, task: str) -> tuple[str, ...]:
        found = (cell.scores.language for cell in self.cells if cell.scores.task == task)
        return tuple(dict.fromkeys(found))

    def get(self, row: str, task: str, metric: str, language: str) -> Scores[S] | None:
        """A cell's scores; None if it wasn't measured."""
        return self._index.get((row, task, metric, language))

    @cached_property
    def _index(self) -> dict[tuple[str, str, str, str], Scores[S]]:
        return {
            (cell.row, s.task, s.metric, s.language): s
            for cell in self.cells
            for s in [cell.scores]
        }

    def save(self, path: str | Path) -> None:
        """Write everything as one JSON file."""
        data = {
            "format": _FORMAT,
            "about": self.about,
            "cells": [_cell_dict(cell) for cell in self.cells],
        }
        with replacing(path) as scratch:
            scratch.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: str | Path, split: type[S]) -> Results[S]:
        """Read what `save` wrote. Raises ClasError for another file or scores of another split."""
        data = _json(Path(path).read_text(encoding="utf-8"), path)
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise ClasError(f"{path} holds no results: choose a file that `evaluate` wrote.")
        return Results(tuple(_cell(cell, split) for cell in data["cells"]), data["about"])


def main_measures(measures: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of (task, metric) pairs those of each task's first metric, the one that counts."""
    first: dict[str, str] = {}
    for task, metric in measures:
        first.setdefault(task, metric)
    return list(first.items())


class Log(Generic[S]):
    """A run's cells on disk, a line each, as they are found: what is in it isn't measured again.

    The first line is what the run is of. Raises ClasError if the file is of another one.
    """

    def __init__(self, path: str | Path, split: type[S], about: Mapping[str, Any]) -> None:
        self._path = Path(path)
        self.about = about
        self.cells: list[Cell[S]] = []
        if self._path.exists() and self._path.stat().st_size:
            self._read(split)
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._append([{"format": _FORMAT, "about": about}])

    def add(self, cells: Iterable[Cell[S]]) -> None:
        """Write cells down, at once."""
        new = list(cells)
        self._append([_cell_dict(cell) for cell in new])
        self.cells += new

    def open_columns(self, columns: Sequence[Column[S]]) -> tuple[Column[S], ...]:
        """Those columns of which a row is still missing."""
        known = {(c.row, c.scores.task, c.scores.language, c.scores.keys) for c in self.cells}
        return tuple(
            column
            for column in columns
            if any(
                (row.name, column.task.name, column.items.language, column.items.keys) not in known
                for row in column.rows
            )
        )

    def results(self, columns: Sequence[Column[S]]) -> Results[S]:
        """The cells of these columns; of one that was measured twice, the second."""
        wanted = {
            (row.name, column.task.name, column.items.language, column.items.keys)
            for column in columns
            for row in column.rows
        }
        found = {
            (cell.row, s.task, s.metric, s.language): cell
            for cell in self.cells
            for s in [cell.scores]
            if (cell.row, s.task, s.language, s.keys) in wanted
        }
        return Results(tuple(found.values()), self.about)

    def _read(self, split: type[S]) -> None:
        text = self._path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a killed run may leave half a line
        first, *rest = whole.removesuffix("\n").split("\n")
        head = _json(first, self._path)
        if not isinstance(head, dict) or head.get("format") != _FORMAT:
            raise ClasError(f"{self._path} holds no results: choose another file.")
        if differing := [k for k in _IDENTITY if head["about"].get(k) != self.about.get(k)]:
            raise ClasError(
                f"{self._path} is of a run with other {', '.join(differing)}: choose another file."
            )
        before, now = head["about"].get(_PARTS, {}), self.about.get(_PARTS, {})
        if other := [name for name in before.keys() & now.keys() if before[name] != now[name]]:
            raise ClasError(
                f"{self._path} is of another text for {min(other)}: choose another file."
            )
        self.about = {**self.about, "date": head["about"].get("date")}
        self.cells = [_cell(_json(line, self._path), split) for line in rest]
        if whole != text:
            with replacing(self._path) as scratch:
                scratch.write_text(whole, encoding="utf-8")

    def _append(self, records: list[dict[str, Any]]) -> None:
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))


# What must be the same of a task in a language: a log may hold some of them only.
_PARTS = "texts"
_IDENTITY = ("model", "weights", "dtype", "atlas", "split", "rows", "prompting")


def describe(
    lm: LanguageModel, atlas: Atlas, split: type[Split], columns: Sequence[Column[Any]]
) -> dict[str, Any]:
    """What a run is of, as plain data: enough to repeat it."""
    rows = dict.fromkeys(row for column in columns for row in column.rows)
    return {
        "model": lm.name,
        "revision": lm.revision,
        "weights": fingerprint(lm),
        "layers": lm.num_layers,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "atlas": {"languages": list(atlas.languages), **atlas.meta},
        "split": split.name,
        "prompting": [vars(one) for one in dict.fromkeys(column.prompting for column in columns)],
        "rows": [_plain(row.as_dict()) for row in rows],
        "items": {
            f"{column.task.name} {column.items.language}": len(column.items) for column in columns
        },
        _PARTS: {
            f"{column.task.name} {column.items.language}": _digest(column.items)
            for column in columns
        },
        "device": str(lm.device),
        "versions": {
            "clas-studio": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "numpy")},
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _digest(items: Items[Any]) -> str:
    """Of the first item: tells the same task on another text, for any number of items."""
    return hashlib.sha256(repr((items.prefix, items.items[0])).encode()).hexdigest()[:16]


def collect(
    log: Log[S] | None, found: Iterator[tuple[Cell[S], ...]]
) -> Iterator[tuple[Cell[S], ...]]:
    """Pass cells on, each written down first."""
    for cells in found:
        if log is not None:
            log.add(cells)
        yield cells


def _cell_dict(cell: Cell[Any]) -> dict[str, Any]:
    return {"row": cell.row, **cell.scores.as_dict()}


def _cell(data: Mapping[str, Any], split: type[S]) -> Cell[S]:
    scores = {name: value for name, value in data.items() if name != "row"}
    return Cell(data["row"], only(split, Scores.from_dict(scores)))


def _plain(value: Any) -> Any:
    """`value` as it comes back from JSON: tuples as lists."""
    return json.loads(json.dumps(value))


def _json(text: str, path: str | Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ClasError(f"{path} is damaged: {error.msg}. Choose another file.") from error
