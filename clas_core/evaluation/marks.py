"""Which strengths of a method say something: seen from, best, breaks from.

For a model, a goal and a method a few strengths are tried on a few prompts, in a few languages, and
three of them are marked. Strengths mean something else in every model and method, so that a slider
needs them to speak in words. Small samples: marks say where to look, `evaluation.judging` what is
true.

    forget: prompts in a language, until the output is in it no more
    write: prompts in another language, until the output is in the one that is steered for
    silence: until text of one language gets less likely, and that of the others doesn't
    help: until text of the language gets likelier

Goals have a score each: for forget and write as above, times how whole the texts are (harmonic
mean; in the village, where there are answers to tell, forget counts right answers instead, and
nothing where most are wrong); for silence and help in bits a byte of real text, more being better.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..atlas.atlas import Atlas
from ..atlas.cache import cache_folder
from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..paths import CantWrite, replacing
from ..running.batch import Progress
from ..running.likelihood import log_likelihoods, tokenise
from ..steering.methods import OTHERS, bridge_layers
from ..steering.recipe import Recipe
from ..text.corpus import ParallelCorpus
from ..text.detection import detect
from ..text.raw import read_json
from .judging.conditions import UNSTEERED, Condition
from .judging.engine import Job, predict
from .judging.items import Items, StartItem, Validation, Written
from .tasks import open_task
from .tasks.forcing import Forcing, VillageForcing, beginning, is_broken, likelihood_share
from .tasks.scoring import words
from .tasks.village_texts import vocabulary

GOALS: Mapping[str, Mapping[str, Any]] = {  # and the method that is taken for each
    "forget": {"method": "CLAS", "beta": 1.0, "gamma": 0.0},
    "write": {"method": "DiffMean"},
    "silence": {"method": "Silence"},
    "help": {"method": "CLAS"},
}
SHIFTS = ("DiffMean", "ThereAndBack")  # whose strength is a share of the stream
SHIFT_STRENGTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)
LANGUAGES, PROMPTS, TOKENS = 3, 6, 16  # languages, prompts in each, tokens of an output
DIFFER = 0.5  # share of the texts that differ from the unsteered ones: seen
AHEAD = 0.1  # share of outputs in the language beyond the random control's: seen; or bits a byte
BROKEN = 0.5  # share of broken texts, if it's more than the unsteered ones' by
MORE = 0.25  # so much: breaks
FALL = 0.4  # of real text's likelihood (`likelihood_share`), below which a text is broken
VILLAGE_BASE = Recipe(tau=0.1, shared_from=12)  # what the embedded model's marks are found at
MARKS = "marks"  # their folder beside the kept atlases
_FORMAT = "clas-marks-2"
# What a plan depends on, but its strength and target; the model and text are the atlas's.
_METHOD = (
    "method", "beta", "gamma", "lam", "source", "tau", "tau_mode", "shared_from", "specific", "k",
    "ranking", "early", "where", "layers",
)  # fmt: skip

_SELECTING = ("CLAS", "IntMu", "LanguageArithmetic")  # for which thresholds matter


@dataclass(frozen=True)
class Point:
    """What a strength does, in the mean over languages and prompts.

    differs: share of greedy texts that aren't the unsteered ones. reached: share of texts in the
    language to write in, or out of the one to forget (in the village, of words that are no more in
    it); 0 for the other goals. broken: share of
    texts that are empty, unreadable, loop, or that the unsteered model finds far less likely than
    real text; in the village, for forget, of answers that are wrong, if that is more. score: the
    goal's own. control, control_reached: score and reached under the random control.
    """

    alpha: float
    differs: float
    reached: float
    broken: float
    score: float
    control: float
    control_reached: float


@dataclass(frozen=True)
class Marks:
    """The curve over strengths, point 0 the unsteered model, and what is marked on it.

    method: the fields of the recipe that its plans depend on. A mark is None where no strength
    that was tried deserves it; `best` is also None where random neurons do as much.
    """

    goal: str
    method: Mapping[str, Any]
    languages: tuple[str, ...]
    prompts: int
    points: tuple[Point, ...]

    @property
    def seen(self) -> float | None:
        """The first strength at which one sees that something is done."""
        return next(
            (one.alpha for one in self.points[1:] if one.differs >= DIFFER or _reaches_more(one)),
            None,
        )

    @property
    def best(self) -> float | None:
        """The strength with the highest score, of those that break nothing, if it beats both
        unsteered and random neurons."""
        end = self.breaks
        whole = [one for one in self.points if end is None or one.alpha < end]
        top = max(whole, key=lambda one: one.score)
        return top.alpha if top.score > max(self.points[0].score, top.control) else None

    @property
    def top(self) -> float:
        """The score at `best`; the unsteered model's where there is none."""
        return next(p.score for p in self.points if p.alpha == (self.best or 0.0))

    def is_ahead(self, strength: float) -> bool:
        """Whether one of the strengths that were tried does more of what the goal asks for than
        random neurons do: among a tenth more of the texts, or by a tenth of a bit a byte."""
        one = next(one for one in self.points if one.alpha == strength)
        by_texts = self.goal in ("write", "forget")
        return _reaches_more(one) if by_texts else one.score > one.control + AHEAD

    def up_to(self, strength: float) -> Marks:
        """What is marked of the strengths that were tried up to this one."""
        return dataclasses.replace(
            self, points=tuple(one for one in self.points if one.alpha <= strength)
        )

    @property
    def opening(self) -> float | None:
        """Where a page opens: at the best strength at which something is seen, else where it first
        is; None where nothing whole can be seen."""
        end = math.inf if self.breaks is None else self.breaks
        wanted = max(one or 0.0 for one in (self.seen, self.best))
        return wanted if self.seen is not None and wanted < end else None

    def is_of(self, recipe: Recipe) -> bool:
        """Whether they hold for `recipe`, at whatever strength and for whatever target."""
        mine = self.recipe()
        if recipe.first:
            return False
        names = ["where"]
        if recipe.method in _SELECTING:
            names += ["tau", "tau_mode", "shared_from"]
        return dataclasses.replace(mine.steering, alpha=0.0) == dataclasses.replace(
            recipe.steering, alpha=0.0
        ) and all(getattr(mine, name) == getattr(recipe, name) for name in names)

    def recipe(self, base: Recipe | None = None) -> Recipe:
        """`base` with the method that was marked, at the strength to open with (0 for none)."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in self.method.items()
        }
        return dataclasses.replace(base or Recipe(), **fields, alpha=self.opening or 0.0)

    @property
    def breaks(self) -> float | None:
        """The first strength that breaks the texts."""
        least = max(BROKEN, self.points[0].broken + MORE)
        return next((one.alpha for one in self.points[1:] if one.broken >= least), None)

    @property
    def sentence(self) -> str:
        """All three in plain words."""
        most = self.points[-1].alpha
        if self.seen is None:
            return f"Nothing can be seen at any strength up to {most:g}."
        best = "no better than random neurons at any strength"
        if self.best is not None:
            best = f"best at {self.best:g}"
        end = f"breaks at none up to {most:g}"
        if self.breaks is not None:
            end = f"breaks from {self.breaks:g}"
        return f"Seen from strength {self.seen:g}, {best}, {end}."

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the marks, their sentence, and the curve they were found on."""
        marks = {name: getattr(self, name) for name in ("seen", "best", "breaks", "sentence")}
        return {**marks, **asdict(self), "format": _FORMAT}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Marks:
        """What `as_dict` gave. Raises ClasError for anything else."""
        try:
            if data["format"] != _FORMAT:
                raise ValueError
            points = tuple(Point(**one) for one in data["points"])
            return Marks(
                data["goal"], data["method"], tuple(data["languages"]), data["prompts"], points
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ClasError("These are no marks: take what was saved as JSON.") from error


def goal_recipe(goal: str, recipe: Recipe | None = None) -> Recipe:
    """`recipe` (default: a plain one) with the method that is taken for `goal`. Raises ClasError
    for an unknown goal."""
    _check_goal(goal)
    return dataclasses.replace(recipe or Recipe(), **GOALS[goal])


def candidates(goal: str, atlas: Atlas) -> tuple[dict[str, Any], ...]:
    """Settings of the goal's method, of which an opening is chosen.

    To write, a shift in the first half of the layers, or behind the middle; from English, the
    prompts' language, if it was measured: away from all others says less of where to go. For the
    rest the method's own layers. Raises ClasError for an unknown goal.
    """
    _check_goal(goal)
    layers = atlas.num_layers
    if goal != "write":
        return ({"layers": (0, layers) if goal == "silence" else bridge_layers(layers)},)
    source = "en" if "en" in atlas.languages else OTHERS
    ranges = dict.fromkeys([(0, max(1, layers // 2)), (layers // 2, 3 * layers // 4 + 1)])
    return tuple({"source": source, "layers": (first, min(end, layers))} for first, end in ranges)


def opening(
    lm: LanguageModel,
    atlas: Atlas,
    corpus: ParallelCorpus,
    goal: str,
    base: Recipe | None = None,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Marks:
    """The marks of the goal's method where it does best, of its `candidates`; `Marks.recipe` has
    the settings. Found once, then kept (see `marks_of`); `base` is what the method leaves open.

    Runs the model. `progress(done, total)` counts prompts of a candidate; raising in it cancels.
    """
    found = [
        marks_of(
            lm, atlas, corpus, goal, dataclasses.replace(goal_recipe(goal, base), **one),
            folder=folder, progress=progress,
        )
        for one in candidates(goal, atlas)
    ]  # fmt: skip
    return max(found, key=lambda one: (one.best is not None, one.top))


def find_marks(
    lm: LanguageModel,
    atlas: Atlas,
    corpus: ParallelCorpus,
    goal: str,
    recipe: Recipe,
    *,
    languages: Sequence[str] | None = None,
    prompts: int = PROMPTS,
    strengths: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Marks:
    """Try the recipe's method at rising strengths (default: `usual_strengths`); runs the model.

    `languages` (default: three of the atlas's) are steered for one by one; `prompts` of each.
    Prompts and real text are the corpus's, in the village also its own. `progress(done, total)`
    counts prompts; raising in it cancels.

    Raises ClasError for an unknown goal, no languages or strengths, and what a recipe can't do.
    """
    _check_goal(goal)
    atlas.check(lm)
    strengths = sorted(strengths or usual_strengths(recipe.method))
    codes = tuple(languages or usual_languages(atlas, corpus, goal))
    if prompts < 1 or not codes or strengths[0] <= 0:
        raise ClasError("Marks need a prompt, a language, and strengths above 0.")
    found = []
    for number, code in enumerate(codes):

        def tell(done: int, total: int, before: int = number) -> None:
            if progress:
                progress(before * prompts + done * prompts // max(1, total), len(codes) * prompts)

        trial = _Trial(lm, atlas, corpus, goal, recipe, code, prompts)
        found.append(trial.points(strengths, tell))
    names = [field.name for field in dataclasses.fields(Point)]
    points = tuple(
        Point(**{name: round(fmean(getattr(p, name) for p in at), 4) for name in names})
        for at in zip(*found)
    )
    method = {name: getattr(recipe, name) for name in _METHOD}
    return Marks(goal, json.loads(json.dumps(method)), codes, prompts, points)


def marks_of(
    lm: LanguageModel,
    atlas: Atlas,
    corpus: ParallelCorpus,
    goal: str,
    recipe: Recipe,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Marks:
    """The kept marks of this atlas, goal and method, or else `find_marks`, which are then kept.

    They lie beside the kept atlases (`folder`: `cache_folder`). What can't be read is found again,
    and what can't be written isn't kept.
    """
    path = marks_path(atlas, goal, recipe, folder)
    try:
        return Marks.from_dict(read_json(path))
    except (ClasError, OSError):
        marks = find_marks(lm, atlas, corpus, goal, recipe, progress=progress)
    try:
        save_marks(path, marks.as_dict())
    except CantWrite as error:
        logging.getLogger(__name__).warning("%s The marks aren't kept.", error)
    return marks


def marks_path(atlas: Atlas, goal: str, recipe: Recipe, folder: str | Path | None = None) -> Path:
    """Where marks are kept: a file for each atlas, goal and method."""
    of_atlas = {
        name: atlas.meta.get(name) for name in ("fingerprint", "dtype", "corpus_fingerprint")
    }
    method = {name: getattr(recipe, name) for name in _METHOD}
    key = json.dumps([_FORMAT, of_atlas, list(atlas.languages), goal, method], sort_keys=True)
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return (cache_folder() if folder is None else Path(folder)) / MARKS / f"{name}.json"


def save_marks(path: str | Path, data: Any) -> None:
    """Write plain data as one JSON file, whole or not at all."""
    with replacing(path) as scratch:
        text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
        scratch.write_text(text + "\n", "utf-8")


def usual_strengths(method: str) -> tuple[float, ...]:
    """The strengths to try: of a shift shares of the stream, of all else of the whole method."""
    return SHIFT_STRENGTHS if method in SHIFTS else STRENGTHS


def usual_languages(atlas: Atlas, corpus: ParallelCorpus, goal: str) -> tuple[str, ...]:
    """Three languages of both, far apart in their order; English only where it's the prompts'."""
    known = [code for code in corpus.languages if code in atlas.languages]
    if goal in ("write", "help"):
        known = [code for code in known if code != "en"]
    step = max(1, len(known) // LANGUAGES)
    return tuple(known[::step][:LANGUAGES])


def _reaches_more(one: Point) -> bool:
    return one.reached > one.control_reached + AHEAD


def _check_goal(goal: str) -> None:
    if goal not in GOALS:
        raise ClasError(f"There is no goal {goal[:40]!r}; there are {', '.join(GOALS)}.")


class _Trial:
    """All strengths in one language."""

    def __init__(
        self,
        lm: LanguageModel,
        atlas: Atlas,
        corpus: ParallelCorpus,
        goal: str,
        recipe: Recipe,
        code: str,
        prompts: int,
    ) -> None:
        self.lm, self.atlas, self.corpus = lm, atlas, corpus
        self.goal, self.code, self.prompts = goal, code, prompts
        # The neurons that LAPE silences are those of its source.
        silenced = goal == "silence" and recipe.method == "LAPE"
        self.recipe = dataclasses.replace(recipe, source=code) if silenced else recipe
        self.village = lm.name == "village"

    def points(self, strengths: Sequence[float], progress: Progress) -> list[Point]:
        """The unsteered model's, and each strength's."""
        steered = [dataclasses.replace(self.recipe, alpha=alpha) for alpha in strengths]
        rows = [
            Condition(UNSTEERED),
            *(Condition(f"{one.alpha:g}", one) for one in steered),
            *(Condition(f"control {one.alpha:g}", one, control=0) for one in steered),
        ]
        items = self._items()
        job = Job("written", items, tuple(rows), self.code)
        written: list[list[Written]] = predict(self.lm, self.atlas, job, progress)
        asked = items.of(StartItem)
        broken = [self._broken(asked, some) for some in written]
        reached = [0.0] * len(rows)
        if self.goal == "write":
            task = self._forcing()
            judged = [[fmean(values) for values in task.judge(items, some)] for some in written]
            scores, reached = [both for both, *_ in judged], [inside for _, inside, _ in judged]
        elif self.goal == "forget":
            reached = [1 - fmean(map(self._inside, some)) for some in written]
            if self.village:
                right = self._right(rows)
                whole = [share / right[0] if right[0] else 0.0 for share in right]
                broken = [max(b, 1 - w) for b, w in zip(broken, whole)]
            scores = [_harmonic(a, 1 - b) * (b < BROKEN) for a, b in zip(reached, broken)]
        else:
            scores = self._likelier(rows)
        count = len(strengths)
        differs = [fmean(a.text != b.text for a, b in zip(some, written[0])) for some in written]
        return [
            Point(
                alpha,
                differs[row],
                reached[row],
                broken[row],
                scores[row],
                scores[row + count * (row > 0)],
                reached[row + count * (row > 0)],
            )
            for row, alpha in enumerate((0.0, *strengths))
        ]

    def _forcing(self) -> Forcing | VillageForcing:
        if self.village:
            return VillageForcing(source="es" if self.code == "en" else "en")
        known = self.corpus.languages
        source = next((c for c in ("en", *known) if c in known and c != self.code), "en")
        return Forcing(self.corpus, source=source, max_new_tokens=TOKENS)

    def _items(self) -> Items[Validation]:
        """Prompts in another language for `write`, in the language itself for all else."""
        if self.goal == "write":
            return self._forcing().items(self.code, Validation, self.prompts)
        lines = self.corpus.sentences[self.code]
        starts: dict[str, int] = {}
        for number, text in enumerate(lines):
            starts.setdefault(beginning(text, self.code), number)
        found = [
            StartItem(
                str(n), start, start, (), TOKENS, before=lines[(n + 1) % len(lines)], real=lines[n]
            )
            for start, n in starts.items()
        ]
        return Items("marks", self.code, Validation, tuple(found[: self.prompts]))

    def _broken(self, asked: Sequence[StartItem], some: Sequence[Written]) -> float:
        """Share of broken texts. A text without a language is unlikely by its nature, and the
        village's forcing goes by the grammar: there likelihood doesn't count."""
        by_likelihood = self.goal != "forget" and bool(asked[0].real)
        return fmean(
            is_broken(said.text, self.code, item.prompt)
            or (by_likelihood and likelihood_share(item, said) < FALL)
            for item, said in zip(asked, some)
        )

    def _inside(self, said: Written) -> float:
        """How far a text is in the language: in the village the share of its words, which its
        vocabulary knows; else whether the language is detected."""
        if self.village:
            told = words(said.text, self.code)
            return sum(word in vocabulary(self.code) for word in told) / max(1, len(told))
        codes = [self.code, *(code for code in self.corpus.languages if code != self.code)]
        return float(detect(said.text, codes).code == self.code)

    def _right(self, rows: Sequence[Condition]) -> list[float]:
        """Share of right answers to the village's questions under each condition."""
        task = open_task("village-qa")
        items = task.items(self.code, Validation, self.prompts)
        found = predict(self.lm, self.atlas, Job(task.kind, items, tuple(rows), self.code))
        return [
            next(s.mean for s in task.score(items, said) if s.metric == "asked") for said in found
        ]

    def _likelier(self, rows: Sequence[Condition]) -> list[float]:
        """By how many bits a byte text of the language got likelier under each condition; for
        `silence` less likely, beyond what text of the others did."""
        plans = [row.plan(self.atlas, self.code) for row in rows]

        def bits(code: str) -> list[float]:
            texts = self.corpus.sentences[code][: 2 * self.prompts]
            size = sum(len(text.encode()) for text in texts)
            found = log_likelihoods(self.lm, [tokenise(self.lm, "", [t]) for t in texts], plans)
            totals = [-sum(s[0] for s in of_plan) / math.log(2) / size for of_plan in found]
            return [total - totals[0] for total in totals]

        own = bits(self.code)
        if self.goal == "help":
            return [-rise for rise in own]
        others = [code for code in self.corpus.languages if code != self.code][:LANGUAGES]
        each = [bits(code) for code in others]
        return [rise - fmean(of[k] for of in each) if each else rise for k, rise in enumerate(own)]


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a * b > 0 else 0.0
