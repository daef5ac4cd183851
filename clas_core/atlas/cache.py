"""Measured atlases kept on disk, so that the same model and text are measured once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..paths import CantWrite
from ..text.corpus import ParallelCorpus
from .atlas import Atlas
from .fingerprint import fingerprint
from .measuring import VERSION, Progress
from .processes import joined
from .unfinished import CantResume, unfinished_files

_NAME = r"[0-9a-f]{32}\.(safetensors|unfinished(\.\d+)?)"
_OURS = re.compile(_NAME)  # others keep things in this folder too
_SCRATCH = re.compile(rf"\.{_NAME}\..+")  # where `replacing` writes
_ABANDONED = 3600.0  # seconds: nothing takes so long to write


@dataclass(frozen=True)
class KeptAtlas:
    """An atlas on disk, as its file's head tells it. `size` in bytes; `used`: last, in UTC."""

    path: Path
    languages: tuple[str, ...]
    meta: dict[str, Any]
    size: int
    used: datetime

    def open(self) -> Atlas:
        """The atlas, used now. Raises ClasError if its file is gone or broken."""
        return _open(self.path)

    def delete(self) -> None:
        """Remove its file; if it is gone already, all is well."""
        self.path.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where atlases are kept: CLAS_CACHE if that is set, else a folder of the user's cache."""
    if "CLAS_CACHE" in os.environ:
        return Path(os.environ["CLAS_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clas-studio"


def measure_cached(
    lm: LanguageModel,
    corpus: ParallelCorpus,
    *,
    folder: str | Path | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Atlas:
    """The kept atlas of this model and text, or else `Atlas.measure`, which is then kept.

    Kept by the model's fingerprint and dtype, the text with its languages, and how this version
    counts. Cut short, it goes on from where it was the next time. A file that can't be read is
    measured again, and one that can't be written isn't kept. Those used least recently make room
    (`make_room`), before and after. Of several processes, the first one's folder counts.
    """
    folder = cache_folder() if folder is None else Path(folder)
    key = _key(lm, corpus)
    path = folder / f"{key}.safetensors"
    with joined() as processes:
        processes.agree(key)
        atlas = processes.first(lambda: _opened(path))
        if atlas is None:
            unfinished = path.with_suffix(".unfinished")
            processes.first(partial(_prepare, unfinished))
            atlas = _measured(lm, corpus, unfinished, batch_size, progress)
            processes.first(partial(_keep, atlas, path))
    return atlas


def find_cached(lm: LanguageModel, corpus: ParallelCorpus) -> Atlas | None:
    """The kept atlas of this model and text; None where it isn't measured yet."""
    return _opened(cache_folder() / f"{_key(lm, corpus)}.safetensors")


def _prepare(unfinished: Path) -> None:
    for path in unfinished_files(unfinished):
        _mark_used(path)
    make_room(unfinished.parent)


def _keep(atlas: Atlas, path: Path) -> None:
    try:
        atlas.save(path)
    except CantWrite as error:  # it is measured, and good for as long as it is in memory
        logging.getLogger(__name__).warning("%s The measured atlas isn't kept.", error)
        return
    _mark_used(path)
    make_room(path.parent)


def _opened(path: Path) -> Atlas | None:
    """The atlas of this file; None if there is none, or it was broken, and is no more."""
    if path.is_file():
        try:
            return _open(path)
        except ClasError:
            path.unlink(missing_ok=True)
    return None


def _open(path: Path) -> Atlas:
    atlas = Atlas.load(path)
    _mark_used(path)
    return atlas


def _mark_used(path: Path) -> None:
    now = time.time_ns()  # finer than the file system's own clock
    with suppress(OSError):  # another process made room, or the folder may only be read
        os.utime(path, ns=(now, now))


def _measured(
    lm: LanguageModel,
    corpus: ParallelCorpus,
    unfinished: Path,
    batch_size: int,
    progress: Progress | None,
) -> Atlas:
    """Measured on from where it was left; from the beginning, if that is of no use any more."""
    measure = partial(
        Atlas.measure, lm, corpus, batch_size=batch_size, progress=progress, resume=unfinished
    )
    try:
        return measure()
    except CantResume:
        for path in unfinished_files(unfinished):
            path.unlink(missing_ok=True)
        return measure()


def list_cached(folder: str | Path | None = None) -> list[KeptAtlas]:
    """All kept atlases, the last used first."""
    return sorted(_kept(folder), key=lambda atlas: atlas.used, reverse=True)


def cache_bytes() -> int:
    """How much may be kept: CLAS_CACHE_BYTES, or 2 GB. Raises ClasError if that is no number."""
    text = os.environ.get("CLAS_CACHE_BYTES", "2000000000")
    if not text.isdecimal():
        raise ClasError(f"CLAS_CACHE_BYTES is a number of bytes, such as 2000000000, not {text!r}.")
    return int(text)


def make_room(folder: str | Path | None = None, most: int | None = None) -> None:
    """Remove kept atlases and beginnings of some, until they take `most` bytes (`cache_bytes`).

    Those used least recently go first; the last used one stays, whatever it takes. What a killed
    process was writing goes too.
    """
    folder = cache_folder() if folder is None else Path(folder)
    most = cache_bytes() if most is None else most
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # another process makes room too
            facts = path.stat()
            if _SCRATCH.fullmatch(path.name) and time.time() - facts.st_mtime > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
            elif _OURS.fullmatch(path.name):
                found.append((facts.st_mtime_ns, facts.st_size, path))
    taken = 0
    for index, (_, size, path) in enumerate(sorted(found, reverse=True)):
        taken += size
        if index and taken > most:
            path.unlink(missing_ok=True)
            taken -= size


def _kept(folder: str | Path | None) -> Iterator[KeptAtlas]:
    for path in Path(cache_folder() if folder is None else folder).glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                head = file.metadata() or {}
            languages, meta = json.loads(head["languages"]), json.loads(head["meta"])
            facts = path.stat()
        except (OSError, SafetensorError, KeyError, ValueError):
            continue  # not ours, or gone
        when = datetime.fromtimestamp(facts.st_mtime, timezone.utc)
        yield KeptAtlas(path, tuple(languages), meta, facts.st_size, when)


def _key(lm: LanguageModel, corpus: ParallelCorpus) -> str:
    parts = [str(fingerprint(lm)), str(lm.dtype), corpus.fingerprint, str(VERSION)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
