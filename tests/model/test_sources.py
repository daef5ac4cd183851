from __future__ import annotations

from pathlib import Path

import pytest
from fake_hub import COMMIT, serving

from clas_core.errors import ClasError
from clas_core.model.sources import Source, check_allowed, find_source


def make(folder: Path, **files: int) -> Path:
    folder.mkdir()
    for name, size in files.items():
        (folder / name.replace("_at_", ".")).write_bytes(b"x" * size)
    return folder


def test_a_directory(tmp_path) -> None:
    folder = make(tmp_path / "m", config_at_json=2, model_at_safetensors=30)
    source = find_source(folder)
    assert source == Source(str(folder), {"config.json": 2, "model.safetensors": 30})
    assert (source.weight_bytes, source.download_bytes, source.commit) == (30, 0, None)
    source.check()
    with pytest.raises(ClasError, match="revision is for models on the hub"):
        find_source(folder, "main")
    with pytest.raises(ClasError, match="There is no directory"):
        find_source(tmp_path / "missing")
    with pytest.raises(ClasError, match="There is no directory"):
        find_source("./missing")


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["model.safetensors", "consolidated.safetensors"], ("model.safetensors",)),
        (
            ["model-2.safetensors", "model-1.safetensors"],
            ("model-1.safetensors", "model-2.safetensors"),
        ),
        (["consolidated-1.safetensors", "adapter_model.safetensors", "pytorch_model.bin"], ()),
        (["onnx/model.safetensors"], ()),
    ],
)
def test_the_weights_are_what_transformers_reads(files, weights) -> None:
    assert Source("x", dict.fromkeys(files, 1)).weights == weights


def test_what_is_no_model_is_named() -> None:
    with pytest.raises(ClasError, match="is an adapter"):
        Source("x", {"adapter_config.json": 1, "adapter_model.safetensors": 1}).check()
    with pytest.raises(ClasError, match=r"no config\.json"):
        Source("x", {"model.gguf": 1}).check()
    with pytest.raises(ClasError, match=r"no weights in \*\.safetensors"):
        Source("x", {"config.json": 1}).check()
    with pytest.raises(ClasError, match="the weights of x aren't on this machine"):
        Source("x", {"config.json": 1}, offline=True).check()
    Source("x", {"config.json": 1}).check(weights=False)


def test_on_the_hub(tmp_path, monkeypatch) -> None:
    folder = make(tmp_path / "m", config_at_json=2, model_at_safetensors=30)
    with serving({"us/m": folder}, tmp_path / "cache", monkeypatch) as hub:
        source = find_source("us/m")
        assert (source.path, source.commit, source.revision) == ("us/m", COMMIT, None)
        assert dict(source.files) == {"config.json": 2, "model.safetensors": 30}
        assert (source.weight_bytes, source.download_bytes, source.gated) == (30, 30, False)
        assert source.options["revision"] == COMMIT
        assert not any("resolve" in request for request in hub.requests)
        hub.gated.add("us/m")
        assert find_source("us/m").gated
        with pytest.raises(ClasError, match="us/m has no revision nope"):
            find_source("us/m", "nope")
        with pytest.raises(ClasError, match="the hub shows no model of that name"):
            find_source("us/none")
        with pytest.raises(ClasError, match="neither a directory here nor a hub id"):
            find_source("us/m/deep")


@pytest.mark.parametrize("model", ["village", "Qwen/Qwen3-0.6B", "google/gemma-3-1b-it"])
def test_allowed(model) -> None:
    check_allowed(model, ["Qwen/*", "google/gemma-3-1b-it"])
    check_allowed(model, ["*"])


@pytest.mark.parametrize(
    "model", ["Other/Qwen", "qwen/Qwen3-0.6B", "google/gemma-3-1b-it2", "gpt2"]
)
def test_not_allowed(model) -> None:
    with pytest.raises(ClasError, match=r"choose from village, Qwen/\*, google/gemma-3-1b-it\."):
        check_allowed(model, ["Qwen/*", "local", "google/gemma-3-1b-it"])
    with pytest.raises(ClasError, match=r"choose from village\."):
        check_allowed(model, [])


@pytest.mark.parametrize(
    ("allowed", "revision", "loaded"),
    [
        (["Qwen/*"], None, None),
        (["Qwen/*"], "main", "main"),
        (["Qwen/a@abc"], None, "abc"),
        (["Qwen/a@abc"], "abc", "abc"),
        (["Qwen/a@abc", "Qwen/a@def"], "def", "def"),
        (["Qwen/a@abc", "Qwen/*"], "main", "main"),
        (["*"], "refs/pr/7", "refs/pr/7"),
        (["Qwen/*", "local"], "refs/pr/7", "refs/pr/7"),
    ],
)
def test_allowed_revisions(allowed, revision, loaded) -> None:
    assert check_allowed("Qwen/a", allowed, revision) == loaded


@pytest.mark.parametrize("revision", ["refs/pr/7", "abcd", "MAIN", "main ", "abc@main"])
@pytest.mark.parametrize("allowed", [["Qwen/*"], ["Qwen/a@abc"], ["Qwen/a", "b/*@*"]])
def test_foreign_revisions(allowed, revision) -> None:
    with pytest.raises(ClasError, match="leave out @"):
        check_allowed("Qwen/a", allowed, revision)


def test_directories_need_local(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen" / "mine").mkdir(parents=True)
    for model in (str(tmp_path), "Qwen/mine", "./Qwen/mine", "../x", "~/x", "a/b/c", "C:\\m", ""):
        with pytest.raises(ClasError, match="opens no directories"):
            check_allowed(model, ["*", "Qwen/*"])
        check_allowed(model, ["local"])
