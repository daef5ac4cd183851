"""A file for each language: folders and lists of text files, as benchmarks publish them.

en.txt, sw.txt                                       plain, aligned line by line
newstest2019-src.eng.txt, newstest2019-ref.swa.txt   NTREX-128
dev/eng_Latn.dev, devtest/swh_Latn.devtest           FLORES-101 and FLORES-200
dev/eng_Latn.jsonl, dev/eng_Latn.parquet             FLORES+, aligned by id
corpus.en-sw.en, corpus.en-sw.sw                     Moses and OPUS
xquad.en.json, xquad.hi.json                         XQuAD: the questions, aligned by id
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ClasError
from .languages import is_code, is_known
from .parquet import read_parquet
from .raw import Column, RawCorpus, parse_json, read_lines, read_text

ENDINGS = (".txt", ".dev", ".devtest", ".test", ".json", ".jsonl", ".parquet")

# Endings of other files that are language codes as well: .md no longer, but .sh, .tar and .log are.
_NO_LANGUAGE = {
    "tsv",
    "csv",
    "ids",
    "xml",
    "log",
    "sh",
    "py",
    "md",
    "tar",
    "zip",
    "bat",
    "doc",
    "pdf",
}
_SECOND_REFERENCE = re.compile(r"-ref-\d+\.")  # newstest2019-ref-2.spa.txt of NTREX


def language_of(path: Path) -> str | None:
    """The language code in a file's name, if it has one in a usual place."""
    parts = path.name.split(".")
    if path.suffix.lower() in ENDINGS:
        parts.pop()
        return parts[-1] if is_code(parts[-1]) else None
    code = parts[-1]
    known = is_code(code) and code.lower() not in _NO_LANGUAGE and is_known(code)
    return code if known and len(parts) > 1 else None


