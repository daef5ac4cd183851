"""Whatever bytes a file holds, its reader says one sentence or gives the text."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clas_core.errors import ClasError
from clas_core.text.corpus import ParallelCorpus
from clas_core.text.report import check_corpus

NAMES = ["en.txt", "a.tsv", "a.csv", "a.jsonl", "en.json", "en.jsonl", "en.parquet", "a.en-sw.en"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "paragraphs", "qas", "id", "question", "text", "en", "sw"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


def try_to_read(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    report = check_corpus(path, max_bytes=10**6)
    assert all("\n" not in error for error in report.errors)
    if report.ok:
        assert ParallelCorpus.load(path, max_bytes=10**6).sentences == report.sentences
        return
    with pytest.raises(ClasError) as refused:
        ParallelCorpus.load(path, max_bytes=10**6)
    assert 10 < len(str(refused.value)) < 600


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=200))
@example(data=b"\0")
@example(data=b"\xff\xfe\x00")
@example(data=b"en\tsw\n\xc3\x28\tx")
@example(data=b"en,sw\n" + b'"' * 7)
@example(data=b"[" * 100_000)
@example(data=b'{"data":' * 100_000)
@example(data=b'{"en": ' + b"9" * 5000 + b"}")
@example(data=b'{"data": {"paragraphs": 1}}')
@example(data=b"en,sw\n" + b"x" * 200_000 + b",y")
@example(data=b"x" * 900_000)
@example(data=b"x" * 1_100_000)
@example(data=b"PAR1" + b"\xff" * 40 + b"PAR1")
@settings(max_examples=50)
def test_any_bytes(tmp_path_factory, name, data):
    try_to_read(tmp_path_factory.mktemp("any"), name, data)


@pytest.mark.parametrize("name", ["a.jsonl", "en.json", "en.jsonl"])
@given(value=JSON)
@settings(max_examples=100)
def test_any_json(tmp_path_factory, name, value):
    try_to_read(tmp_path_factory.mktemp("json"), name, json.dumps(value).encode())


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
@given(text=st.text('ensw\t,;"\n\r -_', max_size=60))
@settings(max_examples=100)
def test_any_table(tmp_path_factory, name, text):
    try_to_read(tmp_path_factory.mktemp("table"), name, text.encode())


@given(code=st.from_regex(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8}){0,4}", fullmatch=True))
@example(code="en-a-b")
@example(code="en-x-private")
@example(code="en_u_ca_gregory")
@settings(max_examples=60)
def test_any_code(tmp_path_factory, code):
    try_to_read(tmp_path_factory.mktemp("code"), "a.tsv", f"{code}\tsw\nOne.\tMoja.\n".encode())


@pytest.mark.parametrize("place", ["x" * 5000, "a\0b", ""])
def test_a_path_that_is_none(place):
    with pytest.raises(ClasError):
        ParallelCorpus.load(place)
