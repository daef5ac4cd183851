"""Who is let in next, and how long the others wait: fair between owners, within a model's room."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar


@dataclass(eq=False)
class Load:
    """What a request takes: so many rows for at most so many steps, and so many tokens of cache."""

    owner: Hashable
    rows: int
    tokens: int
    steps: int


L = TypeVar("L", bound=Load)


class Expected(NamedTuple):
    """How many requests are let in before this one, and after about how many seconds it is."""

    place: int
    wait: float


@dataclass(frozen=True)
class Room:
    """How much may run at once: rows, those of one owner, and tokens of cache."""

    rows: int
    rows_each: int
    tokens: int

    def fits(self, load: Load, running: Iterable[Load]) -> bool:
        """Whether `load` may run beside those that do."""
        running = list(running)
        return (
            sum(one.rows for one in running) + load.rows <= self.rows
            and sum(one.tokens for one in running) + load.tokens <= self.tokens
            and sum(one.rows for one in running if one.owner == load.owner) + load.rows
            <= self.rows_each
        )


class Line(Generic[L]):
    """Requests that wait, each owner's own in their order.

    The owner with the fewest rows under way comes next, of several the one whose turn is longest
    ago. Whoever asks for much gets what the others leave; whoever is next is waited for, so that
    large requests are let in too.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._waiting: dict[Hashable, deque[L]] = {}  # owners whose turn is longest ago first

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def push(self, load: L) -> None:
        """Let `load` wait behind its owner's others."""
        self._waiting.setdefault(load.owner, deque()).append(load)

    def drop(self, leaves: Callable[[L], bool]) -> list[L]:
        """Take out those that leave, and return them."""
        gone = [load for loads in self._waiting.values() for load in loads if leaves(load)]
        for load in gone:
            self._take(load)
        return gone

    def pop(self, running: Sequence[Load]) -> L | None:
        """Who is let in now beside those `running`; None if there is nobody or no room."""
        rows = Counter[Hashable]()
        for load in running:
            rows[load.owner] += load.rows
        heads = (
            loads[0]
            for owner, loads in self._waiting.items()
            if rows[owner] + loads[0].rows <= self._room.rows_each
        )
        first = min(heads, key=lambda load: rows[load.owner], default=None)
        if first is None or not self._room.fits(first, running):
            return None
        self._take(first)
        if first.owner in self._waiting:  # its turn is over
            self._waiting[first.owner] = self._waiting.pop(first.owner)
        return first

    def starts(
        self, running: Iterable[tuple[Load, int]], more: Iterable[Load] = ()
    ) -> dict[Load, int]:
        """After how many steps each of those that wait is let in, the first one first.

        running: who runs, and for how many more steps; more: who might come to wait behind.
        """
        ends = list(running)
        line: Line[Load] = Line(self._room)
        line._waiting = {owner: deque(loads) for owner, loads in self._waiting.items()}
        for load in more:
            line.push(load)
        found: dict[Load, int] = {}
        now = 0
        while len(line):
            while (next_one := line.pop([one for one, _ in ends])) is not None:
                found[next_one] = now
                ends.append((next_one, now + next_one.steps))
            if not len(line):
                break
            now = min(end for _, end in ends)
            ends = [(one, end) for one, end in ends if end > now]
        return found

    def _take(self, load: L) -> None:
        loads = self._waiting[load.owner]
        loads.remove(load)
        if not loads:
            del self._waiting[load.owner]
