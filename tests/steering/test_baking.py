from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import TOKENS, tiny_gpt2_model, tiny_llama_model, tiny_qwen2_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from clas_core.errors import ClasError
from clas_core.model.loading import load
from clas_core.steering.baking import bake
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered

TEXTS = ["The cat sleeps in the house.", "Mvua inanyesha."]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def plan_with(*parts: str, seed: int = 0) -> SteeringPlan:
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for index in (1, 2):
        drawn = {
            "scale": 1 + torch.randn(64, generator=generator),
            "bias": torch.randn(64, generator=generator),
            "shift": torch.randn(32, generator=generator),
        }
        layers[index] = LayerPlan(**{part: drawn[part] for part in parts})
    return SteeringPlan(layers, "test plan")


def reload_logits(folder, lm) -> torch.Tensor:
    """As any other program would: transformers alone, nothing of ours."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=lm.dtype, use_safetensors=True)
    inputs = lm.encode(TEXTS).inputs
    with torch.no_grad():
        return model.eval()(**inputs).logits


def hook_logits(lm, plan) -> torch.Tensor:
    with torch.no_grad(), steered(lm, plan):
        return lm.model(**lm.encode(TEXTS).inputs).logits


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (tiny_llama_model, ("scale", "bias", "shift")),  # a bias switched on in the config
        (lambda: tiny_llama_model(tie_word_embeddings=True), ("scale", "shift")),
        (lambda: tiny_llama_model(mlp_bias=True), ("scale", "bias")),
        (tiny_qwen2_model, ("scale",)),  # no bias to be had
        (tiny_gpt2_model, ("scale", "bias", "shift")),  # Conv1D, tied embeddings
    ],
)
def test_the_baked_checkpoint_is_the_hooked_model(model, parts, tokenizer, tmp_path) -> None:
    lm, plan = load(model(), tokenizer), plan_with(*parts)
    bare = hook_logits(lm, None)
    folder = bake(lm, plan, tmp_path / "baked")
    baked = reload_logits(folder, lm)
    torch.testing.assert_close(baked, hook_logits(lm, plan), rtol=1e-4, atol=1e-4)
    assert (baked - bare).abs().max() > 0.1
    assert torch.equal(hook_logits(lm, None), bare)  # the model in memory is untouched


def test_the_baked_checkpoint_says_the_same(tiny_lm, tmp_path) -> None:
    plan = plan_with("scale", "bias")
    folder = bake(tiny_lm, plan, tmp_path / "baked")
    baked = load(folder, device="cpu")
    inputs = tiny_lm.encode(TEXTS[:1]).inputs
    options = {"max_new_tokens": 20, "do_sample": False}
    with torch.no_grad(), steered(tiny_lm, plan):
        hooked = tiny_lm.model.generate(**inputs, **options)
    assert torch.equal(baked.model.generate(**inputs, **options), hooked)


def test_half_precision_stays_half_precision(tokenizer, tmp_path) -> None:
    lm, plan = load(tiny_gpt2_model().to(torch.bfloat16), tokenizer), plan_with("scale", "bias")
    folder = bake(lm, plan, tmp_path / "baked")
    tensors = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    baked, hooked = reload_logits(folder, lm).float(), hook_logits(lm, plan).float()
    assert (baked - hooked).norm() < 0.05 * hooked.norm()


def test_it_is_an_ordinary_directory(tiny_lm, tmp_path) -> None:
    bake(tiny_lm, plan_with("scale"), tmp_path / "baked", recipe={"alpha": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["baked"]
    folder = tmp_path / "baked"
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not any("clas" in key for key in config)
    assert config["mlp_bias"] is False
    made = json.loads((folder / "clas_recipe.json").read_text())
    assert (made["plan"], made["layers"], made["recipe"]) == ("test plan", [1, 2], {"alpha": 0.5})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer(TEXTS[0]) == tiny_lm.tokenizer(TEXTS[0])


def test_the_identity_bakes_to_the_same_weights(tiny_gpt2, tmp_path) -> None:
    tiny_gpt2.model.save_pretrained(tmp_path / "plain")
    for name, plan in [
        ("none", SteeringPlan.identity()),
        ("zero", plan_with("scale", "shift") * 0),
    ]:
        bake(tiny_gpt2, plan, tmp_path / name)
        plain = load_file(tmp_path / "plain" / "model.safetensors")
        baked = load_file(tmp_path / name / "model.safetensors")
        assert plain.keys() == baked.keys()
        assert all(torch.equal(plain[key], baked[key]) for key in plain)


@pytest.mark.parametrize("family", ["gemma2", "granite", "olmo2"])
def test_a_shift_is_refused_where_a_bias_would_not_be_one(family, tokenizer, tmp_path) -> None:
    """Their MLP output is normalised or scaled before it joins the residual stream."""
    extra = {"residual_multiplier": 0.22} if family == "granite" else {"head_dim": 8}
    config = AutoConfig.for_model(family, **TOKENS, **SIZES, **extra)
    torch.manual_seed(0)
    lm = load(AutoModelForCausalLM.from_config(config), tokenizer)
    with pytest.raises(ClasError, match=r"plans with a shift \(DiffMean\) can't be baked"):
        bake(lm, plan_with("shift"), tmp_path / "baked")
    plan = plan_with("scale")
    baked = reload_logits(bake(lm, plan, tmp_path / "baked"), lm)
    torch.testing.assert_close(baked, hook_logits(lm, plan), rtol=1e-4, atol=1e-4)


def test_refusals_are_clear_and_leave_nothing(tiny_qwen2, tmp_path) -> None:
    out = tmp_path / "baked"
    with pytest.raises(ClasError, match="only plans without bias and shift"):
        bake(tiny_qwen2, plan_with("bias"), out)
    with pytest.raises(ClasError, match="has layers 0 to 2"):
        bake(tiny_qwen2, SteeringPlan({9: LayerPlan(scale=torch.zeros(64))}), out)
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("keep me")
    with pytest.raises(ClasError, match="choose a new directory"):
        bake(tiny_qwen2, plan_with("scale"), tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "keep me"


def test_a_failure_half_way_leaves_nothing(tiny_lm, tmp_path, monkeypatch) -> None:
    def fail(folder: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tiny_lm.tokenizer, "save_pretrained", fail)
    with pytest.raises(ClasError, match="disk full"):
        bake(tiny_lm, plan_with("scale"), tmp_path / "baked")
    assert not list(tmp_path.iterdir())


class Packed(torch.nn.Parameter):
    """Stands for a quantised weight, which is a tensor of its own kind."""


def test_weights_that_are_no_plain_tensors_are_refused(tokenizer, tmp_path) -> None:
    lm = load(tiny_llama_model(), tokenizer)
    down = lm.mlps[0].down
    down.weight = Packed(down.weight.data)
    with pytest.raises(ClasError, match="aren't plain tensors, so quantised"):
        bake(lm, plan_with("scale"), tmp_path / "baked")
    assert not list(tmp_path.iterdir())


def test_int8_weights_quantised_in_place_are_refused(tokenizer, tmp_path, tiny_corpus) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    lm = load(tiny_llama_model(), tokenizer)
    exact = hook_logits(lm, plan_with("scale"))
    quantization.quantize_(lm.model, quantization.Int8WeightOnlyConfig())
    found = hook_logits(lm, plan_with("scale"))
    assert 0 < (found - exact).norm() < 0.1 * exact.norm()
    with pytest.raises(ClasError, match="aren't plain tensors, so quantised"):
        bake(lm, plan_with("scale"), tmp_path / "baked")


def test_an_adapter_is_merged_first(tokenizer, tmp_path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["down_proj", "q_proj"], init_lora_weights=False)
    model = peft.get_peft_model(tiny_llama_model(), config)
    lm, plan = load(model, tokenizer), plan_with("scale", "bias", "shift")
    with pytest.raises(ClasError, match="merge that first"):
        bake(lm, plan, tmp_path / "baked")
    steered_logits = hook_logits(lm, plan)
    merged = load(model.merge_and_unload(), tokenizer)
    baked = reload_logits(bake(merged, plan, tmp_path / "baked"), merged)
    torch.testing.assert_close(baked, steered_logits, rtol=1e-4, atol=1e-4)
