"""The map's arithmetic: states under a plan, their place in a frozen layout, their scores."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...paths import ASSETS
from ...running.layout import Layout
from ...running.separation import Separation, separation_of
from ...running.states import BridgeCache, HiddenStates
from ...steering.methods import bridge_layers
from ...steering.plan import SteeringPlan
from ...text.corpus import ParallelCorpus
from .gate import Gate
from .inputs import anchor
from .kept import Kept
from .threads import check_ending, run_behind

LAYOUTS = ASSETS / "village" / "layouts"
_FAR = -1  # what is read there starts anywhere
_POINTS = 2000  # more are neither drawn quickly nor told apart


class States(Protocol):
    """As `running.states.BridgeCache`."""

    unsteered: HiddenStates

    def states(self, plan: SteeringPlan, layer: int) -> Tensor:
        """The sentences [sentences, hidden] at `layer` under `plan`."""


@dataclass(frozen=True, eq=False)
class MapResult:
    """Both ends of the move. before, after: [n, 2] in one frozen layout.

    scores: of the original space, before and after. picture: silhouettes of the 2-D picture,
    before and after, for the note alone. `provisional`: UMAP is still warming up; the picture is
    a principal-component one, or has no "after" yet.
    """

    before: Tensor
    after: Tensor
    scores: tuple[Separation, Separation]
    picture: tuple[float, float]
    provisional: bool = False

    @property
    def note(self) -> str:
        """A sentence where the picture and the scores disagree, else empty."""
        true = self.scores[1].silhouette - self.scores[0].silhouette
        drawn = self.picture[1] - self.picture[0]
        if self.provisional or true * drawn >= 0 or min(abs(true), abs(drawn)) < 0.002:
            return ""
        seem, are = ("further apart", "closer") if drawn > 0 else ("closer", "further apart")
        return (
            f"Trust the scores, not the eye: on the map the languages look {seem}, but in the "
            f"model's own space they moved {are}."
        )


class Mapper:
    """Computes maps of `corpus` for any plan and layer; keeps what is worth keeping."""

    def __init__(
        self,
        lm: LanguageModel,
        corpus: ParallelCorpus,
        gate: Gate,
        kept: Kept,
        far: Callable[[], States] | None = None,
    ):
        """`far`: makes what reads the sentences where the model is, if that isn't here."""
        self.lm, self.corpus, self._far = lm, corpus, far
        self.ready = threading.Event()
        self.ready.set()  # cleared only while `warm` is under way
        self._warmed = False  # or about to be
        self._gate = gate
        self._running = threading.Lock()  # one steered pass at a time
        self._lock = threading.RLock()  # round all that is kept below
        self._kept = kept.share(self)
        self._unsteered: dict[int, Separation] = {}
        codes = corpus.languages
        self.anchor = anchor(codes)
        self.labels = [code for code in codes for _ in range(len(corpus))]
        self.groups = [number for _ in codes for number in range(len(corpus))]
        self.texts = [text for code in codes for text in corpus.sentences[code]]
        self.english = [corpus.sentences[self.anchor][number] for number in self.groups]

    def read(self) -> None:
        """Read the sentences, which takes a large model long, and have UMAP's loops compiled, of
        which nothing stays in memory. Where the model is to be had in a visitor's call alone, they
        are read then."""
        try:
            if self._far is None:
                self._default_cache()
        except Exception:
            logging.getLogger(__name__).exception("the map's sentences could not be read")
        compile_loops()

    def warm(self) -> None:
        """Read the sentences and import UMAP: some seconds, and memory that a page of which nobody
        asks a map does without."""
        self._warmed = True
        self.ready.clear()
        try:
            compile_loops()
            Layout.warm()
            if self._far is None:  # else nobody's call reads them
                self.layout(self.lm.num_layers)
        except Exception:
            logging.getLogger(__name__).exception("the map could not be warmed up")
        finally:
            self.ready.set()

    def _begin_to_warm(self) -> None:
        with self._lock:
            if self._warmed:
                return
            self._warmed = True
            self.ready.clear()
        run_behind("warm-up", self.warm)

    def compute(self, plan: SteeringPlan, layer: int, *, patient: bool = True) -> MapResult:
        """The map at `layer` (0 embeddings, l output of block l) without and with `plan`.

        Not `patient`: answers at once while UMAP is warming up, which the first such map begins,
        marked as provisional.
        """
        if not patient:
            self._begin_to_warm()
        if not 0 <= layer <= self.lm.num_layers:
            raise ClasError(f"Choose a layer from 0 to {self.lm.num_layers}, not {layer}.")
        # A plan that is kept here can't have given its id to another one.
        known: tuple[SteeringPlan, MapResult] | None = self._kept.find("map", id(plan), layer)
        if known is not None:
            return known[1]
        before, after = self._states(plan, layer)
        same = torch.equal(before, after)
        old = self._score_of(layer, before)
        scores = (old, old if same else self._score(after))
        if not self.ready.is_set() and not patient:
            return self._provisional(layer, before, after, scores)
        self.ready.wait()
        layout = self.layout(layer)
        placed = layout.coordinates if same else layout.place(after)
        drawn = _silhouette(layout.coordinates, self.labels)
        picture = (drawn, drawn if same else _silhouette(placed, self.labels))
        result = MapResult(layout.coordinates, placed, scores, picture)
        return self._kept.put((plan, result), "map", id(plan), layer)[1]

    def profile(self) -> list[tuple[float, float]]:
        """Of every layer, unsteered: how far languages are split (silhouette), and the share of
        translations found. Some seconds at first, for a deep model."""
        states = self._default_cache().unsteered
        found = []
        for layer in range(self.lm.num_layers + 1):
            score = self._score_of(layer, states.at(layer))
            found.append((score.silhouette, score.mean_retrieval))
        return found

    @property
    def begun(self) -> bool:
        """Whether the model has read the sentences before."""
        start = bridge_layers(self.lm.num_layers)[0] if self._far is None else _FAR
        return self._kept.find("states", start) is not None

    def layout(self, layer: int) -> Layout:
        """The frozen layout of a layer: the stored one if it is of these states, else fitted."""

        def make() -> Layout:
            points = self._default_cache().unsteered.at(layer)
            return _stored(layer, points) or Layout.fit(points)

        with self._lock:
            return self._kept.get(make, "layout", layer)

    def save_layouts(self, folder: Path = LAYOUTS) -> None:
        """Fit and store the layout of every layer."""
        for layer in range(self.lm.num_layers + 1):
            layout = Layout.fit(self._default_cache().unsteered.at(layer))
            layout.save(folder / f"{layer}.safetensors")

    def _provisional(
        self, layer: int, before: Tensor, after: Tensor, scores: tuple[Separation, Separation]
    ) -> MapResult:
        stored = _stored(layer, before)
        if stored is not None:
            first = second = stored.coordinates
        else:
            mean = before.mean(0)
            _, _, axes = torch.pca_lowrank(before - mean, q=2, center=False)
            first, second = (before - mean) @ axes, (after - mean) @ axes
        return MapResult(first, second, scores, (0.0, 0.0), provisional=True)

    def _states(self, plan: SteeringPlan, layer: int) -> tuple[Tensor, Tensor]:
        start = min(plan.layers, default=0)
        cache = self._cache(min(start, bridge_layers(self.lm.num_layers)[0]))
        with self._running, self._gate.answering():
            return cache.unsteered.at(layer), cache.states(plan, layer)

    def _default_cache(self) -> States:
        return self._cache(bridge_layers(self.lm.num_layers)[0])

    def _cache(self, start: int) -> States:
        def make() -> States:
            if self._far is not None:
                return self._far()
            wait = self._gate.give_way
            return BridgeCache(self.lm, self.corpus, start, progress=lambda *_: wait())

        with self._lock:
            return self._kept.get(make, "states", start if self._far is None else _FAR)

    def _score(self, points: Tensor) -> Separation:
        return separation_of(points, self.labels, self.groups, self.anchor)

    def _score_of(self, layer: int, points: Tensor) -> Separation:
        """The score of a layer's unsteered points, kept."""
        with self._lock:
            if layer not in self._unsteered:
                self._unsteered[layer] = self._score(points)
            return self._unsteered[layer]


