"""Scores of an answer against the truth."""

from __future__ import annotations

import string
import unicodedata
from collections import Counter

from ..languages import get_language


def normalise(text: str) -> str:
    """Lower case, no punctuation, single spaces. Articles stay: the answers are whole sentences."""
    text = unicodedata.normalize("NFC", text).casefold()
    kept = (
        " " if char in string.punctuation or unicodedata.category(char)[0] == "P" else char
        for char in text
    )
    return " ".join("".join(kept).split())


def words(text: str, code: str) -> list[str]:
    """The tokens of F1: words, or characters in scripts that write no spaces."""
    clean = normalise(text)
    return clean.split() if get_language(code).spaced else [char for char in clean if char != " "]


def exact_match(prediction: str, truth: str) -> float:
    """1.0 if both normalise to the same text, else 0.0."""
    return float(normalise(prediction) == normalise(truth))


def token_f1(prediction: str, truth: str, code: str) -> float:
    """Harmonic mean of precision and recall over the multiset of tokens, in [0, 1]."""
    said, true = words(prediction, code), words(truth, code)
    if not said or not true:
        return float(said == true)
    common = sum((Counter(said) & Counter(true)).values())
    return 2 * common / (len(said) + len(true))


def contains(prediction: str, asked: str, code: str) -> float:
    """1.0 if the asked-for words stand in the answer, as whole words where words are spaced."""
    said, wanted = normalise(prediction), normalise(asked)
    if get_language(code).spaced:
        return float(f" {wanted} " in f" {said} ")
    return float(wanted.replace(" ", "") in said.replace(" ", ""))
