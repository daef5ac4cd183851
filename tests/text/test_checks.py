from __future__ import annotations

import random

import pytest

from clas_core.text.checks import find_errors, find_warnings, likely_gap
from clas_core.text.corpus import ParallelCorpus
from clas_core.text.raw import Column
from clas_core.text.report import CorpusReport, check_corpus

GOOD = {
    "en": ["The cat sleeps.", "Anna has 12 apples.", "Who has the book?", "It rains."],
    "sw": ["Paka analala.", "Ana ana matufaha 12.", "Nani ana kitabu?", "Mvua inanyesha."],
}


def warnings(**changes):
    return find_warnings([Column(code, lines) for code, lines in {**GOOD, **changes}.items()])


def write(folder, texts):
    for code, lines in texts.items():
        (folder / f"{code}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def test_good_text_has_no_problem(tmp_path):
    report = check_corpus(write(tmp_path, GOOD))
    assert report.ok
    assert report.problems == ()
    assert report.languages == ("en", "sw")
    assert report.counts == {"en": 4, "sw": 4}
    assert report.characters == {"en": (15 + 19 + 17 + 9) / 4, "sw": (13 + 20 + 16 + 15) / 4}
    assert report.preview(2) == [["en", *GOOD["en"][:2]], ["sw", *GOOD["sw"][:2]]]
    assert ParallelCorpus.load(tmp_path).sentences == GOOD


@pytest.mark.parametrize("name", ["village", "everyday"])
def test_bundled_text_has_no_errors(name):
    corpus = ParallelCorpus.bundled(name)
    assert find_errors(name, [Column(c, lines) for c, lines in corpus.sentences.items()]) == []


def test_a_report_lists_everything(tmp_path):
    texts = {"en": ["One.", "", "Three.", "", "Five."], "sw": ["Moja.", "Mbili.", "Tatu."]}
    (tmp_path / "es.txt").write_bytes("Uno.\nAño.\n".encode("latin-1"))
    report = check_corpus(write(tmp_path, texts))
    assert not report.ok
    assert report.errors == (
        "es.txt, line 2 is not UTF-8 text but perhaps Latin-1 or another older encoding; save the "
        "file as UTF-8.",
        f"{tmp_path.name}: parallel text needs the same number of sentences in every language, "
        "but there are 5 in en, 3 in sw.",
        f"{tmp_path.name}: 2 sentences of en are empty (en.txt, lines 2 and 4); fill them in or "
        "remove them from every language.",
    )
    assert report.preview(4)[1] == ["sw", *texts["sw"], ""]


def test_what_cannot_be_read_is_reported_too(tmp_path):
    report = check_corpus(tmp_path / "nowhere.tsv")
    assert isinstance(report, CorpusReport)
    assert "no file or folder" in report.errors[0]
    assert report.preview() == []
    write(tmp_path, GOOD)
    assert "at most 0.0 MB" in check_corpus(tmp_path, max_bytes=10).errors[0]
    (tmp_path / "a.tsv").write_text("One two.\tMoja.\nTwo.\tMbili.\n")
    assert "'One two.' is not a language code" in check_corpus(tmp_path / "a.tsv").errors[0]


def test_one_line_too_many_is_found():
    """A known line removed from 100 made-up pairs, each time another; near is good enough."""
    chance = random.Random(0)
    words = [chance.choices("aeioukmst", k=chance.randint(2, 9)) for _ in range(300)]

    def sentence(factor):
        count = chance.randint(2, 15) * factor
        return [" ".join("".join(chance.choice(words)) for _ in range(n)) for n in (count, count)]

    english, swahili = map(list, zip(*(sentence(1) for _ in range(100))))
    off = []
    for place in range(0, 100, 7):
        fewer = swahili[:place] + swahili[place + 1 :]
        off.append(abs(likely_gap(english, fewer) - place))
    assert sorted(off)[len(off) // 2] == 0
    assert max(off) <= 3


def test_unequal_lengths_tell_where(tmp_path):
    write(tmp_path, {**GOOD, "sw": GOOD["sw"][:1] + GOOD["sw"][2:]})
    (error,) = check_corpus(tmp_path).errors
    assert error.endswith("there are 4 in en, 3 in sw; sw perhaps lacks one near en.txt, line 2.")
    write(tmp_path, {**GOOD, "de": [*GOOD["en"], "Noch 7 Sätze, viel länger als alle anderen!"]})
    (error,) = check_corpus(tmp_path).errors
    assert error.endswith("4 in en, sw, 5 in de; de perhaps has one too many near de.txt, line 5.")


def test_many_languages_are_counted_not_listed():
    columns = [Column(f"a{letter}", ["x", "y"]) for letter in "abcdefghij"]
    (error,) = find_errors("a", [*columns, Column("en", ["x"])])
    assert "2 in aa, ab, ac, ad, ae and 5 more, 1 in en" in error


def test_halves_of_characters_are_refused():
    (error,) = find_errors("a", [Column("en", ["a", "\ud83d b"], "a.jsonl", [1, 2])])
    assert error.startswith("a: en has broken characters (a.jsonl, line 2)")


def test_places_are_few():
    column = Column("en", [""] * 9, "en.txt", range(1, 10))
    assert column.place([2]) == "en.txt, line 3"
    assert column.place([2, 4]) == "en.txt, lines 3 and 5"
    assert column.place(range(9)) == "en.txt, lines 1, 2, 3, 4, 5 and 4 more"


def test_warnings_name_the_place():
    assert warnings() == []
    assert warnings(sw=[*GOOD["sw"][:3], GOOD["sw"][0]]) == [
        "sw: 1 sentence stood there before (sentence 4)."
    ]
    assert warnings(sw=[*GOOD["sw"][:3], GOOD["en"][3]]) == [
        "en and sw: 1 sentence the same in both (from sentence 4 on); translated?"
    ]
    assert warnings(hi=["बिल्ली।", "सेब।", "Who has the book?", "बारिश।"]) == [
        "hi: 1 sentence in Latin script, not Devanagari (sentence 3); translated?",
        "en and hi: 1 sentence the same in both (from sentence 3 on); translated?",
    ]
    assert warnings(hi=["Кот.", "Яблоки.", "Книга?", "Дождь."]) == [
        "hi: most sentences are in Cyrillic script, not Devanagari; is the code right?"
    ]
    assert warnings(sw=[*GOOD["sw"][:3], "Mvua " * 60]) == [
        "sw: 1 sentence far longer than the others (sentence 4); a line break missing?"
    ]
    assert warnings(sw=[*GOOD["sw"][:3], "Mvua \ufffd"]) == [
        "sw: characters were lost in an earlier conversion (\ufffd in sentence 4)."
    ]
    assert warnings(es=["Un.", "Dos 12.", "¿Quie\u0301n?", "Si."])[0].startswith(
        "es: letters and accents are written apart in 1 sentence (sentence 3)"
    )
    assert find_warnings([Column("en", ["One."])]) == [
        "Only en is there; shared neurons need two languages."
    ]


def test_the_worst_pairs_are_named():
    codes = ["en", "de", "fr", "sw", "tr", "vi"]
    found = find_warnings([Column(code, ["Same.", "Text."]) for code in codes])
    assert len(found) == 11
    assert found[0].startswith("en and de: 2 sentences the same in both")
    assert found[-1] == "5 more pairs of languages share sentences."


def test_what_is_no_reason_to_warn():
    assert warnings(**{"en-GB": GOOD["en"]}) == []  # two kinds of English agree
    assert warnings(sw=["12:30", *GOOD["sw"][1:]], en=["12:30", *GOOD["en"][1:]]) == []
    assert warnings(ja=["ネコ", "林檎 12", "だれ?", "雨。"]) == []  # three scripts are one here
    assert warnings(ko=["고양이", "12", "누구?", "비."]) == []
    assert warnings(xx=["Кот", "яблоки", "книга", "дождь"]) == []  # its script isn't known
    assert warnings(sw=["", "", "Nani?", "Mvua."]) == []  # empty is an error, not repeated
