"""Language records: names, script, direction, how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Language:
    """One language as the app knows it.

    `code` is ISO 639-1, `script` ISO 15924, `tier` the usual resource class of web text
    ("high", "middle", "low", "lowest"). `colour` and `symbol` (Plotly marker names) draw it.
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
        return self.script == "Arab"

    @property
    def spaced(self) -> bool:
        """Whether words are written apart, so that white space finds them."""
        return self.script not in ("Hans", "Thai")


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


def get_language(code: str) -> Language:
    """The record of `code`; a language we have no record of is drawn in neutral grey."""
    if code in LANGUAGES:
        return LANGUAGES[code]
    return Language(code, code, code, "Zyyy", "unknown", UNKNOWN_COLOUR, "cross")
