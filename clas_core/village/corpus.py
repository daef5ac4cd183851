"""The village's parallel sentences, as they ship: `assets/corpora/village.tsv`."""

from __future__ import annotations

import random
from pathlib import Path

from .grammar import CODES, Grammar
from .world import EVENT_SLOTS, Event, stories


def write_corpus(path: Path, count: int = 240) -> None:
    """Write `count` sentences of its validation worlds to `path`: a TSV, a column a language.

    The same ones at every call, the kinds of event about equally often.
    """
    rng = random.Random(0)
    events = {event.key: event for story in stories(0, "validation", 600) for event in story.events}
    by_kind = {kind: [e for e in events.values() if e.kind == kind] for kind in EVENT_SLOTS}
    chosen: list[Event] = []
    while len(chosen) < count:  # the kinds in turn
        for left in by_kind.values():
            if left and len(chosen) < count:
                chosen.append(left.pop(rng.randrange(len(left))))
    rng.shuffle(chosen)
    rows = ["\t".join(CODES)]
    rows += ["\t".join(Grammar.load(code).sentence(event) for code in CODES) for event in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