def read_folder(folder: Path, max_bytes: int | None = None) -> RawCorpus:
    """Every file of `folder` whose name tells its language, in the order of their names."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    seconds = [path for path in files if _SECOND_REFERENCE.search(path.name)]
    # A Moses ending stands alone, with no .txt to vouch for it, so it takes two of the same stem.
    stems = Counter(path.stem for path in files if _is_moses(path))
    chosen = [
        path
        for path in files
        if path not in seconds
        and language_of(path)
        and (path.suffix.lower() in ENDINGS or stems[path.stem] > 1)
    ]
    if not chosen:
        inner = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
        advice = f"; give one of its folders: {', '.join(inner[:8])}" if inner else ""
        raise ClasError(
            f"{folder} holds no text file named by its language, such as en.txt{advice}."
        )
    odd = [p.name for p in files if p.suffix.lower() in ENDINGS and not language_of(p)]
    raw = read_files(folder.name, chosen, max_bytes)
    warnings = [f"{name} was left out: its name tells no language, as sw.txt does." for name in odd]
    warnings += [f"{path.name} was left out: it is a second reference." for path in seconds]
    return replace(raw, warnings=(*warnings, *raw.warnings))


def find_pair(path: Path) -> list[Path]:
    """The files of the Moses corpus that `path` is one of, or whose stem it is; maybe none.

    Where the stem ends in a pair of codes, corpus.en-sw, only these two count.
    """
    stem = path.stem if path.is_file() and _is_moses(path) else path.name
    if path.suffix.lower() in ENDINGS or not path.parent.is_dir():
        return []
    files = {
        p.suffix[1:]: p for p in sorted(path.parent.iterdir()) if p.stem == stem and _is_moses(p)
    }
    pair = stem.rpartition(".")[2]
    named = [a for a in files for b in files if a != b and pair in (f"{a}-{b}", f"{b}-{a}")]
    return [files[code] for code in sorted(set(named), key=pair.find) or files]


def read_files(name: str, paths: Sequence[Path], max_bytes: int | None = None) -> RawCorpus:
    """One language a file, the code in its name; sentences are aligned by id or by order.

    `max_bytes` limits what is unpacked from compressed files. Raises `ClasError` where it is more;
    other problems are listed in the result.
    """
    left = max_bytes
    columns: list[Column] = []
    errors = []
    for path in paths:
        code = language_of(path)
        if code is None:
            errors.append(f"{path.name}: the name tells no language; call it sw.txt, for example.")
        elif other := next((column.file for column in columns if column.code == code), None):
            errors.append(f"{other} and {path.name} are both {code}; keep one.")
        else:
            try:
                if path.suffix.lower() == ".parquet":
                    column = read_parquet(path, code, left)
                    left = left and max(1, left - sum(map(len, column.lines)))
                else:
                    column = _READERS.get(path.suffix.lower(), _read_plain)(path, code)
                columns.append(column)
            except ClasError as error:
                errors.append(str(error))
    aligned, misfits = align(columns)
    return RawCorpus(name, tuple(aligned), (*errors, *misfits))


def common_name(paths: Sequence[Path]) -> str:
    """A name for several files: how their names all start, or how many they are."""
    start = os.path.commonprefix([path.name for path in paths])  # noqa: RUF071  # not of folders
    match = re.match(r"(.+)[._-]", start)
    return match[1] if match else f"{len(paths)} files"


def align(columns: Sequence[Column]) -> tuple[list[Column], list[str]]:
    """`columns` in the order of the first one's ids, and a sentence for each that lacks some.

    Columns without ids stay as they are.
    """
    if not columns or any(column.ids is None for column in columns):
        return list(columns), []
    aligned, errors = [], []
    wanted = list(columns[0].ids or ())
    for column in columns:
        rows = {name: row for row, name in enumerate(column.ids or ())}
        missing = [name for name in wanted if name not in rows]
        extra = len(rows.keys() - set(wanted))
        if missing or extra or len(rows) < len(column.lines):
            lack = f"lacks {len(missing)} of its sentences" if missing else f"has {extra} more"
            which = f" (id {missing[0][:40]})" if missing else ""
            if len(rows) < len(column.lines):
                lack, which = "has an id twice", ""
            errors.append(
                f"{column.file} doesn't fit {columns[0].file}: it {lack}{which}; give files of "
                "the same release and split."
            )
            continue
        order = [rows[name] for name in wanted]
        numbers = column.numbers and [column.numbers[row] for row in order]
        lines = [column.lines[row] for row in order]
        aligned.append(replace(column, lines=lines, numbers=numbers, ids=wanted))
    return aligned, errors


def _is_moses(path: Path) -> bool:
    return path.suffix.lower() not in ENDINGS and language_of(path) is not None


def _read_plain(path: Path, code: str) -> Column:
    lines = read_lines(path)
    return Column(code, lines, path.name, range(1, len(lines) + 1))


def _read_xquad(path: Path, code: str) -> Column:
    """The questions of a file in SQuAD's form; they have the same ids in every language."""
    try:
        articles = parse_json(read_text(path))["data"]
        questions = {
            item["id"]: item["question"]
            for article in articles
            for paragraph in article["paragraphs"]
            for item in paragraph["qas"]
        }
        if not all(isinstance(text, str) for pair in questions.items() for text in pair):
            raise TypeError("a question is no text")
    except (ClasError, KeyError, TypeError) as error:
        raise ClasError(
            f"{path.name} is not in XQuAD's form: data, paragraphs, qas, id and question."
        ) from error
    return Column(code, list(questions.values()), path.name, ids=list(questions))


def _read_flores_jsonl(path: Path, code: str) -> Column:
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = parse_json(line)
        except ClasError as error:
            raise ClasError(f"{path.name}, line {number}: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise ClasError(f'{path.name}, line {number}: expected an object with a "text".')
        rows.append(row)
    return _flores_column(path, code, rows, range(1, len(rows) + 1))


def _flores_column(
    path: Path, code: str, rows: Sequence[dict], numbers: Sequence[int] | None
) -> Column:
    named = all(isinstance(row.get("id"), str | int) for row in rows)
    ids = [str(row["id"]) for row in rows] if named else None
    return Column(code, [row["text"] for row in rows], path.name, numbers, ids)


_READERS = {
    ".json": _read_xquad,
    ".jsonl": _read_flores_jsonl,
}
