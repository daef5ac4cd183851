"""What a visitor can choose from: models, texts, and what was measured before."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ...atlas.cache import KeptAtlas, list_cached
from ...errors import ClasError
from ...model.sources import installed
from ...paths import ASSETS
from ...text.corpus import BUNDLED, ParallelCorpus
from ...text.report import CorpusReport, check_corpus
from .choice import Choice, is_local, key_of, parse_model
from .imported import with_published
from .shelf import Shelf
from .studio import Studio
from .texts import keep_text, kept_text, name_of_text

MOST = 50  # kept atlases that a list shows


@dataclass(frozen=True)
class _Entry:
    """Something that opens at once: its model as one names it, what the list says, its choice."""

    model: str
    label: str
    find: Callable[[], Choice]


class Library:
    """Lists nothing that the profile doesn't allow, and no visitor's own text to another."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def models(self) -> list[str]:
        """Names to choose from: the first model, the profile's list, the ones used before."""
        listed = [name.partition("@")[0] for name in self._shelf.profile.models if "*" not in name]
        used = [entry.model for entry in self._known().values()]
        here = installed() if self._is_private else ()
        names = [self._shelf.first.choice.title, *listed, *here, *used]
        return [name for name in dict.fromkeys(names) if name != "local"]

    def choices(self) -> list[tuple[str, str]]:
        """(what to show, key) of all that opens at once, the first model included."""
        return [(entry.label, key) for key, entry in self._known().items()]

    def choice(self, key: Any) -> Choice:
        """What was measured under this key."""
        known = self._known()
        if not isinstance(key, str) or key not in known:
            raise ClasError("This is not measured any more: choose it again.")
        return known[key].find()

    def read(self, name: Any, paths: Any) -> ParallelCorpus:
        """The bundled text of that name, or the uploaded one. Raises ClasError if there is none."""
        if name in BUNDLED:
            return ParallelCorpus.bundled(name)
        return ParallelCorpus.load(self._files(paths), self._most_bytes)

    def report(self, name: Any, paths: Any) -> CorpusReport:
        """What there is to say about that text."""
        if name in BUNDLED:
            return check_corpus(ASSETS / "corpora" / f"{name}.tsv")
        return check_corpus(self._files(paths), self._most_bytes)

    def choose(self, model: Any, name: Any, paths: Any, languages: Any) -> Choice:
        """The choice that the tab's controls ask for. Raises ClasError if it isn't open to all."""
        source, revision = parse_model(model)
        revision = self._shelf.check(source, revision)
        corpus = self.read(name, paths)
        title = corpus.name if corpus.is_bundled else _name_of(paths)
        chosen = corpus.subset(languages or None)
        if len(chosen.languages) < 2:
            raise ClasError("Choose at least two languages: steering compares them.")
        whole = len(chosen.languages) == len(corpus.languages)
        return Choice(source, revision, title, chosen, whole)

    @property
    def _most_bytes(self) -> int:
        return self._shelf.profile.uploads * 10**6

    def _files(self, paths: Any) -> list[str]:
        if not self._shelf.profile.uploads:
            raise ClasError("Here the bundled texts can be measured: choose one of them.")
        if not isinstance(paths, list) or not paths:
            raise ClasError("Add your files first, or choose one of the bundled texts.")
        return paths

    def import_published(self, key: Any, paths: Any, codes: Any) -> Studio:
        """The visitor's model with what a file of others holds."""
        path = self._files(paths if isinstance(paths, list) else [paths] if paths else [])[0]
        studio = with_published(self._shelf.get(key), path, codes if isinstance(codes, str) else "")
        self._shelf.add(studio)
        return studio

    def keep(self, choice: Choice) -> None:
        """Keep a text of one's own on one's own computer, to open it again another day."""
        if self._is_private and not choice.corpus.is_bundled:
            keep_text(choice.corpus, choice.name, self._shelf.profile.disk_mb * 10**6)

    @property
    def _is_private(self) -> bool:
        """Whether the page is for one person, on their own computer."""
        return "local" in self._shelf.profile.models

    def _known(self) -> dict[str, _Entry]:
        """What is open, and then what is on disk, the last used first."""
        found: dict[str, _Entry] = {}
        for studio in self._shelf.studios:
            choice = studio.choice
            public = choice.corpus.is_bundled and not is_local(choice.model)
            if choice.published or not (public or self._is_private):
                continue
            key = replace(choice, revision=studio.lm.revision).key
            label = _label(choice.title, choice.name, choice.corpus.languages)
            found[key] = _Entry(choice.title, label, partial(_same, choice))
        for kept in list_cached()[:MOST]:
            entry = self._entry(kept)
            if entry is not None:
                found.setdefault(*entry)
        return found

    def _entry(self, kept: KeptAtlas) -> tuple[str, _Entry] | None:
        """A kept atlas, if its model and its text can still be opened here."""
        meta = kept.meta
        model, name = str(meta.get("model")), str(meta.get("corpus"))
        revision, fingerprint = meta.get("revision"), str(meta.get("corpus_fingerprint"))
        try:
            self._shelf.check(model, revision)
        except ClasError:
            return None
        # A model from memory has neither revision nor place, and can't be found again.
        there = os.path.exists(model) if is_local(model) else revision or model in installed()
        bundled = _is_bundled(name, kept.languages, fingerprint)
        own = name_of_text(fingerprint) if self._is_private and not bundled else ""
        if not there or not (bundled or own):
            return None

        def find() -> Choice:
            if own:
                corpus, title = kept_text(fingerprint)
                return Choice(model, revision, title, corpus)
            text = ParallelCorpus.bundled(name)
            whole = len(text.languages) == len(kept.languages)
            return Choice(model, revision, name, text.subset(kept.languages), whole)

        full = f"{model}@{revision}" if revision else model
        label = _label(full[: len(model) + 13], name, kept.languages)
        return key_of(model, revision, fingerprint, own), _Entry(full, label, find)


def _same(choice: Choice) -> Choice:
    return choice


def _name_of(paths: Sequence[str]) -> str:
    """What a visitor's own text is called: by its first file, and never as a bundled text is."""
    first = Path(paths[0]).name
    if len(paths) > 1:
        return f"{first} and {len(paths) - 1} more"
    return f"{first} of your own" if first in BUNDLED else first


@lru_cache(maxsize=256)
def _is_bundled(name: str, languages: tuple[str, ...], fingerprint: str) -> bool:
    """Whether these are the sentences of the bundled text of that name, in these languages."""
    try:
        return ParallelCorpus.bundled(name).subset(languages).fingerprint == fingerprint
    except ClasError:
        return False


def _label(model: str, text: str, languages: Sequence[str]) -> str:
    return f"{model}, {text}, {len(languages)} languages"
