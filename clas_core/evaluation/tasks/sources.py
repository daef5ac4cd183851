"""Benchmark files as they are published: a local folder, or the hub by the datasets library."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import ClasError
from ...text.hub_library import hub_library
from ...text.languages import canonical_codes
from ...text.raw import parse_json, read_text

Row = Mapping[str, Any]
HUB = "hub"  # a source: the benchmark's own repository; "hub:owner/name" another one like it


def is_hub(source: str) -> bool:
    """Whether a source is a data set of the hub, not a folder."""
    return source == HUB or source.startswith(HUB + ":")


def hub_rows(source: str, repo: str, config: str, split: str) -> list[Row]:
    """The rows of a data set's `split`. Raises ClasError if it can't be had."""
    repo = _repo(source, repo)
    with hub_library(f"{repo} ({config}, {split})") as datasets:
        return list(datasets.load_dataset(repo, config, split=split))


def hub_configs(source: str, repo: str) -> list[str]:
    """The names of a data set's configurations. Raises ClasError if it can't be had."""
    repo = _repo(source, repo)
    with hub_library(repo) as datasets:
        return list(datasets.get_dataset_config_names(repo))


def _repo(source: str, repo: str) -> str:
    return source.removeprefix(HUB).removeprefix(":") or repo


def language_files(folder: str, pattern: str) -> dict[str, Path]:
    """The files in `folder`, or below it, that `pattern` fits, by language.

    `pattern` has one `*`, where the language's code stands. Raises ClasError if there are none.
    """
    before, after = Path(pattern).name.split("*")
    found = {
        path.name[len(before) : len(path.name) - len(after)]: path
        for path in sorted(Path(folder).rglob(pattern))
    }
    if not found:
        raise ClasError(f"{folder} holds no file {pattern}, where * is a language's code.")
    return {code: found[spelling] for spelling, code in canonical_codes(found).items()}


def find_file(folder: str, *names: str) -> Path:
    """The first of `names` in `folder` or below it. Raises ClasError if there is none."""
    for name in names:
        for path in sorted(Path(folder).rglob(name)):
            return path
    raise ClasError(f"{folder} holds no {' or '.join(names)}.")


@lru_cache(maxsize=64)
def read_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl file, or of a .tsv file with a first row of names and no quoting.

    Raises ClasError for what is not that.
    """
    text = read_text(path)
    if path.suffix == ".tsv":
        return list(csv.DictReader(text.split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(parse_json(line))
            except ClasError as error:
                raise ClasError(f"{path.name}, line {number} is {error}") from error
            if not isinstance(rows[-1], dict):
                raise ClasError(f"{path.name}, line {number} is not an object of fields.")
    return rows


def value(row: Row, name: str, where: str) -> Any:
    """`row[name]`; a ClasError that tells what is there if it's missing."""
    if row.get(name) is None:
        known = ", ".join(str(key) for key in row if key) or "none"
        raise ClasError(f"{where}: a row has no {name!r}, only {known}.")
    return row[name]


def choose(answers: Iterable[str], given: Any, where: str) -> int:
    """The index of `given` among `answers`. Raises ClasError if it is none of them."""
    answers = tuple(answers)
    if str(given) not in answers:
        raise ClasError(f"{where}: {str(given)[:40]!r} is no label; they are {', '.join(answers)}.")
    return answers.index(str(given))
