from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from fake_hub import COMMIT, serving
from safetensors.torch import save_file
from tiny import LLAMA_LIKE, TOKENS, make_tokenizer, tiny_llama_model, tiny_model
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.model.architecture import LanguageModel, UnsupportedModel
from clas_core.model.loading import build_empty, choose_dtype, load, read_config
from clas_core.model.prompts import render
from clas_core.model.sources import find_source
from clas_core.running.generation import generate
from clas_core.running.states import hidden_states
from clas_core.steering.baking import bake
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered

needs_accelerate = pytest.mark.skipif(not find_spec("accelerate"), reason="an optional package")
TEXTS = ["The cat sleeps in the house.", "It rains."]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_lm) -> Path:
    """A directory with the tiny Llama."""
    return save(tiny_lm.model, tmp_path_factory.mktemp("saved"))


def save(model, folder: Path) -> Path:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def folder_of(config, folder: Path) -> Path:
    """A directory with a config and files that look like the rest of a model."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").touch()
    (folder / "tokenizer.json").write_text("{}")
    return folder


def plan_for(lm: LanguageModel) -> SteeringPlan:
    """Scales, biases and shifts in every layer."""
    generator = torch.Generator().manual_seed(5)
    layers = {
        layer: LayerPlan(
            1 + 0.5 * torch.randn(width, generator=generator),
            0.1 * torch.randn(width, generator=generator),
            0.1 * torch.randn(lm.hidden_size, generator=generator),
        )
        for layer, width in enumerate(lm.widths)
    }
    return SteeringPlan(layers)


def logits_of(lm: LanguageModel, plan: SteeringPlan | None = None) -> torch.Tensor:
    with torch.inference_mode(), steered(lm, plan):
        return lm.model(**lm.encode(TEXTS).inputs).logits.float()


# Spread over devices


def dispatched(way: str, folder: Path, tokenizer) -> LanguageModel:
    from accelerate import cpu_offload

    if way == "cpu_offload":  # as accelerate keeps in RAM what a GPU fetches for each forward
        model = load(folder).model
        return load(cpu_offload(model, torch.device("cpu")), tokenizer)
    if way == "disk":
        return load(folder, device_map={"": "disk"})
    return load(
        folder,
        device_map={
            "model.embed_tokens": "cpu",
            "model.layers.0": "cpu",
            "model.layers.1": "disk",
            "model.layers.2": "cpu",
            "model.norm": "cpu",
            "model.rotary_emb": "cpu",
            "lm_head": "disk",
        },
    )


@needs_accelerate
@pytest.mark.parametrize("way", ["cpu_offload", "disk", "mixed"])
def test_an_offloaded_model_does_what_the_whole_one_does(
    way, saved, tiny_lm, tiny_corpus, tokenizer, tmp_path
) -> None:
    lm = dispatched(way, saved, tokenizer)
    assert any(parameter.is_meta for parameter in lm.model.parameters())
    assert lm.device == torch.device("cpu")
    plan = plan_for(tiny_lm)
    assert torch.equal(logits_of(lm), logits_of(tiny_lm))
    assert torch.equal(logits_of(lm, plan), logits_of(tiny_lm, plan))
    assert not torch.equal(logits_of(lm, plan), logits_of(lm))
    *_, found = generate(lm, TEXTS[0], [None, plan], max_new_tokens=8)
    *_, expected = generate(tiny_lm, TEXTS[0], [None, plan], max_new_tokens=8)
    assert found.token_ids == expected.token_ids
    atlas, whole = (Atlas.measure(one, tiny_corpus) for one in (lm, tiny_lm))
    for name in ("probability", "mean", "residual", "tokens"):
        assert torch.equal(getattr(atlas, name), getattr(whole, name)), name
    with pytest.raises(ClasError, match="offloaded: load it whole"):
        bake(lm, plan, tmp_path / "baked")


@needs_accelerate
def test_hidden_states_of_an_offloaded_model(saved, tiny_lm, tiny_corpus) -> None:
    lm = load(saved, device_map={"": "disk"})
    plan = plan_for(tiny_lm)
    found, expected = (hidden_states(one, tiny_corpus, plan=plan) for one in (lm, tiny_lm))
    assert torch.equal(found.pooled, expected.pooled)


@needs_accelerate
def test_offloaded_experts(tmp_path, tokenizer) -> None:
    model = tiny_model("qwen2_moe")
    save(model, tmp_path)
    whole, lm = load(model.eval(), tokenizer), load(tmp_path, device_map={"": "disk"})
    plan = plan_for(whole)
    torch.testing.assert_close(logits_of(lm), logits_of(whole))
    torch.testing.assert_close(logits_of(lm, plan), logits_of(whole, plan))


@needs_accelerate
def test_device_map_auto(saved, tiny_lm) -> None:
    assert torch.equal(logits_of(load(saved, device_map="auto")), logits_of(tiny_lm))


@needs_accelerate
def test_places_are_checked(saved, monkeypatch) -> None:
    with pytest.raises(ClasError, match="give only one of them"):
        load(saved, device="cpu", device_map="auto")
    with pytest.raises(ClasError, match="There is no device 'gpu': say cpu"):
        load(saved, device="gpu")
    with pytest.raises(ClasError, match=r"has \d+ CUDA devices, so no cuda:9"):
        load(saved, device="cuda:9")
    with pytest.raises(ClasError, match="There is no device 'dsik'"):
        load(saved, device_map={"": "dsik"})
    with pytest.raises(ClasError, match=f"Can't load {saved}: .*found nope"):
        load(saved, device_map="nope")
    with pytest.raises(ClasError, match="float32, bfloat16 or float16, not 'float33'"):
        load(saved, dtype="float33")
    monkeypatch.setattr("clas_core.model.loading.find_spec", lambda name: None)
    with pytest.raises(ClasError, match=r"pip install clas-studio\[multi-gpu\]"):
        load(saved, device_map="auto")


def test_a_model_without_any_weights_is_refused_when_used(tokenizer, saved) -> None:
    source = find_source(saved)
    lm = load(build_empty(source, read_config(source)), tokenizer)
    with pytest.raises(ClasError, match="has no weights"):
        lm.encode(TEXTS)


def test_no_load_changes_what_other_threads_take_for_a_float(saved, monkeypatch) -> None:
    """While a model is made in bfloat16, another thread's noise and scores stay in float32."""
    seen = []
    plain = torch.nn.Linear.__init__

    def looked_at(self, *arguments, **options):
        plain(self, *arguments, **options)
        with ThreadPoolExecutor(1) as other:
            seen.append((self.weight.dtype, other.submit(torch.empty, 1).result().dtype))

    monkeypatch.setattr(torch.nn.Linear, "__init__", looked_at)
    assert load(saved, dtype="bfloat16").dtype == torch.bfloat16
    source = find_source(saved)
    config = read_config(source)
    config.dtype = torch.bfloat16
    assert build_empty(source, config).dtype == torch.bfloat16
    assert set(seen) == {(torch.bfloat16, torch.float32)}


