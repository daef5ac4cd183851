"""Writes models as GGUF files, as llama.cpp's converter lays them out, with the package gguf."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

ARCHITECTURES = {"gemma3_text": "gemma3"}  # where llama.cpp's name isn't transformers'
KINDS = {
    "F32": gguf.GGMLQuantizationType.F32,
    "F16": gguf.GGMLQuantizationType.F16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
}


def write_gguf(
    model: PreTrainedModel,
    tokenizer: Any,
    path: Path,
    kind: str = "F32",
    add: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
) -> Path:
    """A llama, qwen2 or gemma3_text model; its matrices in `kind`, all else in float32. `add` may
    write more."""
    config: Any = model.config
    arch = ARCHITECTURES.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if arch == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    add_vocabulary(writer, tokenizer, config.vocab_size)
    add(writer)
    for name, tensor in tensors_of(model, arch):
        numbers = tensor.float().numpy()
        chosen = KINDS[kind] if numbers.ndim > 1 else KINDS["F32"]
        writer.add_tensor(name, gguf.quants.quantize(numbers, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Any, size: int) -> None:
    """That of a byte-level BPE, filled up to `size`."""
    spoken = json.loads(tokenizer.backend_tokenizer.to_str())
    known = {number: token for token, number in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([known.get(number, f"[unused{number}]") for number in range(size)])
    control, normal, unused = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL, gguf.TokenType.UNUSED
    writer.add_token_types(
        [
            control if number in special else normal if number in known else unused
            for number in range(size)
        ]
    )
    merges = spoken["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(True)


def tensors_of(model: PreTrainedModel, arch: str) -> list[tuple[str, torch.Tensor]]:
    """By llama.cpp's names: queries and keys of a Llama turned to its rotary pairs, and Gemma's
    norms with the 1 that transformers adds."""
    config: Any = model.config
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    found = []
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        if arch == "llama" and ".self_attn." in name and stem.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads
            if stem.endswith("k_proj"):
                heads = config.num_key_value_heads
            pairs = tensor.reshape(heads, 2, -1, tensor.shape[1])
            tensor = pairs.transpose(1, 2).reshape(tensor.shape)
        if arch == "gemma3" and stem.endswith("norm"):
            tensor = tensor + 1
        found.append((f"{names.get_name(stem)}.{suffix}", tensor))
    return found


def same_fields(one: gguf.GGUFReader, other: gguf.GGUFReader) -> bool:
    """Whether two readers found the same in a file."""

    def alike(a: Any, b: Any) -> bool:
        return len(a.parts) == len(b.parts) and all(map(np.array_equal, a.parts, b.parts))

    return list(one.fields) == list(other.fields) and all(
        alike(a, b) and (a.offset, a.data, a.types) == (b.offset, b.data, b.types)
        for a, b in zip(one.fields.values(), other.fields.values(), strict=True)
    )
