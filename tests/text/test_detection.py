from __future__ import annotations

import pytest

from clas_core.text.detection import detect

SENTENCES = {
    "en": "The boy goes to the market in the morning with his sister.",
    "es": "El niño va al mercado por la mañana con su hermana.",
    "de": "Der Junge geht am Morgen mit seiner Schwester zum Markt.",
    "fr": "Le garçon va au marché le matin avec sa sœur.",
    "ru": "Мальчик утром идёт на рынок со своей сестрой.",
    "zh": "男孩早上和妹妹去市场。",
    "ar": "يذهب الولد إلى السوق في الصباح مع أخته.",
    "hi": "लड़का सुबह अपनी बहन के साथ बाज़ार जाता है।",
    "tr": "Çocuk sabahları kız kardeşiyle pazara gider.",
    "vi": "Buổi sáng cậu bé đi chợ với em gái.",
    "th": "เด็กชายไปตลาดตอนเช้ากับน้องสาว",
    "sw": "Mvulana anaenda sokoni asubuhi pamoja na dada yake.",
    "bg": "Момчето отива на пазара сутринта със сестра си.",
    "el": "Το αγόρι πηγαίνει στην αγορά το πρωί με την αδελφή του.",
    "ro": "Băiatul merge la piață dimineața cu sora lui.",
    "ur": "لڑکا صبح اپنی بہن کے ساتھ بازار جاتا ہے۔",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_every_language_is_told(code):
    found = detect(SENTENCES[code])
    assert found.code == code
    assert 0.7 <= found.confidence <= 1


def test_same_text_same_answer():
    assert detect(SENTENCES["es"]) == detect(SENTENCES["es"])


def test_only_the_codes_asked_for():
    assert detect(SENTENCES["fr"], ["en", "es", "sw"]).code in ("en", "es", None)
    assert detect("Да.", ["ru", "en"]).code == "ru"
    assert detect(SENTENCES["th"], ["en", "sw"]).code is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no letters"),
        ("12:30 … 42!", "no letters"),
        ("Nani?", "too short"),
        ("Да.", "too short"),
        ("abcдлж", "a mix of scripts"),
        ("ꡀꡁꡂꡃ", "another script, which none of these languages uses"),
        ("こんにちは、げんきですか", "Hiragana script, which none of these languages uses"),
    ],
)
def test_says_why_it_does_not_know(text, reason):
    found = detect(text)
    assert found.code is None
    assert found.reason == reason


def test_script_decides_even_for_one_letter():
    assert detect("ไ").code == "th"
    assert detect("हाँ").code == "hi"


def test_a_foreign_name_does_not_change_the_language():
    assert detect("Anna 早上去了市场买苹果和书。").code == "zh"


def test_capitals_are_read_too():
    assert detect(SENTENCES["en"].upper()).code == "en"


def test_accent_without_a_letter_is_no_script():
    assert detect("\u0301\u0301").reason == "no letters"


FURTHER = {
    "am": "ልጁ ጠዋት ከእህቱ ጋር ወደ ገበያ ይሄዳል።",
    "my": "ကောင်လေးက မနက်ခင်းမှာ ဈေးကို သွားတယ်။",
    "lo": "ເດັກຊາຍໄປຕະຫຼາດຕອນເຊົ້າກັບນ້ອງສາວ",
    "ja": "男の子は朝、妹と市場へ行きます。",
    "ko": "소년은 아침에 여동생과 함께 시장에 갑니다.",
    "fa": "پسر صبح با خواهرش به بازار می‌رود.",
    "pt": "O menino vai ao mercado de manhã com a irmã.",
    "nb": "Gutten går til markedet om morgenen med søsteren sin.",
}


@pytest.mark.parametrize("code", FURTHER)
def test_languages_beyond_our_table(code):
    codes = [*SENTENCES, *FURTHER]
    assert detect(FURTHER[code], codes).code == code
    assert detect(SENTENCES["zh"], codes).code == "zh"  # Japanese has these characters too


def test_a_language_without_letter_statistics_is_no_other():
    """langdetect has no Yoruba, and takes a Zulu text for Swahili: at least it says so."""
    yoruba = "Ọmọkùnrin náà lọ sí ọjà ní òwúrọ̀ pẹ̀lú arábìnrin rẹ̀."
    assert detect(yoruba, ["en", "yo"]).code is None
    assert "don't know Yoruba" in detect(yoruba, ["en", "fr", "yo"]).reason
    found = detect(SENTENCES["en"], ["en", "fr", "yo"])
    assert (found.code, found.reason) == ("en", "letter statistics, which don't know Yoruba")


def test_an_unknown_language_may_be_written_in_any_script():
    assert detect("Да, это так, друзья мои.", ["en", "ru", "xx"]).code == "ru"
    assert detect("Bloop blarg snik vrot mumu.", ["ru", "xx"]).code is None
    assert detect("ꡀꡁꡂꡃ", ["en", "xx"]).code is None
    assert detect("Hello", []).code is None
