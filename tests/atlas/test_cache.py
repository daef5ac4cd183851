from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_tokenizer, tiny_llama_model

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.cache import cache_folder, list_cached, measure_cached
from clas_core.atlas.fingerprint import fingerprint
from clas_core.model.loading import load


class Cancelled(Exception):
    pass


def never(done: int, total: int) -> None:
    raise AssertionError("measured again")


def test_the_same_model_and_text_are_measured_once(tiny_lm, tiny_corpus, tmp_path):
    first = measure_cached(tiny_lm, tiny_corpus, folder=tmp_path)
    again = load(tiny_llama_model(), make_tokenizer())  # equal weights, another object
    kept = measure_cached(again, tiny_corpus, folder=tmp_path, progress=never)
    assert torch.equal(kept.probability, first.probability)
    (entry,) = list_cached(tmp_path)
    assert entry.languages == tiny_corpus.languages
    assert entry.meta["corpus"] == "tiny"
    assert entry.size == entry.path.stat().st_size
    assert torch.equal(entry.open().mean, first.mean)
    entry.delete()
    assert list_cached(tmp_path) == []


def test_other_weights_types_or_text_are_measured_for_themselves(tiny_lm, tiny_corpus, tmp_path):
    measure_cached(tiny_lm, tiny_corpus, folder=tmp_path)
    other = load(copy.deepcopy(tiny_lm.model), tiny_lm.tokenizer)
    with torch.no_grad():
        other.mlps[0].weight.mul_(1.01)
    assert fingerprint(other) != fingerprint(tiny_lm)
    half = load(copy.deepcopy(tiny_lm.model).bfloat16(), tiny_lm.tokenizer)
    for lm, corpus in (
        (other, tiny_corpus),
        (half, tiny_corpus),
        (tiny_lm, tiny_corpus.subset(["en", "sw"])),
    ):
        measure_cached(lm, corpus, folder=tmp_path)
    assert len(list_cached(tmp_path)) == 4


def test_a_broken_file_is_measured_again_and_a_foreign_one_passed_over(
    tiny_lm, tiny_corpus, tmp_path
):
    measure_cached(tiny_lm, tiny_corpus, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert list_cached(tmp_path) == []
    measure_cached(tiny_lm, tiny_corpus, folder=tmp_path)
    assert [entry.path for entry in list_cached(tmp_path)] == [path]


def test_cancelled_it_goes_on_from_there(tiny_lm, tiny_corpus, tmp_path):
    def cancel(done: int, total: int) -> None:
        if done >= 12:
            raise Cancelled

    with pytest.raises(Cancelled):
        measure_cached(tiny_lm, tiny_corpus, folder=tmp_path, batch_size=4, progress=cancel)
    assert list_cached(tmp_path) == []
    seen: list[int] = []
    atlas = measure_cached(
        tiny_lm, tiny_corpus, folder=tmp_path, batch_size=4, progress=lambda d, _: seen.append(d)
    )
    assert seen[0] > 12
    assert torch.equal(atlas.mean, Atlas.measure(tiny_lm, tiny_corpus, batch_size=4).mean)
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "x.unfinished").write_text("not ours")  # never looked at


def test_a_broken_beginning_is_begun_again(tiny_lm, tiny_corpus, tmp_path):
    measure_cached(tiny_lm, tiny_corpus, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.rename(path.with_suffix(".unfinished"))
    assert measure_cached(tiny_lm, tiny_corpus, folder=tmp_path).num_layers == 3


def test_where_atlases_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("CLAS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CLAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "clas-studio"
