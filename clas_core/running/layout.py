"""A frozen 2-D map: fitted once on the unsteered states, then other points are placed in it."""

from __future__ import annotations

import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ClasError
from ..paths import replacing, writing

NEIGHBOURS = 15
MIN_POINTS = 10

# numba's threading layer may abort the process when two threads enter it at once.
_UMAP_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class Layout:
    """UMAP coordinates [n, 2] of the fitted points [n, hidden] (McInnes et al. 2018, cosine).

    `place` never moves the map: points that did not change land where they were, and what moves
    has moved in the original space. Distances here are for the eye; scores never use them.
    """

    coordinates: Tensor
    points: Tensor
    seed: int = 0

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.coordinates.shape != (len(self.points), 2):
            raise ClasError("A layout needs points [n, hidden] and coordinates [n, 2].")
        if len(self.points) < MIN_POINTS:
            raise ClasError(f"A map needs at least {MIN_POINTS} sentences, not {len(self.points)}.")
        if not (self.points.isfinite().all() and self.coordinates.isfinite().all()):
            raise ClasError("The map can't be drawn: some hidden states are not finite numbers.")

    @classmethod
    def fit(cls, points: Tensor, seed: int = 0) -> Layout:
        """Lay out `points` [n, hidden] by UMAP; the same seed gives the same map."""
        points = points.detach().float().cpu().contiguous()
        blank = cls(torch.zeros(len(points), 2), points, seed)  # validates
        with _UMAP_LOCK, writing("the loops that UMAP compiles"):
            reducer = _quick(blank._reducer().fit(points.numpy()))
        layout = cls(torch.from_numpy(reducer.embedding_).float(), points, seed)
        layout.__dict__["_placer"] = reducer  # what `_placer` would rebuild
        return layout

    def place(self, points: Tensor) -> Tensor:
        """Coordinates [m, 2] of `points` [m, hidden] in this map."""
        if points.ndim != 2 or points.shape[1] != self.points.shape[1]:
            raise ClasError(
                f"This map was fitted on states of size {self.points.shape[1]}; it can't place "
                f"points of shape {tuple(points.shape)}."
            )
        if not points.isfinite().all():
            raise ClasError("The map can't be drawn: some hidden states are not finite numbers.")
        array = points.detach().float().cpu().contiguous().numpy()
        with _UMAP_LOCK, writing("the loops that UMAP compiles"):
            return torch.tensor(self._placer.transform(array), dtype=torch.float32)

    def save(self, path: str | Path) -> None:
        """Write points, coordinates and seed to a safetensors file."""
        tensors = {"coordinates": self.coordinates.contiguous(), "points": self.points.contiguous()}
        with replacing(path) as scratch:
            save_file(tensors, scratch, {"seed": str(self.seed)})

    @classmethod
    def load(cls, path: str | Path) -> Layout:
        """Read what `save` wrote. Raises ClasError if the file is missing or another's."""
        try:
            with safe_open(path, framework="pt") as file:
                return cls(
                    file.get_tensor("coordinates"),
                    file.get_tensor("points"),
                    int(file.metadata()["seed"]),
                )
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise ClasError(f"{path} is not a saved layout; fit one and save it.") from error

    @staticmethod
    def warm() -> None:
        """Import UMAP and have its loops at hand, so that the first real map is quick: 3 s, but 16
        to 30 s on a machine where they were never compiled."""
        noise = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        Layout.fit(noise).place(noise + 0.1)

    @cached_property
    def _placer(self) -> Any:
        """A fitted UMAP at the stored coordinates: its graph is rebuilt, its result replaced."""
        reducer = self._reducer(n_epochs=0, init=self.coordinates.numpy())
        _quick(reducer.fit(self.points.numpy()))
        reducer.n_epochs = None  # 0 was for the fit alone; `transform` reads it too
        reducer.embedding_ = self.coordinates.numpy()
        return reducer

    def _reducer(self, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fixed seed means one thread, as we want
            return _umap().UMAP(
                n_neighbors=min(NEIGHBOURS, len(self.points) - 1),
                metric="cosine",
                random_state=self.seed,
                n_jobs=1,
                **options,
            )


@cache
def _umap() -> Any:
    """UMAP, with its loops kept on disk once they are compiled. It keeps few of them by itself, and
    compiling takes every process a quarter of a minute and 200 MB, for good."""
    import umap.layouts  # seconds
    import umap.utils
    from numba.core.dispatcher import Dispatcher

    for module in (umap.layouts, umap.umap_, umap.utils):
        for loop in vars(module).values():
            if isinstance(loop, Dispatcher):
                with suppress(RuntimeError):  # no place for it: compiled each time
                    loop.enable_caching()
    return umap


def _quick(reducer: Any) -> Any:
    """`transform` would call UMAP's own cosine for each pair from Python; by its name scikit-learn
    computes the same distances at once: 0.4 s, not 1.0 s, for 600 points."""
    reducer._input_distance_func = "cosine"
    return reducer
