from __future__ import annotations

import json
import unicodedata

import pytest

from clas_core.errors import ClasError
from clas_core.text import corpus as corpus_module
from clas_core.text.corpus import ParallelCorpus

LINES = {"en": ["One.", "Two."], "sw": ["Moja.", "Mbili."]}


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_three_forms_read_the_same(tmp_path):
    tsv = write(tmp_path / "a.tsv", "en\tsw\nOne.\tMoja.\nTwo.\tMbili.\n")
    rows = [dict(zip(LINES, row)) for row in zip(*LINES.values())]
    jsonl = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    folder = tmp_path / "a"
    folder.mkdir()
    for code, lines in LINES.items():
        write(folder / f"{code}.txt", "\n".join(lines) + "\n")
    for path in (tsv, jsonl, folder):
        corpus = ParallelCorpus.load(path)
        assert corpus.sentences == LINES
        assert corpus.languages == ("en", "sw")
        assert len(corpus) == 2
        assert corpus.name == "a"
    assert len({ParallelCorpus.load(path).fingerprint for path in (tsv, jsonl, folder)}) == 1


def test_byte_order_mark_and_windows_lines_are_no_text(tmp_path):
    path = write(tmp_path / "a.tsv", "\ufeffen\tsw\r\nOne.\tMoja.\r\n")
    assert ParallelCorpus.load(path).sentences == {"en": ["One."], "sw": ["Moja."]}


def test_fingerprint_follows_content_not_name():
    one = ParallelCorpus("a", LINES)
    assert one.fingerprint == ParallelCorpus("b", LINES).fingerprint
    assert one.fingerprint != one.subset(["sw", "en"]).fingerprint
    assert one.fingerprint != one.subset(n=1).fingerprint


def test_subset_keeps_order():
    part = ParallelCorpus("a", LINES).subset(["sw"], 1)
    assert part.sentences == {"sw": ["Moja."]}
    with pytest.raises(ClasError, match=r"no xx; its languages are en, sw"):
        ParallelCorpus("a", LINES).subset(["xx"])
    with pytest.raises(ClasError, match="at least one sentence"):
        ParallelCorpus("a", LINES).subset(n=0)


def test_subset_takes_any_spelling():
    assert ParallelCorpus("a", LINES).subset(["swh_Latn", "eng"]).languages == ("sw", "en")


def test_subset_gives_the_region_asked_for_or_none(tmp_path):
    for code, lines in {"por": "Comboio.", "por-BR": "Trem.", "eng": "Train.", "fas": "…"}.items():
        write(tmp_path / f"newstest2019-ref.{code}.txt", lines + "\n")
    ntrex = ParallelCorpus.load(tmp_path)
    assert ntrex.languages == ("en", "fa", "pt-BR", "pt")
    assert ntrex.subset(["por-BR"]).sentences == {"pt-BR": ["Trem."]}
    assert ntrex.subset(["por"]).sentences == {"pt": ["Comboio."]}
    for wanted in ("pt-PT", "eng-GB", "prs"):
        with pytest.raises(ClasError, match=f"no {wanted}; its languages are en, fa, pt-BR, pt"):
            ntrex.subset([wanted])


def test_a_lone_variant_keeps_its_region(tmp_path):
    write(tmp_path / "a.tsv", "por-BR\teng\nTrem.\tTrain.\n")
    corpus = ParallelCorpus.load(tmp_path / "a.tsv")
    assert corpus.languages == ("pt-BR", "en")
    assert corpus.subset(["pt"]).languages == ("pt-BR",)
    with pytest.raises(ClasError, match="no pt-PT"):
        corpus.subset(["pt-PT"])


@pytest.mark.parametrize(
    ("name", "fingerprint"), [("village", "31b7b9937d715130"), ("everyday", "e6886ed8d0278822")]
)
def test_bundled_text_stays_as_the_stored_assets_know_it(name, fingerprint):
    assert ParallelCorpus.bundled(name).fingerprint == fingerprint


def test_languages_get_their_shortest_codes(tmp_path):
    path = write(tmp_path / "a.tsv", "eng_Latn\tswh\tzho-TW\nOne.\tMoja.\t一。\n")
    assert ParallelCorpus.load(path).languages == ("en", "sw", "zh-Hant")


def test_a_list_of_files_is_one_text(tmp_path):
    paths = [write(tmp_path / f"{code}.txt", "\n".join(LINES[code])) for code in LINES]
    assert ParallelCorpus.load(paths).sentences == LINES
    assert ParallelCorpus.open([str(path) for path in paths]).sentences == LINES


