"""Tell models apart by all that decides what is measured: weights, tokenizer and config."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..model.architecture import LanguageModel

_CHUNK = 1 << 20  # values in hand at once
_SAMPLE = 64  # values of each tensor that show a change which torch didn't count
# As exact in float32. A chunk of such values is hashed as bfloat16 if all of them are, else as
# float32, so that a checkpoint has the same print in whatever larger type it is loaded.
_WIDENED = (torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2)
# Of a config: how and by what it was written, and what only asks for more output.
_BOOKKEEPING = ("architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
_TOKENIZER_STATE = ("version", "padding", "truncation")  # of the last call, or of the format


@dataclass(frozen=True)
class Fingerprint:
    """16 hexadecimal digits (SHA-256) each: of the weights, the tokenizer and the config."""

    weights: str
    tokenizer: str
    config: str

    def __str__(self) -> str:
        return f"{self.weights}.{self.tokenizer}.{self.config}"

    def as_dict(self) -> dict[str, str]:
        """The three by name, as plain data."""
        return dataclasses.asdict(self)


def fingerprint(lm: LanguageModel) -> Fingerprint:
    """The print of a model: any change of a weight, of the tokenizer or of the config shows.

    The same wherever the model came from, and in any type that holds its weights exactly. All
    weights are read, a million at a time, once a model: they are read again when torch counted a
    change of a tensor, when one was replaced, or when a sample of its values differs (which is all
    that tells of changes through `.data`). Offloaded weights are read from where they are; where
    that isn't known, the model's name and revision stand for them.
    """
    return Fingerprint(
        weights=_weights_of(lm),
        tokenizer=_hash_json(_describe_tokenizer(lm.tokenizer)),
        config=_hash_json(_describe_config(lm.model.config)),
    )


def settle(lm: LanguageModel) -> None:
    """Take the print of the weights now, and for good: they'll be where they can't be read."""
    digest = _weights_of(lm)
    with _lock:
        _settled[lm.model] = digest


_settled: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
_known: weakref.WeakKeyDictionary[nn.Module, tuple[object, str]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@torch.no_grad()
def _weights_of(lm: LanguageModel) -> str:
    if (digest := _settled.get(lm.model)) is not None:
        return digest
    tensors = {name: one for name, one in lm.model.state_dict().items() if torch.is_tensor(one)}
    state = _state_of(tensors)
    with _lock:
        before, digest = _known.get(lm.model, (None, ""))
    if state is None or before != state:
        digest = _hash_weights(lm, tensors)
        with _lock:
            _known[lm.model] = (state, digest)
    return digest


def _state_of(tensors: dict[str, Tensor]) -> object:
    """What is the same as long as the tensors are; None if that can't be told.

    Offloaded ones count as unchanged: nothing writes to them.
    """
    parts = [part for one in tensors.values() for part in _parts_of(one) if not part.is_meta]
    if any(part.is_inference() for part in parts):
        return None  # torch doesn't count their changes
    return tuple((part.data_ptr(), part._version, _sample(part)) for part in parts)


def _sample(tensor: Tensor) -> bytes:
    step = max(1, tensor.numel() // _SAMPLE) | 1  # odd: seldom a multiple of a row's length
    return _bytes_of(tensor.reshape(-1)[::step]).tobytes()


def _hash_weights(lm: LanguageModel, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    hashed: dict[object, bytes] = {}  # tied weights are read once
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        if tensor.is_meta:
            kept = _offloaded(lm.model, name)
            digest.update(f"{lm.name} {lm.revision}".encode() if kept is None else _hash(kept))
            continue
        for part in _parts_of(tensor):
            place = (part.device, part.data_ptr(), part.dtype, part.shape, part.stride())
            if place not in hashed:
                hashed[place] = _hash(part)
            digest.update(hashed[place])
    return digest.hexdigest()[:16]


def _parts_of(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors that a packed one is made of, or else the tensor itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from _parts_of(getattr(tensor, name))


def _offloaded(model: PreTrainedModel, name: str) -> Tensor | None:
    """A weight that is on no device, from where accelerate keeps it; None if it isn't there."""
    owner, _, own = name.rpartition(".")
    hook: Any = getattr(model.get_submodule(owner), "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        weights = getattr(one, "weights_map", None)
        if weights is not None and own in weights:
            return weights[own]
    return None


def _hash(tensor: Tensor) -> bytes:
    digest = hashlib.sha256()
    for chunk in tensor.detach().reshape(-1).split(_CHUNK):
        values = _bytes_of(chunk)
        if chunk.dtype in _WIDENED and not values[::2].any():  # little end first
            digest.update(b"bfloat16")
            values = np.ascontiguousarray(values[1::2])
        else:
            kind = torch.float32 if chunk.dtype in _WIDENED else chunk.dtype
            digest.update(str(kind).encode())
        digest.update(values.data)
    return digest.digest()


def _bytes_of(chunk: Tensor) -> np.ndarray:
    """A flat chunk as it is hashed: widened to float32, as pairs of 16 bits; else as bytes."""
    if chunk.dtype in _WIDENED:
        return chunk.cpu().float().contiguous().view(torch.int16).numpy()
    return chunk.cpu().contiguous().view(torch.uint8).numpy()


def _describe_tokenizer(tokenizer: Any) -> Any:
    """All that decides the tokens of a text, and which of them are no text; plain data.

    What fills short rows is left out: it is masked, and programs set it as they like.
    """
    pad = {tokenizer.pad_token_id, tokenizer.unk_token_id}
    marks = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    special = sorted(set(tokenizer.all_special_ids) - pad | marks)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        parts = json.loads(backend.to_str())
        kept = {name: part for name, part in parts.items() if name not in _TOKENIZER_STATE}
        return [_prune(kept), special]
    pieces = getattr(tokenizer, "sp_model", None)
    model = pieces.serialized_model_proto().hex() if pieces is not None else ""
    return [type(tokenizer).__name__, tokenizer.get_vocab(), model, special]


def _prune(value: Any) -> Any:
    """Without what is off: a later version's new switch, which is off, is no difference."""
    if isinstance(value, dict):
        return {k: _prune(v) for k, v in value.items() if v is not None and v is not False}
    return [_prune(one) for one in value] if isinstance(value, list) else value


def _describe_config(config: PreTrainedConfig) -> dict[str, Any]:
    """What differs from the defaults of its class; plain data."""
    no_defaults = getattr(config, "has_no_defaults_at_init", False)
    usual = {} if no_defaults else type(config)().to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if name == "model_type"
        or not (name.startswith("_") or name in _BOOKKEEPING or (name, value) in usual.items())
    }


def _hash_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
