"""One file that holds all languages side by side: .tsv, .csv, .jsonl."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ..errors import ClasError
from .raw import Column, RawCorpus, parse_json, read_lines, read_text, shorten

_Row = tuple[int, Sequence[str]]  # number of the line it starts at, cells


def read_tsv(path: Path) -> RawCorpus:
    """The first row holds the language codes, each further row one sentence in all of them.

    Quotation marks are text, so a sentence can hold neither a tab nor a line break.
    """
    rows = [(number, line.split("\t")) for number, line in enumerate(read_lines(path), start=1)]
    return _read_rows(path, rows, "separate the sentences by one tab each")


def read_csv(path: Path) -> RawCorpus:
    """As `read_tsv`, but commas part the cells (semicolons if the first row has only those).

    A cell may stand in quotation marks and then hold anything, a doubled mark for each of its own.
    Empty lines are skipped, as spreadsheets do.
    """
    text = read_text(path)
    first = text.partition("\n")[0]
    delimiter = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[_Row] = []
    start = 1
    try:
        for row in reader:
            rows.append((start, row))
            start = reader.line_num + 1
    except csv.Error as error:
        raise ClasError(f"{path.name}, line {start}: not valid CSV ({error}).") from error
    filled = [(number, row) for number, row in rows if row]
    while filled and not any(cell.strip() for cell in filled[-1][1]):
        filled.pop()
    hint = f'put a sentence that holds "{delimiter}" in quotation marks'
    return _read_rows(path, filled, hint)


def _read_rows(path: Path, rows: Sequence[_Row], hint: str) -> RawCorpus:
    codes = [cell.strip() for cell in rows[0][1]] if rows else []
    if len(set(codes)) < len(codes):
        raise ClasError(f"{path.name}: the first row names a language twice: {', '.join(codes)}.")
    good = [(number, row) for number, row in rows[1:] if len(row) == len(codes)]
    errors = [
        f"{path.name}, line {number}: {len(row)} columns, but the first row names {len(codes)} "
        f"languages; {hint}."
        for number, row in rows[1:]
        if len(row) != len(codes)
    ]
    numbers = [number for number, _ in good]
    columns = [
        Column(code, [row[index] for _, row in good], path.name, numbers)
        for index, code in enumerate(codes)
    ]
    return RawCorpus(path.stem, tuple(columns), tuple(shorten(errors)))


def read_jsonl(path: Path) -> RawCorpus:
    """One object a line, {"en": "...", "sw": "..."}, or {"translation": {...}} round it."""
    numbers: list[int] = []
    rows: list[dict[str, str]] = []
    errors = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = _parse_row(line)
            if rows and row.keys() != rows[0].keys():
                raise ClasError(
                    f"languages {', '.join(row) or 'none'}, but line {numbers[0]} has "
                    f"{', '.join(rows[0]) or 'none'}; every line needs the same."
                )
        except ClasError as error:
            errors.append(f"{path.name}, line {number}: {error}")
        else:
            numbers.append(number)
            rows.append(row)
    columns = [
        Column(code, [row[code] for row in rows], path.name, numbers)
        for code in (rows[0] if rows else ())
    ]
    return RawCorpus(path.stem, tuple(columns), tuple(shorten(errors)))


def _parse_row(line: str) -> dict[str, str]:
    row = parse_json(line)
    if isinstance(row, dict) and isinstance(row.get("translation"), dict):
        row = row["translation"]
    if not isinstance(row, dict) or not all(isinstance(text, str) for text in row.values()):
        raise ClasError('expected an object of texts such as {"en": "Hello."}.')
    return row