# Quantised


@needs_accelerate
def test_torchao_weights_steer_and_measure(saved, tmp_path, tiny_corpus) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import AutoModelForCausalLM, TorchAoConfig

    model = AutoModelForCausalLM.from_pretrained(
        saved,
        dtype=torch.float32,
        quantization_config=TorchAoConfig(quantization.Int8WeightOnlyConfig()),
    )
    lm = load(save(model, tmp_path / "int8"))
    assert hasattr(lm.mlps[0].weight, "dequantize")
    assert lm.dtype == torch.float32

    plain = tiny_llama_model()  # the same with the rounded weights, by hand
    rounded = dict(lm.model.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            value = rounded[name]
            parameter.copy_(value.dequantize() if hasattr(value, "dequantize") else value)
    by_hand = load(plain, lm.tokenizer)
    plan = plan_for(lm)
    torch.testing.assert_close(logits_of(lm), logits_of(by_hand), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits_of(lm, plan), logits_of(by_hand, plan), atol=1e-4, rtol=1e-4)
    found, expected = (Atlas.measure(one, tiny_corpus) for one in (lm, by_hand))
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-5, rtol=1e-4)
    assert (found.probability - expected.probability).abs().max() < 0.05
    with pytest.raises(ClasError, match="quantised: load it unquantised"):
        bake(lm, plan, tmp_path / "baked")


