"""What stands behind the page: a model, its atlas, and what is worth keeping between calls.

Pure Python; the tabs only pass values in and put results on the page. One `Studio` serves all
visitors of a model: nothing of a visitor is stored in it but what a recipe determines.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...atlas.atlas import Atlas
from ...atlas.cache import measure_cached
from ...atlas.selection import SHARED, SPECIFIC, Selection, select
from ...errors import ClasError
from ...evaluation.marks import Marks, opening
from ...evaluation.telling.verdict import headline
from ...model.architecture import LanguageModel
from ...model.loading import load
from ...model.prompts import Rendered, from_nothing, is_chat_model, is_templated, render
from ...paths import ASSETS
from ...running.along import Along, read_along
from ...running.batch import Progress
from ...running.decoder import Decoder
from ...running.effects import effects_of
from ...running.request import Request, Step
from ...running.together import Together
from ...steering.methods import OTHERS, bridge_layers
from ...steering.plan import SteeringPlan
from ...steering.published import PublishedNeurons, recategorize
from ...steering.recipe import Recipe
from ...text.corpus import ParallelCorpus
from ...text.languages import get_language
from . import inputs
from .answered import Answered
from .asking import Asking, in_line
from .calls import Calls, only
from .choice import Choice, parse_model
from .examples import examples_of
from .far import Far
from .firing import Fired, can_tell, most_fired
from .gate import Gate
from .kept import Kept
from .mapper import Mapper
from .outcome import Outcome, read_outcome, told
from .parting import find_parting
from .profile import Profile
from .served import Served, of_text
from .stored import Stored
from .threads import Ending, quickest_threads, run_behind
from .unknown import notice_of
from .views import View, asked_pane, control_of, steer_view
from .works import peaking

VILLAGE = ASSETS / "village"
FOUND = ("write", "forget", "silence")  # goals whose marks are found for an opened model
FRAME = 1 / 15  # seconds between two updates of a streaming text
FRAMES = 40  # a second, of all visitors together
PATIENCE = 0.5  # seconds between two words on how long it takes
ROWS, TOKENS = 128, 32768  # written together, at most


class Studio:
    """A model, its text and everything computed from them.

    `gate`, `kept` and `calls` are the same for all studios of a machine, `decoder` for all of a
    model. `neurons` are used in place of the measured language-specific ones. `served`, if it is
    set, writes the Steer tab's texts in the model's place.
    """

    def __init__(
        self,
        lm: LanguageModel,
        choice: Choice,
        atlas: Atlas,
        *,
        profile: Profile | None = None,
        gate: Gate | None = None,
        kept: Kept | None = None,
        neurons: PublishedNeurons | None = None,
        mapper: Mapper | None = None,
        map_sentences: int | None = None,
        examples: Callable[[str], Sequence[str]] | None = None,
        stored: Stored | None = None,
        settings: Mapping[str, Any] | None = None,
        measured: Outcome | None = None,
        calls: Calls | None = None,
        marks: Mapping[str, Marks] | None = None,
        decoder: Decoder | None = None,
    ):
        self.lm, self.choice, self.atlas = lm, choice, atlas
        self.corpus, self.key = choice.corpus, choice.key
        self.profile = profile or Profile()
        self.gate = gate or Gate()
        self.calls = calls or Calls()
        self._examples = examples or examples_of(choice, is_chat_model(lm))
        self.stored = stored
        self.collapse: float | None = (settings or {}).get("collapse")
        self.suggested = Recipe.suggested(choice.model) if settings else None
        self.opening = stored.recipe if stored else self.suggested or Recipe()
        self.measured = measured
        self.marks: dict[str, Marks] = dict(marks or {})  # by goal, of those that are found
        self.over = threading.Event()  # its page is closed: what is being found for it ends
        self.verdict = told(measured) if measured else ""
        self.example_codes = [code for code in atlas.languages if self.examples(code)]
        self._example_languages: dict[str, tuple[str, ...]] = {}
        for code in self.example_codes:
            for text in self.examples(code):
                codes = self._example_languages.get(text, ())
                self._example_languages[text] = (*codes, code)
        self.fallback = "sw" if "sw" in atlas.languages else atlas.languages[-1]
        self.decoder = decoder or Decoder(
            lm, most_rows=ROWS, most_tokens=TOKENS, most_waiting=self.profile.queue
        )
        self._along = Together(partial(read_along, lm))
        self.served: Served | None = None
        self.lock = threading.Lock()  # one reading of many texts at a time
        shown = self.corpus.subset(n=map_sentences or self.profile.map_sentences)
        self.kept = kept or Kept(self.profile.cache_mb * 10**6)
        self.mine = self.kept.share(self)
        self._answered = Answered(self.mine)
        far = partial(Far, self.calls, weakref.ref(self)) if self.calls.forks else None
        self.mapper = mapper or Mapper(lm, shown, self.gate, self.kept, far)
        self.neurons = neurons

    @classmethod
    def open(
        cls, profile: Profile, *, with_stored: bool = True, progress: Progress | None = None
    ) -> Studio:
        """The profile's model, its text measured or found, as `around` has it."""
        served = Served.open(profile.endpoints) if profile.endpoints else None
        model, revision = parse_model(profile.model)
        lm = load(model, revision=revision)
        torch.set_num_threads(profile.threads or quickest_threads(lm))
        corpus = ParallelCorpus.bundled(profile.corpus)
        choice = Choice(model, revision, profile.corpus, corpus)
        with_stored = with_stored and served is None  # answers of this model, not of the servers'
        studio = cls.around(lm, choice, profile, with_stored=with_stored, progress=progress)
        studio.served = served
        return studio

    @classmethod
    def around(
        cls,
        lm: LanguageModel,
        choice: Choice,
        profile: Profile,
        *,
        atlas: Atlas | None = None,
        with_stored: bool = True,
        calls: Calls | None = None,
        progress: Progress | None = None,
    ) -> Studio:
        """A loaded model with its `atlas`, which is measured, told of in `progress`, or found if it
        isn't given; for the embedded model on its own text with what is stored of it, `with_stored`
        its first screen."""
        path = VILLAGE / "atlas.safetensors"
        village = choice.model == choice.name == "village" and choice.corpus.is_bundled
        if atlas is not None or not (village and choice.whole and path.is_file()):
            atlas = atlas or measure_cached(lm, choice.corpus, progress=progress)
            return cls(lm, choice, atlas, profile=profile, calls=calls)
        settings, measured = _json(VILLAGE / "settings.json"), VILLAGE / "measured.json"
        return cls(
            lm,
            choice,
            Atlas.load(path, lm),
            profile=profile,
            stored=Stored.load(VILLAGE / "first_screen.json") if with_stored else None,
            settings=settings,
            measured=read_outcome(measured, settings) if settings and measured.is_file() else None,
            calls=calls,
            marks=_marks(VILLAGE / "marks.json"),
        )

    def examples(self, code: str) -> Sequence[str]:
        """Ready prompts in a language, the one with stored answers first; none for others."""
        ready = self._examples(code)
        first = self.stored.prompts.get(code) if self.stored else None
        return sorted(ready, key=lambda text: text != first)

    def warm_up(self) -> threading.Thread:
        """Read the map's sentences behind the page; UMAP waits for the first map."""
        return run_behind("reading", self.mapper.read)

    def find_marks(self) -> threading.Thread:
        """Find behind the page at which strengths each goal's method says something, a goal after
        the other, unless that is known; answers come first."""

        def find() -> None:
            for goal in FOUND:
                if goal in self.marks or self.calls.forks:  # a lent GPU's seconds are the visitors'
                    continue
                try:
                    self.marks[goal] = opening(
                        self.lm, self.atlas, self.corpus, goal, progress=self._give_way
                    )
                except ClasError as error:
                    logging.getLogger(__name__).warning("No marks for %s: %s", goal, error)

        return run_behind("marks", find)

    def marks_for(self, recipe: Recipe) -> Marks | None:
        """Which strengths say something under these settings; None where that isn't known."""
        return next((known for known in self.marks.values() if known.is_of(recipe)), None)

    def _give_way(self, done: int, total: int) -> None:
        if self.over.is_set():
            raise Ending
        self.gate.give_way()

    @property
    def codes(self) -> tuple[str, ...]:
        """The languages that were measured, in the order of the text."""
        return self.atlas.languages

    @property
    def num_layers(self) -> int:
        """How many decoder layers the model has."""
        return self.lm.num_layers

    @property
    def units(self) -> int:
        """How many MLP neurons the model has."""
        return sum(self.lm.widths)

    @property
    def telling_layer(self) -> int:
        """The layer at which the map opens: where most translations are found, if that is stored,
        else the last."""
        scores = self.stored.layers if self.stored else None
        if not scores:
            return self.num_layers
        return max(range(len(scores)), key=lambda layer: scores[layer][1])

    def layer_scores(self) -> list[tuple[float, float]]:
        """The map's two scores of every layer, unsteered: stored, or computed, which takes a while
        at first."""
        stored = self.stored.layers if self.stored else []
        return [(split, found) for split, found in stored] or self.mapper.profile()

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer brings a chat template."""
        return bool(getattr(self.lm.tokenizer, "chat_template", None))

    @property
    def nbytes(self) -> int:
        """Memory of the model's weights."""
        return sum(p.numel() * p.element_size() for p in self.lm.model.parameters())

    def defaults(self) -> dict[str, Any]:
        """Every control's opening value, by its name."""
        start = inputs.defaults(
            self.num_layers,
            len(self.codes),
            self.units,
            self.opening,
            self.profile.max_new_tokens,
        )
        return {**start, "chat": is_chat_model(self.lm), "system": ""}

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The controls' values, checked. Raises ClasError with one sentence."""
        return inputs.make_recipe(
            values,
            model=self.choice.model,
            revision=self.choice.revision or self.lm.revision,
            corpus=self.choice.name,
            chats=is_chat_model(self.lm),
            codes=self.codes,
            num_layers=self.num_layers,
            units=self.units,
            max_new_tokens=self.profile.max_new_tokens,
            fallback=self.fallback,
            examples=self._example_languages,
        )

    def best_measured(self, values: Mapping[str, Any]) -> tuple[float, str] | None:
        """The strength that the sweep suggested, and a sentence on it; None where these settings
        differ from it in more than their strength."""
        if self.suggested is None:
            return None
        best = self.values_of_steering(self.suggested)
        if any(values[name] != best[name] for name in inputs.STEERED_BY):
            return None
        sentence = "Suggested by what was tried on validation questions"
        if self.measured is not None:
            sentence += f"; on test questions: {headline(self.measured.comparison)}"
        return best["strength"], sentence

    def is_of(self, recipe: Recipe) -> bool:
        """Whether a link's recipe is for this model and text: never for a visitor's own."""
        return (
            recipe.model == self.choice.model
            and recipe.revision in (None, self.choice.revision, self.lm.revision)
            and recipe.corpus == self.choice.name
            and self.corpus.is_bundled
            and self.choice.whole
            and not self.choice.published
        )

    def values_of(self, recipe: Recipe) -> dict[str, Any]:
        """The controls' values (and the prompt) that ask for `recipe`, and for no other.

        Raises ClasError for what this model or the page can't do, naming the field.
        """
        chats = is_chat_model(self.lm)
        values = inputs.from_recipe(recipe, self.num_layers, len(self.codes), self.units, chats)
        values["prompt"] = recipe.prompt
        if len(recipe.prompt) > inputs.MAX_PROMPT:
            inputs.clean_prompt(recipe.prompt)
        if values["chat"] and not self.has_template:
            raise ClasError("This model has no chat template: chat can't be on.")
        made = self.recipe(values)
        shown = dataclasses.asdict(made)
        if _source(made) == _source(recipe):  # English by name, or by the method's own default
            shown["source"] = recipe.source
        for name, value in dataclasses.asdict(recipe).items():
            # None stands for the default that is shown; "on" is the default of a chat model.
            if value not in (shown[name], None) and name != "chat":
                raise ClasError(
                    f"The page can't show {name} = {repr(value)[:40]}; in the shell, "
                    "`python -m clas_core steer --recipe` takes the whole link."
                )
        return values

    def values_of_steering(self, recipe: Recipe) -> dict[str, Any]:
        """The controls' values that ask for the steering of `recipe`, whatever model it names."""
        return inputs.from_recipe(recipe, self.num_layers, len(self.codes), self.units)

    def render(self, recipe: Recipe) -> Rendered:
        """The prompt as the model reads it; where a goal needs none, a text may begin from nothing.

        Raises ClasError for a prompt that is needed, too long or not to be had.
        """
        needs_none = recipe.method in inputs.FROM_NOTHING and not is_templated(self.lm, recipe.chat)
        if needs_none and not recipe.prompt.strip():
            return from_nothing(self.lm)
        prompt = inputs.clean_prompt(recipe.prompt)
        return render(self.lm, prompt, chat=recipe.chat, system=recipe.system)

    def language(self, wanted: Any, prompt: Any) -> tuple[str, str]:
        """The target language and a sentence on where it comes from: in the village by its words
        first, which are all known."""
        words = self.stored.vocabulary if self.stored else None
        unread = isinstance(prompt, str) and prompt not in self._example_languages
        if words and unread and wanted == inputs.AUTO:
            code = words.spoken(prompt[: inputs.MAX_PROMPT])
            if code is not None and code in self.codes:
                return code, f"Detected {get_language(code).name}, by its words."
        return inputs.target_language(
            wanted, prompt, self.codes, self.fallback, self._example_languages
        )

    def selection(self, recipe: Recipe) -> Selection:
        """The neurons' categories at the recipe's thresholds, kept."""
        tau, least = recipe.tau, recipe.shared_from
        return self.mine.get(lambda: self._selected(tau, least), "selection", tau, least)

    def plan(self, recipe: Recipe, control: bool = False) -> SteeringPlan:
        """The recipe's plan; the same object for the same steering, so that caches below hold."""
        key = steering_only(recipe, self.fallback)
        seed = recipe.seed if control else 0
        return self.mine.get(lambda: self._compile(key, control, seed), "plan", key, control, seed)

    def _compile(self, recipe: Recipe, control: bool, seed: int) -> SteeringPlan:
        recipe = dataclasses.replace(recipe, seed=seed)
        method = control_of(recipe) if control else recipe.steering
        selection: Any = self.selection(recipe)
        if self.neurons is not None and any(one.method != "CLAS" for one in recipe.chain):
            selection = _Owned(self.neurons, selection.category)
        return method.plan(self.atlas, selection, recipe.target).at(recipe.where)

    def _selected(self, tau: float, shared_from: int | None) -> Selection:
        measured = select(self.atlas, tau, shared_from)
        return measured if self.neurons is None else recategorize(measured, self.neurons)

    def most_fired(self, layer: int, neuron: int) -> list[Fired]:
        """The map's sentences in which a neuron is highest; none where experts share a layer.

        `layer` and `neuron` count from 0. Runs the model once for each layer.
        """
        if not can_tell(self.lm, layer):
            return []
        mapper = self.mapper

        def run() -> torch.Tensor:
            with self.gate.answering():
                return only(self.calls(peaking, self, layer))

        values = self.mine.get(run, "peaks", layer)
        return most_fired(values[:, neuron], mapper.texts, mapper.labels)

    def _away_from(self, recipe: Recipe) -> str:
        source = _source(recipe) or inputs.anchor(self.codes)
        return "all others" if source == OTHERS else get_language(source).name

    def summary(self, recipe: Recipe) -> str:
        """One line: what these settings reach."""
        first, end = recipe.layers or bridge_layers(self.num_layers)
        where = f"layer {end}" if end - first == 1 else f"layers {first + 1} to {end}"
        where += f" of {self.num_layers}"
        if recipe.method != "CLAS":
            name, what = inputs.METHODS[recipe.method]
            said = what.format(source=self._away_from(recipe))
            touched = self.plan(dataclasses.replace(recipe, alpha=1.0, first="")).touched
            known = self.marks_for(recipe)
            marked = "" if known is None else f" {known.up_to(inputs.ALPHA[1]).sentence}"
            return f"{name}: in {where}, {said}: {touched}.{marked}"
        counts = self.selection(recipe).counts()[first:end].sum(0).tolist()
        factors = (1 + recipe.alpha * (m - 1) for m in (recipe.beta, recipe.gamma))
        boost, damp = (f"{factor:.2f}".replace("-", "−") for factor in factors)
        whose = "" if recipe.specific == "any" else f" ({inputs.SPECIFIC[recipe.specific]})"
        shared = f"{counts[SHARED]} shared neurons × {boost}"
        specific = f"{counts[SPECIFIC]} language-specific{whose} × {damp}"
        if recipe.beta == 1:
            own = self.selection(recipe).neurons_of(recipe.target)[first:end].sum().item()
            name = get_language(recipe.target).name
            return (
                f"In {where}: {counts[SPECIFIC]} neurons that serve a single language{whose}, "
                f"{own} of them {name}, × {damp}: 1 leaves them, 0 turns them off, below they work "
                "the other way round."
            )
        return f"In {where}: {shared}, {specific}."

    def steer(
        self,
        recipe: Recipe,
        control: bool,
        stop: threading.Event,
        question: Mapping[str, str] | None = None,
        owner: Hashable = None,
    ) -> Iterator[View]:
        """Generate all panes together, and beside what others ask of the model; yields what the
        result panel shows, 15 times a second, more seldom where many are answered.

        `question` is put to each of them too: {story, ask, asked}, else the stored one. `owner`:
        the visitor, of whom others get their turns. What was asked before is answered at once.

        Ends early once `stop` is set, the last view then having the effects on what was written;
        set before the start, nothing is generated or shown. Raises ClasError, with how long it
        would take, while too many wait.
        """
        spoken = self.language(inputs.AUTO, recipe.prompt)[0]  # which a target may differ from
        if self.served is not None:
            if stop.is_set():
                return
            chat = is_templated(self.lm, recipe.chat)
            make = partial(self.served.views, recipe, self.codes, spoken, chat, stop)
            yield from self._answered.views(of_text(recipe).hash, make, stop)
            return
        prompt = self.render(recipe)
        if stop.is_set():
            return
        question = question or self.question(recipe, spoken)
        make = partial(self._steer, recipe, prompt, control, stop, question, spoken, owner)
        key = (recipe.hash, control, json.dumps(question))
        yield from self._answered.views(key, make, stop)

    def _steer(
        self,
        recipe: Recipe,
        prompt: Rendered,
        control: bool,
        stop: threading.Event,
        question: Mapping[str, str] | None,
        spoken: str,
        owner: Hashable,
    ) -> Iterator[View]:
        words = self.stored.vocabulary if self.stored else None
        plans = [None, self.plan(recipe), *([self.plan(recipe, True)] if control else [])]

        def view(step: Step | None, state: str, **more: Any) -> View:
            return steer_view(
                recipe, step, rows=len(plans), state=state, vocabulary=words, spoken=spoken, **more
            )

        with self.gate.answering(), ExitStack() as ends:
            settings = recipe.max_new_tokens, recipe.temperature, recipe.seed
            # With fewer digits a text that is read at once differs from one read by the token.
            exact = self.lm.model.dtype == torch.float32
            request = Request(prompt, plans, *settings, guesses=exact)
            steps = self.decoder.submit(request, owner, stop=stop)
            ends.callback(steps.stop)  # whoever leaves makes room at the next token
            plain = steering_only(recipe, self.fallback)
            names = (None, plain.hash, f"{plain.hash} {recipe.seed}")
            asking = Asking(self.decoder, self.mine, question, dict(zip(names, plans)), owner)
            ends.callback(asking.close)
            yield view(None, "running")
            while not steps.begun(PATIENCE):
                yield {**view(None, "running"), "sentence": in_line(steps.place, steps.wait)}
            last, frame = next(steps, None), 0.0
            while last is not None:
                yield view(last, "running")
                frame = max(FRAME, self.gate.answers / FRAMES)
                newer = steps.newest(frame)
                if newer is None:
                    break
                last = newer
            effects, parting = [], None
            if last is not None:
                written = last.token_ids
                known = [] if (guesses := steps.guesses) is None else [guesses]
                asked = Along(prompt.token_ids, written[0], tuple(plans[len(known) :]))
                before, *after = known + self._along(asked)
                effects = [
                    effects_of(self.lm, prompt, written[0], ids, before, now, codes=self.codes)
                    for ids, now in zip(written[1:], after)
                ]
                if effects[0].kl.any() or written[0] != written[1]:
                    peak = int(effects[0].kl.argmax())
                    parting = find_parting(
                        self.lm, prompt, written[0], written[1], before, after[0], peak
                    )
            answers = asking.answers(stop)
            stopped = stop.is_set()
            state = "stopped" if stopped else "done"
            tokens = [self.lm.tokenizer.decode([token]) for token in prompt.token_ids]
            done = view(last, state, effects=effects, parting=parting, before=tokens)
            if question and answers:
                for pane, answer in zip(done["panes"], answers):
                    pane["asked"] = asked_pane(question, answer, spoken)
                done["story"] = question["story"]
            if words and last and recipe.prompt.strip():
                done["notice"] = self._helped(recipe.prompt, spoken) or notice_of(
                    words, recipe.prompt, last.texts[0], spoken
                )
            yield done

    def question(self, recipe: Recipe, spoken: str) -> Mapping[str, str] | None:
        """What is asked beside a prompt in the language `spoken`: {story, ask, asked}; None if
        nothing is."""
        if self.stored is None or recipe.chat == "on" or not recipe.prompt.strip():
            return None
        if self._helped(recipe.prompt, spoken):  # it asks something itself
            return None
        return self.stored.question(spoken)

    def _helped(self, prompt: str, spoken: str) -> dict[str, str] | None:
        """What is to be said of the question that steering was found to help with."""
        shown = self.stored.helped(spoken) if self.stored else None
        if shown is None or prompt != shown["prompt"]:
            return None
        return {
            "text": f"“{shown['asks']}” Right is: “{shown['right']}”, that is, “{shown['says']}” "
            "The model has read it in every language. At the setting that was measured best, "
            f"steering turns {shown['fixed']} of {shown['of']} such questions in "
            f"{get_language(spoken).name} right and {shown['broken']} wrong; this one was chosen "
            "because it is turned right. Measure tells of all languages.",
            "word": "",
        }


