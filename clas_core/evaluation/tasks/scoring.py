"""Scores of an answer against the truth.

Whole sentences, as the village's answers, by `exact_match`, `token_f1` and `contains`. Spans of a
text, as XQuAD's, by `span_exact` and `span_f1` under one of two definitions: `squad` is the script
of SQuAD v1.1, with which XQuAD was published, the same for all languages; `mlqa` that of MLQA
(Lewis et al., 2020), with articles and tokens of the language.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import regex

from ...text.languages import get_language

Tokens = Callable[[str, str], list[str]]  # of a text in a language

_ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    # MLQA's script, by its pattern, takes these letters out of the middle of words too.
    "ar": r"(^|\s)ال",
}
_UNSPACED = regex.compile(  # a letter with the marks on it
    r"(?=[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}])\X"
)


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


def squad(text: str, code: str) -> list[str]:
    """Tokens by the SQuAD v1.1 script: lower case, ASCII punctuation and English articles out,
    split at white space; in Thai and Chinese mostly one."""
    kept = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(_ARTICLES["en"], " ", kept).split()


def mlqa(text: str, code: str) -> list[str]:
    """Tokens by MLQA's script: lower case, all punctuation and the language's articles out, split
    at white space, in scripts without it at letters.

    The script knows en, es, de, vi, ar, hi and zh. The others lose no articles; Thai is split like
    Chinese, a letter with its marks being a token.
    """
    kept = "".join(
        char
        for char in text.lower()
        if char not in string.punctuation and unicodedata.category(char)[0] != "P"
    )
    if code in _ARTICLES:
        kept = re.sub(_ARTICLES[code], " ", kept)
    if not get_language(code).spaced:
        kept = _UNSPACED.sub(r" \g<0> ", kept)
    return kept.split()


def span_exact(prediction: str, answers: Sequence[str], code: str, tokens: Tokens = mlqa) -> float:
    """1.0 if the prediction has the tokens of one of the answers, in order, else 0.0."""
    said = tokens(prediction, code)
    return float(any(said == tokens(answer, code) for answer in answers))


def span_f1(prediction: str, answers: Sequence[str], code: str, tokens: Tokens = mlqa) -> float:
    """The best F1 over `answers`: harmonic mean of precision and recall over the multiset of
    tokens, in [0, 1]; 0 where no token is shared, also if neither text has any."""
    said = Counter(tokens(prediction, code))
    truths = [Counter(tokens(answer, code)) for answer in answers]
    common = [(said & true).total() for true in truths]
    return max(
        2 * both / (said.total() + true.total()) if both else 0.0
        for both, true in zip(common, truths)
    )
