"""Fold a plan into a copy of the GGUF that a model came from, for llama.cpp, Ollama and LM Studio.

Only the down-projections that change are written anew; all else, vocabulary and chat template
included, is copied byte by byte, quantised as it was.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType

from ..errors import ClasError
from ..model.gguf import Header, Tensor, read_header
from ..paths import replacing

Folded = Mapping[int, tuple[torch.Tensor, torch.Tensor | None]]
_PLAIN = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
_BIASED = ("llama",)  # where llama.cpp takes biases of an MLP that the file had none of
_PARTS = ("ffn_gate", "ffn_up", "ffn_down")
_COPIED = 2**24  # bytes at once


def write_baked(
    source: Path, out: Path, before: Folded, after: Folded, made: Mapping[str, Any]
) -> None:
    """Write `source` to the file `out` with other down-projections.

    `before` and `after`: by layer, the weight [hidden, neurons] and bias [hidden] as the model has
    them and as they shall be. A weight keeps its type if that is a float, and is written in float16
    if it was quantised (in float32 if that can't hold it). `made` (JSON values) is noted in the
    metadata.

    Raises ClasError if the file isn't that of the model, or llama.cpp has no place for a bias.
    """
    header = read_header(source)
    written: dict[str, tuple[GGMLQuantizationType, np.ndarray]] = {}
    tensors = {tensor.name: tensor for tensor in header.tensors}
    for layer, (weight, bias) in after.items():
        name = f"blk.{layer}.ffn_down"
        kept = tensors.get(f"{name}.weight")
        if kept is None or not _holds(source, header, kept, before[layer][0]):
            raise ClasError(
                f"{source} has other weights than the model in layer {layer} (from 0): open the "
                "file again, then bake."
            )
        written[f"{name}.weight"] = _encoded(kept, weight)
        if bias is not None:
            written[f"{name}.bias"] = (GGMLQuantizationType.F32, _plain(bias))
    if not written.keys() <= tensors.keys():
        if header.architecture not in _BIASED:
            raise ClasError(
                f"llama.cpp has no place for a bias in the MLPs of {header.architecture}, so only "
                "plans without bias and shift (CLAS, LAPE) can be baked into this file. A plan of "
                "shifts alone is a control vector: write_control_vector."
            )
        written = {**_no_biases(header), **written}
    with replacing(out) as scratch, source.open("rb") as old, scratch.open("wb") as new:
        _write(header, old, new, written, made)


def _holds(source: Path, header: Header, tensor: Tensor, weight: torch.Tensor) -> bool:
    """Whether the file's tensor is the weight of the model, in the model's type."""
    if tensor.shape != tuple(weight.shape):
        return False
    with source.open("rb") as file:
        file.seek(header.data_start + tensor.offset)
        stored = np.frombuffer(file.read(tensor.nbytes), np.uint8)
    kind = GGMLQuantizationType(tensor.kind)
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        stored = stored.view(np.float32 if kind == GGMLQuantizationType.F32 else np.float16)
        numbers = stored.astype(np.float32).reshape(tensor.shape)
    else:
        rows = stored.reshape(tensor.shape[0], -1)
        numbers = gguf.dequantize(rows, kind).reshape(tensor.shape)
    return torch.equal(torch.from_numpy(numbers).to(weight.dtype), weight.detach().cpu())


def _plain(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())


def _encoded(kept: Tensor, weight: torch.Tensor) -> tuple[GGMLQuantizationType, np.ndarray]:
    kind, numbers = GGMLQuantizationType(kept.kind), _plain(weight)
    if kind not in _PLAIN:
        kind = GGMLQuantizationType.F16
    if kind == GGMLQuantizationType.F16 and np.abs(numbers).max() > np.finfo(np.float16).max:
        kind = GGMLQuantizationType.F32
    return kind, gguf.quantize(numbers, kind)


def _no_biases(header: Header) -> dict[str, tuple[GGMLQuantizationType, np.ndarray]]:
    """Biases of 0 for all MLPs: who reads one expects every one."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    found = {}
    for name, tensor in tensors.items():
        stem, _, suffix = name.rpartition(".")
        if suffix == "weight" and stem.endswith(_PARTS) and f"{stem}.bias" not in tensors:
            zeros = np.zeros(tensor.shape[0], np.float32)
            found[f"{stem}.bias"] = (GGMLQuantizationType.F32, zeros)
    return found


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _write(
    header: Header,
    old: Any,
    new: Any,
    written: Mapping[str, tuple[GGMLQuantizationType, np.ndarray]],
    made: Mapping[str, Any],
) -> None:
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tensor.shape for tensor in header.tensors}
    shapes |= {name: numbers.shape for name, (_, numbers) in written.items() if name not in shapes}
    kept = {tensor.name: tensor for tensor in header.tensors}
    infos, offset = b"", 0
    for name, shape in shapes.items():
        if name in written:
            kind, numbers = written[name]
            number, size = int(kind), numbers.nbytes
        else:
            number, size = kept[name].kind, kept[name].nbytes
        infos += _text(name) + struct.pack("<I", len(shape))
        infos += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        infos += struct.pack("<IQ", number, offset)
        offset += size + _padding(size, header)
    times = sum(key.startswith("clas.baked.") for key in header.metadata)
    note = _text(f"clas.baked.{times}") + struct.pack("<I", 8)
    note += _text(json.dumps(made, ensure_ascii=False))
    new.write(b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(header.metadata) + 1))
    old.seek(24)
    new.write(old.read(header.values_end - 24) + note + infos)
    new.write(bytes(_padding(new.tell(), header)))
    for name in shapes:
        if name in written:
            new.write(written[name][1].tobytes())
        else:
            for part in _bytes_of(old, header, kept[name]):
                new.write(part)
        new.write(bytes(_padding(new.tell(), header)))


def _padding(size: int, header: Header) -> int:
    return -size % header.alignment


def _bytes_of(old: Any, header: Header, tensor: Tensor) -> Iterator[bytes]:
    old.seek(header.data_start + tensor.offset)
    left = tensor.nbytes
    while left:
        part = old.read(min(left, _COPIED))
        left -= len(part)
        yield part
