"""Control vectors of repeng and llama.cpp, read and written as GGUF files.

`direction.N` [hidden] is added to the residual stream after decoder layer N, counted from 0. So
repeng hooks it in (`ControlVector.export_gguf`, `ControlModel.set_control`), and so does llama.cpp
(`common_control_vector_load`, `build_cvec` at the end of each layer), which has no place for layer
0. In a plan that is a layer's shift.

Written by the package `gguf`; read by our own reader of headers, because files come from strangers.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from gguf import GGUFWriter

from ..errors import ClasError
from ..model.gguf import Broken, parse_header
from ..paths import replacing
from .plan import LayerPlan, SteeringPlan
from .where import ALL

_ARCHITECTURE = "controlvector"
_BYTES = 64 * 2**20  # of a file
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
    except Broken as error:
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


def _read(data: bytes) -> dict[int, torch.Tensor]:
    """Layer: direction [hidden] float32."""
    header = parse_header(data)
    if header.architecture not in ("", _ARCHITECTURE):
        raise Broken(f"it holds a {header.architecture!r}")
    found: dict[int, tuple[int, torch.dtype, int]] = {}  # by layer: size, type, offset
    for tensor in header.tensors:
        match = re.fullmatch(r"direction\.([0-9]{1,6})", tensor.name)
        if (
            match is None
            or len(tensor.shape) != 1
            or tensor.kind not in _FLOATS
            or int(match[1]) in found
        ):
            raise Broken(
                f"its tensor {tensor.name!r} isn't one direction of a layer in floats, unquantised"
            )
        found[int(match[1])] = (tensor.shape[0], _FLOATS[tensor.kind], tensor.offset)
    sizes = {size for size, _, _ in found.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise Broken("its directions are none, empty, or of different lengths")
    if sum(size * dtype.itemsize for size, dtype, _ in found.values()) > len(data):
        raise Broken("it ends too early")
    directions = {}
    for layer, (size, dtype, offset) in found.items():
        start = header.data_start + offset
        numbers = bytearray(data[start : start + size * dtype.itemsize])
        if len(numbers) < size * dtype.itemsize:
            raise Broken("it ends too early")
        directions[layer] = torch.frombuffer(numbers, dtype=dtype).float()
    return directions
