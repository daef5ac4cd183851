"""Tasks with a ground truth, the same in every language: village-QA and village-NLI.

An item is drawn once, without a language; `render` puts it into one. A prompt is the story, a line
break, the question or statement, a line break; the model writes the answer on the next line.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .canon import Fact, canon, told_in
from .grammar import CODES, VERDICTS, Grammar
from .world import LEXICON, QUESTION_SLOTS, Event, Question, Story, World, stories

# The slot that an inference item may change, for the questions with one right value at a time.
CHANGEABLE = {
    "where_person": "place",
    "where_thing": "place",
    "who_has": "person",
    "what_colour": "colour",
    "how_many": "number",
    "what_weather": "weather",
    "what_time": "time",
}


@dataclass(frozen=True)
class Prompt:
    """An item in one language. `choices` are all verdicts of an NLI item, else empty."""

    text: str
    answer: str
    asked: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class QAItem:
    """A story and a question on it that it answers."""

    story: Story
    question: Question
    wordings: int  # seed of the wordings, the same in every language

    def render(self, grammar: Grammar) -> Prompt:
        """The item in the grammar's language: the same story and wordings at every call."""
        rng = random.Random(self.wordings)
        story = render_story(self.story, grammar, rng)
        answer = grammar.answer(self.question)
        ask = grammar.ask(self.question, rng.randrange(8))
        return Prompt(f"{story}\n{ask}\n", answer.text, answer.asked)


@dataclass(frozen=True)
class NLIItem:
    """A story, a statement, and the verdict that is true of it."""

    story: Story
    statement: Question  # read as its full answer
    verdict: str
    wordings: int

    def render(self, grammar: Grammar) -> Prompt:
        """The item in the grammar's language: the same story and wordings at every call."""
        story = render_story(self.story, grammar, random.Random(self.wordings))
        statement = grammar.verdict_prompt(grammar.answer(self.statement).text)
        choices = tuple(grammar.inference[verdict] for verdict in VERDICTS)
        answer = grammar.inference[self.verdict]
        return Prompt(f"{story}\n{statement}\n", answer, answer, choices)


@dataclass(frozen=True)
class RecallItem:
    """A question that no story answers: a time of day stands before it, and the canon answers."""

    fact: Fact

    def render(self, grammar: Grammar) -> Prompt:
        """The item in the grammar's language."""
        answer = grammar.answer(self.fact.question)
        text = f"{time_of_day(self.fact.time, grammar)}\n{grammar.ask(self.fact.question)}\n"
        return Prompt(text, answer.text, answer.asked)


def time_of_day(time: str, grammar: Grammar, wording: int = 0) -> str:
    """The sentence that says which time it is."""
    return grammar.sentence(Event("time", {"time": time}), wording)


def render_story(story: Story, grammar: Grammar, rng: random.Random) -> str:
    """The story in one language; `rng` draws each sentence's wording.

    The first sentence takes the first wording: the others may say "then".
    """
    sentences = (
        grammar.sentence(event, rng.randrange(12) if index else 0)
        for index, event in enumerate(story.events)
    )
    return grammar.joiner.join(sentences)


def draw_statement(
    rng: random.Random, world: World, cast: set[str], verdict: str
) -> Question | None:
    """A statement that `verdict` holds of after the story; None if the story offers none.

    `cast` are the people in the story.
    """
    facts = [question for question in world.questions() if question.kind in CHANGEABLE]
    if verdict == "neutral":
        return _untold(rng, world, cast)
    if not facts:
        return None
    fact = rng.choice(facts)
    if verdict == "entailment":
        return fact
    slot = CHANGEABLE[fact.kind]
    pool = sorted(cast) if slot == "person" and len(cast) > 1 else LEXICON[slot]
    value = rng.choice([value for value in pool if value != fact.fillers[slot]])
    return Question(fact.kind, {**fact.fillers, slot: value})


def _untold(rng: random.Random, world: World, cast: set[str]) -> Question | None:
    """Something that the story neither says nor denies."""
    kind = rng.choice(list(CHANGEABLE))
    pick = {slot: rng.choice(LEXICON[slot]) for slot in QUESTION_SLOTS[kind]}
    if kind == "where_person":
        # Mostly someone of the story whose place was not told, so that a name alone tells nothing.
        unplaced = sorted(cast - set(world.place))
        pick["person"] = rng.choice(unplaced) if unplaced else pick["person"]
        unknown = pick["person"] not in world.place
    elif kind in ("where_thing", "what_colour", "who_has"):
        wished = [thing for thing in world.want.values() if thing not in world.colour]
        if wished and kind != "who_has":
            pick["thing"] = rng.choice(wished)
        elif kind == "where_thing" and world.owner:
            pick["thing"] = rng.choice(list(world.owner))  # where its owner is, nobody said
            unplaced_owner = world.owner[pick["thing"]] not in world.place
            return Question(kind, pick) if unplaced_owner else None
        if kind == "who_has" and cast:
            pick["person"] = rng.choice(sorted(cast))
        unknown = pick["thing"] not in world.colour and (
            kind != "who_has" or pick["thing"] not in world.want.values()
        )
    elif kind == "how_many":
        unknown = (pick["animal"], pick["place"]) not in world.count
    else:
        unknown = not getattr(world, QUESTION_SLOTS[kind][0])
    return Question(kind, pick) if unknown else None


def cast_of(story: Story) -> set[str]:
    """The people of a story."""
    return {
        event.fillers[slot]
        for event in story.events
        for slot in ("person", "other")
        if slot in event.fillers
    }


def qa_items(split: str, count: int, seed: int = 0) -> list[QAItem]:
    """`count` questions on as many stories of `split`, the kinds of question in equal shares."""
    rng = random.Random(f"qa-{split}-{seed}")
    items: list[QAItem] = []
    asked = dict.fromkeys(QUESTION_SLOTS, 0)
    for story in stories(seed, split, count * 3):
        if len(items) == count:
            break
        questions = story.world().questions()
        if questions:
            rare = min(asked[question.kind] for question in questions)
            question = rng.choice([q for q in questions if asked[q.kind] == rare])
            asked[question.kind] += 1
            items.append(QAItem(story, question, rng.randrange(2**31)))
    return items


def nli_items(split: str, count: int, seed: int = 0) -> list[NLIItem]:
    """`count` statements on as many stories of `split`, a third for each verdict."""
    rng = random.Random(f"nli-{split}-{seed}")
    items: list[NLIItem] = []
    for story in stories(seed + 1, split, count * 3):
        if len(items) == count:
            break
        verdict = VERDICTS[len(items) % len(VERDICTS)]
        statement = draw_statement(rng, story.world(), cast_of(story), verdict)
        if statement is not None:
            items.append(NLIItem(story, statement, verdict, rng.randrange(2**31)))
    return items


def recall_items(
    split: str, count: int | None = None, everywhere: bool = False
) -> list[RecallItem]:
    """`count` facts of the canon (None: all of the split) in an order that mixes their kinds.

    Those that English alone tells, or, `everywhere`, those that every language tells.
    """
    tellers = frozenset(CODES if everywhere else ("en",))
    facts = [f for f in canon() if f.split == split and told_in(f.key) == tellers]
    random.Random("recall").shuffle(facts)
    return [RecallItem(fact) for fact in facts[:count]]
