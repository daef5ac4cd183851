"""What the strength's slider says under one steering, by what was tried with and without it: what
random neurons do too it doesn't call the steering's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ...evaluation.marks import Marks

SUBTLE, CHANGES, BREAKS = "Subtle", "Text changes", "Breaks"
MELTS, LIKE_RANDOM = "Language melts", "Like random"
# The word for each goal from where it does more to its language than random neurons, the label of
# a mark there, and what both mean.
_AHEAD = {
    "forget": (MELTS, "melts", "clearly more texts are out of the language"),
    "write": ("Language turns", "turns", "clearly more texts are in the language"),
    "silence": ("Language fades", "fades", "the language is clearly harder to predict"),
    "help": ("Language gains", "gains", "the language is clearly easier to predict"),
}
_FEWER = "fewer than nine in ten words of new stories are in the prompt's language"


@dataclass(frozen=True)
class Saying:
    """`steps`: words, each from a strength on, ascending. `marks`: strengths to mark, each with a
    label, a kind (melts, alike, breaks) and a sentence."""

    steps: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str, str, str], ...]


def said_of_curves(
    curves: Mapping[str, Any], melts: float | None, breaks: float | None, fewer: float
) -> Saying:
    """By the shares of a language's words in stories at all strengths, as `Stored.curves` has them.

    `melts` and `breaks`: from where on that is so, if it is. `fewer`: the share of the unsteered
    model's below which a language melts. It is called the steering's own where more of the words
    are left under most draws of random neurons.
    """
    steered, controls = curves["speaks"]["steered"], curves["speaks"]["controls"]
    strengths: Sequence[float] = curves["strengths"]
    unsteered = steered[strengths.index(0.0)][0]

    def word(place: int, strength: float) -> str:
        share = steered[place][0]
        if breaks is not None and strength >= breaks:
            return BREAKS
        if melts is None or share >= fewer * unsteered:
            return SUBTLE
        alike = sum(one[place][0] <= share for one in controls)
        return LIKE_RANDOM if 2 * alike > len(controls) else MELTS

    return _saying(
        [(at, word(place, at)) for place, at in enumerate(strengths) if at > 0],
        {
            MELTS: ("melts", "melts", f"{_FEWER}, and fewer than under most random draws"),
            LIKE_RANDOM: (
                "like random",
                "alike",
                f"{_FEWER}, but no fewer than under most random draws",
            ),
            BREAKS: ("breaks", "breaks", "fewer than half as many questions are answered rightly"),
        },
    )


def said_of_marks(known: Marks) -> Saying:
    """By what was tried of a goal's method on a model."""
    ahead, label, meaning = _AHEAD[known.goal]

    def word(strength: float) -> str:
        if known.breaks is not None and strength >= known.breaks:
            return BREAKS
        if known.is_ahead(strength):
            return ahead
        return CHANGES if known.seen is not None and strength >= known.seen else SUBTLE

    return _saying(
        [(point.alpha, word(point.alpha)) for point in known.points[1:]],
        {
            ahead: (label, "melts", f"{meaning} than under a random control"),
            CHANGES: ("changes", "alike", "most texts differ, as they may under random neurons"),
            BREAKS: ("breaks", "breaks", "most texts are empty, loop, or are far less likely"),
        },
    )


def _saying(words: Sequence[tuple[float, str]], told: Mapping[str, tuple[str, str, str]]) -> Saying:
    """`told`: a mark's label, kind and meaning for each word; where the steering does something of
    its own, what random neurons do too has none."""
    first = {word: at for at, word in reversed(words)}
    own = {kind for word, (_, kind, _) in told.items() if word in first}
    marks = tuple(
        (first[word], label, kind, f"The first strength at which {meaning}")
        for word, (label, kind, meaning) in told.items()
        if word in first and not (kind == "alike" and "melts" in own)
    )
    runs = (next(run) for _, run in groupby(words, key=lambda pair: pair[1]))
    return Saying(tuple(runs), marks)
