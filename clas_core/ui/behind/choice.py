"""What a visitor chooses: a model, and the parallel text that it is measured on."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import ClasError
from ...model.sources import BY_NAME
from ...text.corpus import ParallelCorpus

_HUB_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


@dataclass(frozen=True, eq=False)
class Choice:
    """A model and its text. `name` is the text's in a recipe: a bundled one, or a file's.

    Whether the text is bundled is `corpus.is_bundled`: a visitor may give a file any name.
    `corpus` holds the chosen languages alone; `whole` says whether these are all of the text's.
    `published`: the file whose neurons or vectors are used in place of the measured ones, with its
    `digest`.
    """

    model: str
    revision: str | None
    name: str
    corpus: ParallelCorpus
    whole: bool = True
    published: str = ""
    digest: str = ""

    @property
    def key(self) -> str:
        """12 hexadecimal digits that change with the model, the text and its languages.

        Of two visitors who bring the same sentences, each gets their own file's name.
        """
        own = "" if self.corpus.is_bundled else self.name
        return key_of(self.model, self.revision, self.corpus.fingerprint, own, self.digest)

    @property
    def title(self) -> str:
        """The model, its revision and what was published for it, as the page names them."""
        name = self.model if self.revision is None else f"{self.model}@{self.revision[:12]}"
        return f"{name} with {self.published}" if self.published else name

    @property
    def private(self) -> str:
        """Why a link to it opens only here, as a sentence; empty if it opens anywhere."""
        if is_local(self.model):
            return f"The model is on this computer alone: {self.model}."
        if self.published:
            return f"It uses what your file {self.published} holds, which a link can't say."
        if not self.corpus.is_bundled:
            return f"The parallel text is your file, {self.name}: whoever opens it needs that too."
        if not self.whole:
            codes = ", ".join(self.corpus.languages)
            return f"It was measured in {codes} alone, which a link can't say."
        return ""


def key_of(
    model: str, revision: str | None, fingerprint: str, own: str = "", digest: str = ""
) -> str:
    """12 hexadecimal digits that name a model with its text.

    `own`: the file's name of a text that isn't bundled; `digest`: of what was published.
    """
    content = json.dumps([model, revision, fingerprint, own, digest])
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def parse_model(text: object) -> tuple[str, str | None]:
    """A model and its revision: `village`, `owner/name`, `owner/name@revision`, a path."""
    if not isinstance(text, str) or not text.strip():
        raise ClasError("Choose a model, or paste a Hugging Face id such as owner/name.")
    text = text.strip().removeprefix("https://huggingface.co/").rstrip("/")
    if is_local(text):
        return str(Path(text).expanduser().absolute()), None
    model, _, revision = text.partition("@")
    if not _HUB_ID.fullmatch(model):
        raise ClasError(f"{text[:80]!r} is no model: paste an id such as owner/name.")
    return model, revision or None


def is_local(model: str) -> bool:
    """Whether it names a directory or a file of this computer."""
    looks = model.startswith(("/", "./", "../", "~")) or Path(model).is_absolute()
    return looks or (model not in BY_NAME and os.path.exists(model))