_COMPILING = threading.Lock()
_compiled = threading.Event()


def compile_loops() -> None:
    """Have UMAP's loops compiled and kept on disk, once, by a process of its own: what the compiler
    takes, 200 MB, ends with it. Where that fails, the first map compiles them."""
    with _COMPILING:
        if _compiled.is_set():
            return
        _compiled.set()
        code = "from clas_core.running.layout import Layout; Layout.warm()"
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=Path(__file__).parents[3],  # where this package is
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return
        try:
            while process.poll() is None:
                check_ending()
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()


@torch.inference_mode()
def affordable(lm: LanguageModel, corpus: ParallelCorpus, most: int, seconds: float = 20) -> int:
    """How many sentences of each language a map may have: those that `lm` reads in `seconds`.

    At least 8 where the text has them, at most `most`. Times a forward over one of each language.
    """
    inputs = lm.encode([corpus.sentences[code][0] for code in corpus.languages]).inputs
    took = 0.0
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        lm.model.base_model(**inputs, use_cache=False)
        took = time.perf_counter() - start
    points = _POINTS // len(corpus.languages)
    return max(8, min(most, points, int(seconds / took)))


def _stored(layer: int, points: Tensor) -> Layout | None:
    """The layout that ships with the embedded model, if it was made of these very points."""
    path = LAYOUTS / f"{layer}.safetensors"
    if not path.is_file():
        return None
    layout = Layout.load(path)
    same = layout.points.shape == points.shape and torch.allclose(
        layout.points, points, rtol=1e-3, atol=1e-3
    )
    return layout if same else None


def _silhouette(points: Tensor, labels: list[str]) -> float:
    from sklearn.metrics import silhouette_score  # over a second to import: not at start

    return float(silhouette_score(points.numpy(), labels))
