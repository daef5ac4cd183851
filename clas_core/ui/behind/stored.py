"""What the page shows before anything is computed: real answers at every strength, kept as data.

`python -m clas_core.studies first-screen` writes them. A language's answers are read when somebody
first asks for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import ClasError
from ...steering.recipe import Recipe
from .saying import Saying, said_of_curves
from .words import Vocabulary

Data = dict[str, Any]
STEP = 0.25  # of the strengths at which there are answers
FEWER = 0.9  # of the words that are in the language unsteered: below, the language melts
HALF = 0.5  # of the answers that are right unsteered: below, the model breaks


@dataclass(frozen=True)
class Marks:
    """The strengths from which on a language melts and the model breaks; None where it doesn't up
    to the strongest that was tried."""

    melts: float | None
    breaks: float | None


class Stored:
    """`recipe`: the steering that was tried at all strengths, at the one that the page opens with.

    `opening`: the language that it opens in. `codes`: those that there are answers for. `prompts`:
    each one's first example. `layers`: what the map's two scores are, unsteered, as pairs.
    """

    def __init__(self, index: Data, read: Callable[[str], Data]) -> None:
        """`read` gives a language's answers: prompt, question, cells, a view a strength, and goals,
        a view of the settings that each opens with."""
        self.recipe = Recipe(**index["recipe"])
        self.opening: str = index["opening"]
        self.prompts: dict[str, str] = index.get("prompts", {})
        self.counts: dict[str, int] = index["counts"]
        self.vocabulary = Vocabulary(index["vocabulary"]) if index["vocabulary"] else None
        self.layers: list[list[float]] = index.get("layers", [])
        self._helped: dict[str, Data] = index.get("helped", {})
        self._curves: dict[str, Data] = index["curves"]
        self.of = lru_cache(maxsize=None)(read)

    @classmethod
    def load(cls, path: Path, read: Callable[[str], Data] | None = None) -> Stored | None:
        """From the index at `path` and the folder of languages beside it, which `read` may stand in
        for; None if it isn't there.

        Raises ClasError if it is of another version of the page.
        """
        if not path.is_file():
            return None

        def from_folder(code: str) -> Data:
            data: Data = json.loads((path.with_suffix("") / f"{code}.json").read_text("utf-8"))
            return data

        try:
            return cls(json.loads(path.read_text("utf-8")), read or from_folder)
        except (KeyError, TypeError, ValueError) as error:
            raise ClasError(
                f"{path.name} is of another version: make it anew with "
                "`python -m clas_core.studies first-screen`."
            ) from error

    @property
    def codes(self) -> tuple[str, ...]:
        """The languages with answers, in the order of the village."""
        return tuple(self._curves)

    def curves(self, code: str) -> Data:
        """Shares over strengths: {strengths, knows, speaks}, the last two {steered, controls}."""
        return self._curves[code]

    def marks(self, code: str) -> Marks:
        """Where a language melts and the model breaks, by its curves."""
        curves = self._curves.get(code)
        if curves is None:
            return Marks(None, None)
        strengths: list[float] = curves["strengths"]

        def first_below(name: str, share: float) -> float | None:
            values = dict(zip(strengths, (one[0] for one in curves[name]["steered"])))
            line = share * values[0.0]
            return next((at for at in strengths if at > 0 and values[at] < line), None)

        return Marks(first_below("speaks", FEWER), first_below("knows", HALF))

    def saying(self, code: str) -> Saying:
        """What the slider says in a language that there are answers for."""
        known = self.marks(code)
        return said_of_curves(self._curves[code], known.melts, known.breaks, FEWER)

    def helped(self, code: str) -> Data | None:
        """A question in the language that steering helps with: {prompt, right, asks, says, fixed,
        broken, of};
        None if there is none."""
        return self._helped.get(code)

    def question(self, code: str) -> Mapping[str, str] | None:
        """What is asked beside the story: {story, ask, asked}; None if nothing is."""
        found: Mapping[str, str] | None = self.of(code)["question"] if code in self.codes else None
        return found
