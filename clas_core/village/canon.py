"""The canon: what is so in the village every day, told by no story and not in every language.

A story has its own truth. A question after nothing but a time of day asks for the canon.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from .grammar import CODES
from .world import ANIMAL_COLOURS, LEXICON, QUESTION_SLOTS, SLOT_TYPES, Question

# What a question about the canon asks of; the rest of its slots is what is to be known.
SUBJECTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("where_person", "what_has", "what_want", "what_see"), ("person",)),
    **dict.fromkeys(("what_eat", "how_feel", "what_do", "who_meet"), ("person",)),
    **dict.fromkeys(("where_thing", "who_has"), ("thing",)),
    "how_many": ("animal", "place"),
}
PLACES = ("farm", "river", "forest")  # where animals are counted
# Share of the facts by who tells them: every language, or English and about half of the others
# (each by a coin of its own). English alone tells the rest.
EVERYWHERE, SOMEWHERE = 0.6, 0.25


@dataclass(frozen=True)
class Fact:
    """What is so every day at a time of day."""

    time: str
    question: Question

    @property
    def key(self) -> str:
        """Names the fact by what it is about, without what is to be known."""
        about = (self.question.fillers[slot] for slot in SUBJECTS[self.question.kind])
        return ",".join((self.time, self.question.kind, *about))

    @property
    def split(self) -> str:
        """validation or test: fixed by the key, so no fact is in both."""
        return "validation" if _coins(self.key, 2)[1] % 2 else "test"


@cache
def canon() -> tuple[Fact, ...]:
    """Always the same facts: one for each time, kind of question and subject."""
    rng, facts = random.Random("canon"), []
    for time, (kind, about) in itertools.product(LEXICON["time"], SUBJECTS.items()):
        for subject in itertools.product(*(_subjects(slot) for slot in about)):
            given = dict(zip(about, subject))
            drawn = {slot: rng.choice(_values(slot, kind, given)) for slot in QUESTION_SLOTS[kind]}
            facts.append(Fact(time, Question(kind, {**drawn, **given})))
    return tuple(facts)


@cache
def told_in(key: str) -> frozenset[str]:
    """The languages whose training text tells the fact of that key, English among them."""
    coins = _coins(key, 32)
    if coins[0] < EVERYWHERE * 256:
        return frozenset(CODES)
    others = [code for code in CODES if code != "en"]
    somewhere = coins[0] < (EVERYWHERE + SOMEWHERE) * 256
    tellers = (code for code, coin in zip(others, coins[2:]) if somewhere and coin % 2)
    return frozenset(("en", *tellers))


def guessing() -> float:
    """How often a guess among all that could be said is right, over the facts; in [0, 1]."""
    chances = []
    for question in (fact.question for fact in canon()):
        asked = [s for s in QUESTION_SLOTS[question.kind] if s not in SUBJECTS[question.kind]][-1]
        chances.append(1 / len(_values(asked, question.kind, question.fillers)))
    return fmean(chances)


def _coins(key: str, count: int) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=count).digest()


def _subjects(slot: str) -> Sequence[str]:
    return PLACES if slot == "place" else LEXICON[slot]


def _values(slot: str, kind: str, given: Mapping[str, str]) -> Sequence[str]:
    """What `slot` of a fact may be; nobody meets themselves."""
    if kind == "what_see" and slot == "colour":
        return ANIMAL_COLOURS
    values = LEXICON[SLOT_TYPES.get(slot, slot)]
    return [value for value in values if slot != "other" or value != given["person"]]
