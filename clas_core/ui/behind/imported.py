"""Neurons and vectors that others published, in place of the measured ones."""

from __future__ import annotations

from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...atlas.atlas import Atlas
from ...errors import ClasError
from ...steering.published import PublishedNeurons, PublishedVectors, read_neurons, read_vectors
from .studio import Studio


def with_published(studio: Studio, path: str, codes: str) -> Studio:
    """`studio` with the neurons or the vectors of a file, for the languages that both have.

    `codes` are the languages of a torch file of neurons, in its order. Neurons take the part of
    the measured language-specific ones, vectors that of the mean residuals (DiffMean).

    Raises ClasError if the file is another's, of another model, or shares no two languages.
    """
    if studio.choice.published:
        raise ClasError("Published ones are in use already: open the model as measured first.")
    found = _read(path, codes, studio.atlas.widths)
    common = [code for code in studio.codes if code in found.languages]
    if len(common) < 2:
        raise ClasError(
            f"The file is of {', '.join(found.languages)}: measure at least two of these first."
        )
    atlas = _subset(studio.atlas, common)
    choice = replace(
        studio.choice,
        corpus=studio.corpus.subset(common),
        whole=studio.choice.whole and len(common) == len(studio.codes),
        published=Path(path).name,
        digest=sha256(Path(path).read_bytes()).hexdigest()[:16],
    )
    neurons = None
    if isinstance(found, PublishedNeurons):
        neurons = found.matched(atlas)
    else:
        atlas = replace(atlas, residual=_residual(found, atlas))
    same = len(common) == len(studio.codes)
    return Studio(
        studio.lm,
        choice,
        atlas,
        profile=studio.profile,
        gate=studio.gate,
        kept=studio.kept,
        neurons=neurons,
        # One that reads from afar does so for its own studio.
        mapper=studio.mapper if same and not studio.calls.forks else None,
        calls=studio.calls,
        map_sentences=len(studio.mapper.corpus),
        decoder=studio.decoder,
    )


def _read(path: str, codes: str, widths: tuple[int, ...]) -> PublishedNeurons | PublishedVectors:
    if path.endswith(".safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                names = set(file.keys())
        except (OSError, SafetensorError) as error:
            raise ClasError(f"{Path(path).name} can't be read: choose another file.") from error
        return PublishedVectors.load(path) if "vectors" in names else PublishedNeurons.load(path)
    listed = codes.replace(",", " ").split()
    return read_neurons(path, listed, widths) if listed else read_vectors(path)


def _residual(found: PublishedVectors, atlas: Atlas) -> torch.Tensor:
    vectors = torch.stack([found.of(code) for code in atlas.languages], dim=1)
    if vectors.shape != atlas.residual.shape:
        raise ClasError(
            f"These vectors are of {len(vectors)} layers of size {vectors.shape[-1]}, the model "
            f"has {atlas.num_layers} of size {atlas.residual.shape[-1]}: choose the file of this "
            "model."
        )
    return vectors


def _subset(atlas: Atlas, codes: list[str]) -> Atlas:
    """The languages `codes` of an atlas."""
    rows = [atlas.index(code) for code in codes]
    values = {field.name: getattr(atlas, field.name) for field in fields(atlas)}
    tensors: dict[str, Any] = {
        name: value[rows] if name == "tokens" else value[:, rows]
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }
    return replace(atlas, languages=tuple(codes), **tensors)
