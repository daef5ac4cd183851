"""Which language a text is in: by its script where that decides, else by letter statistics."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .languages import LANGUAGES, get_language

MIN_LETTERS = 12  # below this, letter statistics are guesses
MIN_CONFIDENCE = 0.7

# First and last code point of each block that tells a script, as in Unicode's Scripts.txt.
_BLOCKS = (
    (0x0041, 0x024F, "Latn"),
    (0x0370, 0x03FF, "Grek"),
    (0x0400, 0x052F, "Cyrl"),
    (0x0600, 0x077F, "Arab"),
    (0x0900, 0x097F, "Deva"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x1E00, 0x1EFF, "Latn"),
    (0x1F00, 0x1FFF, "Grek"),
    (0x3400, 0x4DBF, "Hans"),
    (0x4E00, 0x9FFF, "Hans"),
    (0xFB50, 0xFDFF, "Arab"),
    (0xFE70, 0xFEFF, "Arab"),
)
_SCRIPT_NAMES = {
    "Latn": "Latin",
    "Grek": "Greek",
    "Cyrl": "Cyrillic",
    "Arab": "Arabic",
    "Deva": "Devanagari",
    "Thai": "Thai",
    "Hans": "Chinese",
}


@dataclass(frozen=True)
class Detection:
    """`code` is None where the text does not tell; `reason` says in a few words why.

    `confidence` lies in [0, 1]: the share of letters in the script, or the estimate of
    langdetect (naive Bayes over character 1- to 3-grams).
    """

    code: str | None
    confidence: float
    reason: str


def detect(text: str, codes: Sequence[str] | None = None) -> Detection:
    """The language of `text` among `codes` (default: every language of the app). Deterministic."""
    codes = tuple(LANGUAGES if codes is None else codes)
    scripts = Counter(filter(None, map(_script_of, text)))
    if not scripts:
        return Detection(None, 0.0, "no letters")
    script, letters = scripts.most_common(1)[0]
    share = letters / scripts.total()
    name = _SCRIPT_NAMES.get(script, "another")
    if share <= 0.5:
        return Detection(None, share, "a mix of scripts")
    candidates = tuple(code for code in codes if get_language(code).script == script)
    if not candidates:
        return Detection(None, share, f"{name} script, which none of these languages uses")
    if len(candidates) == 1:
        return Detection(candidates[0], share, f"{name} script")
    if letters < MIN_LETTERS:
        return Detection(None, 0.0, "too short")
    return _by_statistics(text, candidates)


@lru_cache(maxsize=4096)
def _script_of(character: str) -> str | None:
    """The ISO 15924 code of a letter or of a vowel sign, "Zyyy" where we know no better."""
    if unicodedata.category(character)[0] not in "LM":
        return None
    point = ord(character)
    for first, last, script in _BLOCKS:
        if first <= point <= last:
            return script
    # A bare combining accent says nothing about the script of the letter below it.
    return None if unicodedata.category(character)[0] == "M" else "Zyyy"


def _by_statistics(text: str, candidates: tuple[str, ...]) -> Detection:
    factory, code_of = _profiles(candidates)
    if len(code_of) < 2:
        return Detection(None, 0.0, f"cannot tell {_any_of(candidates)} apart")
    detector = factory.create()
    # Words in capitals are skipped as acronyms, which would leave a text in capitals without any.
    detector.append(text.lower() if text.isupper() else text)
    from langdetect.lang_detect_exception import LangDetectException

    try:
        guesses = detector.get_probabilities()
    except LangDetectException:
        return Detection(None, 0.0, f"no letters that tell {_any_of(candidates)} apart")
    best, *others = guesses or [None]
    if best is None:
        return Detection(None, 0.0, f"could be {_any_of(candidates)}")
    code, confidence = code_of[best.lang], min(best.prob, 1.0)
    if confidence < MIN_CONFIDENCE:
        rivals = [code, *(code_of[guess.lang] for guess in others)]
        return Detection(None, confidence, f"could be {_any_of(rivals)}")
    return Detection(code, confidence, "letter statistics")


def _any_of(codes: Sequence[str]) -> str:
    return " or ".join(get_language(code).name for code in codes)


@lru_cache(maxsize=32)
def _profiles(candidates: tuple[str, ...]):  # type: ignore[no-untyped-def]  # langdetect is untyped
    """A seeded langdetect factory of the candidates' profiles alone, and its codes to ours.

    Loading these few is the same as a prior of zero on all other languages, and ten times faster.
    """
    from langdetect import detector_factory

    folder = Path(detector_factory.PROFILES_DIRECTORY)
    code_of = {{"zh": "zh-cn"}.get(code, code): code for code in candidates}
    code_of = {name: code for name, code in code_of.items() if (folder / name).is_file()}
    factory = detector_factory.DetectorFactory()
    factory.set_seed(0)
    if len(code_of) > 1:
        factory.load_json_profile([(folder / name).read_text("utf-8") for name in code_of])
    return factory, code_of
