from __future__ import annotations

import argparse
import copy
import dataclasses
from importlib.util import find_spec

import pytest
import torch
from tiny import make_tokenizer, tiny_gpt2_model, tiny_llama_model, tiny_model
from tokenizers import normalizers

from clas_core.atlas import fingerprint as prints
from clas_core.atlas.atlas import Atlas, _log_once
from clas_core.atlas.cache import list_cached, measure_cached
from clas_core.atlas.fingerprint import fingerprint
from clas_core.errors import ClasError
from clas_core.evaluation.judging.items import Test
from clas_core.evaluation.judging.results import Log, describe
from clas_core.model.loading import load
from clas_core.paths import ASSETS
from clas_core.shell.options import atlas_of
from clas_core.steering.baking import bake
from clas_core.steering.plan import LayerPlan, SteeringPlan
from clas_core.steering.recipe import Recipe


def with_tokenizer(change):
    tokenizer = make_tokenizer()
    change(tokenizer)
    return load(tiny_llama_model(), tokenizer)


@pytest.mark.parametrize("make", [tiny_llama_model, tiny_gpt2_model, lambda: tiny_model("mixtral")])
def test_any_column_of_any_weight_shows(make, tokenizer):
    lm = load(make(), tokenizer)
    found = {fingerprint(lm).weights}
    changes = 1
    for weight in lm.model.parameters():
        for column in {0, 1, weight.shape[-1] // 2, weight.shape[-1] - 1}:
            with torch.no_grad():
                weight[..., column] += 0.25
            found.add(fingerprint(lm).weights)
            changes += 1
    assert len(found) == changes


def test_a_checkpoint_has_one_print_wherever_and_in_whatever_it_is_loaded(tokenizer, tmp_path):
    published = tiny_llama_model().bfloat16()
    published.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    here = fingerprint(load(published, tokenizer))
    assert fingerprint(load(tmp_path)) == here  # in float32
    assert fingerprint(load(tmp_path, dtype="bfloat16")) == here
    full = tiny_llama_model()
    assert fingerprint(load(full, tokenizer)).weights != here.weights  # these were rounded
    assert (
        fingerprint(load(tiny_llama_model().half(), tokenizer)).weights
        == fingerprint(load(tiny_llama_model().half().float(), tokenizer)).weights
    )


def test_values_are_read_once_unless_they_change(tiny_lm, monkeypatch):
    lm = load(copy.deepcopy(tiny_lm.model), tiny_lm.tokenizer)
    reads = []
    read = prints._hash
    monkeypatch.setattr(prints, "_hash", lambda tensor: reads.append(1) or read(tensor))
    first = fingerprint(lm)
    count = len(reads)
    assert fingerprint(lm) == first == fingerprint(load(lm.model, lm.tokenizer))
    assert len(reads) == count > 0
    weight = lm.mlps[0].down.weight
    with torch.no_grad():
        weight[:, 5] *= 2
    second = fingerprint(lm)
    weight.data = weight.data.clone()
    assert fingerprint(lm) == second != first
    weight.data.mul_(2)
    third = fingerprint(lm)
    lm.mlps[0].down.weight = torch.nn.Parameter(torch.zeros_like(weight))
    assert len({str(one) for one in (first, second, third, fingerprint(lm))}) == 4


def test_made_under_inference_mode_it_is_read_every_time(tokenizer):
    with torch.inference_mode():
        lm = load(tiny_llama_model(), tokenizer)
        first = fingerprint(lm)
        lm.mlps[0].down.weight[:, 3] += 1
        assert fingerprint(lm) != first


def test_the_tokenizer_shows(tiny_lm):
    usual = fingerprint(tiny_lm)

    def lower(tokenizer):
        tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()

    def no_start(tokenizer):
        tokenizer.backend_tokenizer.post_processor = None

    changes = [lower, no_start, lambda t: t.add_tokens(["kitabu"])]
    changes.append(lambda t: t.add_special_tokens({"eos_token": "the"}))
    found = {usual.tokenizer} | {fingerprint(with_tokenizer(one)).tokenizer for one in changes}
    found.add(fingerprint(load(tiny_llama_model(), make_tokenizer(390))).tokenizer)
    assert len(found) == 6


def test_what_no_token_depends_on_does_not_show(tiny_lm):
    usual = fingerprint(tiny_lm)

    def template(tokenizer):
        tokenizer.chat_template = "{{ messages }}"

    def pad(tokenizer):
        tokenizer.pad_token = tokenizer.eos_token

    def used(tokenizer):
        tokenizer(["a", "b c"], padding=True, truncation=True, max_length=2)

    for change in (template, pad, used):
        assert fingerprint(with_tokenizer(change)) == usual


def test_the_config_shows(tiny_lm, tmp_path):
    usual = fingerprint(tiny_lm)
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    for changes in ({"rope_parameters": rope}, {"hidden_act": "silu"}, {"rms_norm_eps": 1e-5}):
        other = fingerprint(load(tiny_llama_model(**changes), tiny_lm.tokenizer))
        assert other.config != usual.config
        assert other.weights == usual.weights
    tiny_lm.model.save_pretrained(tmp_path)  # which writes down its class, type and version
    tiny_lm.tokenizer.save_pretrained(tmp_path)
    assert fingerprint(load(tmp_path)) == usual


@pytest.mark.skipif(find_spec("accelerate") is None, reason="needs accelerate")
def test_offloaded_weights_are_read_from_where_they_are(tiny_lm, tmp_path):
    tiny_lm.model.save_pretrained(tmp_path)
    tiny_lm.tokenizer.save_pretrained(tmp_path)
    lm = load(tmp_path, device_map={"": "disk"})
    assert any(parameter.is_meta for parameter in lm.model.parameters())
    assert fingerprint(lm) == fingerprint(tiny_lm)


def test_packed_weights_show_and_are_measured(tiny_lm, tiny_corpus, tmp_path):
    quantization = pytest.importorskip("torchao.quantization")
    found = set()
    for factor in (1.0, 1.5):
        model = tiny_llama_model()
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight[:, 7] *= factor
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
        lm = load(model, tiny_lm.tokenizer)
        assert fingerprint(lm) == fingerprint(lm)
        found.add(fingerprint(lm).weights)
        assert measure_cached(lm, tiny_corpus, folder=tmp_path).tokens.all()
    assert len(found | {fingerprint(tiny_lm).weights}) == 3


def test_a_baked_model_is_another_one(tiny_lm, tiny_corpus, tmp_path):
    measure_cached(tiny_lm, tiny_corpus, folder=tmp_path / "kept")
    scale = torch.ones(64)
    scale[-1] = 0.5
    bake(tiny_lm, SteeringPlan({2: LayerPlan(scale)}), tmp_path / "baked")
    measure_cached(load(tmp_path / "baked"), tiny_corpus, folder=tmp_path / "kept")
    assert len(list_cached(tmp_path / "kept")) == 2


@pytest.fixture(scope="module")
def atlas(tiny_lm, tiny_corpus):
    return Atlas.measure(tiny_lm, tiny_corpus)


def other_models():
    weights = tiny_llama_model()
    with torch.no_grad():
        weights.model.layers[1].mlp.down_proj.weight[:, 7] *= 2
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    yield "weights", load(weights, make_tokenizer())
    yield "config", load(tiny_llama_model(rope_parameters=rope), make_tokenizer())
    yield "tokenizer", with_tokenizer(lambda t: t.add_tokens(["kitabu"]))


def test_an_atlas_of_another_model_of_equal_sizes_is_refused(atlas, tiny_lm, tmp_path):
    path = tmp_path / "atlas"
    atlas.save(path)
    arguments, recipe = argparse.Namespace(atlas=path), Recipe()
    assert atlas_of(arguments, recipe, tiny_lm).languages == atlas.languages
    recipe.build(atlas, tiny_lm)
    for part, lm in other_models():
        said = f"has other {part}: choose this model's own atlas, or measure it"
        with pytest.raises(ClasError, match=said):
            atlas_of(arguments, recipe, lm)
        with pytest.raises(ClasError, match=said):
            recipe.build(atlas, lm)
        with pytest.raises(ClasError, match=said):
            describe(lm, atlas, Test, [])


def test_a_log_of_another_model_is_refused(atlas, tiny_lm, tmp_path):
    about = describe(tiny_lm, atlas, Test, [])
    Log(tmp_path / "log", Test, about)
    Log(tmp_path / "log", Test, about)
    assert about["versions"]["transformers"]
    for part, lm in other_models():
        own = dataclasses.replace(atlas, meta={})
        with pytest.raises(ClasError, match=part):
            Log(tmp_path / "log", Test, describe(lm, own, Test, []))


def test_an_atlas_without_a_print_is_told_of_once(atlas, tiny_lm, tiny_gpt2, caplog):
    old = dataclasses.replace(atlas, meta={"model": "old"})
    _log_once.cache_clear()
    for _ in range(2):
        old.check(tiny_lm)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "The atlas of old has no fingerprint"
    ]
    narrow = dataclasses.replace(old, widths=(64, 64, 63))
    with pytest.raises(ClasError, match="of other sizes"):
        narrow.check(tiny_lm)


def test_the_shipped_atlas_is_of_the_shipped_model():
    Atlas.load(ASSETS / "village" / "atlas.safetensors").check(load("village", device="cpu"))
    meta = Atlas.load(ASSETS / "village" / "atlas.safetensors").meta
    assert set(meta["fingerprint"]) == {"weights", "tokenizer", "config"}
