"""Which language a text is in: by its script where that decides, else by letter statistics.

Rather no answer than a wrong one: a text that repeats a few words, is too short, no prose, in two
languages or in one that wasn't asked for gets none, and the reason says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import regex

from .languages import LANGUAGES, get_language
from .profiles import WordScores, different_words, known_languages, profile_of, score_words
from .scripts import parts_of, script_name, script_of

MIN_WORDS = 2  # different ones; below this, and
MIN_LETTERS = 8  # of theirs, letter statistics are guesses
MIN_CONFIDENCE = 0.8
MIN_FIT = -6.0  # standard deviations; a text below it is in a language that isn't known here
MIXED = 8.0  # nats by which some words in a row tell another language than the whole text, and
MIX_WORDS = 3  # how many they are at least
MIXED_SHARE = 0.8  # of the letters in one script, where others stand in whole words
ASKED = 4.0  # nats that a language asked for has ahead of one that wasn't
MIN_LOOP = 6  # words, or letters where words aren't apart; a loop has
FEW_WORDS, FEW_LETTERS = 5, 8  # less than so many different ones,
TIMES = 2  # each so many times in the mean

_LONGEST = 5_000  # characters that are read
_NO_PROSE = regex.compile(  # addresses and Roman numbers
    r"https?://\S+|[\w.+-]{1,64}@[\w.-]{1,255}|\b[IVXLCDM]{2,}\b"
)
_CODE_MARKS = regex.compile(
    r"[{}<>=|\\_^~]|&&|::|\w[(\[]|\)[:;]|(?<!\p{Greek});\s*$|(?<!\S)--?\w|(?<!\S)[$@#]\s?\w"
    r"|/\w+/",
    regex.MULTILINE,
)


@dataclass(frozen=True)
class Detection:
    """`code` is None where the text does not tell; `reason` says in a few words why, and `guess` is
    the likeliest of the languages that were asked for, where it could be several.

    `confidence` lies in [0, 1]: the share of letters in the script, or the probability of the
    language among all that langdetect knows.
    """

    code: str | None
    confidence: float
    reason: str
    guess: str | None = None


def detect(text: str, codes: Sequence[str] | None = None) -> Detection:
    """The language of `text` if it is one of `codes` (default: every language of the app).

    Each of the 55 languages that langdetect knows competes: a text in one that isn't among
    `codes` gets None. The same text always gets the same answer, on any thread.
    """
    return _detect(text[:_LONGEST], tuple(LANGUAGES if codes is None else codes))


@lru_cache(maxsize=256)  # the page asks several times of each prompt
def _detect(text: str, codes: tuple[str, ...]) -> Detection:
    text = _NO_PROSE.sub(" ", text)
    scripts = Counter(filter(None, map(script_of, text)))
    if not scripts:
        return Detection(None, 0.0, "no letters")
    candidates, rivals, share = _rank_scripts(codes, scripts)
    if share <= 0.5:
        script, count = scripts.most_common(1)[0]
        if 2 * count <= scripts.total():
            return Detection(None, count / scripts.total(), "a mix of scripts")
        reason = f"{script_name(script)} script, which none of these languages uses"
        return Detection(None, count / scripts.total(), reason)
    if not candidates:
        return Detection(None, share, f"more like {_any_of(rivals)}")
    language = get_language(candidates[0])
    if share <= MIXED_SHARE and _count_foreign_words(text, language.script) >= MIX_WORDS:
        return Detection(None, share, "a mix of scripts")
    if _repeats(text, language.spaced):
        return Detection(None, 0.0, "a few words again and again")
    if _is_code(text):
        return Detection(None, 0.0, "more like code than prose")
    if len(candidates) == 1 and not rivals:
        return Detection(candidates[0], share, f"{script_name(language.script)} script")
    return _by_statistics(text, candidates, rivals)


def _rank_scripts(
    codes: Sequence[str], scripts: Counter[str]
) -> tuple[tuple[str, ...], tuple[str, ...], float]:
    """The languages whose script fits best: of `codes`, and of the others; the share of letters
    that are in the script of one of `codes`, the best of them."""
    script_in = {code: get_language(code).script for code in codes}
    others = _others(codes)
    script_in |= others
    # Chinese characters alone fit Japanese and Korean too, but Chinese better: it has no others.
    fit = {
        code: (sum(scripts[part] for part in parts_of(script)), -len(parts_of(script)))
        for code, script in script_in.items()
        if script != "Zyyy"
    }
    best = max(fit.values())
    # A language whose script isn't known may be written in any.
    candidates = tuple(code for code in codes if fit.get(code, best) == best)
    rivals = tuple(code for code in others if fit[code] == best)
    own = max((fit[code][0] for code in codes if code in fit), default=0)
    return candidates, rivals, own / scripts.total()


@lru_cache(maxsize=64)
def _others(codes: Sequence[str]) -> dict[str, str]:
    """The languages that langdetect knows and that no one of `codes` is a kind of: their script."""
    asked = {profile_of(code) for code in codes}
    bases = {code.partition("-")[0] for code in codes}
    return {
        code: get_language(code).script
        for code, name in known_languages().items()
        if name not in asked and code.partition("-")[0] not in bases
    }


def _count_foreign_words(text: str, script: str) -> int:
    """How many different words of `text` start in another script."""
    own = parts_of(script)
    words, _ = different_words(text)
    return sum(script_of(word[0]) not in (*own, None) for word in words)


def _repeats(text: str, spaced: bool) -> bool:
    """Whether `text` is a loop of few words, or of few letters where words aren't apart."""
    words, count = different_words(text)
    if spaced:
        return len(words) < FEW_WORDS and count >= max(MIN_LOOP, TIMES * len(words))
    letters = "".join(regex.findall(r"\p{L}", text))
    return len(set(letters)) < FEW_LETTERS and len(letters) >= max(
        MIN_LOOP, TIMES * len(set(letters))
    )


