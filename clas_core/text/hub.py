"""Parallel text from the Hugging Face hub, by the datasets library, an optional extra.

    hub:Helsinki-NLP/opus-100?config=en-sw&split=test            a `translation` column
    hub:owner/name?split=train                                   a column for each language
    hub:openlanguagedata/flores_plus?config=eng_Latn,swh_Latn&split=dev
                                                                 a configuration for each language
    hub:google/xquad?config=xquad.en,xquad.hi&split=validation   the same; `question` is the text
    hub:facebook/xnli?config=all_languages&column=premise        a named column

Options: config, split (default test), revision, column, rows (default 1000: rows are streamed, so
no more than these are fetched).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

from ..errors import ClasError
from .files import align
from .hub_library import hub_library
from .languages import is_code
from .raw import Column, RawCorpus

_SOURCE = re.compile(r"hub:(?P<repo>\w[\w.-]*(?:/\w[\w.-]*)?)(?:\?(?P<options>.*))?")
_OPTIONS = ("config", "split", "revision", "column", "rows")
_TEXTS = ("text", "sentence", "question")  # where a configuration holds one language
_PREFIX = "sentence_"  # FLORES-200 on the hub: sentence_eng_Latn
_NO_LANGUAGES = {"id", "idx", "uid", "url", "tag"}  # codes too, but rarely meant as such
_Row = Mapping[str, Any]


def read_hub(source: str) -> RawCorpus:
    """The parallel text that `source` names, in a form the module's documentation lists."""
    repo, options = _parse(source)
    column = options.get("column")
    rows = _whole(options.get("rows", "1000"))
    configs = options["config"].split(",") if "config" in options else [None]
    tables = {config: _fetch(repo, config, options, rows) for config in configs}
    if len(configs) > 1:
        columns = [_one(repo, str(config), table, column) for config, table in tables.items()]
    else:
        columns = _several(repo, tables[configs[0]], column)
    aligned, errors = align(columns)
    return RawCorpus(repo, tuple(aligned), tuple(errors))


def _parse(source: str) -> tuple[str, dict[str, str]]:
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise ClasError(
            f"{source[:80]!r} is no data set of the hub; write hub:owner/name?split=dev."
        )
    options = dict(parse_qsl(match["options"] or "", keep_blank_values=True))
    if unknown := options.keys() - set(_OPTIONS):
        raise ClasError(
            f"{match['repo']}: unknown option {', '.join(sorted(unknown))}; there are "
            f"{', '.join(_OPTIONS)}."
        )
    return match["repo"], options


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ClasError(f"rows={text[:20]} is not a number of rows; write rows=200, for example.")
    return int(text)


def _fetch(repo: str, config: str | None, options: Mapping[str, str], rows: int) -> list[_Row]:
    split, revision = options.get("split", "test"), options.get("revision")
    with hub_library(repo) as datasets:
        stream = datasets.load_dataset(repo, config, split=split, revision=revision, streaming=True)
        return list(islice(stream, rows))


def _several(repo: str, rows: Sequence[_Row], column: str | None) -> list[Column]:
    """All languages in each row: as texts of one column, or in columns of their own."""
    first = rows[0] if rows else {}
    column = column or ("translation" if "translation" in first else None)
    if column and isinstance(first.get(column), Mapping):
        rows = [row[column] for row in rows]
        names = {code: code for code in rows[0]}
    else:
        names = {key.removeprefix(_PREFIX): key for key in first}
        names = {c: k for c, k in names.items() if is_code(c) and c.lower() not in _NO_LANGUAGES}
    texts = {c: [row[key] for row in rows] for c, key in names.items()}
    texts = {c: lines for c, lines in texts.items() if all(isinstance(t, str) for t in lines)}
    if not texts:
        raise ClasError(
            f"{repo} has no column named by a language, only {', '.join(first) or 'none'}; name a "
            "configuration for each language, config=eng_Latn,swh_Latn, or a column."
        )
    return [Column(code, lines, repo) for code, lines in texts.items()]


def _one(repo: str, config: str, rows: Sequence[_Row], column: str | None) -> Column:
    """One language a configuration, its code at the end of the configuration's name."""
    first = rows[0] if rows else {}
    column = column or next((name for name in _TEXTS if name in first), None)
    if column is None or not all(isinstance(row.get(column), str) for row in rows):
        raise ClasError(
            f"{repo}, {config}: say which column holds the text by column=...; there are "
            f"{', '.join(first) or 'none'}."
        )
    ids = [str(row["id"]) for row in rows] if "id" in first else None
    lines = [row[column] for row in rows]
    return Column(config.rpartition(".")[2], lines, f"{repo}, {config}", ids=ids)
