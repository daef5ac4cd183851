"""The forms benchmarks are published in, by little files of the same names and our own words."""

from __future__ import annotations

import json

import pytest

from clas_core.errors import ClasError
from clas_core.text.files import language_of
from clas_core.text.reading import read

EN, SW = ["One.", "Two?"], ["Moja.", "Mbili?"]


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def texts(raw):
    assert raw.errors == ()
    return {column.code: list(column.lines) for column in raw.columns}


def squad(questions):
    items = [{"id": name, "question": text, "answers": []} for name, text in questions.items()]
    paragraphs = [{"context": "…", "qas": [item]} for item in items]
    return [json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})]


def test_ntrex(tmp_path):
    folder = write(
        tmp_path / "NTREX-128",
        {
            "newstest2019-src.eng.txt": EN,
            "newstest2019-ref.swa.txt": SW,
            "newstest2019-ref.spa.txt": ["Uno.", "¿Dos?"],
            "newstest2019-ref-2.spa.txt": ["Un.", "¿Dos dos?"],
            "newstest2019-ref.zho-TW.txt": ["一。", "二？"],
            "newstest2019-ref.zho-CN.txt": ["一。", "二？"],
            "newstest2019-ref.srp-Cyrl.txt": ["Један.", "Два?"],
            "newstest2019-ref.srp-Latn.txt": ["Jedan.", "Dva?"],
        },
    )
    raw = read(folder)
    assert raw.name == "NTREX-128"
    assert " ".join(texts(raw)) == "es sr sr-Latn sw zh zh-Hant en"
    assert texts(raw)["es"] == ["Uno.", "¿Dos?"]
    assert raw.warnings == ("newstest2019-ref-2.spa.txt was left out: it is a second reference.",)


def test_flores_200_and_101(tmp_path):
    root = tmp_path / "flores200_dataset"
    write(root / "dev", {"eng_Latn.dev": EN, "swh_Latn.dev": SW})
    write(root / "devtest", {"eng.devtest": EN, "zho_simpl.devtest": ["一。", "二？"]})
    write(root, {"README": ["A list."], "metadata_dev.tsv": ["URL\tdomain"]})
    assert texts(read(root / "dev")) == {"en": EN, "sw": SW}
    assert list(texts(read(root / "devtest"))) == ["en", "zh"]
    with pytest.raises(ClasError, match="give one of its folders: dev, devtest"):
        read(root)


def test_flores_plus_is_aligned_by_id(tmp_path):
    def rows(code, lines, order):
        return [
            json.dumps({"id": i, "iso_639_3": code, "text": lines[i], "url": "x"}) for i in order
        ]

    folder = write(
        tmp_path / "dev",
        {"eng_Latn.jsonl": rows("eng", EN, [0, 1]), "swh_Latn.jsonl": rows("swh", SW, [1, 0])},
    )
    raw = read(folder)
    assert texts(raw) == {"en": EN, "sw": SW}
    assert raw.columns[1].place([0]) == "swh_Latn.jsonl, line 2"


def test_flores_plus_as_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    for code, lines in (("eng_Latn", EN), ("swh_Latn", SW)):
        table = pyarrow.table({"id": [0, 1], "text": lines})
        parquet.write_table(table, tmp_path / f"{code}.parquet")
    assert texts(read(tmp_path)) == {"en": EN, "sw": SW}
    (tmp_path / "deu_Latn.parquet").write_bytes(b"no parquet")
    assert read(tmp_path).errors == ("deu_Latn.parquet is no parquet file that can be read.",)


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (["x" * 1000] * 50_000, {}),  # one text, referred to 50,000 times
        (["x" * 50_000_000], {"use_dictionary": False}),
        ([f"{n:0>5000}" for n in range(2000)], {"use_dictionary": False}),
    ],
)
@pytest.mark.parametrize("codec", ["zstd", "gzip", "snappy"])
def test_a_parquet_file_is_bounded_as_it_is_unpacked(tmp_path, texts, options, codec):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    path = tmp_path / "eng_Latn.parquet"
    parquet.write_table(pyarrow.table({"text": texts}), path, compression=codec, **options)
    limit = max(1_000_000, path.stat().st_size + 1)
    assert sum(map(len, texts)) > 2 * limit
    raw = read(path, limit)
    assert raw.columns == ()
    assert "can be taken; give fewer sentences" in raw.errors[0]
    several = [path.rename(tmp_path / "swh_Latn.parquet")]
    assert read(several).columns[0].lines == texts  # one's own files have no limit


