"""Language records: codes, names, script, direction, how they are drawn.

Codes come in many spellings: `swh_Latn`, `swa`, `sw`; `zho-CN`, `cmn_Hans`, `zh`. Inside the
project a language has one, the shortest BCP 47 tag that says it (`canonical_code`). What the
sixteen languages of our own table don't say, the langcodes library does: it carries the IANA
registry and CLDR, Unicode's locale data.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import ClasError
from .scripts import parts_of

if TYPE_CHECKING:
    import langcodes

# Okabe and Ito's eight colours, told apart in every common form of colour blindness. Black is
# replaced by a mid grey that reads on a dark page too.
OKABE_ITO = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#7F7F7F",
    "#F0E442",
)
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
UNKNOWN_COLOUR = "#7F7F7F"

# Languages beyond our table: the coloured seven with symbols of their own. The first 42 of these
# get one pair each; any other language gets the pair its code hashes to.
FURTHER_COLOURS = tuple(colour for colour in OKABE_ITO if colour != UNKNOWN_COLOUR)
FURTHER_SYMBOLS = ("cross", "x", "triangle-down", "star", "pentagon", "hourglass")
_FURTHER = (
    "ja pt it nl ko id pl fa cs uk he sv fi hu bn ta te ms am yo ha zh-Hant ca da nb et eu gl "
    "sr hr sk sl lt lv sq mk hy ka my km lo ne"
)
_PLACES = {code: place for place, code in enumerate(_FURTHER.split())}

_RIGHT_TO_LEFT = {"Arab", "Hebr", "Syrc", "Thaa", "Nkoo", "Adlm", "Rohg", "Mand", "Samr"}
_UNSPACED = {"Hans", "Hant", "Hani", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Lana", "Yiii"}

_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
_SPELLINGS = {"zho_simpl": "zh-Hans", "zho_trad": "zh-Hant"}  # FLORES-101's own


@dataclass(frozen=True)
class Language:
    """One language as the app knows it.

    `code` is the shortest BCP 47 tag, `script` ISO 15924 ("Zyyy" where it is not known), `tier`
    the usual resource class of web text ("high", "middle", "low", "lowest", "unknown"). `colour`
    and `symbol` (Plotly marker names) draw it.
    """

    code: str
    name: str
    native: str
    script: str
    tier: str
    colour: str
    symbol: str

    @property
    def rtl(self) -> bool:
        """Whether it is written from right to left."""
        return self.script in _RIGHT_TO_LEFT

    @property
    def spaced(self) -> bool:
        """Whether words are written apart, so that white space finds them."""
        return self.script not in _UNSPACED


_TABLE = (  # order fixes colour and symbol: neighbours in the list differ in both
    ("en", "English", "English", "Latn", "high"),
    ("es", "Spanish", "Español", "Latn", "middle"),
    ("de", "German", "Deutsch", "Latn", "middle"),
    ("fr", "French", "Français", "Latn", "middle"),
    ("ru", "Russian", "Русский", "Cyrl", "middle"),
    ("zh", "Chinese", "中文", "Hans", "middle"),
    ("ar", "Arabic", "العربية", "Arab", "low"),
    ("hi", "Hindi", "हिन्दी", "Deva", "low"),
    ("tr", "Turkish", "Türkçe", "Latn", "low"),
    ("vi", "Vietnamese", "Tiếng Việt", "Latn", "low"),
    ("th", "Thai", "ไทย", "Thai", "lowest"),
    ("sw", "Swahili", "Kiswahili", "Latn", "lowest"),
    ("bg", "Bulgarian", "Български", "Cyrl", "low"),
    ("el", "Greek", "Ελληνικά", "Grek", "low"),
    ("ro", "Romanian", "Română", "Latn", "low"),
    ("ur", "Urdu", "اردو", "Arab", "lowest"),
)

LANGUAGES: dict[str, Language] = {
    row[0]: Language(
        *row,
        colour=OKABE_ITO[i % len(OKABE_ITO)],
        symbol=SYMBOLS[(i + i // len(OKABE_ITO)) % len(SYMBOLS)],
    )
    for i, row in enumerate(_TABLE)
}


@lru_cache(maxsize=4096)
def get_language(code: str) -> Language:
    """The record of `code` in any spelling; one that no standard knows is drawn in neutral grey.

    Variants have names of their own: pt_BR is Portuguese (Brazil), zh_TW Chinese (Traditional).
    """
    if code in LANGUAGES:
        return LANGUAGES[code]
    if not is_known(code):
        return Language(code, code, code, "Zyyy", "unknown", UNKNOWN_COLOUR, "cross")
    short = canonical_code(code)
    if short in LANGUAGES:
        return LANGUAGES[short]
    named = _parse(short)
    variant = "".join(f" ({variant})" for variant in named.variants or ())
    place = _PLACES.get(short, zlib.crc32(short.encode()))
    row, column = divmod(place, len(FURTHER_COLOURS))
    return Language(
        short,
        named.display_name() + variant,
        _capitalised(named.autonym()) + variant,
        _script(named) or "Zyyy",
        "unknown",
        FURTHER_COLOURS[column],
        FURTHER_SYMBOLS[(row + column) % len(FURTHER_SYMBOLS)],
    )


def is_code(text: str) -> bool:
    """Whether `text` has the form of a language code; an unknown language may have any."""
    return _CODE.fullmatch(text) is not None


def is_known(code: str) -> bool:
    """Whether `code` names a language that some standard lists."""
    return code in LANGUAGES or (is_code(code) and "Unknown" not in _parse(code).language_name())


def canonical_code(code: str) -> str:
    """The shortest BCP 47 tag of the language, script, region and variant that `code` names.

    ISO 639-1, 639-2, 639-3 and BCP 47 are read, with "-" or "_": swh_Latn is sw, srp_Latn sr-Latn,
    iw he, por-BR pt-BR, prs fa-AF. A script goes where it is the usual one, and a region where it
    only tells the script: zho-CN is zh, zh_TW zh-Hant. A code no standard knows stays as it is.
    Raises `ClasError` for what isn't a code.
    """
    return code if code in LANGUAGES else _shortest(_parse(code))


def canonical_codes(codes: Iterable[str]) -> dict[str, str]:
    """Each spelling in `codes` and the code it gets, all different, in order.

    That is `canonical_code`; where it is the same for several, they keep what tells them apart:
    swa and swh are sw and swh. Raises `ClasError` where two name the same language.
    """
    short = {code: canonical_code(code) for code in codes}
    for code in [code for code, count in Counter(short.values()).items() if count > 1]:
        rivals = [spelling for spelling in short if short[spelling] == code]
        for macro in (True, False):
            longer = [_shortest(_parse(spelling, macro), full=True) for spelling in rivals]
            if len(set(longer)) == len(rivals):
                break
        else:
            name = get_language(code).name
            raise ClasError(f"{' and '.join(rivals)} are the same language, {name}; keep one.")
        short.update(zip(rivals, longer))
    return short


def find_code(wanted: str, codes: Collection[str]) -> str | None:
    """The one of `codes` that `wanted` means, in any spelling; None where there is none.

    A region that is asked for is never another one: por-BR isn't pt, and fr-CA isn't fr. Without
    one, the only variant there is will do: pt is pt-BR, unless pt or pt-PT is there too.
    """
    if wanted in codes:
        return wanted
    if not is_code(wanted):
        return None
    for macro in (False, True):  # swh is swh before it is sw
        if (long := _shortest(_parse(wanted, macro), full=True)) in codes:
            return long
    short = canonical_code(wanted)
    if short in codes:
        return short
    variants = [code for code in codes if is_code(code) and _without_region(code) == short]
    return variants[0] if len(variants) == 1 else None


@lru_cache(maxsize=4096)
def _parse(code: str, macro: bool = True) -> langcodes.Language:
    """`code` with its preferred subtags; `macro`: swh is sw and cmn zh, as in CLDR."""
    import langcodes  # 50 ms, and our own table needs none of it

    try:
        tag = langcodes.standardize_tag(_SPELLINGS.get(code.lower(), code), macro=macro)
        return langcodes.Language.get(tag)
    except langcodes.LanguageTagError as error:
        raise ClasError(
            f"{code[:40]!r} is not a language code such as en, swh or zh-Hant."
        ) from error


def _shortest(tag: langcodes.Language, full: bool = False) -> str:
    """Language, script unless it is the usual one, region and variants.

    `full`: also a region that only tells the script.
    """
    script, usual = _script(tag), _script(tag.make(language=tag.language))
    said = script and script != usual and script not in parts_of(usual or "")
    region = tag.territory if full or not _tells_script(tag, script) else None
    parts = [tag.language or "und", script if said else None, region, *(tag.variants or ())]
    return "-".join(part for part in parts if part)


def _tells_script(tag: langcodes.Language, script: str | None) -> bool:
    """Whether the region of `tag` is the usual one of `script`, in a language whose regions differ
    in script: CN of Chinese, and TW of traditional Chinese."""
    from langcodes.data_dicts import LIKELY_SUBTAGS

    if tag.territory is None:
        return False
    likely = {
        key.split("-")[1]: full.split("-")[1]
        for key, full in LIKELY_SUBTAGS.items()
        if key.startswith(f"{tag.language}-")
    }
    usual = _script(tag.make(language=tag.language))
    differ = any(len(part) < 4 and found != usual for part, found in likely.items())  # regions
    home = tag.make(language=tag.language, script=script).maximize().territory
    return differ and tag.territory == home


def _without_region(code: str) -> str:
    """The canonical code of the language and script of `code`."""
    tag = _parse(code)
    return _shortest(tag.make(language=tag.language, script=_script(tag)))


def _script(tag: langcodes.Language) -> str | None:
    """The script of `tag`, said or usual for the language there; of its macrolanguage at last."""
    from langcodes.data_dicts import LIKELY_SUBTAGS, MACROLANGUAGES

    if tag.script:
        return tag.script
    own = tag.language or "und"
    for language in (own, MACROLANGUAGES.get(own)):
        if language in LIKELY_SUBTAGS:  # else langcodes would answer for English
            return tag.make(language=language, territory=tag.territory).maximize().script
    return None


def _capitalised(name: str) -> str:
    """`name` as it starts a line, but isiZulu as its speakers write it."""
    first = name.split(" ")[0]
    return name if any(map(str.isupper, first)) else name[:1].title() + name[1:]
