"""What stands behind the page: the model, its atlas, and what is worth keeping between calls.

Pure Python; the tabs only pass values in and put results on the page. One `Studio` serves all
visitors: nothing of a visitor is stored in it but what a recipe determines.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from ..atlas import Atlas
from ..corpus import ParallelCorpus
from ..effects import compare
from ..errors import ClasError
from ..generation import generate
from ..loading import load
from ..methods import bridge_layers
from ..models import LanguageModel
from ..neurons import SHARED, SPECIFIC, Selection, select
from ..paths import ASSETS
from ..plan import SteeringPlan
from ..recipe import Recipe
from ..village.calibrate import verdict
from . import inputs
from .examples import CODES, examples
from .mapper import Mapper
from .profile import Profile
from .threads import quickest_threads
from .views import View, control_of, steer_view

VILLAGE = ASSETS / "village"
FRAME = 1 / 15  # seconds between two updates of a streaming text


class Studio:
    """The page's model and everything computed from it."""

    def __init__(
        self,
        lm: LanguageModel,
        corpus: ParallelCorpus,
        atlas: Atlas,
        *,
        profile: Profile | None = None,
        examples: Callable[[str], Sequence[str]] = examples,
        first_screen: Mapping[str, Any] | None = None,
        calibration: Mapping[str, Any] | None = None,
    ):
        self.lm, self.corpus, self.atlas = lm, corpus, atlas
        self.profile = profile or Profile()
        self.examples = examples
        self.first_screen = first_screen
        measured = calibration or {}
        self.collapse: float | None = measured.get("collapse")
        self.opening = measured.get("opening", {})  # replaces the general defaults
        self.verdict = verdict(measured) if measured else ""
        self.example_codes = [code for code in atlas.languages if code in CODES]
        self.fallback = "sw" if "sw" in atlas.languages else atlas.languages[-1]
        # The queue's limits can be passed by with plain requests; this can't.
        self.lock = threading.Lock()
        self.mapper = Mapper(lm, corpus.subset(n=self.profile.map_sentences), self.lock)
        self._select = lru_cache(maxsize=64)(lambda tau, m: select(atlas, tau, m))
        self._build = lru_cache(maxsize=128)(self._compile)
        self._stops: dict[str, threading.Event] = {}

    @classmethod
    def open(cls, profile: Profile) -> Studio:
        """Load what the profile names; the embedded model's measured atlas comes with it."""
        lm = load(profile.model)
        corpus = ParallelCorpus.bundled(profile.corpus)
        path = VILLAGE / "atlas.safetensors"
        if profile.model == profile.corpus == "village" and path.is_file():
            atlas = Atlas.load(path)
        else:
            atlas = Atlas.measure(lm, corpus)
        torch.set_num_threads(profile.threads or quickest_threads(lm))
        if profile.model != "village":
            return cls(lm, corpus, atlas, profile=profile)
        return cls(
            lm,
            corpus,
            atlas,
            profile=profile,
            first_screen=_json(VILLAGE / "first_screen.json"),
            calibration=_json(VILLAGE / "calibration.json"),
        )

    def warm_up(self) -> threading.Thread:
        """Get the map ready behind the page: UMAP takes seconds to import and compile."""
        self.mapper.ready.clear()
        thread = threading.Thread(target=self.mapper.warm, name="warm-up", daemon=True)
        thread.start()
        return thread

    @property
    def codes(self) -> tuple[str, ...]:
        return self.atlas.languages

    @property
    def num_layers(self) -> int:
        return self.lm.num_layers

    def defaults(self) -> dict[str, Any]:
        return inputs.defaults(self.num_layers, len(self.codes), self.opening)

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The controls' values, checked. Raises ClasError with one sentence."""
        return inputs.make_recipe(
            values,
            model=self.profile.model,
            corpus=self.profile.corpus,
            codes=self.codes,
            num_layers=self.num_layers,
            max_new_tokens=self.profile.max_new_tokens,
            fallback=self.fallback,
        )

    def values_of(self, query: str) -> dict[str, Any]:
        """The controls' values (and the prompt) that a shared link asks for."""
        recipe = Recipe.from_query(query)
        if recipe.model != self.profile.model:
            raise ClasError(
                f"This link is for the model {recipe.model!r}; this page has "
                f"{self.profile.model!r}."
            )
        values = inputs.from_recipe(recipe, self.num_layers, len(self.codes))
        values["prompt"] = recipe.prompt
        self.recipe(values)  # refuses what this model can't do
        return values

    def language(self, wanted: Any, prompt: Any) -> tuple[str, str]:
        """The target language and a sentence on where it comes from."""
        return inputs.target_language(wanted, prompt, self.codes, self.fallback)

    def selection(self, recipe: Recipe) -> Selection:
        return self._select(recipe.tau, recipe.shared_from)

    def plan(self, recipe: Recipe, control: bool = False) -> SteeringPlan:
        """The recipe's plan; the same object for the same steering, so that caches below hold."""
        return self._build(steering_only(recipe), control, recipe.seed if control else 0)

    def _compile(self, recipe: Recipe, control: bool, seed: int) -> SteeringPlan:
        recipe = dataclasses.replace(recipe, seed=seed)
        method = control_of(recipe) if control else recipe.steering
        return method.plan(self.atlas, self.selection(recipe), recipe.target)

    def summary(self, recipe: Recipe) -> str:
        """One line: what these settings reach."""
        first, end = recipe.layers or bridge_layers(self.num_layers)
        where = f"layer {end}" if end - first == 1 else f"layers {first + 1} to {end}"
        if recipe.method != "CLAS":
            name, what = inputs.METHODS[recipe.method]
            return f"{name}: in {where}, {what}."
        counts = self.selection(recipe).counts()[first:end].sum(0).tolist()
        factors = (1 + recipe.alpha * (m - 1) for m in (recipe.beta, recipe.gamma))
        boost, damp = (f"{factor:.2f}".replace("-", "−") for factor in factors)
        whose = "" if recipe.specific == "any" else f" ({inputs.SPECIFIC[recipe.specific]})"
        return (
            f"In {where}: {counts[SHARED]} shared neurons × {boost}, "
            f"{counts[SPECIFIC]} language-specific{whose} × {damp}."
        )

    def steer(self, recipe: Recipe, control: bool, visitor: str) -> Iterator[View]:
        """Generate all panes together; yields what the result panel shows, 15 times a second.

        Ends early after `stop(visitor)`; the last view has the effects on what was written.
        """
        prompt = inputs.clean_prompt(recipe.prompt)
        plans = [None, self.plan(recipe), *([self.plan(recipe, True)] if control else [])]
        stop = self._stops[visitor] = threading.Event()
        try:
            steps = generate(
                self.lm,
                prompt,
                plans,
                max_new_tokens=recipe.max_new_tokens,
                temperature=recipe.temperature,
                seed=recipe.seed,
                stop=stop,
            )
            yield steer_view(recipe, None, rows=len(plans), state="running")
            shown, last = 0.0, None
            while True:
                with self.lock:
                    step = next(steps, None)
                if step is None:
                    break
                last = step
                if time.monotonic() - shown >= FRAME:
                    shown = time.monotonic()
                    yield steer_view(recipe, step, rows=len(plans), state="running")
            stopped = stop.is_set()
        finally:
            if self._stops.get(visitor) is stop:
                del self._stops[visitor]
        effects = []
        if last is not None:
            ids = last.token_ids
            for row in range(1, len(plans)):
                with self.lock:
                    found = compare(self.lm, prompt, ids[0], ids[row], plans[row], codes=self.codes)
                effects.append(found)
        state = "stopped" if stopped else "done"
        yield steer_view(recipe, last, rows=len(plans), state=state, effects=effects)

    def stop(self, visitor: str) -> None:
        """End the visitor's generation at the next token."""
        if (event := self._stops.get(visitor)) is not None:
            event.set()


def steering_only(recipe: Recipe) -> Recipe:
    """The recipe without what has no part in its plan, so that equal plans have equal keys."""
    plain = Recipe()
    target = recipe.target
    if recipe.method == "CLAS" and recipe.specific == "any":
        target = plain.target  # the target plays no part
    kept = {name: getattr(plain, name) for name in ("prompt", "temperature", "max_new_tokens")}
    return dataclasses.replace(recipe, seed=plain.seed, target=target, **kept)


def _json(path: Any) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
