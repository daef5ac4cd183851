"""Control vectors of repeng and llama.cpp, read and written as GGUF files.

`direction.N` [hidden] is added to the residual stream after decoder layer N, counted from 0. So
repeng hooks it in (`ControlVector.export_gguf`, `ControlModel.set_control`), and so does llama.cpp
(`common_control_vector_load`, `build_cvec` at the end of each layer), which has no place for layer
0. In a plan that is a layer's shift.

Written by the package `gguf`; read by a reader of our own, because files come from strangers too.
gguf's builds Python objects for every number of an array: 4 MB of one take it over a minute and
600 MB of memory, and an offset beyond 64 bits wraps round to other bytes. Here every length is
bounded by the size of the file before it is used, and arrays are passed over.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFWriter

from ..errors import ClasError
from ..paths import replacing
from .plan import LayerPlan, SteeringPlan
from .where import ALL

_ARCHITECTURE = "controlvector"
_BYTES = 64 * 2**20  # of a file
_ALIGNMENT = 32  # where a file doesn't say
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_FLOATS = {  # of a tensor
    0: torch.float32,
    1: torch.float16,
    28: torch.float64,
    30: torch.bfloat16,
}


def read_control_vector(path: str | Path, strength: float = 1.0) -> SteeringPlan:
    """A control vector as a plan that adds `strength` times each direction after its layer.

    Raises ClasError if the file is missing, broken, or no control vector.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _BYTES:
            raise ClasError(
                f"{path} has more than {_BYTES // 2**20} MB, so it is no control vector: choose "
                "another file."
            )
        tensors = _read(path.read_bytes())
    except OSError as error:
        raise ClasError(f"Can't read {path}: {error.strerror}.") from error
    except _Broken as error:
        raise ClasError(f"{path} isn't a control vector in GGUF: {error}.") from error
    layers = {layer: LayerPlan(shift=vector) * strength for layer, vector in tensors.items()}
    return SteeringPlan(layers, f"{strength:g} * control vector {path.name}")


def write_control_vector(plan: SteeringPlan, path: str | Path, model_type: str) -> None:
    """Write the residual shifts of a plan for repeng and llama.cpp, in float32.

    `model_type` is what the model's config calls its architecture, such as "llama".

    Raises ClasError if the plan has more than shifts, one after layer 0, or none at all, and if it
    acts on a part of a text only.
    """
    if plan.where != ALL:
        raise ClasError(
            f"A control vector steers all of a text, and this plan a part of it ({plan.where}): "
            "write plan.at('all')."
        )
    for index, layer in plan.layers.items():
        for part, neutral in (("scale", 1), ("bias", 0)):
            tensor = getattr(layer, part)
            if tensor is not None and (tensor != neutral).any():
                raise ClasError(
                    f"A control vector only shifts the residual stream, but this plan has a {part} "
                    f"of neurons in layer {index} (from 0): bake it into a checkpoint instead."
                )
    shifts = {i: p.shift for i, p in plan.layers.items() if p.shift is not None and p.shift.any()}
    if not shifts:
        raise ClasError("This plan shifts nothing: choose one with a residual shift.")
    if 0 in shifts:
        raise ClasError(
            "A control vector has no place for layer 0, the first: shift after a later one."
        )
    with replacing(path) as scratch:
        writer = GGUFWriter(scratch, _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", model_type)
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(shifts))
        for index, shift in shifts.items():
            writer.add_tensor(f"direction.{index}", shift.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


class _Broken(Exception):
    """What is wrong with the bytes, to go on in a sentence."""


class _Cursor:
    """Takes one thing after another out of the bytes, and never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise _Broken("it ends too early")
        self.at += count
        return self._data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode(errors="replace")

    def value(self, kind: int) -> Any:
        """A metadata value; arrays are passed over."""
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise _Broken(f"it has a value of unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner == _STRING:
            for _ in range(count):
                self.text()
        elif inner in _SCALARS:
            self.take(count * struct.calcsize("<" + _SCALARS[inner]))
        else:
            raise _Broken(f"it has an array of unknown type {inner}")
        return None


def _read(data: bytes) -> dict[int, torch.Tensor]:
    """Layer: direction [hidden] float32."""
    cursor = _Cursor(data)
    if cursor.take(4) != b"GGUF":
        raise _Broken("it doesn't begin with GGUF")
    if (version := cursor.number("I")) not in (2, 3):
        raise _Broken(f"its version is {version}, not 2 or 3")
    num_tensors, num_values = cursor.number("Q"), cursor.number("Q")
    metadata = {}
    for _ in range(num_values):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    architecture = metadata.get("general.architecture", _ARCHITECTURE)
    if architecture != _ARCHITECTURE:
        raise _Broken(f"it holds a {architecture!r}")
    found: dict[int, tuple[int, torch.dtype, int]] = {}  # by layer: size, type, offset
    for _ in range(num_tensors):
        name = cursor.text()
        dims = [cursor.number("Q") for _ in range(cursor.number("I"))]
        kind, offset = cursor.number("I"), cursor.number("Q")
        match = re.fullmatch(r"direction\.([0-9]{1,6})", name)
        if match is None or len(dims) != 1 or kind not in _FLOATS or int(match[1]) in found:
            raise _Broken(
                f"its tensor {name!r} isn't one direction of a layer in floats, unquantised"
            )
        found[int(match[1])] = (dims[0], _FLOATS[kind], offset)
    sizes = {size for size, _, _ in found.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise _Broken("its directions are none, empty, or of different lengths")
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Broken(f"its alignment is {alignment!r}")
    if sum(size * dtype.itemsize for size, dtype, _ in found.values()) > len(data):
        raise _Broken("it ends too early")
    start = -(-cursor.at // alignment) * alignment
    directions = {}
    for layer, (size, dtype, offset) in found.items():
        cursor.at = start + offset
        numbers = bytearray(cursor.take(size * dtype.itemsize))
        directions[layer] = torch.frombuffer(numbers, dtype=dtype).float()
    return directions