def _is_code(text: str) -> bool:
    """Whether there are marks of a program, a query or markup, one for six words at least."""
    marks = sum(1 for _ in _CODE_MARKS.finditer(text))
    return marks >= 2 and 6 * marks >= different_words(text)[1]


def _by_statistics(text: str, candidates: Sequence[str], rivals: Sequence[str]) -> Detection:
    """The likeliest of `candidates` and `rivals`, all in one script, if it is a candidate."""
    codes_of: dict[str, list[str]] = {}
    for code in (*candidates, *rivals):
        if name := profile_of(code):
            codes_of.setdefault(name, []).append(code)
    unknown = [code for code in candidates if profile_of(code) is None]
    but = f", which don't know {_any_of(unknown)}" if unknown else ""
    if not codes_of:
        return Detection(None, 0.0, f"cannot tell {_any_of(candidates)} apart")
    profiles = tuple(sorted(codes_of))
    found = score_words(text, profiles)
    if _is_short(found, get_language(candidates[0]).spaced):
        return Detection(None, 0.0, "too short")
    asked = np.array([codes_of[name][0] in candidates for name in profiles])
    totals = found.values.sum(0) + ASKED * asked
    chances = np.exp(totals - totals.max())
    chances /= chances.sum()
    order = np.argsort(-chances, kind="stable")
    best, confidence = order[0], float(chances[order[0]])
    names = codes_of[profiles[best]]
    if found.fit[best] < MIN_FIT and get_language(names[0]).spaced:
        return Detection(None, confidence, f"like none that letter statistics know{but}")
    if (other := _find_mix(found, best)) is not None:
        pair = " and ".join(get_language(codes_of[profiles[n]][0]).name for n in (best, other))
        return Detection(None, confidence, f"a mix of {pair}")
    if confidence < MIN_CONFIDENCE or len(names) > 1:
        close = [code for n in order if chances[n] > 0.1 for code in codes_of[profiles[n]]]
        guess = next((code for code in close if code in candidates), None)
        return Detection(None, confidence, f"could be {_any_of([*close, *unknown])}", guess)
    if not asked[best]:
        return Detection(None, confidence, f"more like {_any_of(names)} by letter statistics{but}")
    return Detection(names[0], confidence, f"letter statistics{but}")


def _is_short(found: WordScores, spaced: bool) -> bool:
    """Whether there are too few different words, or letters in those of two or more."""
    letters = sum(len(word) for word in found.words if len(word) > 1)
    return letters < MIN_LETTERS or (spaced and len(found.words) < MIN_WORDS)


def _find_mix(found: WordScores, best: int) -> int | None:
    """The profile that some words in a row speak for by `MIXED` nats against the `best` one."""
    lead = found.values - found.values[:, [best]]  # [words, profiles]
    sums = np.concatenate([np.zeros((1, lead.shape[1])), lead.cumsum(0)])
    least = np.minimum.accumulate(sums)[:-MIX_WORDS]
    if not len(least):
        return None
    most = (sums[MIX_WORDS:] - least).max(0)  # over all runs of words, of each profile
    other = int(most.argmax())
    return other if most[other] > MIXED else None


def _any_of(codes: Sequence[str]) -> str:
    return " or ".join(get_language(code).name for code in codes)
