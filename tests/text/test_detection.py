from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clas_core.text.corpus import ParallelCorpus
from clas_core.text.detection import Detection, detect
from clas_core.text.languages import LANGUAGES

# Written for this test: the kind of text, its language ("-": none alone), the text.
LABELLED = Path(__file__).with_name("labelled_texts.tsv")

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
    assert detect("Да.", ["ru", "en"]).reason == "too short"  # Bulgarian and Ukrainian too
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
    assert detect("ναι").code == "el"
    assert detect("हाँ").code is None  # Marathi and Nepali are written in it too


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


def labelled():
    rows = LABELLED.read_text("utf-8").splitlines()[1:]
    for kind, language, text in (row.split("\t") for row in rows):
        wanted = language if language in LANGUAGES else None
        yield kind, wanted, detect(text.replace("\\n", "\n")), text


def test_agreement_with_labelled_texts():
    """What was measured when the labels were written may not get worse."""
    right, wrong, total = Counter(), Counter(), Counter()
    for kind, wanted, found, _ in labelled():
        total[kind] += 1
        right[kind] += found.code == wanted
        wrong[kind] += found.code not in (wanted, None)
    assert total == {
        **{"long": 64, "short": 64, "phrase": 8, "other": 73},
        **{"loop": 32, "mixed": 13, "code": 12, "numbers": 12},
    }
    least = {"long": 64, "short": 59, "phrase": 8, "other": 72, "mixed": 12}
    assert {kind: right[kind] for kind in least if right[kind] < least[kind]} == {}
    most = {"short": 1, "other": 1, "mixed": 1}  # claims of a wrong language
    assert {kind: n for kind, n in wrong.items() if n > most.get(kind, 0)} == {}


@pytest.mark.parametrize("kind", ["loop", "code", "numbers"])
def test_what_says_nothing_is_no_language(kind):
    found = {text: found.code for of, _, found, text in labelled() if of == kind}
    assert set(found.values()) == {None}, found


@pytest.mark.parametrize(("name", "share"), [("everyday", 0.983), ("village", 0.909)])
def test_agreement_with_bundled_sentences(name, share):
    """Short sentences, in the village of two to six words and as many names."""
    corpus = ParallelCorpus.bundled(name)
    pairs = [(code, line) for code in corpus.languages for line in corpus.sentences[code][::4]]
    found = [(code, detect(line, corpus.languages).code) for code, line in pairs]
    assert sum(code == got for code, got in found) >= share * len(found)
    assert sum(got not in (code, None) for code, got in found) <= 0.005 * len(found)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ok ok ok ok ok ok ok ok ok", "a few words again and again"),
        ("def add(a, b):\n    return a + b", "more like code than prose"),
        ("We missed the train und dann sind wir nach Hause gelaufen.", "a mix of "),
        ("Vi rakk ikke det siste toget.", "more like Norwegian"),
        ("Siphuthelwe yisitimela sokugcina, ngakho sihambe ngezinyawo.", "like none"),
        ("祖母は古手紙箱保存中。", "more like Japanese"),
    ],
)
def test_the_reason_names_the_kind(text, reason):
    assert detect(text).code is None
    assert detect(text).reason.startswith(reason)


def test_others_compete_unless_asked_for():
    norwegian = "Vi rakk ikke det siste toget, så vi gikk hjem langs elva."
    assert detect(norwegian, ["en"]).code is None
    assert detect(norwegian, ["en", "nb"]).code == "nb"
    assert detect("A biblioteca fecha cedo às sextas.", ["en", "pt-BR"]).code == "pt-BR"
    both = detect("A biblioteca fecha cedo às sextas.", ["pt", "pt-BR"])
    assert both.reason == "could be Portuguese or Portuguese (Brazil)"


def test_threads_get_the_same_answers():
    texts = [*SENTENCES.values(), *FURTHER.values()] * 4
    alone = [detect(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(detect, texts)) == alone


@given(st.text(), st.lists(st.sampled_from(["en", "zh", "xx", "pt-BR", "ja", "arz"]), max_size=3))
def test_any_text_gets_an_answer(text, codes):
    found = detect(text, codes)
    assert isinstance(found, Detection)
    assert found.code in (*codes, None)
    assert 0 <= found.confidence <= 1


def test_a_text_is_read_once():
    text = "Anna has a small dog, and it sleeps in her house."
    assert detect(text, ["en", "sw"]) is detect(text, ("en", "sw"))
    assert detect(text, ["sw"]).code is None
