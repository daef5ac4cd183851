"""Which script a character is written in, by Unicode's own Script property."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import regex

# Unicode knows Chinese characters as one script; ISO 15924 has codes for how languages use them.
_PARTS = {
    "Hans": ("Hani",),
    "Hant": ("Hani",),
    "Jpan": ("Hani", "Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
}
_LIVING = (
    "Latn Cyrl Arab Deva Hani Grek Thai Hira Kana Hang Hebr Beng Taml Telu Gujr Guru Knda Mlym "
    "Orya Sinh Mymr Khmr Laoo Tibt Ethi Armn Geor Mong Thaa Syrc Nkoo Tfng Olck Mtei Cher Cans "
    "Bopo Yiii Java Bali Sund Adlm Vaii Cakm Lana Talu Tale Limb Lepc Bugi"
)
_ANY = regex.compile(
    "|".join(rf"(?P<{script}>\p{{Script={script}}})" for script in _LIVING.split())
)
_NAMES = {"Hani": "Chinese", "Hans": "Chinese", "Hant": "Chinese", "Zyyy": "another"}


def parts_of(script: str) -> tuple[str, ...]:
    """The Unicode scripts of an ISO 15924 code: Hani, Hira and Kana of Jpan; most are one."""
    return _PARTS.get(script, (script,))


@lru_cache(maxsize=256)
def letters_of(script: str) -> regex.Pattern[str] | None:
    """What finds a letter of an ISO 15924 code; None where Unicode knows no such script, or any
    letter may be one."""
    if script == "Zyyy":
        return None
    try:
        return regex.compile("|".join(rf"\p{{Script={part}}}" for part in parts_of(script)))
    except regex.error:
        return None


@lru_cache(maxsize=4096)
def script_of(character: str) -> str | None:
    """The Unicode script (four letters) of a letter or of a vowel sign; "Zyyy" for rare ones.

    None where a character tells no script: digits, punctuation, accents that go on any letter.
    """
    kind = unicodedata.category(character)[0]
    if kind not in "LM":
        return None
    if found := _ANY.match(character):
        return found.lastgroup
    shared = regex.match(r"\p{Script=Common}|\p{Script=Inherited}", character)
    return None if shared else "Zyyy"


def script_name(script: str) -> str:
    """The English name of a script, "Devanagari" for Deva."""
    import langcodes

    return _NAMES.get(script) or langcodes.Language.make(script=script).script_name()
