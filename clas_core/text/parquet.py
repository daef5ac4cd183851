"""FLORES+ as parquet: the one compressed form that is read, by pyarrow (extra `hub`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ClasError
from .raw import Column, too_long


def read_parquet(path: Path, code: str, max_bytes: int | None = None) -> Column:
    """The column `text` of a parquet file, with its `id` if that is numbers or texts.

    A small file may unpack to any size: what its pages say they hold and what is read of them are
    both counted against `max_bytes`. Raises `ClasError` for more, and for a file in another form.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ClasError(
            f"Reading {path.name} needs another package: pip install 'clas-studio[hub]'."
        ) from error
    try:
        # Equal texts stay one text with many references: else a page of one would unpack to all.
        names = {"id", "text"}.intersection(parquet.read_schema(path).names)
        with parquet.ParquetFile(path, read_dictionary=sorted(names)) as file:
            texts, ids = _read_rows(path, file, max_bytes)
    except ClasError:
        raise
    except (ArrowException, OSError, ValueError, MemoryError) as error:
        raise ClasError(f"{path.name} is no parquet file that can be read.") from error
    return Column(code, texts, path.name, ids=ids)


def _read_rows(path: Path, file: Any, max_bytes: int | None) -> tuple[list[str], list[str] | None]:
    """The texts, and the ids where there are some for all."""
    from pyarrow import types

    fields = {field.name: _value_type(field.type) for field in file.schema_arrow}
    kind = fields.get("text")
    if kind is None or not (types.is_string(kind) or types.is_large_string(kind)):
        raise ClasError(f'{path.name} has no column "text".')
    kind = fields.get("id")
    has_ids = kind is not None and (types.is_string(kind) or types.is_integer(kind))
    names = ["text", "id"] if has_ids else ["text"]
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    said = sum(
        group.column(number).total_uncompressed_size
        for group in groups
        for number in range(group.num_columns)
        if group.column(number).path_in_schema in names
    )
    if max_bytes is not None and said > max_bytes:
        raise too_long(said, max_bytes)
    size = 0
    texts: list[str] = []
    ids: list[str] = []
    for batch in file.iter_batches(batch_size=256, columns=names):
        for row in range(batch.num_rows):
            found = [batch.column(name)[row].as_py() for name in names]
            if not isinstance(found[0], str):
                raise ClasError(f'{path.name}, row {len(texts) + 1}: the column "text" is empty.')
            size += sum(len(str(value).encode()) for value in found)
            if max_bytes is not None and size > max_bytes:
                raise too_long(size, max_bytes)
            texts.append(found[0])
            ids += map(str, found[1:])
    return texts, ids if has_ids else None


def _value_type(kind: Any) -> Any:
    """The type of a column's values, those of a dictionary for one that is kept as such."""
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind
