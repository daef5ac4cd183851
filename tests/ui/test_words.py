from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clas_core.ui.behind.unknown import notice_of
from clas_core.ui.behind.words import Vocabulary, marked, split

KNOWN = {
    "en": {"anna", "is", "in", "the", "school", "house", "red"},
    "de": {"anna", "ist", "in", "der", "schule", "eine", "ziege", "est", "ce"},
    "fr": {"anna", "est", "ce", "la", "maison"},
    "zh": set("学校"),
    "ru": {"анна", "в", "школе"},
}


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(KNOWN)


def told(vocabulary: Vocabulary, text: str) -> list[tuple[str, str]]:
    return [(piece, code) for piece, code in vocabulary.of_text(text, "en") if code]


@given(st.text())
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(split(text)) == text


@given(st.text(), st.text(), st.text())
def test_spans_join_to_the_texts(a: str, b: str, c: str) -> None:
    joined = ["".join(text for text, *_ in spans) for spans in marked((a, b, c), "en")]
    assert joined == [a, b, c]


def test_a_word_of_several_languages_is_the_prompts(vocabulary: Vocabulary) -> None:
    assert told(vocabulary, "Anna is in the school.") == []
    assert told(vocabulary, "Anna ist in der Schule.") == [
        ("ist", "de"), ("der", "de"), (" ", "de"), ("Schule", "de"),
    ]  # fmt: skip


def test_else_it_is_that_of_the_word_before_it(vocabulary: Vocabulary) -> None:
    assert ("est", "fr") in told(vocabulary, "la maison est")
    assert ("est", "de") in told(vocabulary, "eine Ziege est")


def test_scripts_and_words_of_no_language(vocabulary: Vocabulary) -> None:
    assert told(vocabulary, "Anna 学, zzz. Школе") == [("学", "zh"), ("zzz", "?"), ("Школе", "ru")]
    assert told(vocabulary, "Est-ce") == [("Est-ce", "de")]


def test_the_share_of_words_in_a_language(vocabulary: Vocabulary) -> None:
    assert vocabulary.share("Anna is eine Ziege.", "en") == 0.5
    assert vocabulary.share(" . ", "en") == 0.0
    assert Vocabulary(vocabulary.as_dict()).share("Anna is red", "en") == 1.0


def test_marks_begin_at_the_first_difference_word_by_word() -> None:
    first, second = marked(("the cat sees the cat. ", "the dog sees the cow.\n"), "en")
    assert [text for text, differs, _ in first if differs] == ["cat", "cat"]
    assert [text for text, differs, _ in second if differs] == ["dog", "cow"]
    first, second = marked(("a b c d", "a x y c d e  "), "en")
    assert [text for text, differs, _ in second if differs] == ["x", "y", "e"]
    assert second[-1] == ("  ", False, "")


def test_a_beginning_that_is_the_same_is_never_marked() -> None:
    """Even where a longer run of the same words stands elsewhere on the other side."""
    first, second = marked(("a b c z a b c d e", "a b q a b c d e"), "en")
    assert first[0][0].startswith("a b ")
    assert second[0][0].startswith("a b ")


def test_letters_of_scripts_without_blanks_are_marked_one_by_one_and_joined() -> None:
    _, second = marked(("妮娜在唱歌。", "妮娜在跳舞。"), "zh")
    assert second == [("妮娜在", False, ""), ("跳舞", True, ""), ("。", False, "")]


@pytest.mark.parametrize(
    ("prompt", "answer", "word"),
    [
        ("Anna is in the school.", "Anna is red.", None),
        ("The capital of France is", "Anna is red.", "France"),
        ("Paris zzz is", "", "Paris"),
        ("Anna is in the house", "Anna est la maison", "more words"),
        ("", "", None),
    ],
)
def test_what_the_village_cannot_know_is_said(
    vocabulary: Vocabulary, prompt: str, answer: str, word: str | None
) -> None:
    found = notice_of(vocabulary, prompt, answer, "en")
    assert (found and found["word"]) == word
