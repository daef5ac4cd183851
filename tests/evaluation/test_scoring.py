"""Scores of answers, against values worked out by hand and other readings of the definitions."""

import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clas_core.evaluation.tasks.scoring import (
    contains,
    exact_match,
    mlqa,
    normalise,
    span_exact,
    span_f1,
    squad,
    token_f1,
)


@pytest.mark.parametrize(
    ("said", "true", "code", "f1"),
    [
        ("Anna is in the park.", "Anna is in the park.", "en", 1.0),
        ("Anna is in the garden.", "Anna is in the park.", "en", 0.8),
        ("the the the", "the", "en", 0.5),  # multiset, not set: 2 * 1 / (3 + 1)
        ("安娜在公园。", "安娜在学校。", "zh", 0.6),  # characters: 3 of 5 on both sides
        ("", "Anna", "en", 0.0),
        ("", "", "en", 1.0),
    ],
)
def test_token_f1(said, true, code, f1):
    assert token_f1(said, true, code) == pytest.approx(f1)


@given(st.text(), st.text())
def test_f1_is_symmetric_and_bounded(a, b):
    assert token_f1(a, b, "en") == token_f1(b, a, "en")
    assert 0 <= token_f1(a, b, "en") <= 1


def test_exact_match_ignores_case_and_punctuation():
    assert exact_match("anna is  here", "Anna is here.") == 1
    assert exact_match("अन्ना यहाँ है", "अन्ना यहाँ है।") == 1
    assert exact_match("Anna is there", "Anna is here") == 0
    assert normalise("¿Dónde está?") == "dónde está"


def test_asked_words_are_whole_words():
    assert contains("Anna sees a cat.", "cat", "en") == 1
    assert contains("Anna sees a caterpillar.", "cat", "en") == 0
    assert contains("安娜在公园里。", "公园里", "zh") == 1


# By hand, in the definition of MLQA: prediction, answer, F1, exact match.
SPANS = [
    ("en", "The Eiffel Tower!", "Eiffel tower", 1, 1),
    ("en", "in the big tower", "a tower", 1 / 2, 0),  # in big tower, tower
    ("en", "an answer, the other", "answer", 2 / 3, 0),
    ("en", "the", "the", 0, 1),  # nothing is left: no token in common, but the same text
    ("de", "Der Turm des Eiffel", "turm eiffel", 1, 1),
    ("es", "¿Los gatos?", "gatos", 1, 1),
    ("vi", "những con mèo", "con mèo", 1, 1),
    ("ar", "البيت الكبير", "بيت كبير", 1, 1),  # "the" written onto the word
    ("ar", "خيال، وقت؟", "خيال", 2 / 3, 0),  # the same letters within a word stay
    ("hi", "राम घर गया।", "राम घर", 4 / 5, 0),
    ("hi", "राम।", "राम", 1, 1),  # a danda is punctuation
    ("zh", "在1990年", "1990 年", 4 / 5, 0),  # 在 1990 年, 1990 年
    ("zh", "《北京》。", "北京", 1, 1),
    ("zh", "iPhone手机", "手机", 4 / 5, 0),
    ("th", "กรุงเทพ", "กรุง เทพ", 1, 1),
    ("th", "ที่นี่", "ที่", 2 / 3, 0),  # ที่ นี่, ที่
    ("ru", "Дом, 7", "дом 7", 1, 1),
    ("el", "ο πύργος", "πύργος", 2 / 3, 0),  # no list of Greek articles
]


@pytest.mark.parametrize(("code", "said", "true", "f1", "exact"), SPANS)
def test_spans_by_hand(code, said, true, f1, exact):
    assert span_f1(said, [true], code) == pytest.approx(f1)
    assert span_exact(said, [true], code) == exact


def test_spans_by_the_script_of_squad():
    """One rule for all languages: ASCII punctuation, English articles, white space."""
    assert squad("The  Cat's a hat.", "en") == ["cats", "hat"]
    assert squad("राम।", "hi") == ["राम।"]
    assert span_f1("राम।", ["राम"], "hi", squad) == 0
    assert span_f1("在1990年", ["1990年"], "zh", squad) == 0
    assert span_f1("der Turm", ["Turm"], "de", squad) == pytest.approx(2 / 3)
    assert span_exact("The Cat!", ["cat"], "th", squad) == 1


