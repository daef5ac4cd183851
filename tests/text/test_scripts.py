from __future__ import annotations

import pytest

from clas_core.text.languages import LANGUAGES
from clas_core.text.scripts import letters_of, parts_of, script_name, script_of


@pytest.mark.parametrize(
    ("characters", "script"),
    [
        ("aZéßƠ", "Latn"),
        ("дҐ", "Cyrl"),
        ("中々", "Hani"),
        ("ひ", "Hira"),
        ("カ", "Kana"),
        ("한", "Hang"),
        ("ลี", "Thai"),
        ("हि", "Deva"),
        ("አ", "Ethi"),
        ("ꡀ", "Zyyy"),
        ("1 .,!？¿ـ\u0301ʼ", None),
    ],
)
def test_script_of_a_character(characters, script):
    assert {script_of(character) for character in characters} == {script}


def test_scripts_that_unicode_parts_otherwise():
    assert parts_of("Jpan") == ("Hani", "Hira", "Kana")
    assert parts_of("Hans") == ("Hani",)
    assert parts_of("Deva") == ("Deva",)


def test_our_languages_write_names_of_their_own_in_their_script():
    for language in LANGUAGES.values():
        parts = parts_of(language.script)
        assert {script_of(c) for c in language.native} - {None} <= set(parts), language.code


def test_names():
    assert [script_name(s) for s in ("Latn", "Deva", "Hans", "Hani", "Zyyy")] == [
        "Latin",
        "Devanagari",
        "Chinese",
        "Chinese",
        "another",
    ]


def test_letters_of_a_script():
    assert letters_of("Jpan").search("カ")
    assert not letters_of("Latn").search("дом")
    assert letters_of("Zyyy") is None
    assert letters_of("Aaaa") is None  # no script at all
