"""Language neurons and mean vectors that others found, read from their files as published.

Torch files are read with weights-only loading, which builds tensors and plain containers and runs
nothing, after a look at their size. `save` turns them into safetensors.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..atlas.atlas import Atlas
from ..atlas.selection import PARTIAL, SPECIFIC, OwnedNeurons, Selection
from ..errors import ClasError
from ..paths import reading, replacing
from .plan import LayerPlan, SteeringPlan

_BYTES = 128 * 2**20  # of a file
_ELEMENTS = 2**27  # of all that is made from a file: shapes may claim more than the file holds


@dataclass(frozen=True, eq=False)
class PublishedNeurons:
    """The neurons that a paper calls a language's own; a neuron may belong to several languages.

    Once matched with an atlas, Int-mu, LAPE and language arithmetic take them in place of a
    selection. CLAS and the Neurons tab take `recategorize`.

    belongs: [layers, languages, neurons] bool, False beyond the width of a narrower layer.
    widths: neurons of each layer.
    """

    belongs: torch.Tensor
    languages: tuple[str, ...]
    widths: tuple[int, ...]

    def neurons_of(self, language: str) -> torch.Tensor:
        """[layers, neurons] bool: the neurons of this language; others may have them too."""
        return self.belongs[:, _position(language, self.languages)]

    def matched(self, atlas: Atlas) -> PublishedNeurons:
        """These neurons with the atlas's languages in the atlas's order, as methods want them.

        Raises ClasError if the atlas is of a model of other sizes, or has languages without
        published neurons.
        """
        if self.widths != atlas.widths:
            raise ClasError(
                f"These neurons are of a model of {_sizes(self.widths)}, the atlas of one of "
                f"{_sizes(atlas.widths)}: measure the model that they were published for."
            )
        order = [_position(code, self.languages) for code in atlas.languages]
        return replace(self, belongs=self.belongs[:, order], languages=atlas.languages)

    def save(self, path: str | Path) -> None:
        """Write the neurons as one safetensors file."""
        _save(path, self.belongs, "neurons", languages=self.languages, widths=self.widths)

    @staticmethod
    def load(path: str | Path) -> PublishedNeurons:
        """Read what `save` wrote. Raises ClasError if the file is missing or another's."""
        with reading("neurons", path):
            belongs, values = _load(path, "neurons")
            return PublishedNeurons(belongs, tuple(values["languages"]), tuple(values["widths"]))


@dataclass(frozen=True, eq=False)
class PublishedVectors:
    """A vector of the residual stream for each layer and language, such as its mean.

    vectors: [layers, languages, hidden] float32, of the output of each decoder layer.
    """

    vectors: torch.Tensor
    languages: tuple[str, ...]

    def of(self, language: str) -> torch.Tensor:
        """[layers, hidden]: this language's vectors."""
        return self.vectors[:, _position(language, self.languages)]

    def save(self, path: str | Path) -> None:
        """Write the vectors as one safetensors file."""
        _save(path, self.vectors, "vectors", languages=self.languages)

    @staticmethod
    def load(path: str | Path) -> PublishedVectors:
        """Read what `save` wrote. Raises ClasError if the file is missing or another's."""
        with reading("vectors", path):
            vectors, values = _load(path, "vectors")
            return PublishedVectors(vectors, tuple(values["languages"]))


