"""What is measured: items, their scores, and the wall between validation and test.

Settings are chosen on validation items and reported on test items. That order is in the types:
`Items[Validation]` and `Items[Test]` are different to mypy, each also knows its split at run time,
and `Chosen`, which a test-time comparison asks for, is only made of `Scores[Validation]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast, final, overload

from ...errors import ClasError


class Split:
    """What items may be used for; `Validation` and `Test` are the two there are."""

    name: ClassVar[str]


@final
class Validation(Split):
    """Items to choose settings on."""

    name = "validation"


@final
class Test(Split):
    """Items to report on, once the settings are chosen."""

    name = "test"
    __test__ = False  # pytest takes any class of this name for one of its own


SPLITS: Mapping[str, type[Split]] = {split.name: split for split in (Validation, Test)}

S = TypeVar("S", bound=Split)
R = TypeVar("R", bound=Split)
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """`key` names the item, the same in every language. Items of one `group` stand or fall
    together, as translations of an item or questions on one text do: they are resampled as one,
    and lie on one side of the wall.
    """

    key: str
    group: str


@dataclass(frozen=True)
class ChoiceItem(Item):
    """Which of `choices` follows `prompt`? They are put together as they stand: a blank between
    them is part of the choice. `answer` is the right one's index."""

    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class OpenItem(Item):
    """A text to be continued. Any of `answers` is right; there are none where only the language
    of the continuation counts."""

    prompt: str
    answers: tuple[str, ...]
    max_new_tokens: int
    stop_at_newline: bool = True


@dataclass(frozen=True)
class StartItem(OpenItem):
    """A beginning that a model writes on from; "" stands for the mark that begins a text.

    temperature: 0 is greedy; above it `seed` draws, as in `running.generation`. Where `real` isn't
    empty, what was written is compared with it: how likely the unsteered model finds either as the
    line after `before`, another text of the language that is wanted.
    """

    temperature: float = 0.0
    seed: int = 0
    before: str = ""
    real: str = ""


@dataclass(frozen=True)
class Written:
    """What a model wrote on a `StartItem`. log_p, real_log_p: of the text and of the item's `real`
    under the unsteered model, in nats; None where it wasn't asked for or there is no text."""

    text: str
    log_p: float | None = None
    real_log_p: float | None = None


@dataclass(frozen=True)
class TextItem(Item):
    """A text whose likelihood is measured."""

    text: str


@dataclass(frozen=True)
class PairItem(Item):
    """A sentence, and what it says in the anchor language."""

    text: str
    anchor: str


I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass(frozen=True)
class Items(Generic[S]):
    """The items of one task in one language. `examples` are prompts with their answers that go
    before each item's (few shots), and `prefix` is a text that all prompts begin with.

    As plain text the model reads `lead + prompt`; in a chat the examples are turns before the
    item's.

    Raises ClasError if there are none or two have the same key.
    """

    task: str
    language: str
    split: type[S]
    items: tuple[Item, ...]
    prefix: str = ""
    examples: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.items:
            raise ClasError(
                f"{self.task} has no {self.split.name} items in {self.language}: choose "
                "another language or task."
            )
        if len(set(self.keys)) < len(self.items):
            raise ClasError(
                f"{self.task}: two {self.language} items have the same key: give each its own."
            )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lead(self) -> str:
        """What stands before a prompt in plain text: the prefix and the examples, parted by an
        empty line, as in lm-evaluation-harness."""
        solved = (f"{prompt}{answer}".strip() for prompt, answer in self.examples)
        return self.prefix + "".join(f"{text}\n\n" for text in solved)

    @property
    def keys(self) -> tuple[str, ...]:
        """Each item's key."""
        return tuple(item.key for item in self.items)

    @property
    def groups(self) -> tuple[str, ...]:
        """Each item's group."""
        return tuple(item.group for item in self.items)

    def of(self, kind: type[I]) -> tuple[I, ...]:
        """The items, known to mypy as `kind`; TypeError if one isn't."""
        for item in self.items:
            if not isinstance(item, kind):
                raise TypeError(f"{self.task}: {type(item).__name__} is no {kind.__name__}")
        return cast(tuple[I, ...], self.items)

    def scored(self, metric: str, values: Sequence[float]) -> Scores[S]:
        """`values` as the scores of these items, in their order."""
        return Scores(
            self.task, self.language, self.split, metric, self.keys, self.groups, tuple(values)
        )


