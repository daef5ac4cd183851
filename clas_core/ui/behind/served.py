"""The page's texts from two servers: a model left alone, and the same one with a plan baked in.

Who opens the page names them, never a visitor. They tell no more than texts, so that nothing is
known here of tokens and probabilities; and their strength is the one that was baked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...errors import ClasError
from ...running.effects import changed_share, repetition
from ...running.endpoints import Endpoint, Question, Written, write_apart
from ...steering.recipe import Recipe
from ...text.detection import detect
from ...text.languages import get_language
from .inputs import clean_prompt
from .views import KINDS, TITLES, View, outcome_sentence
from .words import is_word, marked, split

NAMES = ("The unsteered model's server", "The baked model's server")
KEY = "CLAS_ENDPOINT_KEY"  # environment variable, so that no list of processes shows it
MOST = 64  # answers at a time, of all visitors; each of them holds two connections
FRAME = 1 / 15  # seconds between two updates of a text
FRAMES = 40  # a second, of all visitors together


class Served:
    """Two servers, the unsteered model's first."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._room = threading.BoundedSemaphore(MOST)
        self._answers = 0

    @classmethod
    def open(cls, addresses: Sequence[str]) -> Served:
        """Servers that are there and have their models. Raises ClasError, with the address."""
        key = os.environ.get(KEY, "")
        endpoints = [Endpoint(one, name, key) for one, name in zip(addresses, NAMES)]
        for endpoint in endpoints:
            try:
                endpoint.check()
            except ClasError as error:
                raise ClasError(f"{endpoint.address}: {error}") from error
        one, other = ((each.address.partition("#")[0], each.model) for each in endpoints)
        if one == other:
            raise ClasError(f"Both endpoints are the same model at {one[0]}: the second is baked.")
        return cls(endpoints)

    @property
    def titles(self) -> tuple[str, ...]:
        """What the servers call their models."""
        return tuple(endpoint.title for endpoint in self.endpoints)

    @property
    def note(self) -> str:
        """What there is to know of such a page."""
        one, other = self.titles
        return (
            f"The answers come from two servers: {one}, left alone, and {other}, into which a "
            "steering was baked. Its strength is the one that was baked: goal, strength and method "
            "don't change these texts; prompt, temperature, length and seed do. A random control, "
            "and what steering moves inside, can't be had from servers. All else on this page is "
            "of the model named at the top, on this machine."
        )

    def views(
        self,
        recipe: Recipe,
        codes: Sequence[str],
        spoken: str,
        chat: bool,
        stop: threading.Event,
    ) -> Iterator[View]:
        """Both panes as they grow, as `Studio.steer` yields them. `codes`: the languages that a
        text may be in; `spoken`: the prompt's. Raises ClasError."""
        asked = Question(
            clean_prompt(recipe.prompt),
            recipe.max_new_tokens,
            recipe.temperature,
            recipe.seed,
            chat,
            recipe.system if chat else "",
        )
        if not self._room.acquire(blocking=False):
            raise ClasError("Many are asking these servers now: try again in a moment.")
        self._answers += 1
        try:
            last: tuple[Written, ...] = (Written(), Written())
            frame = max(FRAME, self._answers / FRAMES)
            for last in write_apart(self.endpoints, asked, stop, frame=frame):
                yield self._view(recipe, last, "running", spoken)
            state = "stopped" if stop.is_set() else "done"
            yield self._view(recipe, last, state, spoken, codes)
        finally:
            self._answers -= 1
            self._room.release()

    def _view(
        self,
        recipe: Recipe,
        found: Sequence[Written],
        state: str,
        spoken: str,
        codes: Sequence[str] = (),
    ) -> View:
        texts = [one.text for one in found]
        spans = marked(texts, spoken)
        heard = [detect(text, codes).code if codes else None for text in texts]
        panes = [
            {
                "kind": KINDS[row],
                "title": TITLES[row],
                "note": f"{self.titles[row]}, {'baked' if row else 'as it is'}",
                "spans": spans[row],
                "dir": "rtl" if get_language(heard[row] or spoken).rtl else "auto",
                "lang": heard[row] or spoken,
                "writing": state == "running" and not one.done,
                "empty": "The model ended its text at once.",
                "badges": _badges(one, heard[row], state, recipe.max_new_tokens),
            }
            for row, one in enumerate(found)
        ]
        view: View = {
            "state": state, "panes": panes, "sentence": "", "measured": "", "facts": [],
            "strip": None, "parting": None, "bars": None,
        }  # fmt: skip
        if codes and any(texts):
            words = [[piece for piece in split(text) if is_word(piece)] for text in texts]
            before, after = heard
            share, again = changed_share(*words), (repetition(words[0]), repetition(words[1]))
            said = outcome_sentence(share, (before, after), again)
            chance = " Each server draws by itself: above temperature 0 some of it is chance."
            view["sentence"] = said + (chance if recipe.temperature > 0 and share else "")
        return view


def of_text(recipe: Recipe) -> Recipe:
    """The recipe without what has no part in a server's text."""
    plain = Recipe()
    return replace(
        plain,
        model=recipe.model,
        prompt=recipe.prompt,
        chat=recipe.chat,
        system=recipe.system,
        temperature=recipe.temperature,
        max_new_tokens=recipe.max_new_tokens,
        seed=recipe.seed,
    )


def _badges(one: Written, code: str | None, state: str, most: int) -> list[str]:
    """`most`: tokens that were asked for, at which an answer is cut that didn't end itself."""
    cut = state == "done" and not one.done
    count = one.tokens if one.tokens is not None or not cut else most
    badges = [get_language(code).name] if code else []
    if count is not None:
        said = f"{count} token{'' if count == 1 else 's'}"
        badges.append(f"cut at {said}" if cut else said)
    return badges
