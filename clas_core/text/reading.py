"""Which form parallel text is in, and its reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ClasError
from .files import ENDINGS, common_name, find_pair, read_files, read_folder
from .hub import read_hub
from .languages import canonical_codes, is_code
from .raw import RawCorpus, too_long
from .tables import read_csv, read_jsonl, read_tsv

FORMS = (
    "a .tsv, .csv or .jsonl file, a folder or files with one <code>.txt per language, or hub:..."
)

_TABLES = {".tsv": read_tsv, ".csv": read_csv, ".jsonl": read_jsonl}
_ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar")

TextSource = str | Path | Sequence[str | Path]


def read(source: TextSource, max_bytes: int | None = None) -> RawCorpus:
    """The text at `source`, under canonical codes (`languages.canonical_codes`).

    `source` is a table (.tsv, .csv, .jsonl), a folder or a list of files with one language each
    (`files`), one file or the stem of a Moses pair, or a data set of the hub (`hub`). `max_bytes`
    limits the files, and what is unpacked from them. Raises `ClasError` where nothing can be read;
    problems in what was read are listed in the result.
    """
    try:
        raw = _read(source, max_bytes)
    except OSError as error:  # no permission, a folder for a file, a name too long
        reason = error.strerror or "the system refuses"
        raise ClasError(f"The text can't be read ({reason}); give {FORMS}.") from error
    if any(not is_code(column.code) for column in raw.columns):
        return raw  # a first row that holds no codes: `checks.find_errors` says so
    codes = canonical_codes(column.code for column in raw.columns)
    columns = tuple(replace(column, code=codes[column.code]) for column in raw.columns)
    return replace(raw, columns=columns)


def _read(source: TextSource, max_bytes: int | None) -> RawCorpus:
    if isinstance(source, str) and source.startswith("hub:"):
        return read_hub(source)
    paths = [Path(p) for p in ([source] if isinstance(source, str | Path) else source)]
    if not paths:
        raise ClasError(f"There is no file; give {FORMS}.")
    for path in paths:
        if path.suffix.lower() in _ARCHIVES:
            raise ClasError(f"{path.name} is an archive; unpack it and give the files in it.")
    _check_size(paths, max_bytes)
    if len(paths) > 1:
        return read_files(common_name(paths), paths, max_bytes)
    (path,) = paths
    if path.is_dir():
        return read_folder(path, max_bytes)
    if path.suffix.lower() in _TABLES and path.is_file():
        return _TABLES[path.suffix.lower()](path)
    if pair := find_pair(path):
        _check_size(pair, max_bytes)
        return read_files(common_name(pair), pair, max_bytes)
    if not path.exists():
        raise ClasError(f"There is no file or folder {path}; give {FORMS}.")
    if path.suffix.lower() not in ENDINGS:
        raise ClasError(f"{path.name} is not in a form that can be read; give {FORMS}.")
    return read_files(path.stem, paths, max_bytes)


def _check_size(paths: Sequence[Path], max_bytes: int | None) -> None:
    files = [file for path in paths for file in (path.iterdir() if path.is_dir() else [path])]
    size = sum(file.stat().st_size for file in files if file.is_file())
    if max_bytes is not None and size > max_bytes:
        raise too_long(size, max_bytes)
