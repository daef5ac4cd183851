"""Data sets of the hub, from a stand-in for the datasets library or from local folders."""

from __future__ import annotations

import json
import sys
import types

import pytest

from clas_core.errors import ClasError
from clas_core.text.reading import read

TABLES = {
    ("Some/opus", "en-sw"): [
        {"translation": {"en": "One.", "sw": "Moja."}},
        {"translation": {"en": "Two.", "sw": "Mbili."}},
    ],
    ("Some/columns", None): [
        {"id": "1", "sentence_eng_Latn": "One.", "sentence_swh_Latn": "Moja.", "URL": "x"}
    ],
    ("Some/flores", "eng_Latn"): [{"id": 1, "text": "One."}, {"id": 2, "text": "Two."}],
    ("Some/flores", "swh_Latn"): [{"id": 2, "text": "Mbili."}, {"id": 1, "text": "Moja."}],
    ("Some/xnli", "all"): [{"premise": {"en": "One.", "sw": "Moja."}, "label": 0}],
    ("Some/labels", None): [{"text": "One.", "label": 1}],
}


class DatasetsError(Exception):
    pass


@pytest.fixture
def asked(monkeypatch):
    """A datasets library that knows TABLES; what it was asked for."""
    calls = []

    def load_dataset(repo, config, *, split, revision, streaming):
        assert streaming
        calls.append((repo, config, split, revision))
        if (repo, config) not in TABLES:
            raise ValueError(f"BuilderConfig {config!r} not found.\nMore.")
        return iter(TABLES[repo, config])

    library = types.ModuleType("datasets")
    library.load_dataset = load_dataset
    exceptions = types.ModuleType("datasets.exceptions")
    exceptions.DatasetsError = DatasetsError
    monkeypatch.setitem(sys.modules, "datasets", library)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", exceptions)
    return calls


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("hub:Some/opus?config=en-sw", {"en": ["One.", "Two."], "sw": ["Moja.", "Mbili."]}),
        ("hub:Some/opus?config=en-sw&rows=1", {"en": ["One."], "sw": ["Moja."]}),
        ("hub:Some/columns", {"en": ["One."], "sw": ["Moja."]}),
        (
            "hub:Some/flores?config=eng_Latn,swh_Latn&split=dev",
            {"en": ["One.", "Two."], "sw": ["Moja.", "Mbili."]},
        ),
        ("hub:Some/xnli?config=all&column=premise", {"en": ["One."], "sw": ["Moja."]}),
    ],
)
def test_forms(asked, source, texts):
    raw = read(source)
    assert raw.errors == ()
    assert {column.code: list(column.lines) for column in raw.columns} == texts
    assert raw.name == source[4:].partition("?")[0]


def test_options_reach_the_library(asked):
    read("hub:Some/opus?config=en-sw&split=dev&revision=abc")
    read("hub:Some/columns")
    assert asked == [("Some/opus", "en-sw", "dev", "abc"), ("Some/columns", None, "test", None)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hub:", "is no data set of the hub"),
        ("hub:../../etc/passwd", "is no data set of the hub"),
        ("hub:a/b/c", "is no data set of the hub"),
        ("hub:Some/opus?splitt=dev", "unknown option splitt; there are config, split"),
        ("hub:Some/opus?rows=-1", "rows=-1 is not a number of rows"),
        ("hub:Some/opus?config=en-de", r"can't be read: BuilderConfig 'en-de' not found\.$"),
        ("hub:Some/labels", "no column named by a language, only text, label"),
        ("hub:Some/flores?config=eng_Latn,swh_Latn&column=none", "say which column holds the text"),
    ],
)
def test_refusals(asked, source, message):
    with pytest.raises(ClasError, match=message):
        read(source)


def test_the_library_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ClasError, match=r"pip install 'clas-studio\[hub\]'"):
        read("hub:Some/opus?config=en-sw")


def test_the_real_library_on_a_local_folder(tmp_path, monkeypatch):
    """It takes a folder for a repository of the same name, so this needs no network."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "text").mkdir(parents=True)
    rows = [
        {"translation": {"en": "One.", "sw": "Moja."}},
        {"translation": {"en": "Two.", "sw": "Mbili."}},
    ]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "some" / "text" / "test.jsonl").write_text(lines)
    raw = read("hub:some/text")
    assert {c.code: list(c.lines) for c in raw.columns} == {
        "en": ["One.", "Two."],
        "sw": ["Moja.", "Mbili."],
    }
    with pytest.raises(ClasError, match="The data set some/text can't be read"):
        read("hub:some/text?split=nowhere")
