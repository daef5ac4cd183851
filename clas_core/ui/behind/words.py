"""Texts as the panes show them: word by word, each with its language and whether it differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

import regex

from ...evaluation.tasks.scoring import words
from ...text.languages import get_language
from ...text.scripts import parts_of, script_of
from ...village.grammar import CODES, Grammar

# A piece of text; whether the other side lacks it; "" for the prompt's language, the code of
# another one, "?" for a word of none.
Span = tuple[str, bool, str]
UNKNOWN = "?"
PALETTE = {code: get_language(code).colour for code in CODES}

_PIECE = regex.compile(
    r"(?=[\p{Han}\p{Thai}])\X"  # a letter with its marks, where words aren't apart
    r"|\s+|[\p{P}\p{S}--['’\-]]"
    r"|(?:(?![\p{Han}\p{Thai}\s])[^\p{P}\p{S}]|['’\-])+",
    regex.VERSION1,
)


def split(text: str) -> list[str]:
    """Words, signs, blanks and letters of Thai and Chinese: `text` in pieces that join to it."""
    return _PIECE.findall(text)


def is_word(piece: str) -> bool:
    """Whether a piece says something: no blank, no sign."""
    return any(char.isalnum() for char in piece)


class Vocabulary:
    """The words of each language, by which a word tells its language."""

    def __init__(self, known: Mapping[str, Collection[str]]) -> None:
        self._known = {code: frozenset(found) for code, found in known.items()}
        self._spoken = lru_cache(maxsize=256)(self._find_spoken)  # asked several times of a prompt

    def as_dict(self) -> dict[str, list[str]]:
        """Plain data, which makes the same vocabulary again."""
        return {code: sorted(found) for code, found in self._known.items()}

    def languages_of(self, word: str) -> list[str]:
        """The languages that have `word`; a letter of Thai or Chinese tells by its script."""
        return [code for code in self._known if self._has(code, word)]

    def language_of(self, word: str, expected: str, before: str = "") -> str:
        """`word`'s language as in `Span`: the `expected` one or that of the word `before` it where
        it may be that, "?" where it is none."""
        found = self.languages_of(word)
        if expected in found:
            return ""
        return before if before in found else found[0] if found else UNKNOWN

    def of_text(self, text: str, expected: str) -> list[tuple[str, str]]:
        """The pieces of `text`, each with its language; what isn't a word has that of both words
        beside it, where they share one."""
        pieces, codes, before = split(text), dict[int, str](), ""
        for place, piece in enumerate(pieces):
            if is_word(piece):
                codes[place] = before = self.language_of(piece, expected, before)
        found, after = [], ""
        for place in reversed(range(len(pieces))):
            left = max((other for other in codes if other < place), default=-1)
            between = after if codes.get(left) == after else ""
            after = codes.get(place, after)
            found.append((pieces[place], codes.get(place, between)))
        return found[::-1]

    def spoken(self, text: str) -> str | None:
        """The language that has more of the different words of `text` than any other one has, if it
        has most of them."""
        return self._spoken(text)

    def _find_spoken(self, text: str) -> str | None:
        said = {piece for piece in split(text) if is_word(piece)}
        counts = Counter(code for word in said for code in self.languages_of(word))
        (best, most), (_, next_most) = (*counts.most_common(2), ("", 0), ("", 0))[:2]
        return best if most > next_most and 2 * most > len(said) else None

    def share(self, text: str, expected: str) -> float:
        """Share of words in the `expected` language, in [0, 1]; 0 for a text without any."""
        said = [code for piece, code in self.of_text(text, expected) if is_word(piece)]
        return sum(not code for code in said) / len(said) if said else 0.0

    def _has(self, code: str, word: str) -> bool:
        if not get_language(code).spaced:
            return script_of(word[0]) in parts_of(get_language(code).script)
        parts = words(word, code)
        return bool(parts) and all(part in self._known[code] for part in parts)


def village_vocabulary() -> Vocabulary:
    """All words of the village's grammars; some seconds to make."""
    return Vocabulary({code: _all_words(code) for code in CODES})


def _all_words(code: str) -> set[str]:
    grammar = Grammar.load(code)
    texts = [text for _, _, text in grammar.render_all()] + [grammar.verdict_prompt("")]
    return {word for text in texts for word in words(text, code)}


def marked(
    texts: Sequence[str], code: str, vocabulary: Vocabulary | None = None
) -> list[list[Span]]:
    """Each text's spans, which join to it: the first compared with the second, others with the
    first. `code`: the prompt's language. Without a vocabulary nothing is said of languages."""
    pieces = [
        vocabulary.of_text(text, code) if vocabulary else [(piece, "") for piece in split(text)]
        for text in texts
    ]
    plain = [[piece for piece, _ in one] for one in pieces]
    flags = [_differing(plain[0], plain[1])[0] if len(plain) > 1 else [False] * len(plain[0])]
    flags += [_differing(plain[0], other)[1] for other in plain[1:]]
    return [
        list(_joined((text, flag, name) for (text, name), flag in zip(one, marks)))
        for one, marks in zip(pieces, flags)
    ]


def _differing(a: list[str], b: list[str]) -> tuple[list[bool], list[bool]]:
    """Of each side's pieces, whether it lies behind the first difference and the other side lacks
    it there. Blanks and signs are never said to."""
    left, right = ([i for i, piece in enumerate(side) if not piece.isspace()] for side in (a, b))
    alike = 0
    while alike < min(len(left), len(right)) and a[left[alike]] == b[right[alike]]:
        alike += 1
    left, right = left[alike:], right[alike:]
    matcher = SequenceMatcher(None, [a[i] for i in left], [b[j] for j in right], autojunk=False)
    flags = [False] * len(a), [False] * len(b)
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        if kind != "equal":
            for flagged, side, places in (
                (flags[0], a, left[i:i_end]),
                (flags[1], b, right[j:j_end]),
            ):
                for place in places:
                    flagged[place] = is_word(side[place])
    return flags


def _joined(pieces: Iterable[Span]) -> Iterator[Span]:
    """Neighbours that are alike as one span; marked words stay one by one."""
    last: Span | None = None
    for text, flag, name in pieces:
        one_by_one = flag and _is_spaced(text)
        if last is not None and last[1:] == (flag, name) and not one_by_one:
            last = (last[0] + text, flag, name)
            continue
        if last is not None:
            yield last
        last = (text, flag, name)
    if last is not None:
        yield last


def _is_spaced(piece: str) -> bool:
    """Whether a piece is of a script that writes its words apart."""
    return not regex.match(r"[\p{Han}\p{Thai}]", piece)