class _Owned:
    """Published neurons as methods take them: each language's own, and which ones are alive."""

    def __init__(self, neurons: PublishedNeurons, category: torch.Tensor) -> None:
        self.languages, self.neurons_of = neurons.languages, neurons.neurons_of
        self.category = category


def _source(recipe: Recipe) -> str | None:
    """The language that the recipe's method steers away from; None where it has none."""
    return getattr(dataclasses.replace(recipe, first="").steering, "source", None)


def steering_only(recipe: Recipe, target: str) -> Recipe:
    """The recipe without what has no part in its plan, so that equal plans have equal keys.

    `target` stands in where the recipe's own plays no part.
    """
    plain = Recipe()
    if any(one.method != "CLAS" or one.specific != "any" for one in recipe.chain):
        target = recipe.target
    unread = ("prompt", "chat", "system", "temperature", "max_new_tokens")
    kept = {name: getattr(plain, name) for name in unread}
    return dataclasses.replace(recipe, seed=plain.seed, target=target, **kept)


def _marks(path: Path) -> dict[str, Marks]:
    """The stored ones, by goal; none where they were made by another version."""
    try:
        return {one["goal"]: Marks.from_dict(one) for one in _json(path) or ()}
    except ClasError:
        return {}


def _json(path: Any) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