@pytest.mark.parametrize("source", ["a.tsv", ".", ["a.tsv"]])
def test_the_caller_limits_the_size(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.tsv", "en\tsw\nOne.\tMoja.\n")
    with pytest.raises(ClasError, match=r"at most 0\.0 MB"):
        ParallelCorpus.load(source, max_bytes=5)


def test_archives_are_to_be_unpacked(tmp_path):
    with pytest.raises(ClasError, match="unpack it"):
        ParallelCorpus.load(write(tmp_path / "a.zip", "PK"))
    with pytest.raises(ClasError, match="There is no file"):
        ParallelCorpus.load([])


def test_what_python_code_gives_is_checked_too():
    with pytest.raises(ClasError, match=r"1 sentence of sw is empty \(sentence 2\)"):
        ParallelCorpus("a", {**LINES, "sw": ["Moja.", " "]})
    with pytest.raises(ClasError, match="'Not a code' is not a language code"):
        ParallelCorpus("a", {"Not a code": ["One."]})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "en\tsw\nOne.\n", r"line 2: 1 columns, but the first row names 2"),
        ("a.tsv", "en\tsw\nOne.\t\n", r"1 sentence of sw is empty \(a.tsv, line 2\)"),
        ("a.tsv", "en\tsw\nOne.\tMoja.\n\nTwo.\tMbili.\n", r"line 3: 1 columns"),
        ("a.tsv", "en\ten\nOne.\tOne.\n", r"names a language twice"),
        ("a.tsv", "One two.\tMoja mbili.\n", r"no sentences"),
        ("a.tsv", "One two.\tMoja.\nTwo.\tMbili.\n", r"'One two.' is not a language code"),
        ("a.tsv", "", r"no sentences"),
        ("a.jsonl", '{"en": "One."}\n{"en": "Two.", "sw": "Mbili."}', r"line 2: languages en, sw"),
        ("a.jsonl", '{"en": 1}', r"line 1: expected an object of texts"),
        ("a.jsonl", "{", r"line 1: not valid JSON"),
        ("a.docx", "en,sw", r"not in a form that can be read; give a .tsv"),
    ],
)
def test_bad_files_get_one_clear_sentence(tmp_path, name, text, message):
    with pytest.raises(ClasError, match=message):
        ParallelCorpus.load(write(tmp_path / name, text))


def test_wrong_encoding(tmp_path):
    path = write(tmp_path / "a.tsv", "en\tes\nYear.\tAño.\n", "latin-1")
    with pytest.raises(ClasError, match="not UTF-8 text"):
        ParallelCorpus.load(path)


def test_unequal_folder(tmp_path):
    write(tmp_path / "en.txt", "One.\nTwo.\n")
    write(tmp_path / "sw.txt", "Moja.\n")
    with pytest.raises(ClasError, match="2 in en, 1 in sw"):
        ParallelCorpus.load(tmp_path)


def test_missing_places(tmp_path):
    with pytest.raises(ClasError, match="no file or folder"):
        ParallelCorpus.load(tmp_path / "nowhere.tsv")
    with pytest.raises(ClasError, match="no text file named by its language"):
        ParallelCorpus.load(tmp_path)
    with pytest.raises(ClasError, match="village or everyday"):
        ParallelCorpus.bundled("../secret")


def test_open_prefers_bundled_names(tmp_path, monkeypatch):
    (tmp_path / "corpora").mkdir()
    path = write(tmp_path / "corpora" / "village.tsv", "en\tsw\nOne.\tMoja.\n")
    monkeypatch.setattr(corpus_module, "ASSETS", tmp_path)
    assert ParallelCorpus.open("village") == ParallelCorpus.open(path)
    with pytest.raises(ClasError, match="isn't here"):
        ParallelCorpus.open("everyday")


def test_what_is_bundled_is_known_by_its_opening_not_its_name(tmp_path):
    village = ParallelCorpus.bundled("village")
    assert village.is_bundled
    assert village.subset(["en", "sw"], 5).is_bundled
    assert ParallelCorpus.open("everyday").is_bundled
    for code in LINES:
        write(tmp_path / f"everyday.{code}.txt", "\n".join(LINES[code]))
    upload = ParallelCorpus.load(sorted(tmp_path.iterdir()))
    assert upload.name == "everyday"
    assert not upload.is_bundled
    assert not upload.subset(["en"]).is_bundled
    assert not ParallelCorpus("village", village.sentences).is_bundled


def test_everyday_speaks_all_languages_of_xnli_and_xquad():
    """At least 120 different sentences in each, every one in its language's own script."""
    from clas_core.text.languages import LANGUAGES

    names = {
        **{"Latn": "LATIN", "Cyrl": "CYRILLIC", "Arab": "ARABIC", "Grek": "GREEK"},
        **{"Deva": "DEVANAGARI", "Thai": "THAI", "Hans": "CJK"},
    }
    everyday = ParallelCorpus.bundled("everyday")
    wanted = [
        "ar",
        "bg",
        "de",
        "el",
        "en",
        "es",
        "fr",
        "hi",
        "ro",
        "ru",
        "sw",
        "th",
        "tr",
        "ur",
        "vi",
        "zh",
    ]
    assert sorted(everyday.languages) == wanted
    for code in wanted:
        texts = everyday.sentences[code]
        assert len(set(texts)) == len(texts) >= 120
        for text in texts:
            assert unicodedata.is_normalized("NFC", text)
            letters = [c for c in text if unicodedata.category(c)[0] == "L"]
            script = names[LANGUAGES[code].script]
            assert all(unicodedata.name(c).startswith(script) for c in letters), text
