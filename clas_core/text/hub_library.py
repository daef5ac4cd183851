"""The datasets library (extra `hub`), which reads the Hugging Face hub; its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ClasError


@contextmanager
def hub_library(what: str) -> Iterator[Any]:
    """The module `datasets`, for the length of a `with`.

    `what` names the data set. Raises a ClasError that says it can't be read for what the library
    raises without network or for an unknown repository, configuration or split.
    """
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise ClasError(
            "Data sets of the hub need another package: pip install 'clas-studio[hub]'."
        ) from error
    try:
        yield datasets
    except (DatasetsError, OSError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0][:300].rstrip(".")
        raise ClasError(f"The data set {what} can't be read: {first}.") from error
