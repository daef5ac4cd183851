from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clas_core.errors import ClasError
from clas_core.text.languages import (
    FURTHER_SYMBOLS,
    LANGUAGES,
    SYMBOLS,
    UNKNOWN_COLOUR,
    canonical_code,
    canonical_codes,
    find_code,
    get_language,
    is_code,
    is_known,
)


def test_our_own_codes_stay():
    assert " ".join(LANGUAGES) == "en es de fr ru zh ar hi tr vi th sw bg el ro ur"
    for code in LANGUAGES:
        assert canonical_code(code) == code
        assert get_language(code) is LANGUAGES[code]


@pytest.mark.parametrize(
    ("code", "spellings"),
    {
        "sw": "swa swh swh_Latn SW",
        "zh": "zho chi cmn zho_Hans zh-Hans zho-CN zh_CN cmn_Hans zho_simpl zh-Hani",
        "zh-Hant": "zho_Hant cmn_Hant zho-TW zh_TW zho_trad",
        "ar": "ara arb arb_Arab",
        "he": "iw heb heb_Hebr",
        "id": "in ind ind_Latn",
        "pt": "por por_Latn",
        "pt-BR": "por-BR pt_BR pt-Latn-BR",
        "pt-PT": "por_PT pt-pt",
        "es-MX": "spa-MX",
        "fr-CA": "fra-CA",
        "en-GB": "eng-GB",
        "zh-Hant-HK": "zh-HK zho_HK",
        "sr": "srp srp_Cyrl sr-Cyrl-RS",
        "sr-Latn": "srp_Latn sh hbs",
        "fa": "fas per pes_Arab",
        "fa-AF": "prs prs_Arab",
        "ko": "kor_Hang ko-Kore",
        "nb": "nob nob_Latn",
        "ca": "cat_Latn",
        "ca-vale1252": "cat_Latn_vale1252",
        "acm": "acm_Arab",
        "min-Arab": "min_Arab",
        "xx": "xx",
    }.items(),
)
def test_every_spelling_gets_the_shortest_tag(code, spellings):
    for spelling in spellings.split():
        assert canonical_code(spelling) == code, spelling
        assert canonical_code(canonical_code(spelling)) == code
    assert get_language(code).code == code


@given(st.from_regex(r"[A-Za-z]{2,3}([-_][A-Z][a-z]{3})?([-_][A-Z]{2})?", fullmatch=True))
def test_any_code_has_a_record_and_a_stable_short_form(code):
    short = canonical_code(code)
    assert is_code(short)
    assert canonical_code(short) == short
    assert get_language(code).name
    assert get_language(short).script == get_language(canonical_code(short)).script


@pytest.mark.parametrize("text", ["", "One two.", "README", "e", "en-", "x"])
def test_what_is_no_code(text):
    assert not is_code(text)
    with pytest.raises(ClasError, match="not a language code"):
        canonical_code(text)
    assert get_language(text).colour == UNKNOWN_COLOUR


def test_languages_of_one_text_stay_apart():
    spellings = "eng eng-GB eng-US por por-BR fas prs zho-CN zho-TW srp-Cyrl srp-Latn swa swh"
    found = canonical_codes(spellings.split())
    assert list(found) == spellings.split()
    assert " ".join(found.values()) == (
        "en en-GB en-US pt pt-BR fa fa-AF zh zh-Hant sr sr-Latn sw swh"
    )
    assert canonical_codes(["eng-GB", "deu"]) == {"eng-GB": "en-GB", "deu": "de"}


@pytest.mark.parametrize(
    ("wanted", "codes", "found"),
    [
        ("por-BR", "en pt pt-BR", "pt-BR"),
        ("por", "en pt pt-BR", "pt"),
        ("por-BR", "en pt", None),  # whose Portuguese that is isn't known
        ("pt-PT", "en pt-BR", None),
        ("por_Latn", "en pt-BR", "pt-BR"),  # no region is asked for, and there is one
        ("pt", "pt-BR pt-PT", None),
        ("spa-MX", "es", None),
        ("fra-CA", "fr", None),
        ("eng-GB", "en en-US", None),
        ("prs", "fa fa-AF", "fa-AF"),
        ("prs", "fa", None),
        ("zho-CN", "zh zh-Hant", "zh"),
        ("zho-TW", "zh zh-Hant", "zh-Hant"),
        ("zho-HK", "zh zh-Hant", None),
        ("zh-Hant", "zh", None),
        ("swh_Latn", "sw swh", "swh"),
        ("swh_Latn", "en sw", "sw"),
        ("xx", "en", None),
        ("One two.", "en", None),
    ],
)
def test_the_code_that_is_meant(wanted, codes, found):
    assert find_code(wanted, codes.split()) == found


