from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import write_gguf
from tiny import make_tokenizer, tiny_llama_model, tiny_model, tiny_qwen2_model

from clas_core.errors import ClasError
from clas_core.model.architecture import LanguageModel
from clas_core.model.gguf import read_header
from clas_core.model.loading import load
from clas_core.running.generation import generate
from clas_core.steering.baking import bake
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered

pytest.importorskip("accelerate", reason="transformers asks for it to open GGUF files")
EVERY_KIND = pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("llama", ("scale",)),
        ("qwen2", ("scale",)),
        ("gemma3", ("scale",)),
        ("llama", ("scale", "bias", "shift")),
    ],
)
TEXTS = ["The cat sleeps in the house.", "Mvua inanyesha."]
MODELS = {
    "llama": lambda: tiny_llama_model(hidden_act="silu"),
    "qwen2": tiny_qwen2_model,
    "gemma3": lambda: tiny_model("gemma3_text", sliding_window=8, query_pre_attn_scalar=8),
}


def opened(name: str, folder: Path, kind: str = "F32") -> LanguageModel:
    return load(write_gguf(MODELS[name](), make_tokenizer(), folder / "model.gguf", kind))


def plan_with(*parts: str, layers: tuple[int, ...] = (1,)) -> SteeringPlan:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for layer in layers:
        drawn = {
            "scale": 1 + 2 * torch.rand(64, generator=generator),
            "bias": torch.randn(64, generator=generator),
            "shift": torch.randn(32, generator=generator),
        }
        made[layer] = LayerPlan(**{part: drawn[part] for part in parts})
    return SteeringPlan(made, "test plan")


def logits(lm: LanguageModel, plan: SteeringPlan | None = None) -> torch.Tensor:
    with torch.no_grad(), steered(lm, plan or SteeringPlan({})):
        return lm.model(**lm.encode(TEXTS).inputs).logits


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


@EVERY_KIND
def test_the_baked_file_answers_as_the_steered_model(name, parts, tmp_path) -> None:
    lm, plan = opened(name, tmp_path), plan_with(*parts)
    out = bake(lm, plan, tmp_path / "out" / "steered.gguf", {"method": "CLAS"})
    assert [path.name for path in out.parent.iterdir()] == ["steered.gguf"]
    expected = logits(lm, plan)
    torch.testing.assert_close(logits(load(out)), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(lm), expected, atol=1e-2)


def test_all_else_is_copied_byte_by_byte(tmp_path) -> None:
    lm, plan = opened("llama", tmp_path, "Q8_0"), plan_with("scale")
    out = bake(lm, plan, tmp_path / "steered.gguf", {"method": "CLAS"})
    before, after = contents(tmp_path / "model.gguf"), contents(out)
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert changed == {"blk.1.ffn_down.weight"}
    assert after["blk.1.ffn_down.weight"][0] == "F16"
    torch.testing.assert_close(logits(load(out)), logits(lm, plan), atol=2e-3, rtol=1e-2)
    old, new = gguf.GGUFReader(tmp_path / "model.gguf"), gguf.GGUFReader(out)
    for key, field in old.fields.items():
        if not key.startswith("GGUF."):
            assert all(map(np.array_equal, field.parts, new.fields[key].parts))
    made = json.loads(new.fields["clas.baked.0"].contents())
    assert (made["plan"], made["layers"]) == ("test plan", [1])
    assert made["recipe"] == {"method": "CLAS"}


def test_a_baked_file_is_baked_again(tmp_path) -> None:
    lm = opened("llama", tmp_path)
    first = load(bake(lm, plan_with("scale"), tmp_path / "one.gguf"))
    second = bake(first, plan_with("scale", "bias", layers=(2,)), tmp_path / "two.gguf")
    third = load(bake(load(second), plan_with("bias"), tmp_path / "three.gguf"))
    assert sum(key.startswith("clas.baked.") for key in read_header(second).metadata) == 2
    # What was baked first acts last: on what the later plan made of the neurons.
    both = plan_with("scale", "bias", layers=(2,)) @ plan_with("scale") @ plan_with("bias")
    torch.testing.assert_close(logits(third), logits(lm, both), atol=1e-4, rtol=1e-4)


def test_values_too_large_for_half_precision_are_kept(tmp_path) -> None:
    lm = opened("llama", tmp_path, "F16")
    plan = SteeringPlan({1: LayerPlan(scale=torch.full((64,), 1e6))})
    out = bake(lm, plan, tmp_path / "steered.gguf")
    assert contents(out)["blk.1.ffn_down.weight"][0] == "F32"
    assert torch.isfinite(load(out).mlps[1].weight).all()


def test_what_cannot_be_baked_gets_a_sentence(tiny_lm, tmp_path) -> None:
    qwen = opened("qwen2", tmp_path)
    out = tmp_path / "out.gguf"
    for lm, plan, message in (
        (tiny_lm, plan_with("scale"), "wasn't opened from a GGUF"),
        (qwen, plan_with("bias"), "llama.cpp has no place for a bias in the MLPs of qwen2"),
        (qwen, plan_with("scale").at("answer"), "a part of it"),
    ):
        with pytest.raises(ClasError, match=message):
            bake(lm, plan, out)
    other = opened("llama", tmp_path)  # over the file that the first one came from
    with pytest.raises(ClasError, match="has other weights than the model in layer 1"):
        bake(qwen, plan_with("scale"), out)
    with torch.no_grad():
        other.mlps[1].weight[0, 0] += 1
    with pytest.raises(ClasError, match="has other weights than the model in layer 1"):
        bake(other, plan_with("scale"), out)
    assert not out.exists()
    with pytest.raises(ClasError, match="is there already"):
        bake(other, plan_with("scale"), tmp_path / "model.gguf")


# Against llama.cpp itself


def said_by_llama_cpp(path: Path, prompt: list[int], count: int) -> tuple[int, ...]:
    """The next tokens, the likeliest each time. Skips the test without llama-cpp-python."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")
    model = llama_cpp.Llama(str(path), n_ctx=128, n_threads=1, verbose=False)
    said = tuple(islice(model.generate(prompt, temp=0.0, repeat_penalty=1.0), count))
    model.close()
    return said


@EVERY_KIND
def test_llama_cpp_says_what_we_say(name, parts, tmp_path) -> None:
    """Of a model left alone, and of the file with a plan baked in."""
    lm, plan = opened(name, tmp_path), plan_with(*parts)
    out = bake(lm, plan, tmp_path / "steered.gguf")
    *_, step = generate(lm, TEXTS[0], plans=[None, plan], max_new_tokens=24)
    unsteered, steered_ = step.token_ids
    assert unsteered != steered_
    prompt = lm.encode(TEXTS[:1]).input_ids[0].tolist()
    assert said_by_llama_cpp(tmp_path / "model.gguf", prompt, len(unsteered)) == unsteered
    assert said_by_llama_cpp(out, prompt, len(steered_)) == steered_