@pytest.mark.parametrize(
    ("method", "package"),
    [("gptq", "optimum"), ("awq", "gptqmodel"), ("bitsandbytes", "bitsandbytes")],
)
def test_a_missing_quantiser_is_named(method, package, tmp_path, tokenizer) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    packed = {"quant_method": method, "bits": 4, "group_size": 128}
    if method == "bitsandbytes":
        packed = {"load_in_4bit": True}
    config = LlamaConfig(**TOKENS, **LLAMA_LIKE).to_dict()
    folder = folder_of({**config, "quantization_config": packed}, tmp_path)
    tokenizer.save_pretrained(folder)
    with pytest.raises(ClasError, match=f"needs a package: pip install '{package}"):
        load(folder)


@needs_accelerate
def test_fp8_is_unpacked(tmp_path, tokenizer) -> None:
    """Blocks of 128 x 128 with a scale each, as DeepSeek publishes them."""
    sizes = {**LLAMA_LIKE, "hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    model = tiny_model("llama", **sizes).to(torch.bfloat16)
    state = dict(model.state_dict())
    for name in [name for name in state if "proj" in name]:
        weight = state[name].float()
        rows, columns = (-(-size // 128) for size in weight.shape)
        scale = 0.01 + 0.001 * torch.rand(rows, columns)
        blocks = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
        blocks = blocks[: weight.shape[0], : weight.shape[1]]
        small = (weight / blocks).to(torch.float8_e4m3fn)
        with torch.no_grad():
            model.get_parameter(name).copy_(small.float() * blocks)
        state[name], state[f"{name}_scale_inv"] = small, scale
    config = {
        **model.config.to_dict(),
        "dtype": "bfloat16",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }
    folder = folder_of(config, tmp_path)
    tokenizer.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    lm = load(folder)
    assert lm.dtype == torch.bfloat16
    for name, parameter in lm.model.named_parameters():
        torch.testing.assert_close(parameter, model.get_parameter(name), msg=name)


@needs_accelerate
def test_mxfp4_experts_are_unpacked(tmp_path, tokenizer) -> None:
    """Two 4-bit numbers a byte, 32 to a scale, which is a power of two: OpenAI's format."""
    generator = torch.Generator().manual_seed(6)
    model = tiny_model("gpt_oss").to(torch.bfloat16)
    half = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    values = torch.tensor([*half, *(-value for value in half)])
    state = dict(model.state_dict())
    for name in [name for name in state if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = state.pop(name).shape
        groups = inputs // 32
        packed = torch.randint(256, (experts, outputs, groups, 16), generator=generator)
        scale = torch.randint(122, 126, (experts, outputs, groups), generator=generator)
        state[f"{name}_blocks"], state[f"{name}_scales"] = packed.byte(), scale.byte()
        numbers = values[torch.stack([packed % 16, packed // 16], dim=-1)].flatten(-2)
        weight = (numbers * 2.0 ** (scale - 127)[..., None]).flatten(-2).transpose(1, 2)
        with torch.no_grad():
            model.get_parameter(name).copy_(weight)
    packing = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    folder = folder_of({**model.config.to_dict(), "quantization_config": packing}, tmp_path)
    tokenizer.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    lm = load(folder, dtype="bfloat16")
    assert lm.widths == load(model, tokenizer).widths
    for name, parameter in lm.model.named_parameters():
        torch.testing.assert_close(parameter, model.get_parameter(name), msg=name)


def test_dtype_is_float32_on_the_cpu_and_else_the_checkpoints_own() -> None:
    config = LlamaConfig(dtype="bfloat16")
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_dtype(config, None, cpu) == torch.float32
    assert choose_dtype(config, "auto", gpu) == torch.bfloat16
    assert choose_dtype(LlamaConfig(), None, gpu) == torch.float32
    assert choose_dtype(config, "float16", cpu) == torch.float16
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    assert choose_dtype(config, None, cpu) == torch.bfloat16


# What can't be loaded


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "foo-9"}, "transformers doesn't know the architecture"),
        ({"model_type": "foo", "auto_map": {"AutoConfig": "a.B"}}, "code of its own, which is nev"),
        ({"hidden_size": 3}, "Should have a `model_type` key"),
        ({"model_type": "llama", "hidden_size": "wide"}, "expected int, got str"),
        (T5Config().to_dict(), r"\(t5\) is an encoder-decoder: choose a decoder-only"),
        (BertConfig().to_dict(), r"\(bert\) is an encoder"),
        ({"model_type": "clip"}, r"\(clip\) is no causal language model"),
        ({"model_type": "bart"}, r"\(bart\) is an encoder-decoder"),
    ],
)
def test_other_models_are_refused_in_one_sentence(config, sentence, tmp_path) -> None:
    with pytest.raises(ClasError, match=sentence) as caught:
        load(folder_of(config, tmp_path))
    assert "\n" not in str(caught.value)


def test_broken_files_are_refused(saved, tmp_path) -> None:
    folder = shutil.copytree(saved, tmp_path / "config")
    (folder / "config.json").write_text("{")
    with pytest.raises(ClasError, match="not a valid JSON file"):
        load(folder)
    folder = shutil.copytree(saved, tmp_path / "weights")
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ClasError, match=f"Can't load {folder}: "):
        load(folder)
    folder = shutil.copytree(saved, tmp_path / "tokenizer")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ClasError, match=f"Can't load {folder}: "):
        load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ClasError, match="has no tokenizer"):
        load(folder)


