"""How likely words are in a language, by the letter statistics that come with langdetect.

Its profiles hold how often each run of one to three letters stands in the Wikipedia of 55
languages. They are summed here in full, where langdetect itself samples: the same text gives the
same figures without a seed, and a word's share in them can be told from the others'.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import regex

from .languages import get_language

Profiles = tuple[str, ...]  # langdetect's names

_CODES = {"zh-cn": "zh", "zh-tw": "zh-Hant", "no": "nb"}  # its names that aren't our codes
_NAMES = {code: name for name, code in _CODES.items()}
_SMOOTHING = 0.5 / 10_000  # added to each probability, as langdetect does
_OVERLAP = 3  # runs that a letter is part of: their log-probabilities count a third each
_WORD = regex.compile(r"[\p{L}\p{M}]+")


@dataclass(frozen=True)
class WordScores:
    """`words`: the different words of a text, in its order, whatever their case.

    `values` [words, profiles]: their log-probabilities in nats. `fit` [profiles]: by how many
    standard deviations the text is likelier than the language's own usually is; negative where it
    is less likely.
    """

    words: tuple[str, ...]
    values: np.ndarray
    fit: np.ndarray


@lru_cache(maxsize=1)
def known_languages() -> dict[str, str]:
    """The languages that langdetect knows: our code of each, and its name there."""
    names = sorted(path.name for path in _folder().iterdir())
    return {_CODES.get(name, name): name for name in names}


@lru_cache(maxsize=4096)
def profile_of(code: str) -> str | None:
    """langdetect's name for `code`, or for what it is a kind of: pt for pt-BR, ar for arz.

    None where it knows neither, or knows it in another script only.
    """
    from langcodes.data_dicts import MACROLANGUAGES

    language = code.partition("-")[0]
    known = known_languages()
    for name in (code, language, MACROLANGUAGES.get(language, "")):
        own = _CODES.get(name, name)
        if own in known and get_language(own).script == get_language(code).script:
            return known[own]
    return None


def is_like(code: str, other: str) -> bool:
    """Whether letter statistics can't tell the two apart, as pt and pt-BR."""
    return (profile_of(code) or code) == (profile_of(other) or other)


def different_words(text: str) -> tuple[list[str], int]:
    """The different words of `text` whatever their case, in its order, as each stands there first;
    and how many words there are in all."""
    words = _WORD.findall(text)
    return list({word.casefold(): word for word in reversed(words)}.values())[::-1], len(words)


def score_words(text: str, profiles: Profiles) -> WordScores:
    """What each different word of `text` says for each of `profiles`.

    A word in capitals counts as it would in small letters; one of no known letters says nothing.
    """
    from langdetect.utils.ngram import NGram

    index, table, usual, spread = _tables(profiles)
    words, _ = different_words(NGram.normalize_vi(text))
    runs = [_runs(word.lower() if word.isupper() else word) for word in words]
    flat = [run for of_word in runs for run in of_word]
    if not flat:
        return WordScores(
            tuple(words), np.zeros((len(words), len(profiles))), np.zeros(len(profiles))
        )
    scores = table[[index.get(run, -1) for run in flat]]  # [runs, profiles]
    sums = np.vstack([np.zeros(len(profiles)), scores.cumsum(0, np.float64)])
    values = np.diff(sums[np.cumsum([0, *map(len, runs)])], axis=0)
    counts = np.bincount([len(run) - 1 for run in flat], minlength=3)
    deviation = values.sum(0) - counts @ usual
    fit = deviation / np.sqrt(_OVERLAP * (counts @ spread))
    return WordScores(tuple(words), values / _OVERLAP, fit)


def _folder() -> Path:
    from langdetect import detector_factory

    return Path(detector_factory.PROFILES_DIRECTORY)


def _runs(word: str) -> list[str]:
    """The runs of one to three letters in `word`, its two ends counting as a blank."""
    from langdetect.utils.ngram import NGram

    found: list[str] = []
    for part in "".join(map(NGram.normalize, word)).split():
        padded = f" {part} "
        found += part
        found += [padded[start : start + 2] for start in range(len(padded) - 1)]
        found += [padded[start : start + 3] for start in range(len(padded) - 2)]
    return found


@lru_cache(maxsize=32)
def _tables(profiles: Profiles) -> tuple[dict[str, int], np.ndarray, np.ndarray, np.ndarray]:
    """The row of each run; the runs' log-probabilities [runs + 1, profiles], the last row for one
    that no profile holds; their mean and variance [3, profiles] in the language's own text."""
    contents = [json.loads((_folder() / name).read_text("utf-8")) for name in profiles]
    runs = dict.fromkeys(
        run for content in contents for run in content["freq"] if 1 <= len(run) <= 3
    )
    index = {run: row for row, run in enumerate(runs)}
    shares = np.zeros((len(index) + 1, len(profiles)), np.float32)
    for column, content in enumerate(contents):
        for run, count in content["freq"].items():
            if run in index:
                shares[index[run], column] = count / content["n_words"][len(run) - 1]
    table = np.log(shares + _SMOOTHING)
    lengths = np.array([*map(len, index), 0])
    usual, spread = np.zeros((2, 3, len(profiles)))
    for length in (1, 2, 3):
        own, logs = shares[lengths == length], table[lengths == length]
        usual[length - 1] = (own * logs).sum(0)
        spread[length - 1] = (own * (logs - usual[length - 1]) ** 2).sum(0)
    return index, table, usual, spread
