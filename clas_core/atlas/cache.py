"""Measured atlases kept on disk, so that the same model and text are measured once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..text.corpus import ParallelCorpus
from .atlas import Atlas
from .fingerprint import fingerprint
from .measuring import VERSION, CantResume, Progress


@dataclass(frozen=True)
class KeptAtlas:
    """An atlas on disk, as its file's head tells it. `size` in bytes; `measured` in UTC."""

    path: Path
    languages: tuple[str, ...]
    meta: dict[str, Any]
    size: int
    measured: datetime

    def open(self) -> Atlas:
        return Atlas.load(self.path)

    def delete(self) -> None:
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
    counts.
    Cut short, it goes on from where it was the next time. A file that can't be read is measured
    again.
    """
    folder = cache_folder() if folder is None else Path(folder)
    path = folder / f"{_key(lm, corpus)}.safetensors"
    if path.is_file():
        try:
            return Atlas.load(path)
        except ClasError:
            path.unlink()
    unfinished = path.with_suffix(".unfinished")
    try:
        atlas = Atlas.measure(
            lm, corpus, batch_size=batch_size, progress=progress, resume=unfinished
        )
    except CantResume:
        unfinished.unlink()
        atlas = Atlas.measure(
            lm, corpus, batch_size=batch_size, progress=progress, resume=unfinished
        )
    atlas.save(path)
    return atlas


def list_cached(folder: str | Path | None = None) -> list[KeptAtlas]:
    """All kept atlases, the newest first."""
    return sorted(_kept(folder), key=lambda atlas: atlas.measured, reverse=True)


def _kept(folder: str | Path | None) -> Iterator[KeptAtlas]:
    for path in Path(cache_folder() if folder is None else folder).glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                head = file.metadata() or {}
            languages, meta = json.loads(head["languages"]), json.loads(head["meta"])
        except (OSError, SafetensorError, KeyError, ValueError):
            continue  # not ours, or half gone
        facts = path.stat()
        when = datetime.fromtimestamp(facts.st_mtime, timezone.utc)
        yield KeptAtlas(path, tuple(languages), meta, facts.st_size, when)


def _key(lm: LanguageModel, corpus: ParallelCorpus) -> str:
    parts = [str(fingerprint(lm)), str(lm.dtype), corpus.fingerprint, str(VERSION)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