@pytest.mark.parametrize("given", ["corpus.en-sw.en", "corpus.en-sw.sw", "corpus.en-sw"])
def test_moses_pair(tmp_path, given):
    write(tmp_path, {"corpus.en-sw.en": EN, "corpus.en-sw.sw": SW, "corpus.en-sw.ids": ["1", "2"]})
    write(tmp_path, {"corpus.en-sw.de": ["…"], "corpus.de-en.de": ["Eins."], "LICENSE": ["…"]})
    raw = read(tmp_path / given)
    assert raw.name == "corpus.en-sw"
    assert texts(raw) == {"en": EN, "sw": SW}


def test_moses_without_a_pair_in_the_name(tmp_path):
    write(tmp_path, {"train.en": EN, "train.sw": SW, "train.log": ["…"], "run.sh": ["…"]})
    assert texts(read(tmp_path / "train")) == {"en": EN, "sw": SW}
    assert texts(read(tmp_path)) == {"en": EN, "sw": SW}


def test_xquad_is_aligned_by_question(tmp_path):
    write(tmp_path, {"xquad.en.json": squad({"a": "Who?", "b": "Where?"})})
    write(tmp_path, {"xquad.hi.json": squad({"b": "कहाँ?", "a": "कौन?"})})
    raw = read(tmp_path)
    assert texts(raw) == {"en": ["Who?", "Where?"], "hi": ["कौन?", "कहाँ?"]}
    paths = [tmp_path / "xquad.en.json", tmp_path / "xquad.hi.json"]
    assert read(paths).name == "xquad"
    write(tmp_path, {"xquad.de.json": squad({"b": "Wo?"})})
    assert read(tmp_path).errors[0] == (
        "xquad.en.json doesn't fit xquad.de.json: it has 1 more; give files of the same release "
        "and split."
    )
    assert read([*paths, tmp_path / "xquad.de.json"]).errors == (
        "xquad.de.json doesn't fit xquad.en.json: it lacks 1 of its sentences (id a); give files "
        "of the same release and split.",
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"data": 3}', '{"data": [{"paragraphs": [{}]}]}'])
def test_json_that_is_not_xquad(tmp_path, text):
    (tmp_path / "en.json").write_text(text)
    assert read(tmp_path).errors == (
        "en.json is not in XQuAD's form: data, paragraphs, qas, id and question.",
    )


def test_one_file_and_several(tmp_path):
    write(tmp_path, {"en.txt": EN, "sw.txt": SW, "swahili.txt": SW})
    assert texts(read(tmp_path / "en.txt")) == {"en": EN}
    several = [tmp_path / "sw.txt", tmp_path / "en.txt"]
    assert texts(read(several)) == {"sw": SW, "en": EN}
    assert read(several).name == "2 files"
    assert read([*several, tmp_path / "swahili.txt"]).errors == (
        "swahili.txt: the name tells no language; call it sw.txt, for example.",
    )
    assert read(tmp_path).warnings == (
        "swahili.txt was left out: its name tells no language, as sw.txt does.",
    )


def test_one_language_in_two_files(tmp_path):
    write(tmp_path, {"en.dev": EN, "en.devtest": EN, "sw.dev": SW})
    assert read(tmp_path).errors == ("en.dev and en.devtest are both en; keep one.",)
    write(tmp_path / "b", {"en.txt": EN, "eng.txt": EN})
    with pytest.raises(ClasError, match="en and eng are the same language"):
        read(tmp_path / "b")


def test_all_files_are_read_before_anything_is_said(tmp_path):
    write(tmp_path, {"en.txt": EN})
    (tmp_path / "es.txt").write_bytes("Año.\nDía.\n".encode("latin-1"))
    (tmp_path / "de.txt").write_bytes("Eins.\nZwei?\n".encode("utf-16"))
    (tmp_path / "sw.txt").write_bytes("Moja.\nMbili?\n".encode("utf-16-le"))
    raw = read(tmp_path)
    assert [column.code for column in raw.columns] == ["en"]
    assert raw.errors == (
        "de.txt is UTF-16 text; save it as UTF-8.",
        "es.txt, line 1 is not UTF-8 text but perhaps Latin-1 or another older encoding; save the "
        "file as UTF-8.",
        "sw.txt is no text, or UTF-16; save it as UTF-8 text.",
    )


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("en.txt", "en"),
        ("newstest2019-ref.aze-Latn.txt", "aze-Latn"),
        ("xquad.zh.json", "zh"),
        ("CCAligned.en-zh_CN.zh_CN", "zh_CN"),
        ("eng_Latn.devtest", "eng_Latn"),
        ("xx.txt", "xx"),  # unknown, but the ending vouches for it
        ("run.xx", None),
        ("run.sh", None),
        ("README.md", None),
        ("LICENSE", None),
        ("en", None),
        ("kiswahili.txt", None),
    ],
)
def test_language_in_a_name(tmp_path, name, code):
    assert language_of(tmp_path / name) == code
