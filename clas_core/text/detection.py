"""Which language a text is in: by its script where that decides, else by letter statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .languages import LANGUAGES, get_language
from .scripts import parts_of, script_name, script_of

MIN_LETTERS = 12  # below this, letter statistics are guesses
MIN_CONFIDENCE = 0.7

# Where langdetect's profiles are not named by the language's shortest tag.
_PROFILES = {"zh": "zh-cn", "zh-Hant": "zh-tw", "nb": "no", "fil": "tl"}


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
    scripts = Counter(filter(None, map(script_of, text)))
    if not scripts:
        return Detection(None, 0.0, "no letters")
    script_in = {code: get_language(code).script for code in codes}
    # Chinese characters alone fit Japanese and Korean too, but Chinese better: it has no others.
    fit = {
        code: (sum(scripts[part] for part in parts_of(script)), -len(parts_of(script)))
        for code, script in script_in.items()
    }
    best = max((fit[code] for code in codes if script_in[code] != "Zyyy"), default=(0, 0))
    # A language whose script isn't known may be written in any.
    candidates = tuple(c for c in codes if fit[c] == best or script_in[c] == "Zyyy")
    letters = best[0]
    share = letters / scripts.total()
    if share <= 0.5:
        script, count = scripts.most_common(1)[0]
        if 2 * count <= scripts.total():
            return Detection(None, count / scripts.total(), "a mix of scripts")
        reason = f"{script_name(script)} script, which none of these languages uses"
        return Detection(None, count / scripts.total(), reason)
    if len(candidates) == 1:
        code = candidates[0]
        return Detection(code, share, f"{script_name(script_in[code])} script")
    if letters < MIN_LETTERS:
        return Detection(None, 0.0, "too short")
    return _by_statistics(text, candidates)


def _by_statistics(text: str, candidates: tuple[str, ...]) -> Detection:
    factory, code_of = _profiles(candidates)
    if not code_of or len(candidates) < 2:
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
    unknown = [code for code in candidates if code not in code_of.values()]
    but = f", which don't know {_any_of(unknown)}" if unknown else ""
    if best.lang not in code_of:
        return Detection(None, 0.0, f"none that letter statistics know{but}")
    code, confidence = code_of[best.lang], min(best.prob, 1.0)
    if confidence < MIN_CONFIDENCE:
        rivals = [code, *(code_of[guess.lang] for guess in others if guess.lang in code_of)]
        return Detection(None, confidence, f"could be {_any_of([*rivals, *unknown])}")
    return Detection(code, confidence, f"letter statistics{but}")


def _any_of(codes: Sequence[str]) -> str:
    return " or ".join(get_language(code).name for code in codes)


@lru_cache(maxsize=32)
def _profiles(candidates: tuple[str, ...]):  # type: ignore[no-untyped-def]  # langdetect is untyped
    """A seeded langdetect factory, and the code of each candidate's profile in it.

    It holds the candidates' profiles alone, which is the same as a prior of zero on all other
    languages, and ten times faster. Where a candidate has none, it holds all 55, so that a text in
    that language has others to be taken for than the candidates.
    """
    from langdetect import detector_factory

    folder = Path(detector_factory.PROFILES_DIRECTORY)
    code_of = {_PROFILES.get(code, code): code for code in candidates}
    code_of = {name: code for name, code in code_of.items() if (folder / name).is_file()}
    all_known = len(code_of) == len(candidates)
    names = list(code_of) if all_known else sorted(path.name for path in folder.iterdir())
    factory = detector_factory.DetectorFactory()
    factory.set_seed(0)
    factory.load_json_profile([(folder / name).read_text("utf-8") for name in names])
    return factory, code_of