@dataclass(frozen=True)
class Scores(Generic[S]):
    """One score an item. The mean over the items is the task's score in that language."""

    task: str
    language: str
    split: type[S]
    metric: str
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.keys) == len(self.groups) == len(self.values):
            raise ValueError(f"{len(self.values)} scores for {len(self.keys)} items")

    @property
    def mean(self) -> float:
        """The task's score in the language."""
        return fmean(self.values)

    def minus(self, other: Scores[S]) -> tuple[float, ...]:
        """The paired differences to `other`; ValueError unless both are scores of the same items
        in the same order."""
        mine = (self.task, self.language, self.split, self.metric, self.keys)
        if mine != (other.task, other.language, other.split, other.metric, other.keys):
            raise ValueError("only scores of the same items can be compared")
        return tuple(a - b for a, b in zip(self.values, other.values))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**vars(self), "split": self.split.name}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scores[Split]:
        """What `as_dict` gave; `only` tells mypy the split."""
        lists = {name: tuple(data[name]) for name in ("keys", "groups", "values")}
        return Scores(**{**data, **lists, "split": SPLITS[data["split"]]})


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """A setting and the validation scores it was chosen by; nothing else makes one.

    Raises ClasError for scores of other than validation items, or none.
    """

    setting: T
    evidence: tuple[Scores[Validation], ...]

    def __post_init__(self) -> None:
        if not self.evidence:
            raise ClasError("Settings are chosen on validation items: score some first.")
        for scores in self.evidence:
            only(Validation, scores)

    def admit(self, items: Items[Test]) -> Items[Test]:
        """`items`, if this setting may be reported on them.

        Raises ClasError unless they are test items, none of a group that it was chosen on.
        """
        items = only(Test, items)
        # "village-qa, likelihood" and "village-qa, 3 examples" are of the same items.
        task = items.task.partition(",")[0]
        evidence = (scores for scores in self.evidence if scores.task.partition(",")[0] == task)
        seen = {group for scores in evidence for group in scores.groups}
        if shared := seen.intersection(items.groups):
            raise ClasError(
                f"{items.task}: the setting was chosen on {len(shared)} of the groups of items it "
                "would be reported on: report it on another task, or choose it by a sweep over one."
            )
        return items


@overload
def only(split: type[R], what: Items[Any]) -> Items[R]: ...
@overload
def only(split: type[R], what: Scores[Any]) -> Scores[R]: ...
def only(split: type[R], what: Items[Any] | Scores[Any]) -> Items[R] | Scores[R]:
    """`what`, if it is of `split`. Raises ClasError if it isn't, also where mypy didn't look."""
    if what.split is not split:
        raise ClasError(
            f"{what.task}: settings are chosen on validation items and reported on test items, and "
            f"these are {what.split.name} items."
        )
    return what


Kind = Literal["choice", "generate", "written", "text", "states"]


class Task(Protocol):
    """Something to measure a model by, in several languages.

    `score` takes what the model made of the items, in their order, by `kind`:
    "choice": each item's log-likelihoods of its choices, in nats, [items][choices];
    "generate": the continuations, [items];
    "written": what was written on each `StartItem`, as `Written`, [items];
    "text": the texts' log-likelihoods in nats, [items];
    "states": the vectors of `text` and of `anchor`, a pair of arrays [items, hidden].
    It gives one `Scores` a metric. The first metric is the one that counts; in
    `LOWER_IS_BETTER` a smaller value is the better one.
    """

    @property
    def name(self) -> str:
        """What tables call it; unlike any other task's."""
        ...

    @property
    def kind(self) -> Kind:
        """What the model is asked to do, and so what `score` takes."""
        ...

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes of the languages that it has items in."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """What `score` gives, the one that counts first."""
        ...

    def items(self, language: str, split: type[S], count: int | None = None) -> Items[S]:
        """The first `count` items (None: all); the same ones in every language and at each call.

        Raises ClasError for a language that the task doesn't have.
        """
        ...

    def score(self, items: Items[S], predictions: Any) -> tuple[Scores[S], ...]:
        """One `Scores` a metric, of predictions in the form that `kind` says."""
        ...


LOWER_IS_BETTER = frozenset({"bits_per_byte"})
