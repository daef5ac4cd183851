"""The village itself: people, places and things, what can happen, and what is true afterwards.

Nothing here knows a language. An `Event` is a kind and its fillers; a `World` follows what the
events of a story make true, so that questions and inference have one right answer.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

LEXICON: dict[str, tuple[str, ...]] = {
    "person": (
        *("anna", "sara", "nina", "maya", "lena", "zara"),
        *("tom", "ali", "omar", "leo", "ravi", "juma"),
    ),
    "place": (
        *("garden", "school", "market", "kitchen", "forest", "river"),
        *("park", "library", "station", "shop", "beach", "farm"),
    ),
    "thing": (
        *("ball", "book", "cup", "hat", "key", "lamp", "box", "flower"),
        *("bag", "bell", "umbrella", "chair", "kite", "coin", "spoon", "drum"),
    ),
    "colour": ("red", "blue", "green", "yellow", "white", "black", "brown", "grey"),
    "animal": ("cat", "dog", "bird", "horse", "cow", "rabbit", "goat", "duck"),
    "food": ("apple", "banana", "bread", "rice", "soup", "cake", "egg", "cheese"),
    "feeling": ("happy", "sad", "tired", "hungry", "angry", "scared", "bored", "calm"),
    "activity": ("sleep", "sing", "dance", "read", "draw", "laugh", "play", "write"),
    "weather": ("rain", "snow", "sun", "wind", "clouds"),
    "time": ("morning", "noon", "afternoon", "evening", "night"),
    "number": ("two", "three", "four", "five", "six"),
}
ANIMAL_COLOURS = ("white", "black", "brown", "grey")
SLOT_TYPES = {"other": "person"}  # a slot is named after its type, but for the second person

EVENT_SLOTS: dict[str, tuple[str, ...]] = {
    "at": ("person", "place"),
    "go": ("person", "place"),
    "has": ("person", "colour", "thing"),
    "lie": ("colour", "thing", "place"),
    "find": ("person", "colour", "thing"),
    "take": ("person", "thing"),
    "give": ("person", "thing", "other"),
    "leave": ("person", "thing", "place"),
    "want": ("person", "thing"),
    "see": ("person", "colour", "animal"),
    "eat": ("person", "food"),
    "feel": ("person", "feeling"),
    "do": ("person", "activity"),
    "meet": ("person", "other"),
    "count": ("number", "animal", "place"),
    "weather": ("weather",),
    "time": ("time",),
}

QUESTION_SLOTS: dict[str, tuple[str, ...]] = {  # the answer's slots; the question uses some of them
    "where_person": ("person", "place"),
    "where_thing": ("thing", "place"),
    "who_has": ("thing", "person"),
    "what_has": ("person", "colour", "thing"),
    "what_colour": ("thing", "colour"),
    "what_want": ("person", "thing"),
    "what_see": ("person", "colour", "animal"),
    "what_eat": ("person", "food"),
    "how_feel": ("person", "feeling"),
    "what_do": ("person", "activity"),
    "who_meet": ("person", "other"),
    "how_many": ("number", "animal", "place"),
    "what_weather": ("weather",),
    "what_time": ("time",),
}


@dataclass(frozen=True)
class Event:
    """Something that happens: a kind of `EVENT_SLOTS` and a filler for each of its slots."""

    kind: str
    fillers: Mapping[str, str]

    @property
    def key(self) -> str:
        """Names the event: its kind and fillers."""
        return self.kind + ":" + ",".join(self.fillers[slot] for slot in EVENT_SLOTS[self.kind])


@dataclass(frozen=True)
class Question:
    """A question about a story, with the fillers of its full answer."""

    kind: str
    fillers: Mapping[str, str]

    @property
    def key(self) -> str:
        """Names the question: its kind and fillers."""
        return self.kind + ":" + ",".join(self.fillers.values())


@dataclass
class World:
    """What is true after the events so far. `tell` brings it up to date.

    Only what the story says is in here: a person who was never placed has no place, and a question
    about it would have no answer.
    """

    place: dict[str, str] = field(default_factory=dict)  # person or thing -> place
    colour: dict[str, str] = field(default_factory=dict)  # thing -> colour
    owner: dict[str, str] = field(default_factory=dict)  # thing -> person who holds it
    want: dict[str, str] = field(default_factory=dict)
    see: dict[str, tuple[str, str]] = field(default_factory=dict)  # person -> colour, animal
    eat: dict[str, str] = field(default_factory=dict)
    feel: dict[str, str] = field(default_factory=dict)
    do: dict[str, str] = field(default_factory=dict)
    meet: dict[str, str] = field(default_factory=dict)
    count: dict[tuple[str, str], str] = field(default_factory=dict)  # animal, place -> number
    weather: str = ""
    time: str = ""

    def held_by(self, person: str) -> list[str]:
        """The things that a person holds."""
        return [thing for thing, owner in self.owner.items() if owner == person]

    def may_meet(self, person: str, other: str) -> bool:
        """Whether nothing says that the two are in different places."""
        here, there = self.place.get(person), self.place.get(other)
        return here is None or there is None or here == there

    def tell(self, event: Event) -> None:
        """Make `event` true."""
        f = event.fillers
        person, thing = f.get("person", ""), f.get("thing", "")
        match event.kind:
            case "at" | "go":
                self.place[person] = f["place"]
            case "has" | "find":
                self.owner[thing], self.colour[thing] = person, f["colour"]
            case "lie":
                self.place[thing], self.colour[thing] = f["place"], f["colour"]
            case "take":
                self.owner[thing] = person
                self.place.pop(thing, None)
            case "give":
                self.owner[thing] = f["other"]
            case "leave":
                self.owner.pop(thing)
                self.place[thing] = self.place[person] = f["place"]
            case "want":
                self.want[person] = thing
            case "see":
                self.see[person] = (f["colour"], f["animal"])
            case "eat":
                self.eat[person] = f["food"]
            case "feel":
                self.feel[person] = f["feeling"]
            case "do":
                self.do[person] = f["activity"]
            case "meet":
                self.meet[person], self.meet[f["other"]] = f["other"], person
            case "count":
                self.count[f["animal"], f["place"]] = f["number"]
            case "weather":
                self.weather = f["weather"]
            case "time":
                self.time = f["time"]

    def questions(self) -> list[Question]:
        """Every question that the story so far answers in exactly one way."""
        found: list[Question] = []

        def add(kind: str, *values: str) -> None:
            found.append(Question(kind, dict(zip(QUESTION_SLOTS[kind], values))))

        for name, place in self.place.items():
            add("where_person" if name in LEXICON["person"] else "where_thing", name, place)
        for thing, person in self.owner.items():
            add("who_has", thing, person)
            if self.held_by(person) == [thing]:
                add("what_has", person, self.colour[thing], thing)
        for thing, colour in self.colour.items():
            add("what_colour", thing, colour)
        for person, thing in self.want.items():
            add("what_want", person, thing)
        for person, (colour, animal) in self.see.items():
            add("what_see", person, colour, animal)
        for kind, facts in (
            ("what_eat", self.eat),
            ("how_feel", self.feel),
            ("what_do", self.do),
            ("who_meet", self.meet),
        ):
            for person, value in facts.items():
                add(kind, person, value)
        for (animal, place), number in self.count.items():
            add("how_many", number, animal, place)
        if self.weather:
            add("what_weather", self.weather)
        if self.time:
            add("what_time", self.time)
        return found


@dataclass(frozen=True)
class Story:
    """Three to seven events with consistent state, and the world they leave."""

    events: tuple[Event, ...]

    @property
    def key(self) -> str:
        """Names the story: its events in order."""
        return "|".join(event.key for event in self.events)

    @property
    def split(self) -> str:
        """train, validation or test: fixed by the story itself, so no story is in two of them."""
        bucket = hashlib.blake2b(self.key.encode(), digest_size=1).digest()[0]
        return "validation" if bucket < 8 else "test" if bucket < 24 else "train"

    def world(self) -> World:
        """What is true after the story."""
        world = World()
        for event in self.events:
            world.tell(event)
        return world


def tell_story(rng: random.Random, length: int | None = None) -> Story:
    """A random story of `length` events (3 to 7 if not given), about two or three people."""
    length = length or rng.randint(3, 7)
    cast = rng.sample(LEXICON["person"], rng.choice((2, 2, 3)))
    world, events = World(), list[Event]()
    while len(events) < length:
        event = _next_event(rng, world, cast, first=not events)
        if event is not None and event.key not in {e.key for e in events}:
            world.tell(event)
            events.append(event)
    return Story(tuple(events))


def stories(seed: int, split: str, count: int, length: int | None = None) -> list[Story]:
    """`count` different stories of one split, the same for the same seed."""
    rng, found = random.Random(f"{seed}-{split}"), dict[str, Story]()
    while len(found) < count:
        story = tell_story(rng, length)
        if story.split == split:
            found[story.key] = story
    return list(found.values())


_WEIGHTS = {
    **{"at": 3, "go": 4, "has": 3, "lie": 2, "find": 2, "take": 3, "give": 4, "leave": 3},
    **{"want": 2, "see": 2, "eat": 2, "feel": 2, "do": 2, "meet": 2, "count": 2},
    **{"weather": 1, "time": 1},
}


def _next_event(rng: random.Random, world: World, cast: list[str], first: bool) -> Event | None:
    """One thing that can happen now; None if the kind drawn cannot."""
    kind = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    pick = {name: rng.choice(values) for name, values in LEXICON.items()}
    person = rng.choice(cast)
    other = rng.choice([name for name in cast if name != person])
    fillers = pick | {"person": person, "other": other}

    if kind in ("time", "weather") and (getattr(world, kind) or (kind == "time" and not first)):
        return None
    if kind == "at" and person in world.place:
        return None  # who is somewhere already goes elsewhere
    if kind == "go" and world.place.get(person) == pick["place"]:
        return None
    if kind in ("has", "lie", "find", "want") and pick["thing"] in world.colour:
        return None  # one thing of each sort in a story
    if kind == "want" and (person in world.want):
        return None
    if kind in ("has", "find", "lie") and pick["thing"] in world.want.values():
        return None  # the wanted thing stays a wish, or "the ball" would be unclear
    if kind == "see":
        fillers["colour"] = rng.choice(ANIMAL_COLOURS)
        if person in world.see:
            return None
    if kind == "take":
        lying = [thing for thing in world.colour if thing not in world.owner]
        if not lying:
            return None
        fillers["thing"] = rng.choice(lying)
        if world.place.get(person, world.place[fillers["thing"]]) != world.place[fillers["thing"]]:
            return None  # one takes what is where one is
    if kind in ("give", "leave"):
        held = [thing for thing, owner in world.owner.items() if owner in cast]
        if not held:
            return None
        fillers["thing"] = rng.choice(held)
        fillers["person"] = person = world.owner[fillers["thing"]]
        fillers["other"] = rng.choice([name for name in cast if name != person])
        fillers["place"] = world.place.get(person, pick["place"])
    if kind in ("give", "meet") and not world.may_meet(person, fillers["other"]):
        return None
    if kind in ("eat", "feel", "do") and person in getattr(world, kind):
        return None
    if kind == "meet" and (person in world.meet or other in world.meet):
        return None
    if kind == "count" and (any(animal == pick["animal"] for animal, _ in world.count)):
        return None
    return Event(kind, {slot: fillers[slot] for slot in EVENT_SLOTS[kind]})
