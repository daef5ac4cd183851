"""The page inside a notebook, on a model that is in memory there."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from ...atlas.atlas import Atlas
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...text.corpus import ParallelCorpus
from ..behind.choice import Choice
from ..behind.profile import Profile
from ..behind.studio import Studio
from .page import build, launch_options

_shown: WeakKeyDictionary[LanguageModel, Any] = WeakKeyDictionary()


def studio(
    lm: LanguageModel,
    corpus: ParallelCorpus | str | None = None,
    *,
    atlas: Atlas | None = None,
    port: int | None = None,
    height: int = 900,
) -> Any:
    """Open the page on a model in memory, and go on: the page is served from a thread.

    In a notebook (Jupyter, Colab) it shows below the cell, `height` pixels high; elsewhere its
    address is `local_url` of the app that is returned, whose `close()` ends it. Called again for
    the same model, the page before is closed. Behind the page it is found at which strengths each
    goal is seen, does best and breaks, which is kept.

    corpus: a parallel text or a bundled one's name; None is "village" for the embedded model and
        "everyday" for others. atlas: what was measured on it, so that it isn't measured again.
    port: None takes the first free one from 7860 on.

    Raises ClasError for an atlas of another model or text, and for a text of fewer than two
    languages.
    """
    if not isinstance(lm, LanguageModel):
        raise ClasError("Give a loaded model: clas.studio(clas.load(...)).")
    if corpus is None:
        corpus = "village" if lm.name == "village" else "everyday"
    if isinstance(corpus, str):
        corpus = ParallelCorpus.bundled(corpus)
    if len(corpus.languages) < 2:
        raise ClasError("Choose at least two languages: steering compares them.")
    if atlas is not None:
        atlas.check(lm)
        if atlas.meta.get("corpus_fingerprint", corpus.fingerprint) != corpus.fingerprint:
            raise ClasError(
                "The atlas is of another text: give the corpus that it was measured on."
            )
    whole = not corpus.is_bundled or (
        corpus.fingerprint == ParallelCorpus.bundled(corpus.name).fingerprint
    )
    choice = Choice(lm.name, lm.revision, corpus.name, corpus, whole)
    behind = Studio.around(lm, choice, Profile(), atlas=atlas)
    behind.warm_up()
    if (before := _shown.pop(lm, None)) is not None:
        before.close(verbose=False)
    page = build(behind)
    options = {**launch_options(behind), "server_port": port, "height": height}
    page.launch(**options, prevent_thread_lock=True, quiet=True)
    _shown[lm] = page
    close = page.close

    def close_all(verbose: bool = True) -> None:
        behind.over.set()  # the notebook goes on, and what nobody asks for any more must not
        close(verbose)

    page.close = close_all  # type: ignore[method-assign]
    behind.find_marks()
    return page