def test_the_best_of_several_answers_counts():
    answers = ["Paris", "the city of Paris", "Paris, France"]
    assert span_f1("city of Paris", answers, "en") == 1
    assert span_f1("Paris in France", answers, "en") == pytest.approx(4 / 5)
    assert span_exact("paris france", answers, "en") == 1
    assert span_exact("France", answers, "en") == 0


def spell_out(text, code):
    """The SQuAD and MLQA definitions read another way: token by token instead of by patterns."""
    articles = {
        "en": "a an the",
        "es": "un una unos unas el la los las",
        "vi": "của là cái chiếc những",
        "de": "ein eine einen einem eines einer der die das den dem des",
    }
    text = "".join(c for c in text.lower() if not unicodedata.category(c).startswith("P"))
    text = text.translate(dict.fromkeys(map(ord, string.punctuation)))
    words = [word for word in text.split() if word not in articles.get(code, "").split()]
    if code == "ar":
        words = [word[2:] if word.startswith("ال") else word for word in words]
    if code not in ("zh", "th"):
        return [word for word in words if word]
    tokens = []
    for word in words:
        previous = ""
        for char in word:
            name = unicodedata.name(char, "")
            if name.startswith("CJK UNIFIED") or name.startswith("THAI"):
                mark = unicodedata.category(char) == "Mn" or name == "THAI CHARACTER SARA AM"
                if mark and previous:
                    tokens[-1] += char
                else:
                    tokens.append(char)
                previous = char
            elif previous in ("", "other"):
                tokens[-1:] = [tokens[-1] + char] if previous else [*tokens[-1:], char]
                previous = "other"
            else:
                tokens.append(char)
                previous = "other"
    return tokens


def f1_by_removal(said, true):
    left, common = list(true), 0
    for token in said:
        if token in left:
            left.remove(token)
            common += 1
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(true)
    return 2 * precision * recall / (precision + recall)


WORDS = {
    "en": "a the An cat hat, 1990 it's U.S. (big)",
    "de": "der Die das ein Haus groß, „Haus“ 7,5",
    "es": "el La gato ¿gato? unos niño",
    "vi": "của là cái mèo Những nhà, đẹp",
    "ar": "البيت بيت الكبير، كبير؟ خيال 1990",
    "hi": "राम घर गया। में 1990 की, है",
    "zh": "北京 北京市。 1990年 《红楼梦》 iPhone 三",
    "th": "กรุงเทพ ที่นี่ น้ำ 1990 เมือง, ปี",
    "ru": "Дом дом, улица «Мир» 7",
}
PHRASES = st.sampled_from(sorted(WORDS)).flatmap(
    lambda code: st.tuples(
        st.just(code),
        st.lists(st.sampled_from(WORDS[code].split()), max_size=6).map(" ".join),
        st.lists(st.sampled_from(WORDS[code].split()), max_size=6).map(" ".join),
    )
)


@given(PHRASES)
def test_spans_agree_with_the_definition_spelled_out(case):
    code, said, true = case
    left, right = spell_out(said, code), spell_out(true, code)
    assert mlqa(said, code) == left
    assert span_f1(said, [true], code) == pytest.approx(f1_by_removal(left, right))
    assert span_exact(said, [true], code) == (left == right)
    ascii_only = said.lower().translate(dict.fromkeys(map(ord, string.punctuation)))
    plain = [word for word in ascii_only.split() if word not in ("a", "an", "the")]
    assert squad(said, code) == plain


@given(PHRASES)
def test_spans_agree_with_lm_evaluation_harness(case):
    """An independent implementation of MLQA's definition, in its seven languages."""
    theirs = pytest.importorskip("lm_eval.tasks.mlqa.utils")
    code, said, true = case
    if code in ("ru", "th"):
        return
    assert " ".join(mlqa(said, code)) == theirs.normalize_answer(said, code)
    assert span_f1(said, [true], code) == pytest.approx(theirs.f1_score(said, true, code))
    assert span_exact(said, [true], code) == theirs.exact_match_score(said, true, code)


@given(st.text(), st.sampled_from(sorted(WORDS)))
def test_any_text_has_tokens_without_white_space(text, code):
    for token in mlqa(text, code) + squad(text, code):
        assert token == re.sub(r"\s", "", token) != ""
