"""GGUF files, as llama.cpp, Ollama and LM Studio keep models: their header, read within bounds.

Weights and tokenizer are for transformers to read. But files come from strangers, and the package
`gguf` builds Python objects for every number of an array: 4 MB of one take it over a minute and
600 MB of memory, and an offset beyond 64 bits wraps round to other bytes. So the header is first
read here, where every length is bounded by the size of the file before it is used and arrays are
passed over, and only a file that holds what it says goes on.
"""

from __future__ import annotations

import mmap
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, LlamaFileType
from transformers import PreTrainedConfig

from ..errors import ClasError

MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_ALIGNMENT = 32  # where a file doesn't say
_MOST_ITEMS = 2**21  # in all arrays; 262,144 tokens with scores, types and merges are 1.3 million
_MOST_BYTES = 2**28  # of a header; 33 MB hold that vocabulary
_PLAIN = ("F32", "F16", "BF16", "F64")


class Broken(Exception):
    """What is wrong with the bytes of a GGUF file, to go on in a sentence."""


@dataclass(frozen=True)
class Tensor:
    """A tensor's entry. shape: as in torch, slowest first; kind: ggml's number of its type;
    offset: bytes from the start of the data."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def type_name(self) -> str:
        """What ggml calls the type, such as Q4_K; its number if that is none."""
        try:
            return GGMLQuantizationType(self.kind).name
        except ValueError:
            return str(self.kind)

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file. Raises Broken for an unknown type, or rows in parts of blocks."""
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(self.kind)]
        except (ValueError, KeyError) as error:
            raise Broken(f"its tensor {self.name!r} is of unknown type {self.kind}") from error
        if not self.shape or self.shape[-1] % block:
            raise Broken(f"its tensor {self.name!r} has the shape {self.shape}")
        return self.elements // block * size


@dataclass(frozen=True)
class Header:
    """All of a file but its tensors.

    metadata: values by key, of an array how many it has. items: of all arrays together.
    values_end: where the metadata ends, which begins at byte 24; data_start: where tensors begin.
    """

    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    items: int
    alignment: int
    values_end: int
    data_start: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model's family, such as "gemma3"; empty if it has none."""
        return str(self.metadata.get("general.architecture", ""))

    @cached_property
    def parameters(self) -> int:
        """How many numbers all tensors hold."""
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def types(self) -> str:
        """How the file is quantised, by its own name for it, such as Q4_K_M; without one, the type
        that holds most of the numbers."""
        try:
            file_type: Any = self.metadata.get("general.file_type")
            return LlamaFileType(file_type).name.removeprefix("MOSTLY_")
        except (ValueError, TypeError):
            pass
        held: Counter[str] = Counter()
        for tensor in self.tensors:
            held[tensor.type_name] += tensor.elements
        return held.most_common(1)[0][0] if held else ""

    @property
    def quantised(self) -> bool:
        """Whether any tensor is kept in fewer bits than floats have."""
        return any(tensor.type_name not in _PLAIN for tensor in self.tensors)


def is_gguf(path: Path) -> bool:
    """Whether the file begins as GGUF files do, whatever its name (Ollama's has no ending)."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_header(path: str | Path) -> Header:
    """The header of a model's file, after checking that its tensors lie in the file.

    Raises ClasError, one sentence, for a file that is missing, broken, or claims more than a model
    has: 2 million entries of vocabulary, 256 MB of header.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = parse_header(data, _MOST_BYTES)
            _check(header, len(data))
    except OSError as error:
        raise ClasError(f"Can't read {path}: {error.strerror}.") from error
    except (Broken, ValueError) as error:  # of an empty file, a ValueError
        said = error if isinstance(error, Broken) else "it is empty"
        raise ClasError(f"{path} isn't a model in GGUF: {said}.") from error
    return header


