from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from fake_hub import COMMIT, serving
from tiny import FAMILIES, TOKENS, make_tokenizer, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from clas_core.atlas import preflight
from clas_core.atlas.preflight import Fertility, Preflight, inspect, size_text
from clas_core.errors import ClasError
from clas_core.model.loading import load
from clas_core.model.machine import free_memory, multiply_rate
from clas_core.text.corpus import ParallelCorpus

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_lm) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny_lm.model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def configured(saved: Path, folder: Path, config: dict) -> Path:
    """A copy of the saved model with another config."""
    shutil.copytree(saved, folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "family", ["gpt2", "phi3", "gemma4_text", "qwen2_moe", "deepseek_v3", "gpt_oss", "mpt"]
)
def test_sizes_are_those_of_the_loaded_model(family, tmp_path, tokenizer) -> None:
    assert family in FAMILIES
    tiny_model(family).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    seen, lm = inspect(tmp_path), load(tmp_path)
    assert (seen.reason, seen.warnings) == ("", ())
    assert seen.architecture == type(lm.model).__name__
    assert seen.parameters == lm.model.num_parameters()
    assert (seen.widths, seen.hidden_size) == (lm.widths, lm.hidden_size)
    assert seen.weights == 4 * seen.parameters
    assert (seen.experts, seen.experts_per_token) == (
        (4, 2) if "experts" in str(lm.mlps) else (0, 0)
    )


def test_no_weight_is_read(saved, tmp_path, tiny_lm) -> None:
    folder = configured(saved, tmp_path / "m", tiny_lm.model.config.to_dict())
    (folder / "model.safetensors").write_bytes(b"nothing of use")
    seen = inspect(folder, dtype="bfloat16")
    assert seen.supported
    assert (seen.dtype, seen.weights) == ("bfloat16", 2 * tiny_lm.model.num_parameters())
    assert (seen.context, seen.chat_template, seen.gated, seen.download) == (256, False, False, 0)


def test_a_large_model_is_described_in_no_time(saved, tmp_path, monkeypatch) -> None:
    """Llama 3.1 8B: 8,030,261,248 parameters, as its authors count them."""
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
    )
    monkeypatch.setattr(preflight, "free_memory", lambda place: 10**10)
    seen = inspect(configured(saved, tmp_path / "m", config.to_dict()))
    assert seen.parameters == 8_030_261_248
    assert (seen.layers, set(seen.widths)) == (32, {14336})
    assert seen.weights == 4 * seen.parameters
    (warning,) = seen.warnings
    assert warning.startswith(f"It needs {size_text(seen.needed)} of memory on the CPU and 10.0 GB")
    assert dict(seen.rows)["layers"] == "32 of 14,336 neurons, hidden size 4,096"


def test_fertility_by_hand(saved, tmp_path, tiny_corpus) -> None:
    tokenizer = make_tokenizer()
    seen = inspect(saved, corpus=tiny_corpus)
    tokens = {
        code: sum(len(tokenizer.tokenize(text)) for text in texts)
        for code, texts in tiny_corpus.sentences.items()
    }
    assert seen.languages == tuple(
        Fertility(
            code,
            tokens[code] / sum(len(text) for text in tiny_corpus.sentences[code]),
            tokens[code] / tokens["en"],
            0.0,
        )
        for code in tiny_corpus.languages
    )
    without = inspect(saved, corpus=tiny_corpus.subset(["es", "hi"]))
    assert [one.against_english for one in without.languages] == [None, None]
    thai = ParallelCorpus("thai", {"en": ["It rains."], "th": ["ฝนกำลังตก"]})
    (warning,) = inspect(saved, corpus=thai).warnings
    assert warning.startswith("The tokenizer spells Thai in bytes")


def test_unknown_text_is_warned_of(saved, tmp_path, tiny_corpus) -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "The": 1, "cat": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = shutil.copytree(saved, tmp_path / "words")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    seen = inspect(
        folder, corpus=ParallelCorpus("two", {"en": ["The cat cat"], "sw": ["Paka cat"]})
    )
    assert [one.unknown for one in seen.languages] == [0.0, 0.5]
    assert seen.warnings == (
        "The tokenizer can't spell all of Swahili: choose another model for it.",
    )


def test_sentences_beyond_the_context_are_warned_of(saved, tmp_path, tiny_lm, tiny_corpus) -> None:
    config = {**tiny_lm.model.config.to_dict(), "max_position_embeddings": 20}
    folder = configured(saved, tmp_path / "m", config)
    tokenizer = make_tokenizer()
    sizes = [len(tokenizer(t)["input_ids"]) for ts in tiny_corpus.sentences.values() for t in ts]
    count = sum(size > 20 for size in sizes)
    assert 1 < count < len(sizes)
    seen = inspect(folder, corpus=tiny_corpus)
    assert seen.too_long == count
    assert any(
        warning.startswith(f"{count} sentences are longer than the 20 tokens")
        for warning in seen.warnings
    )
    assert inspect(saved, corpus=tiny_corpus).too_long == 0


def test_a_config_of_any_number_of_layers_is_answered_at_once(
    saved, tmp_path, tiny_lm, monkeypatch
) -> None:
    """Nothing is built for it: meanwhile no other model could be loaded."""
    monkeypatch.setattr(preflight, "build_empty", lambda *_: pytest.fail("built"))
    config = {**tiny_lm.model.config.to_dict(), "num_hidden_layers": 100_000}
    seen = inspect(configured(saved, tmp_path / "m", config))
    assert "100,000 layers, more than any model's" in seen.reason