def test_weights_are_never_made_up(saved, tmp_path) -> None:
    state = tiny_llama_model().state_dict()
    del state["model.layers.1.mlp.up_proj.weight"]
    folder = shutil.copytree(saved, tmp_path / "part")
    tiny_llama_model().save_pretrained(folder, state_dict=state)
    with pytest.raises(ClasError, match=r"no weights for model\.layers\.1\.mlp\.up_proj\.weight"):
        load(folder)


def test_a_tokenizer_names_the_packages_it_needs(saved, tmp_path) -> None:
    folder = shutil.copytree(saved, tmp_path / "sentencepiece")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"not read without the package")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    if find_spec("sentencepiece") or find_spec("tiktoken"):
        pytest.skip("the packages are installed")
    with pytest.raises(ClasError, match="needs packages: pip install sentencepiece tiktoken"):
        load(folder)


def test_in_memory_models_take_no_options(tiny_lm, tokenizer) -> None:
    for option in ({"device_map": "auto"}, {"revision": "main"}, {"device": "cpu"}):
        with pytest.raises(ClasError, match="this model is loaded"):
            load(tiny_lm.model, tokenizer, **option)


def test_models_in_memory_must_be_causal(tokenizer) -> None:
    sizes = {"num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 400}
    bert = BertConfig(hidden_size=32, num_hidden_layers=2, **sizes)
    t5 = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=400)
    for model, message in (
        (T5ForConditionalGeneration(t5), "T5ForConditionalGeneration is an encoder-decoder"),
        (BertForMaskedLM(bert), "BertForMaskedLM is an encoder, it reads both ways"),
        (tiny_llama_model().model, "LlamaModel has no language-model head"),
        (torch.nn.Linear(2, 2), "Linear is no PreTrainedModel"),
    ):
        with pytest.raises(UnsupportedModel, match=message):
            load(model, tokenizer)


def test_adapters_of_peft_are_steered_and_learned_prompts_refused(tokenizer, tiny_lm) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["down_proj", "gate_proj"], init_lora_weights=False)
    model = peft.get_peft_model(tiny_llama_model(), config)
    lm, plan = load(model, tokenizer), plan_for(tiny_lm)
    with torch.inference_mode(), steered(lm, plan):  # through either handle
        through_peft = model(**lm.encode(TEXTS).inputs).logits
    assert torch.equal(through_peft, logits_of(lm, plan))
    merged = load(model.merge_and_unload(), tokenizer)
    torch.testing.assert_close(logits_of(merged, plan), through_peft, rtol=1e-4, atol=1e-4)
    with pytest.raises(ClasError, match="were replaced since it was loaded"):
        logits_of(lm, plan)
    prompt = peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    with pytest.raises(UnsupportedModel, match="a learned prompt"):
        load(peft.get_peft_model(tiny_llama_model(), prompt), tokenizer)


