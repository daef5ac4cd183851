"""The village's grammar: one YAML file a language turns events into sentences.

A language file (`languages/xx.yaml`) holds a lexicon, event templates, questions and inference
wordings. Lexicon entries are one string (the form `base`) or a table of named forms; a form may
itself be a table by agreement class. Placeholders of a template:

    {person}                   the form `base` of the slot's filler
    {place.at}                 a named form
    {colour.acc~thing}         the form that agrees with another slot: the filler of `thing` has a
                               class, `agr`, and the form `acc` of the colour is a table by class
    {person?m:poshel|f:poshla} plain text chosen by the slot's own class

Square brackets in an answer mark the asked-for words; they are not printed.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from ..errors import ClasError
from ..text.languages import get_language
from .world import ANIMAL_COLOURS, EVENT_SLOTS, LEXICON, QUESTION_SLOTS, SLOT_TYPES, Event, Question

LANGUAGE_DIR = Path(__file__).parent / "languages"
CODES = ("en", "es", "de", "fr", "ru", "zh", "ar", "hi", "tr", "vi", "th", "sw")
VERDICTS = ("entailment", "neutral", "contradiction")

_PLACEHOLDER = re.compile(
    r"\{(?P<slot>[a-z]+)(?:\?(?P<choice>[^{}]*)|(?:\.(?P<form>\w+))?(?:~(?P<agree>[a-z]+))?)\}"
)


class GrammarError(ClasError):
    """A language file lacks a form, an entry or a template; the message names it."""


@dataclass(frozen=True)
class Told:
    """The answer to a question: a whole sentence, and the asked-for words in it."""

    text: str
    asked: str


class Grammar:
    """One language of the village, read from its file.

    Raises `GrammarError` if the file does not cover the world's entries, events and questions.
    """

    def __init__(self, data: Mapping[str, Any]):
        self.code: str = data["language"]
        self.joiner: str = data["joiner"]
        self.lexicon: dict[str, dict[str, Any]] = {kind: data[kind] for kind in LEXICON}
        self.events: dict[str, list[str]] = data["events"]
        self.questions: dict[str, dict[str, Any]] = data["questions"]
        self.inference: dict[str, str] = data["inference"]
        self._check_coverage()

    @classmethod
    @cache
    def load(cls, code: str) -> Grammar:
        """The grammar of a language of the village, e.g. "sw"."""
        if code not in CODES:
            raise GrammarError(
                f"The village does not speak {code!r}; it speaks {', '.join(CODES)}."
            )
        path = LANGUAGE_DIR / f"{code}.yaml"
        return cls(yaml.safe_load(path.read_text(encoding="utf-8")))

    def _check_coverage(self) -> None:
        for kind, entries in LEXICON.items():
            missing = set(entries) ^ set(self.lexicon[kind])
            if missing:
                raise GrammarError(f"{self.code}: {kind} entries differ from the world: {missing}")
        for name, have, want in (
            ("events", self.events, EVENT_SLOTS),
            ("questions", self.questions, QUESTION_SLOTS),
        ):
            if set(have) != set(want):
                raise GrammarError(f"{self.code}: {name} differ: {set(have) ^ set(want)}")
        few = [kind for kind, templates in self.events.items() if len(templates) < 2]
        if few:
            raise GrammarError(f"{self.code}: fewer than two wordings for {', '.join(few)}")

    # -- lexicon ---------------------------------------------------------------------------
    def _entry(self, slot: str, fillers: Mapping[str, str]) -> dict[str, Any]:
        if slot not in fillers:
            raise GrammarError(f"{self.code}: a template uses {{{slot}}}, which its event lacks")
        entry = self.lexicon[SLOT_TYPES.get(slot, slot)][fillers[slot]]
        return entry if isinstance(entry, dict) else {"base": entry}

    def _fill(self, match: re.Match[str], fillers: Mapping[str, str]) -> str:
        slot, choice = match["slot"], match["choice"]
        entry = self._entry(slot, fillers)
        where = f"{self.code}: {fillers[slot]}"
        if choice is not None:
            options = dict(option.split(":", 1) for option in choice.split("|"))
            agr = str(entry.get("agr"))
            if agr not in options:
                raise GrammarError(f"{where} has class {agr!r}, the template offers {choice!r}")
            return options[agr]
        form = entry.get(match["form"] or "base")
        if match["agree"]:
            other = str(self._entry(match["agree"], fillers).get("agr"))
            if isinstance(form, dict):  # a form that never changes may stay one string
                form = form.get(other)
            if form is None:
                raise GrammarError(f"{where} has no form {match['form'] or 'base'!r} for {other!r}")
        if not isinstance(form, str):
            raise GrammarError(f"{where} has no form {match['form'] or 'base'!r}")
        return form

    def fill(self, template: str, fillers: Mapping[str, str]) -> str:
        """`template` with every placeholder filled. Raises `GrammarError` on a missing form."""
        text = _PLACEHOLDER.sub(lambda match: self._fill(match, fillers), template)
        if "{" in text or "}" in text:
            raise GrammarError(f"{self.code}: leftover placeholder in {text!r}")
        return self.start_sentence(text)

    def start_sentence(self, text: str) -> str:
        """`text` with a capital first letter (Turkish: i becomes İ)."""
        lead = len(text) - len(text.lstrip('¿¡["«'))
        first = text[lead : lead + 1]
        upper = "İ" if self.code == "tr" and first == "i" else first.upper()
        return text[:lead] + upper + text[lead + 1 :]

    # -- sentences -------------------------------------------------------------------------
    def wordings(self, kind: str) -> int:
        """How many wordings there are of a kind of event."""
        return len(self.events[kind])

    def sentence(self, event: Event, wording: int = 0) -> str:
        """One event as a sentence, in wording `wording` (modulo the number there is)."""
        templates = self.events[event.kind]
        return self.fill(templates[wording % len(templates)], event.fillers)

    def ask(self, question: Question, wording: int = 0) -> str:
        """The question as a sentence, in wording `wording` (modulo the number there is)."""
        asks = self.questions[question.kind]["ask"]
        return self.fill(asks[wording % len(asks)], question.fillers)

    def answer(self, question: Question) -> Told:
        """The full-sentence answer and the asked-for words in it."""
        marked = self.fill(self.questions[question.kind]["answer"], question.fillers)
        asked = re.search(r"\[(.*?)\]", marked)
        if asked is None:
            raise GrammarError(f"{self.code}: the answer of {question.kind} marks no [words]")
        return Told(marked.replace("[", "").replace("]", ""), asked[1])

    def verdict_prompt(self, statement: str) -> str:
        """What asks for the verdict on `statement`."""
        return self.inference["ask"].replace("{statement}", statement)

    # -- the whole language ----------------------------------------------------------------
    def render_all(self) -> Iterator[tuple[str, Mapping[str, str], str]]:
        """(what, fillers, text) of every template with every filler, questions included."""
        for kind, slots in EVENT_SLOTS.items():
            for fillers in all_fillers(slots):
                for wording in range(self.wordings(kind)):
                    yield kind, fillers, self.sentence(Event(kind, fillers), wording)
        for kind, slots in QUESTION_SLOTS.items():
            for fillers in all_fillers(slots):
                question = Question(kind, fillers)
                for wording in range(len(self.questions[kind]["ask"])):
                    yield f"ask {kind}", fillers, self.ask(question, wording)
                yield f"answer {kind}", fillers, self.answer(question).text
        for verdict in VERDICTS:
            yield verdict, {}, self.inference[verdict]

    @cached_property
    def all_sentences(self) -> frozenset[str]:
        """Every sentence that the grammar can tell a story with: what "parses" means."""
        questions = ("ask ", "answer ")
        return frozenset(
            text
            for what, _, text in self.render_all()
            if not what.startswith(questions) and what not in VERDICTS
        )

    def problems(self) -> list[str]:
        """What is wrong with this language's sentences, in words; empty when all is well."""
        found: list[str] = []
        stray_space = {"fr": " [.,]", "th": " "}.get(self.code, " [.,!?;:]")
        meanings: dict[tuple[str, str], Mapping[str, str]] = {}
        for what, fillers, text in self.render_all():
            if bad := foreign_characters(text, get_language(self.code).script):
                found.append(f"{what}: {bad!r} does not belong to the script: {text!r}")
            if "  " in text or text != text.strip() or re.search(stray_space, text):
                found.append(f"{what}: spacing of {text!r}")
            if unicodedata.normalize("NFC", text) != text:
                found.append(f"{what}: not in Unicode NFC: {text!r}")
            if meanings.setdefault((what, text), fillers) != fillers and not what.startswith("ask"):
                found.append(f"{what}: {text!r} means two things")
        return found


def all_fillers(slots: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Every combination of fillers that the world allows for `slots`."""
    for values in itertools.product(*(LEXICON[SLOT_TYPES.get(slot, slot)] for slot in slots)):
        fillers = dict(zip(slots, values))
        if fillers.get("person") == fillers.get("other") and "other" in fillers:
            continue
        if "animal" in fillers and fillers.get("colour", "white") not in ANIMAL_COLOURS:
            continue
        yield fillers


_SCRIPT_NAMES = {
    "Latn": ("LATIN",),
    "Cyrl": ("CYRILLIC",),
    "Arab": ("ARABIC",),
    "Deva": ("DEVANAGARI",),
    "Thai": ("THAI",),
    "Hans": ("CJK",),
}


def foreign_characters(text: str, script: str) -> str:
    """Letters and marks of `text` outside `script` (ISO 15924)."""
    names = _SCRIPT_NAMES[script]
    letters = (char for char in text if unicodedata.category(char)[0] in "LM")
    return "".join(char for char in letters if not unicodedata.name(char, "").startswith(names))
