from __future__ import annotations

import json

import pytest
import torch
from tiny import TOKENS, make_tokenizer, tiny_llama_model, tiny_model
from tokenizers import processors
from torch import nn
from transformers import MambaConfig, MambaForCausalLM

from clas_core.errors import ClasError
from clas_core.model.architecture import UnsupportedModel, find_mlps
from clas_core.model.loading import load
from clas_core.model.taps import Tap, tapped


def test_the_gate_and_h_are_what_the_mlp_computes(any_lm) -> None:
    """`h` is rebuilt by hand from the MLP's own input, and the gate's sign is act(gate)'s sign."""
    seen: dict[str, torch.Tensor] = {}

    class Watch(Tap):
        def gate(self, site, gate):
            seen[f"gate{site.layer}"] = gate

        def neurons(self, site, h):
            seen[f"h{site.layer}"] = h

    mlp = any_lm.blocks[1].mlp
    caught: list[torch.Tensor] = []
    handle = mlp.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    with torch.no_grad(), tapped(any_lm, Watch()):
        any_lm.model(**any_lm.encode(["The cat sleeps."]).inputs)
    handle.remove()
    with torch.no_grad():
        if hasattr(mlp, "gate_proj"):
            gate = caught[0] @ mlp.gate_proj.weight.T
            expected = mlp.act_fn(gate) * (caught[0] @ mlp.up_proj.weight.T)
            torch.testing.assert_close(seen["gate1"], gate)
            assert torch.equal(seen["gate1"] > 0, mlp.act_fn(seen["gate1"]) > 0)
        else:
            expected = mlp.act(caught[0] @ mlp.c_fc.weight + mlp.c_fc.bias)
            assert "gate1" not in seen
    torch.testing.assert_close(seen["h1"], expected)


def test_a_fused_gate_is_the_half_that_is_activated(tokenizer) -> None:
    lm = load(tiny_model("phi3", hidden_act="relu"), tokenizer)
    seen: dict[str, torch.Tensor] = {}

    class Watch(Tap):
        def gate(self, site, gate):
            seen["gate"] = gate

        def neurons(self, site, h):
            seen["h"] = h

    with torch.no_grad(), tapped(lm, Watch()):
        lm.model(**lm.encode(["The cat sleeps."]).inputs)
    # With ReLU, a closed gate is a neuron at exactly zero, and an open one almost never is.
    assert torch.equal(seen["gate"] > 0, seen["h"] != 0)


def test_encode_pads_either_side_and_marks_content(tiny_lm) -> None:
    right = tiny_lm.encode(["It rains.", "The cat sleeps in the house."])
    left = tiny_lm.encode(["It rains.", "The cat sleeps in the house."], padding_side="left")
    alone = tiny_lm.encode(["It rains."])
    length = alone.input_ids.shape[1]
    assert torch.equal(right.input_ids[0, :length], alone.input_ids[0])
    assert torch.equal(left.input_ids[0, -length:], alone.input_ids[0])
    assert right.attention_mask.sum(1).tolist() == left.attention_mask.sum(1).tolist()
    assert alone.content[0].tolist() == [False] + [True] * (length - 1)  # <s> isn't text
    assert right.content[0].sum() == left.content[0].sum() == length - 1
    text = tiny_lm.tokenizer.decode(right.input_ids[1][right.content[1]])
    assert text == "The cat sleeps in the house."


def test_encode_refuses_nothing(tiny_lm) -> None:
    bare = make_tokenizer()
    bare.backend_tokenizer.post_processor = processors.ByteLevel()  # adds no <s>
    with pytest.raises(ClasError, match="Text 2 is empty"):
        load(tiny_lm.model, bare).encode(["a", ""])
    with pytest.raises(ClasError, match="no text"):
        tiny_lm.encode([])
    with pytest.raises(ClasError, match="'left' or 'right'"):
        tiny_lm.encode(["a"], padding_side="middle")


def test_loads_a_saved_directory(tiny_lm, tokenizer, tmp_path) -> None:
    tiny_lm.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(tmp_path, device="cpu")
    assert loaded.name == str(tmp_path)
    assert (loaded.num_layers, loaded.num_neurons, loaded.hidden_size) == (3, 64, 32)
    assert loaded.dtype == torch.float32
    assert not loaded.model.training
    batch = tiny_lm.encode(["The cat sleeps."])
    with torch.no_grad():
        assert torch.equal(
            loaded.model(**batch.inputs).logits, tiny_lm.model(**batch.inputs).logits
        )


def test_bad_sources_get_one_clear_sentence(tiny_lm, tokenizer, tmp_path) -> None:
    with pytest.raises(ClasError, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny_lm.model.config.to_dict()))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ClasError, match=r"no weights in \*\.safetensors"):
        load(tmp_path)
    with pytest.raises(ClasError, match="no directory"):
        load(tmp_path / "missing")
    with pytest.raises(ClasError, match="its tokenizer"):
        load(tiny_lm.model)
    with pytest.raises(ClasError, match="this model is loaded"):
        load(tiny_lm.model, tokenizer, dtype="auto")


def test_unsupported_models_are_named() -> None:
    with pytest.raises(UnsupportedModel, match="MambaForCausalLM: found no list of 3 decoder"):
        find_mlps(MambaForCausalLM(MambaConfig(**TOKENS, hidden_size=32, num_hidden_layers=3)))
    model = tiny_llama_model()
    model.model.layers[1].mlp = nn.Identity()
    with pytest.raises(UnsupportedModel, match=r"model\.layers \(1, 0, 1 MLPs by layer\)"):
        find_mlps(model)
