from __future__ import annotations

import copy
import os
import time

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_tokenizer, tiny_llama_model

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.cache import (
    cache_bytes,
    cache_folder,
    list_cached,
    make_room,
    measure_cached,
)
from clas_core.atlas.fingerprint import fingerprint
from clas_core.errors import ClasError
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


def kept_files(folder, sizes):
    """Files as of kept atlases, the first one used longest ago."""
    for age, (name, size) in enumerate(reversed(sizes.items())):
        path = folder / name
        path.write_bytes(bytes(size))
        os.utime(path, (1e9 - age, 1e9 - age))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_least_recently_used_make_room(tmp_path):
    a, b, c, d = (f"{letter * 32}" for letter in "abcd")
    sizes = {
        f"{a}.safetensors": 40,
        f"{b}.unfinished": 40,
        f"{c}.unfinished.1": 40,
        f"{d}.safetensors": 40,
        "mine.safetensors": 400,  # not ours to count or remove
    }
    kept_files(tmp_path, sizes)
    (tmp_path / "texts").mkdir()
    make_room(tmp_path, 160)
    assert names(tmp_path) == {*sizes, "texts"}
    make_room(tmp_path, 159)
    assert names(tmp_path) == {*sizes, "texts"} - {f"{a}.safetensors"}
    make_room(tmp_path, 80)
    assert names(tmp_path) == {f"{c}.unfinished.1", f"{d}.safetensors", "mine.safetensors", "texts"}
    make_room(tmp_path, 0)  # the last used one stays
    assert names(tmp_path) == {f"{d}.safetensors", "mine.safetensors", "texts"}


def test_what_is_opened_is_used(tiny_lm, tiny_corpus, tmp_path, monkeypatch):
    few = tiny_corpus.subset(["en", "sw"])
    for corpus in (tiny_corpus, few):
        measure_cached(tiny_lm, corpus, folder=tmp_path)
    for age, entry in enumerate(list_cached(tmp_path)):
        os.utime(entry.path, (1e9 - age, 1e9 - age))
    assert [len(entry.languages) for entry in list_cached(tmp_path)] == [2, 4]
    measure_cached(tiny_lm, tiny_corpus, folder=tmp_path, progress=never)
    assert [len(entry.languages) for entry in list_cached(tmp_path)] == [4, 2]
    list_cached(tmp_path)[1].open()
    assert [len(entry.languages) for entry in list_cached(tmp_path)] == [2, 4]
    newest = list_cached(tmp_path)[0].size
    monkeypatch.setenv("CLAS_CACHE_BYTES", str(2 * newest))
    measure_cached(tiny_lm, tiny_corpus.subset(["es", "sw"]), folder=tmp_path)
    assert {entry.languages for entry in list_cached(tmp_path)} == {("en", "sw"), ("es", "sw")}


def test_beginnings_that_are_never_finished_make_room_too(
    tiny_lm, tiny_corpus, tmp_path, monkeypatch
):
    def cancel(done: int, total: int) -> None:
        raise Cancelled

    monkeypatch.setenv("CLAS_CACHE_BYTES", "0")
    for codes in (["en", "sw"], ["en", "es"], ["en", "hi"], ["en", "hi"]):
        with pytest.raises(Cancelled):
            measure_cached(tiny_lm, tiny_corpus.subset(codes), folder=tmp_path, progress=cancel)
        assert len(names(tmp_path)) <= 2  # the last one, and one that it made


def test_what_a_killed_process_was_writing_goes(tmp_path):
    for name, age in (("a", 7200), ("b", 60)):
        scratch = tmp_path / f".{name * 32}.safetensors.x1"
        scratch.mkdir()
        (scratch / "half").write_bytes(bytes(100))
        os.utime(scratch, (time.time() - age, time.time() - age))
    make_room(tmp_path, 0)
    assert names(tmp_path) == {f".{'b' * 32}.safetensors.x1"}


def test_the_budget_is_a_number_of_bytes(tiny_lm, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.delenv("CLAS_CACHE_BYTES", raising=False)
    assert cache_bytes() == 2_000_000_000
    monkeypatch.setenv("CLAS_CACHE_BYTES", "2 GB")
    with pytest.raises(ClasError, match="number of bytes, such as 2000000000, not '2 GB'"):
        measure_cached(tiny_lm, tiny_corpus, folder=tmp_path, progress=never)
