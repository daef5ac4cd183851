"""Data sets of the Hugging Face hub, through the datasets library (extra `hub`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ClasError


@contextmanager
def datasets_of_the_hub(what: str) -> Iterator[Any]:
    """The datasets library. `what` is said to be unreadable if it raises what it does for no
    network and for an unknown repository, configuration or split: a ClasError then."""
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
