"""Open the page on a GPU that is lent for a call at a time: ZeroGPU of Hugging Face."""

from __future__ import annotations

import logging

import torch

from ...atlas.fingerprint import settle
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...model.loading import load
from ...text.corpus import ParallelCorpus
from .calls import GPU, Forked
from .choice import Choice, parse_model
from .profile import Profile
from .studio import Studio


def open_lent(profile: Profile, gpu: GPU) -> Studio:
    """The profile's studio, whose calls run where `gpu` (`spaces.GPU`) lets them.

    All models of the profile are loaded now and put on the device, as none can be later; one that
    can't be had is left out, with a word in the log. Raises ClasError if that is the first one.
    """
    models: dict[tuple[str, str | None], LanguageModel] = {}
    for name in (profile.model, *profile.models):
        key = parse_model(name)
        try:
            lm = load(key[0], revision=key[1], device="cpu")
        except ClasError as error:
            if not models:
                raise
            logging.getLogger(__name__).warning("%s isn't offered: %s", name, error)
            continue
        settle(lm)  # on the device no weight can be read outside of a call
        models[key] = lm
    (model, revision), first = next(iter(models.items()))
    corpus = ParallelCorpus.bundled(profile.corpus)
    choice = Choice(model, revision, profile.corpus, corpus)
    studio = Studio.around(first, choice, profile, calls=Forked(gpu, models))
    if torch.cuda.is_available():
        for lm in models.values():
            lm.model.to("cuda")  # type: ignore[arg-type]
    return studio