@pytest.mark.parametrize(
    "codes",
    ["pt pt-BR pt-PT", "en en-GB en-US", "fa fa-AF", "zh zh-Hant zh-Hant-HK", "ca ca-vale1252"],
)
def test_names_tell_variants_apart(codes):
    assert len({get_language(code).name for code in codes.split()}) == len(codes.split())


def test_one_language_twice_is_refused():
    with pytest.raises(ClasError, match="en and eng are the same language, English; keep one"):
        canonical_codes(["en", "de", "eng"])


@pytest.mark.parametrize(
    ("code", "name", "native", "script", "rtl", "spaced"),
    [
        ("fa", "Persian", "فارسی", "Arab", True, True),
        ("ur", "Urdu", "اردو", "Arab", True, True),
        ("he", "Hebrew", "עברית", "Hebr", True, True),
        ("div", "Divehi", "Divehi", "Thaa", True, True),
        ("yo", "Yoruba", "Èdè Yorùbá", "Latn", False, True),
        ("zu", "Zulu", "isiZulu", "Latn", False, True),
        ("am", "Amharic", "አማርኛ", "Ethi", False, True),
        ("ka", "Georgian", "ქართული", "Geor", False, True),
        ("ko", "Korean", "한국어", "Kore", False, True),
        ("ja", "Japanese", "日本語", "Jpan", False, False),
        ("my", "Burmese", "မြန်မာ", "Mymr", False, False),
        ("km", "Khmer", "ខ្មែរ", "Khmr", False, False),
        ("lo", "Lao", "ລາວ", "Laoo", False, False),
        ("bo", "Tibetan", "བོད་སྐད་", "Tibt", False, False),
        ("zh-Hant", "Chinese (Traditional)", "中文（繁體）", "Hant", False, False),
        ("id", "Indonesian", "Bahasa Indonesia", "Latn", False, True),
        ("pt_PT", "Portuguese (Portugal)", "Português (Portugal)", "Latn", False, True),
        ("por-BR", "Portuguese (Brazil)", "Português (Brasil)", "Latn", False, True),
        ("cat_Latn_vale1252", "Catalan (vale1252)", "Català (vale1252)", "Latn", False, True),
        ("xx", "xx", "xx", "Zyyy", False, True),
    ],
)
def test_records_of_other_languages(code, name, native, script, rtl, spaced):
    language = get_language(code)
    assert (language.name, language.native, language.script) == (name, native, script)
    assert (language.rtl, language.spaced) == (rtl, spaced)
    assert language.tier == "unknown" or code in LANGUAGES


def test_many_languages_are_told_apart_by_eye():
    """Our 16 and the 42 further ones have a pair of colour and symbol each; none looks unknown."""
    common = (
        "ja pt it nl ko id pl fa cs uk he sv fi hu bn ta te ms am yo ha zh-Hant ca da nb et eu gl "
        "sr hr sk sl lt lv sq mk hy ka my km lo ne"
    )
    codes = [*LANGUAGES, *common.split()]
    looks = {(get_language(code).colour, get_language(code).symbol) for code in codes}
    assert len(looks) == len(codes) == 58
    assert not set(SYMBOLS) & set(FURTHER_SYMBOLS)
    unknown = get_language("xx")
    assert (unknown.colour, unknown.symbol) == (UNKNOWN_COLOUR, "cross")
    assert all(get_language(code).colour != UNKNOWN_COLOUR for code in (*common.split(), "ace"))


def test_known_to_a_standard():
    assert is_known("zu")
    assert is_known("swh_Latn")
    assert not is_known("xx")
    assert not is_known("qaa")  # reserved for private use
    assert not is_known("One two.")
