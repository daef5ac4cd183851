"""What was measured: every item's score under every condition, and what it takes to repeat it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from ...atlas.atlas import Atlas
from ...atlas.fingerprint import fingerprint
from ...errors import ClasError
from ...model.architecture import LanguageModel
from ...paths import replacing, writing
from ...text.raw import parse_json, read_json, read_text
from ...version import __version__
from .engine import ConditionScores, TaskRun
from .items import Items, Scores, Split, only

S = TypeVar("S", bound=Split)
_FORMAT = "clas-results-2"


@dataclass(frozen=True)
class Results(Generic[S]):
    """The scores of tasks, metrics and languages under conditions, one an item.

    `about` is plain data: model, revision, conditions with their recipes, split, versions, date.
    """

    scores: tuple[ConditionScores[S], ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every score, one a row, tidy. Text: condition, task, language, metric, item (its key),
        group. Float: value, as the metric gives it."""
        return pd.DataFrame(
            [
                (one.condition, s.task, s.language, s.metric, *item)
                for one in self.scores
                for s in [one.scores]
                for item in zip(s.keys, s.groups, s.values)
            ],
            columns=["condition", "task", "language", "metric", "item", "group", "value"],
        )

    @property
    def conditions(self) -> tuple[str, ...]:
        """Their names, in the order in which they came."""
        return tuple(dict.fromkeys(one.condition for one in self.scores))

    @property
    def measures(self) -> tuple[tuple[str, str], ...]:
        """(task, metric) pairs, in the order in which they came; a task's main metric first."""
        return tuple(dict.fromkeys((one.scores.task, one.scores.metric) for one in self.scores))

    def languages(self, task: str) -> tuple[str, ...]:
        """The languages in which a task was measured, in the order in which they came."""
        found = (one.scores.language for one in self.scores if one.scores.task == task)
        return tuple(dict.fromkeys(found))

    def get(self, condition: str, task: str, metric: str, language: str) -> Scores[S] | None:
        """A condition's scores; None if they weren't measured."""
        return self._index.get((condition, task, metric, language))

    @cached_property
    def _index(self) -> dict[tuple[str, str, str, str], Scores[S]]:
        return {
            (one.condition, s.task, s.metric, s.language): s
            for one in self.scores
            for s in [one.scores]
        }

    def save(self, path: str | Path) -> None:
        """Write everything as one JSON file."""
        data = {
            "format": _FORMAT,
            "about": self.about,
            "scores": [_plain_scores(one) for one in self.scores],
        }
        with replacing(path) as scratch:
            scratch.write_text(json.dumps(data, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: str | Path, split: type[S]) -> Results[S]:
        """Read what `save` wrote. Raises ClasError for another file or scores of another split."""
        data = read_json(path)
        try:
            if data["format"] != _FORMAT:
                raise ValueError
            return Results(tuple(_scores_of(one, split) for one in data["scores"]), data["about"])
        except ClasError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise ClasError(
                f"{path} holds no results: choose a file that `evaluate` wrote."
            ) from error


def main_measures(measures: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of (task, metric) pairs those of each task's first metric, the one that counts."""
    first: dict[str, str] = {}
    for task, metric in measures:
        first.setdefault(task, metric)
    return list(first.items())


class Log(Generic[S]):
    """Scores on disk, a line each, as they are found: what is in it isn't measured again.

    The first line is what they are of. Raises ClasError if the file is of another one.
    """

    def __init__(self, path: str | Path, split: type[S], about: Mapping[str, Any]) -> None:
        self._path = Path(path)
        self.about = about
        self.scores: list[ConditionScores[S]] = []
        if self._path.exists() and self._path.stat().st_size:
            self._read(split)
        else:
            with writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._append([{"format": _FORMAT, "about": about}])

    def add(self, scores: Iterable[ConditionScores[S]]) -> None:
        """Write scores down, at once. Raises CantWrite, with the file as it was, on a full disk."""
        new = list(scores)
        self._append([_plain_scores(one) for one in new])
        self.scores += new

    def unfinished(self, runs: Sequence[TaskRun[S]]) -> tuple[TaskRun[S], ...]:
        """Those runs of which a condition is still missing."""
        known = {
            (one.condition, s.task, s.language, s.keys) for one in self.scores for s in [one.scores]
        }
        return tuple(
            run
            for run in runs
            if any(
                (condition.name, run.task.name, run.items.language, run.items.keys) not in known
                for condition in run.conditions
            )
        )

    def results(self, runs: Sequence[TaskRun[S]]) -> Results[S]:
        """The scores of these runs; of one that was measured twice, the second."""
        wanted = {
            (condition.name, run.task.name, run.items.language, run.items.keys)
            for run in runs
            for condition in run.conditions
        }
        found = {
            (one.condition, s.task, s.metric, s.language): one
            for one in self.scores
            for s in [one.scores]
            if (one.condition, s.task, s.language, s.keys) in wanted
        }
        return Results(tuple(found.values()), self.about)

    def _read(self, split: type[S]) -> None:
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]  # a killed run may leave half a line
        if whole != data:
            with replacing(self._path) as scratch:
                scratch.write_bytes(whole)
        head, *rest = _lines(self._path)
        if not isinstance(head, dict) or head.get("format") != _FORMAT:
            raise ClasError(f"{self._path} holds no results: choose another file.")
        if differing := [k for k in _SAME if head["about"].get(k) != self.about.get(k)]:
            raise ClasError(
                f"{self._path} is of a measurement with other {', '.join(differing)}: "
                "choose another file."
            )
        before, now = head["about"].get(_PARTS, {}), self.about.get(_PARTS, {})
        if other := [name for name in before.keys() & now.keys() if before[name] != now[name]]:
            raise ClasError(
                f"{self._path} is of another text for {min(other)}: choose another file."
            )
        self.about = {**self.about, "date": head["about"].get("date")}
        self.scores = [_scores_of(line, split) for line in rest]

    def _append(self, records: list[dict[str, Any]]) -> None:
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        data = "".join(lines).encode()
        with writing(self._path), self._path.open("ab", buffering=0) as file:
            whole = file.tell()
            try:
                while data:  # a write may take a part of it, when the disk gets full
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(whole)  # else the next line would go on behind half of this one
                raise


# What must be the same of a task in a language: a log may hold some of them only.
_PARTS = "texts"
_SAME = (
    "model",
    "weights",
    "tokenizer",
    "config",
    "dtype",
    "atlas",
    "split",
    "conditions",
    "prompting",
)


def describe(
    lm: LanguageModel, atlas: Atlas, split: type[Split], runs: Sequence[TaskRun[Any]]
) -> dict[str, Any]:
    """What these runs are of, as plain data: enough to repeat them.

    Raises ClasError if the atlas is of another model.
    """
    atlas.check(lm)
    conditions = dict.fromkeys(condition for run in runs for condition in run.conditions)
    targets = [job.target for run in runs for job in run.jobs]
    return {
        "model": lm.name,
        "revision": lm.revision,
        **fingerprint(lm).as_dict(),
        "layers": lm.num_layers,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "atlas": {"languages": list(atlas.languages), **atlas.meta},
        "split": split.name,
        "prompting": [vars(one) for one in dict.fromkeys(run.prompting for run in runs)],
        "conditions": [_plain(condition.as_dict()) for condition in conditions],
        "idle": {
            one.name: list(codes)
            for one in conditions
            if (codes := one.idle_for(atlas, dict.fromkeys(targets)))
        },
        "items": {f"{run.task.name} {run.items.language}": len(run.items) for run in runs},
        _PARTS: {f"{run.task.name} {run.items.language}": _digest(run.items) for run in runs},
        "device": str(lm.device),
        "versions": {
            "clas-studio": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "numpy")},
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _digest(items: Items[Any]) -> str:
    """Of the first item: tells the same task on another text, for any number of items."""
    return hashlib.sha256(repr((items.lead, items.items[0])).encode()).hexdigest()[:16]


def collect(
    log: Log[S] | None, found: Iterator[tuple[ConditionScores[S], ...]]
) -> Iterator[tuple[ConditionScores[S], ...]]:
    """Pass scores on, each written down first."""
    for scores in found:
        if log is not None:
            log.add(scores)
        yield scores


def _plain_scores(one: ConditionScores[Any]) -> dict[str, Any]:
    return {"condition": one.condition, **one.scores.as_dict()}


def _scores_of(data: Mapping[str, Any], split: type[S]) -> ConditionScores[S]:
    scores = {name: value for name, value in data.items() if name != "condition"}
    return ConditionScores(data["condition"], only(split, Scores.from_dict(scores)))


def _plain(value: Any) -> Any:
    """`value` as it comes back from JSON: tuples as lists."""
    return json.loads(json.dumps(value))


def _lines(path: Path) -> list[Any]:
    """The values of a file with a JSON text in each line."""
    try:
        return [parse_json(line) for line in read_text(path).removesuffix("\n").split("\n")]
    except ClasError as error:
        raise ClasError(f"{path} is damaged: {error} Choose another file.") from error