def test_tokens_that_the_model_lacks_are_named(tmp_path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<new>"])
    lm = load(tiny_llama_model(vocab_size=len(tokenizer) - 1), tokenizer)
    lm.encode(TEXTS)
    for read in (lambda text: lm.encode([text]), lambda text: render(lm, text, chat="off")):
        with pytest.raises(ClasError, match=r"writes '<new>' as \d+, but .* resize_token_emb"):
            read("The cat <new>")
    tokenizer.add_special_tokens({"pad_token": "<fill>"})  # what only pads does no harm
    lm = load(tiny_llama_model(vocab_size=len(tokenizer) - 2), tokenizer)
    assert lm.pad_id == tokenizer.eos_token_id
    logits_of(lm)


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama", {"num_attention_heads": 0}, "describes no model .*check its numbers"),
        ("llama", {"num_key_value_heads": 0}, "describes no model .*check its numbers"),
        ("gpt2", {"n_head": 0}, "describes no model .*check its numbers"),
        ("llama", {"pad_token_id": 10**9}, "describes no model .*check its numbers"),
        ("gpt2", {"dtype": "x"}, "describes no model .*check its numbers"),
        ("llama", {"num_hidden_layers": 10**5}, "claims 100,000 layers"),
        ("gpt2", {"n_layer": 10**5}, "claims 100,000 layers"),
        ("llama", {"hidden_size": "wide"}, "Can't load"),
    ],
)
def test_a_config_of_no_model_is_refused_at_once(family, change, message, tmp_path) -> None:
    folder = folder_of({**tiny_model(family).config.to_dict(), **change}, tmp_path)
    source = find_source(folder)
    with pytest.raises(ClasError, match=message):
        build_empty(source, read_config(source))


# The hub


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    with serving({"us/tiny": saved}, tmp_path / "cache", monkeypatch) as hub:
        yield hub


def test_a_hub_model_is_pinned_and_needs_no_network_twice(hub, tiny_lm) -> None:
    lm = load("us/tiny", revision="v1")
    assert (lm.name, lm.revision) == ("us/tiny", COMMIT)
    assert torch.equal(logits_of(lm), logits_of(tiny_lm))
    assert load("us/tiny").revision == COMMIT
    asked = [request for request in hub.requests if "safetensors" in request]
    assert asked == [
        f"{verb} us/tiny/resolve/{COMMIT}/model.safetensors" for verb in ("HEAD", "GET")
    ]
    hub.shutdown()
    hub.server_close()
    for revision in (None, "v1", COMMIT):
        again = load("us/tiny", revision=revision)
        assert again.revision == COMMIT
        assert torch.equal(logits_of(again), logits_of(tiny_lm))
    with pytest.raises(ClasError, match="can't be reached and us/tiny isn't on this machine"):
        load("us/tiny", revision="v2")
    with pytest.raises(ClasError, match="can't be reached and us/other isn't on this machine"):
        load("us/other")


def test_gated_models_say_what_to_do(hub) -> None:
    hub.gated.add("us/tiny")
    with pytest.raises(ClasError, match=r"accept its licence at .*/us/tiny, .* `hf auth login`"):
        load("us/tiny")


def test_a_hub_model_that_needs_other_files_is_never_downloaded(hub, tmp_path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    hub.repos["us/bin"] = folder
    with pytest.raises(ClasError, match=r"no weights in \*\.safetensors, the only format"):
        load("us/bin")
    assert not any("resolve" in request for request in hub.requests)


def test_two_may_load_at_once(tokenizer, tmp_path) -> None:
    """Weights stay tied: transformers switches that off for all threads while it loads."""
    tiny_llama_model(tie_word_embeddings=True).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load(tmp_path), range(16)))
    for lm in loaded:
        assert lm.model.lm_head.weight is lm.model.model.embed_tokens.weight
    assert "empty" not in PreTrainedModel.tie_weights.__name__