def _check(header: Header, size: int) -> None:
    """Raise Broken unless the tensors lie in a file of `size` bytes, apart from each other."""
    if not header.architecture:
        raise Broken("it names no architecture")
    if header.items > _MOST_ITEMS:
        raise Broken(f"its arrays have {header.items:,} entries, more than any vocabulary")
    if len({tensor.name for tensor in header.tensors}) < len(header.tensors):
        raise Broken("two of its tensors have one name")
    end = 0
    for tensor in sorted(header.tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise Broken(f"its tensor {tensor.name!r} lies in another one")
        end = tensor.offset + tensor.nbytes
    if header.data_start + end > size:
        raise Broken("it ends too early")


def parse_header(data: bytes | mmap.mmap, most: int | None = None) -> Header:
    """Read a header at the start of `data`, of `most` bytes. Raises Broken.

    Lengths and counts never reach past the end of `data`; where tensors lie isn't checked.
    """
    cursor = _Cursor(data, most)
    if cursor.take(4) != MAGIC:
        raise Broken("it doesn't begin with GGUF")
    if (version := cursor.number("I")) not in (2, 3):
        raise Broken(f"its version is {version}, not 2 or 3")
    num_tensors, num_values = cursor.number("Q"), cursor.number("Q")
    metadata: dict[str, Any] = {}
    for _ in range(num_values):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    values_end = cursor.at
    tensors = []
    for _ in range(num_tensors):
        name = cursor.text()
        dims = [cursor.number("Q") for _ in range(cursor.number("I"))]
        tensors.append(Tensor(name, tuple(reversed(dims)), cursor.number("I"), cursor.number("Q")))
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise Broken(f"its alignment is {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    return Header(metadata, tuple(tensors), cursor.items, alignment, values_end, start)


class _Cursor:
    """Takes one thing after another out of the bytes, and never more than there are."""

    def __init__(self, data: bytes | mmap.mmap, most: int | None) -> None:
        self._data = data
        self._end = min(len(data), most or len(data))
        self.at = 0
        self.items = 0

    def skip(self, count: int) -> None:
        if count > self._end - self.at:
            raise Broken("it ends too early")
        self.at += count

    def take(self, count: int) -> bytes:
        self.skip(count)
        return self._data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode(errors="replace")

    def value(self, kind: int) -> Any:
        """A metadata value; of an array, which is passed over, how long it is."""
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise Broken(f"it has a value of unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner == _STRING:
            for _ in range(count):
                self.skip(self.number("Q"))
        elif inner in _SCALARS:
            self.skip(count * struct.calcsize("<" + _SCALARS[inner]))
        else:
            raise Broken(f"it has an array of unknown type {inner}")
        self.items += count
        return count


def complete_config(config: PreTrainedConfig, path: Path, header: Header) -> None:
    """Write into `config` what the header says of rotary embeddings and transformers leaves out.

    A model whose context was stretched would run all the same, and answer a little wrong. The scale
    of Gemma 3's attention isn't in the header: as in llama.cpp, it is that of the published models.

    Raises ClasError for a way to stretch that isn't known here.
    """
    if config.model_type == "llama":  # a baked one may have biases
        config.mlp_bias = any(t.name == "blk.0.ffn_down.bias" for t in header.tensors)
    if config.model_type == "gemma3_text":
        largest = config.num_hidden_layers == 62
        by_head = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = by_head if largest else config.head_dim
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict):
        return
    rope = rope.get("full_attention", rope)  # what sees all of a text is stretched, a window isn't
    if rope.get("rope_type", "default") != "default":
        return
    stretched = _stretching(path, header, float(rope.get("rope_theta", 10000.0)))
    if stretched is None:
        raise ClasError(
            f"{path} stretches its context in a way that isn't read from GGUF: choose the model's "
            "safetensors instead."
        )
    rope.update(stretched)


def _stretching(path: Path, header: Header, theta: float) -> dict[str, Any] | None:
    """How rotary embeddings with base `theta` are stretched, as transformers' configs say it; empty
    if they aren't, None if that isn't known here."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    if header.architecture == "llama" and "rope_freqs.weight" in tensors:
        return _of_llama3(_floats(path, header, tensors["rope_freqs.weight"]), theta)
    prefix = f"{header.architecture}.rope.scaling"
    kind = header.metadata.get(f"{prefix}.type", "none")
    factor = header.metadata.get(f"{prefix}.factor", 0)
    if "rope_factors_short.weight" in tensors:
        return None
    if kind == "none" or factor in (0, 1):
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(factor)}
    if kind == "yarn" and (length := header.metadata.get(f"{prefix}.original_context_length")):
        return {
            "rope_type": "yarn",
            "factor": float(factor),
            "original_max_position_embeddings": int(length),
        }
    return None


def _of_llama3(stretch: np.ndarray | None, theta: float) -> dict[str, Any] | None:
    """The parameters of Llama 3.1's formula that give this `stretch` [half of a head] of waves."""
    if stretch is None or not stretch.size:
        return None
    factor, short, long, length = float(stretch.max()), 4.0, 1.0, 8192
    waves = 2 * np.pi * theta ** (np.arange(stretch.size) / stretch.size)
    blend = np.clip((length / waves - long) / (short - long), 0, 1)  # 1 for waves that stay
    if not np.allclose(stretch, 1 / ((1 - blend) / factor + blend), rtol=1e-3):
        return None
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": long,
        "high_freq_factor": short,
        "original_max_position_embeddings": length,
    }


def _floats(path: Path, header: Header, tensor: Tensor) -> np.ndarray | None:
    """A small tensor in float32; None if it is of another kind, or large."""
    if tensor.type_name != "F32" or tensor.elements > 4096:
        return None
    start = header.data_start + tensor.offset
    return np.fromfile(path, np.dtype("<f4"), tensor.elements, offset=start)


class QuickReader(GGUFReader):
    """gguf's reader, with the same result in a tenth of the time.

    gguf's makes a memory map of each of a vocabulary's numbers, by which a file with 262,144 tokens
    takes it 18 s, several times over while a model is opened.
    """

    def _get(
        self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None
    ) -> np.ndarray:
        kind = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
        plain = np.asarray(self.data)  # of the same memory, but no map
        return plain[offset : offset + kind.itemsize * int(count)].view(kind)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if raw_type != _ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        inner = self._get(orig_offs, np.uint32)
        length = self._get(orig_offs + 4, np.uint64)
        kind, count, at = GGUFValueType(int(inner[0])), int(length[0]), orig_offs + 12
        parts = [inner, length]
        types = [GGUFValueType.ARRAY, kind] if count else [GGUFValueType.ARRAY]
        if kind in self.gguf_scalar_to_np:
            numbers = self._get(at, self.gguf_scalar_to_np[kind], count)
            parts.extend(numbers.reshape(-1, 1))
            return 12 + numbers.nbytes, parts, list(range(2, 2 + count)), types
        if kind != GGUFValueType.STRING:
            return super()._get_field_parts(orig_offs, raw_type)
        plain = np.asarray(self.data)
        order = np.dtype(np.uint64).newbyteorder(self.byte_order)
        for _ in range(count):
            size = plain[at : at + 8].view(order)
            end = at + 8 + int(size[0])
            parts += (size, plain[at + 8 : end])
            at = end
        return at - orig_offs, parts, list(range(3, 3 + 2 * count, 2)), types


_SWAPPED = threading.Lock()


@contextmanager
def quick_reader() -> Iterator[None]:
    """Let transformers read GGUF files by `QuickReader` inside, and make a table of names once, not
    for each module of a model: it takes both from gguf by name."""
    with _SWAPPED:
        package: Any = gguf
        reader, names = package.GGUFReader, package.get_tensor_name_map
        package.GGUFReader, package.get_tensor_name_map = QuickReader, lru_cache(names)
        try:
            yield
        finally:
            package.GGUFReader, package.get_tensor_name_map = reader, names