def test_minutes_are_operations_at_the_measured_speed(saved, tiny_corpus, monkeypatch) -> None:
    monkeypatch.setattr(preflight, "multiply_rate", lambda *_: 1e6)
    seen = inspect(saved, corpus=tiny_corpus)
    tokenizer = make_tokenizer()
    # One batch a language, padded to its longest sentence.
    tokens = sum(
        len(texts) * max(len(tokenizer(text)["input_ids"]) for text in texts)
        for texts in tiny_corpus.sentences.values()
    )
    attention, mlp, norms = 2 * 32 * 32 + 2 * 32 * 16, 3 * 32 * 64, 2 * 32
    operations = 2 * 3 * (attention + mlp + norms) * tokens
    assert seen.minutes == pytest.approx(1.5 * operations / 1e6 / 60)
    assert dict(seen.rows)["measuring"].startswith("about ")


def test_experts_that_a_token_misses_cost_no_time() -> None:
    with torch.device("meta"):
        few, many = (
            preflight._measure_body(tiny_model("olmoe", num_experts=n, num_local_experts=n))
            for n in (4, 64)
        )
    assert many.active - few.active == 2 * 32 * 60  # the routers of two layers
    assert many.parameters > 4 * few.parameters
    assert many.busy == few.busy == 2 * 64


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "t5"}, r"\(t5\) is an encoder-decoder"),
        ({"model_type": "clip"}, r"\(clip\) is no causal language model"),
        ({"model_type": "brand-new"}, "doesn't know the architecture"),
        ({"model_type": "x", "auto_map": {"AutoConfig": "a.B"}}, "Python code of its own"),
        ({**TOKENS, "model_type": "mamba", "hidden_size": 32}, "found no list of"),
    ],
)
def test_what_is_not_supported_says_why(config, reason, saved, tmp_path) -> None:
    seen = inspect(configured(saved, tmp_path / "m", config))
    assert not seen.supported
    assert re.search(reason, seen.reason)


def test_reasons_of_files(saved, tmp_path) -> None:
    folder = shutil.copytree(saved, tmp_path / "bin")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    seen = inspect(folder)
    assert "no weights in *.safetensors" in seen.reason
    assert seen.parameters is not None  # all that could be known is
    folder = shutil.copytree(saved, tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in inspect(folder).reason
    with pytest.raises(ClasError, match="no directory"):
        inspect(tmp_path / "missing")


def test_the_library_of_a_quantised_model(saved, tmp_path, tiny_lm) -> None:
    config = tiny_lm.model.config.to_dict()
    packed = {"quant_method": "awq", "bits": 4, "group_size": 128}
    folder = configured(saved, tmp_path / "awq", {**config, "quantization_config": packed})
    seen = inspect(folder)
    assert seen.quantisation == "awq"
    assert "pip install" in seen.reason
    packed = {"quant_method": "mxfp4"}
    folder = configured(saved, tmp_path / "mxfp4", {**config, "quantization_config": packed})
    seen = inspect(folder)
    assert (seen.reason, seen.quantisation) == ("", "mxfp4")
    assert seen.weights == seen.parameters * getattr(torch, seen.dtype).itemsize


def test_on_the_hub_no_weight_is_fetched(saved, tmp_path, monkeypatch, tiny_corpus) -> None:
    with serving({"us/tiny": saved}, tmp_path / "cache", monkeypatch) as hub:
        seen = inspect("us/tiny", revision="v1", corpus=tiny_corpus)
        assert (seen.source, seen.revision, seen.reason) == ("us/tiny", COMMIT, "")
        assert seen.download == (saved / "model.safetensors").stat().st_size
        assert len(seen.languages) == 4
        assert not any("safetensors" in request for request in hub.requests)
        load("us/tiny", revision="v1")
        assert inspect("us/tiny").download == 0

        hub.gated.add("us/tiny")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
        seen = inspect("us/tiny")
        assert seen.gated
        assert "accept its licence" in seen.reason
        assert seen.download > 0


def test_to_dict_is_json(saved, tiny_corpus) -> None:
    seen = inspect(saved, corpus=tiny_corpus)
    plain = json.loads(json.dumps(seen.to_dict()))
    assert plain["supported"] is True
    assert plain["layers"] == 3
    assert plain["needed"] == seen.weights + seen.working
    assert plain["languages"][0]["language"] == "en"


def test_a_gated_model_that_is_open_to_you() -> None:
    seen = Preflight("us/m", COMMIT, True, 0, "cpu", None)
    assert seen.warnings == ("It is gated: its licence binds you.",)
    assert seen.needed is None


@pytest.mark.parametrize(
    ("size", "text"), [(1_500, "2 kB"), (54e6, "54 MB"), (16.06e9, "16.1 GB"), (2e12, "2.0 TB")]
)
def test_sizes_for_people(size, text) -> None:
    assert size_text(size) == text


def test_free_memory_is_that_of_the_container(tmp_path, monkeypatch) -> None:
    machine = free_memory(CPU)
    assert machine is None or machine > 0
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1000000\nfile 999\n")
    monkeypatch.setattr("clas_core.model.machine._CGROUP", tmp_path)
    assert free_memory(CPU) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) != 2_000_000


def test_the_rate_counts_two_operations_a_weight(monkeypatch) -> None:
    monkeypatch.setattr("clas_core.model.machine._time_product", lambda weight, rows: rows * 1e-3)
    assert multiply_rate(CPU, torch.float32, 100, 200) == pytest.approx(2 * 100 * 200 / 1e-3)
