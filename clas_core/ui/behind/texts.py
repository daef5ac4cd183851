"""What is kept for another day: texts brought to a page on one's own computer, and measurements."""

from __future__ import annotations

import json
from pathlib import Path

from ...atlas.cache import cache_folder
from ...errors import ClasError
from ...paths import replacing
from ...text.corpus import ParallelCorpus
from .disk import make_room, mark_used

TEXTS, MEASUREMENTS = "texts", "measurements"


def kept_folders() -> list[Path]:
    """Where own texts and logs of measurements are, which share a budget."""
    return [cache_folder() / TEXTS, cache_folder() / MEASUREMENTS]


def keep_text(corpus: ParallelCorpus, name: str, most: int) -> None:
    """Write `corpus`, which came from the file `name`, for `kept_text` to find.

    What is kept takes `most` bytes then: texts and measurements not used for long make room.
    """
    path = cache_folder() / TEXTS / corpus.fingerprint / f"{name}.jsonl"
    rows = zip(*corpus.sentences.values())
    lines = [json.dumps(dict(zip(corpus.languages, row)), ensure_ascii=False) for row in rows]
    with replacing(path) as scratch:
        scratch.write_text("\n".join(lines) + "\n", "utf-8")
    make_room(kept_folders(), most, {path})


def name_of_text(fingerprint: str) -> str:
    """The file's name of the text with this fingerprint; empty if it isn't kept."""
    found = next((cache_folder() / TEXTS / fingerprint).glob("*.jsonl"), None)
    return "" if found is None else found.name.removesuffix(".jsonl")


def kept_text(fingerprint: str) -> tuple[ParallelCorpus, str]:
    """The text with this fingerprint, and its file's name. Raises ClasError if it isn't there."""
    for path in (cache_folder() / TEXTS / fingerprint).glob("*.jsonl"):
        corpus = ParallelCorpus.load(path)
        if corpus.fingerprint == fingerprint:
            mark_used(path)
            return corpus, path.name.removesuffix(".jsonl")
    raise ClasError("The text that this was measured on isn't kept any more: bring it again.")