def read_neurons(
    path: str | Path, languages: Sequence[str], widths: int | Sequence[int]
) -> PublishedNeurons:
    """Language neurons from a torch file: for each language, a list over layers of index tensors.

    So LAPE's authors publish theirs (Tang et al., arXiv 2402.16438), and so do those of language
    arithmetic (arXiv 2507.22608). The file names no languages: `languages` are their codes in the
    published order (en, zh, fr, es, vi, id, ja in LAPE's own). `widths` are the neurons of each
    layer, `lm.widths`, or one number for all layers.

    Raises ClasError if the file is another's, or has other languages, layers or neurons.
    """
    lists = _read_torch(path)
    if not isinstance(lists, list) or not all(isinstance(one, list) for one in lists):
        raise ClasError(
            f"{path} holds no language neurons: choose a file with a list of index tensors "
            "for each language and layer."
        )
    if len(lists) != len(languages) or not lists:
        raise ClasError(
            f"{path} has neurons of {len(lists)} languages, but {len(languages)} codes were given: "
            "give one code for each, in the order of the file."
        )
    if len(set(languages)) != len(languages):
        raise ClasError(f"A language is named twice in {', '.join(languages)}: name each once.")
    widths = (widths,) * len(lists[0]) if isinstance(widths, int) else tuple(widths)
    counts = sorted({len(layers) for layers in lists})
    if counts != [len(widths)] or not widths or min(widths) < 1:
        raise ClasError(
            f"{path} has neurons in {' or '.join(map(str, counts))} layers, but the model has "
            f"{_sizes(widths)}: choose the file of this model."
        )
    shape = (len(widths), len(lists), max(widths))
    _check_elements(path, shape)
    belongs = torch.zeros(shape, dtype=torch.bool)
    for k, layers in enumerate(lists):
        for layer, indices in enumerate(layers):
            belongs[layer, k, _indices(path, indices, layer, widths[layer])] = True
    return PublishedNeurons(belongs, tuple(languages), widths)


def read_vectors(source: str | Path | Mapping[str, str | Path]) -> PublishedVectors:
    """Vectors of the residual stream by language, from torch files.

    `source` is one file with a dictionary that holds a [layers, hidden] tensor for each language
    code, or for each code a file of its own, with that tensor alone or as the only one of its kind
    in a dictionary (so CLaS-Bench, arXiv 2601.08331, saves its means). Row l is of the output of
    decoder layer l, from 0.

    Raises ClasError if a file is another's, or the shapes differ.
    """
    if isinstance(source, Mapping):
        found = {code: _vectors_in(path) for code, path in source.items()}
        where = ", ".join(str(path) for path in source.values())
    else:
        found, where = _read_torch(source), str(source)
        if not isinstance(found, dict) or not all(isinstance(code, str) for code in found):
            found = {}
    if not found or not all(_is_plain(x) and _is_vectors(x) for x in found.values()):
        raise ClasError(
            f"{where} holds no vectors by language: choose a file with a tensor [layers, hidden] "
            "for each language code, or one such file for each language."
        )
    shapes = {tuple(x.shape) for x in found.values()}
    if len(shapes) > 1:
        raise ClasError(
            f"The vectors of the languages have different shapes, {sorted(shapes)}: choose files "
            "of one model."
        )
    _check_elements(where, (*shapes.pop(), len(found)))
    vectors = torch.stack([x.float() for x in found.values()], dim=1)
    if not torch.isfinite(vectors).all():
        raise ClasError(f"{where} holds numbers that aren't finite: choose another file.")
    return PublishedVectors(vectors, tuple(found))


def plan_from_vectors(
    vectors: torch.Tensor, layers: tuple[int, int], strength: float = 1.0, unit: bool = False
) -> SteeringPlan:
    """Add `strength` times vectors [all layers, hidden] to the residual stream after `layers`.

    `layers` is half-open. `plan_from_vectors(v.of("sw") - v.of("en"), ...)` goes from mean to mean;
    CLaS-Bench (arXiv 2601.08331) scales each layer's difference to length 1 first, which is
    `unit`. `DiffMean` scales it to a share of the residual stream's own length.

    Raises ClasError if the layers are out of range or a number isn't finite.
    """
    first, end = layers
    if not 0 <= first < end <= len(vectors):
        raise ClasError(
            f"Layers ({first}, {end}) don't fit: choose a half-open range within "
            f"(0, {len(vectors)}), counted from 0."
        )
    if unit:
        vectors = torch.nn.functional.normalize(vectors, dim=1)
    steps = {layer: LayerPlan(shift=strength * vectors[layer]) for layer in range(first, end)}
    return SteeringPlan(steps, f"{strength:g} * published vectors")


