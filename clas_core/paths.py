"""Where bundled files live, and how files are read and written: whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .errors import ClasError

_PACKAGE = Path(__file__).resolve().parent

# Beside the package in a checkout, inside it in an installed wheel.
ASSETS = next(
    (folder for folder in (_PACKAGE.parent / "assets", _PACKAGE / "assets") if folder.is_dir()),
    _PACKAGE.parent / "assets",
)


class CantWrite(ClasError):
    """A file couldn't be written, as on a full disk; what was there before still is."""


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Raise CantWrite for what a full disk, or a place that isn't ours, raises inside.

    `what` is being written: a path, or words for it.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CantWrite(f"Can't write {what}: {_hindrance(error)}") from error


_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_is_full(error: BaseException) -> bool:
    """Whether the system said so; safetensors tells its error by the number in the text."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(f"(os error {number})" in str(error) for number in _FULL)


def _hindrance(error: OSError | SafetensorError) -> str:
    if disk_is_full(error):
        return "the disk is full. Make room, then do it again."
    said = error.strerror if isinstance(error, OSError) else None
    return f"{said or error}."


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and move what was written there to `path` at the end.

    File or directory. After an error nothing is left behind and `path` is as it was, so a reader
    never sees half a file. A directory replaces only a missing or an empty one. Raises CantWrite
    where the system refuses.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield scratch / path.name
            if path.is_dir():
                path.rmdir()
            os.replace(scratch / path.name, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def reading(what: str, path: str | Path) -> Iterator[None]:
    """Raise a ClasError for whatever a missing, foreign or damaged file of ours raises inside.

    `what` the file should hold, with its article: "an atlas".
    """
    try:
        yield
    except ClasError:
        raise
    except (OSError, SafetensorError) as error:
        raise ClasError(f"Can't read {what} from {path}: {error}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise ClasError(f"Can't read {what} from {path}: the file is damaged.") from error
