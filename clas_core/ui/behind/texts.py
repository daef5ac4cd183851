"""Texts brought to a page on one's own computer, kept beside what was measured on them."""

from __future__ import annotations

import json

from ...atlas.cache import cache_folder
from ...errors import ClasError
from ...paths import replacing
from ...text.corpus import ParallelCorpus


def keep_text(corpus: ParallelCorpus, name: str) -> None:
    """Write `corpus`, which came from the file `name`, for `kept_text` to find."""
    path = cache_folder() / "texts" / corpus.fingerprint / f"{name}.jsonl"
    rows = zip(*corpus.sentences.values())
    lines = [json.dumps(dict(zip(corpus.languages, row)), ensure_ascii=False) for row in rows]
    with replacing(path) as scratch:
        scratch.write_text("\n".join(lines) + "\n", "utf-8")


def name_of_text(fingerprint: str) -> str:
    """The file's name of the text with this fingerprint; empty if it isn't kept."""
    found = next((cache_folder() / "texts" / fingerprint).glob("*.jsonl"), None)
    return "" if found is None else found.name.removesuffix(".jsonl")


def kept_text(fingerprint: str) -> tuple[ParallelCorpus, str]:
    """The text with this fingerprint, and its file's name. Raises ClasError if it isn't there."""
    for path in (cache_folder() / "texts" / fingerprint).glob("*.jsonl"):
        corpus = ParallelCorpus.load(path)
        if corpus.fingerprint == fingerprint:
            return corpus, path.name.removesuffix(".jsonl")
    raise ClasError("The text that this was measured on isn't kept any more: bring it again.")