def recategorize(measured: Selection, owned: OwnedNeurons) -> Selection:
    """`measured`, with the language-specific neurons that `owned` names in place of its own.

    Specific is what belongs to exactly one language in `owned`, partial what belongs to several or
    was specific by measurement alone; dead, shared and `active` stay as measured. So gamma acts on
    the published neurons and beta on the measured shared ones, which no such file has.

    Raises ClasError if the two are of different languages or sizes.
    """
    if owned.languages != measured.languages:
        raise ClasError(
            f"These neurons are of {', '.join(owned.languages)}, the measured ones of "
            f"{', '.join(measured.languages)}: match them with the atlas first."
        )
    belongs = torch.stack([owned.neurons_of(code) for code in owned.languages], dim=1)
    if belongs.shape != measured.active.shape:
        raise ClasError("These neurons are of another model: match them with the atlas first.")
    n = belongs.sum(1)  # [layers, neurons]
    category = measured.category.clone()
    category[(category == SPECIFIC) | (n > 1)] = PARTIAL
    category[n == 1] = SPECIFIC
    owner = torch.where(n == 1, belongs.int().argmax(1), -1).to(torch.int16)
    return replace(measured, category=category, owner=owner)


def _read_torch(path: str | Path) -> Any:
    """What a torch file holds, if it is of the size and the kind that papers publish."""
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise ClasError(f"Can't read {path}: {error.strerror}.") from error
    if size > _BYTES:
        raise ClasError(
            f"{path} has {size / 2**20:.0f} MB, more than the {_BYTES // 2**20} MB of any language "
            "neurons or vectors: choose another file."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
        packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
        if packed or sum(record.file_size for record in records) > size:
            raise zipfile.BadZipFile("torch.save doesn't compress")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign or broken archive or pickle fails in any way
        raise ClasError(
            f"{path} isn't a torch file of plain tensors, and nothing else is read: load it where "
            "it comes from, and torch.save only its lists, dictionaries and tensors."
        ) from error


def _is_plain(x: Any) -> bool:
    """A tensor whose numbers are all there."""
    return (
        type(x) is torch.Tensor
        and not (x.is_nested or x.is_quantized)
        and x.layout == torch.strided
        and x.device.type == "cpu"
    )


def _is_vectors(x: torch.Tensor) -> bool:
    return x.is_floating_point() and x.ndim == 2 and x.numel() > 0


def _vectors_in(path: str | Path) -> Any:
    """The file's tensor [layers, hidden]; None if it has none or several."""
    held = _read_torch(path)
    candidates = held.values() if isinstance(held, dict) else [held]
    tensors = [x for x in candidates if _is_plain(x) and _is_vectors(x)]
    return tensors[0] if len(tensors) == 1 else None


def _indices(path: str | Path, indices: Any, layer: int, width: int) -> torch.Tensor:
    """Neuron numbers within a layer, [named] int64."""
    if not _is_plain(indices) or indices.ndim != 1 or indices.dtype != torch.int64:
        raise ClasError(f"{path} has something else than neuron numbers in layer {layer} (from 0).")
    # The count first: a few bytes can claim a tensor of any length.
    if len(indices) > width or not ((indices >= 0) & (indices < width)).all():
        raise ClasError(
            f"{path} names neurons beyond the {width} of layer {layer} (from 0): choose the "
            "file of this model."
        )
    return indices


def _check_elements(path: str | Path, shape: Sequence[int]) -> None:
    count = 1
    for size in shape:
        count *= size
    if count > _ELEMENTS:
        raise ClasError(f"{path} claims {count:,} numbers, more than any model's: choose another.")


def _sizes(widths: Sequence[int]) -> str:
    return f"{len(widths)} layers of {max(widths, default=0)} neurons"


def _position(language: str, languages: tuple[str, ...]) -> int:
    if language not in languages:
        raise ClasError(
            f"Nothing was published here for {language!r}: choose among {', '.join(languages)}."
        )
    return languages.index(language)


def _save(path: str | Path, tensor: torch.Tensor, what: str, **values: Any) -> None:
    metadata = {name: json.dumps(value) for name, value in values.items()}
    with replacing(path) as scratch:
        save_file({what: tensor.contiguous()}, scratch, {"format": f"clas-{what}-1", **metadata})


def _load(path: str | Path, what: str) -> tuple[torch.Tensor, dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.pop("format", None) != f"clas-{what}-1":
            raise ClasError(f"{path} holds no {what} of languages: choose a file save() wrote.")
        return file.get_tensor(what), {k: json.loads(v) for k, v in metadata.items()}
