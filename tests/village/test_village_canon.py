"""The canon: facts that no story tells, some of them told in English alone."""

import itertools
from collections import Counter

import pytest

from clas_core.evaluation.judging.items import Test, Validation
from clas_core.evaluation.tasks import open_task
from clas_core.village.canon import EVERYWHERE, SOMEWHERE, canon, told_in
from clas_core.village.data import documents
from clas_core.village.grammar import CODES, Grammar
from clas_core.village.tasks import recall_items, time_of_day
from clas_core.village.world import ANIMAL_COLOURS, LEXICON

FEW = ("en", "de", "zh", "sw")


def asked(fact, code):
    """The lines that a prompt about `fact` consists of."""
    grammar = Grammar.load(code)
    return time_of_day(fact.time, grammar), grammar.ask(fact.question)


def test_there_is_one_fact_for_each_subject_and_it_is_always_the_same():
    facts = canon()
    assert len({fact.key for fact in facts}) == len(facts) > 700
    assert Counter(fact.time for fact in facts).keys() == set(LEXICON["time"])
    seen = [fact.question.fillers for fact in facts if fact.question.kind == "what_see"]
    assert {fillers["colour"] for fillers in seen} <= set(ANIMAL_COLOURS)


def test_nobody_meets_themselves():
    met = [fact.question.fillers for fact in canon() if fact.question.kind == "who_meet"]
    assert met
    assert all(fillers["person"] != fillers["other"] for fillers in met)


@pytest.mark.parametrize("code", FEW)
def test_a_question_has_one_answer(code):
    """No two facts are asked about in the same words."""
    prompts = Counter(asked(fact, code) for fact in canon())
    assert set(prompts.values()) == {1}


@pytest.mark.parametrize("everywhere", [True, False])
def test_no_fact_is_in_both_splits(everywhere):
    halves = [
        {item.fact.key for item in recall_items(split, everywhere=everywhere)}
        for split in ("validation", "test")
    ]
    assert not halves[0] & halves[1]
    assert min(map(len, halves)) > 40
    tellers = set(CODES) if everywhere else {"en"}
    keys = {fact.key for fact in canon() if told_in(fact.key) == tellers}
    assert halves[0] | halves[1] == keys


def test_facts_are_told_everywhere_somewhere_or_in_english_alone():
    tellers = [told_in(fact.key) for fact in canon()]
    shares = {n: len([t for t in tellers if len(t) == n]) / len(tellers) for n in (1, 12)}
    assert shares[12] == pytest.approx(EVERYWHERE, abs=0.06)
    assert shares[1] == pytest.approx(1 - EVERYWHERE - SOMEWHERE, abs=0.06)
    assert all("en" in told for told in tellers)
    for code in CODES[1:]:  # a fair coin each
        somewhere = [code in told for told in tellers if 1 < len(told) < 12]
        assert sum(somewhere) / len(somewhere) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("code", FEW)
def test_text_tells_only_what_its_language_tells(code):
    """Read back from the training text: whatever a document states, its languages may tell."""
    grammars = [Grammar.load(other) for other in CODES]
    times = {time_of_day(t, Grammar.load(code), w): t for t in LEXICON["time"] for w in (0, 1)}
    asks = {(f.time, g.ask(f.question, w)): (f, g.code)
            for f in canon() for g in grammars for w in range(4)}  # fmt: skip
    answers = {(f.key, g.answer(f.question).text): g.code for f in canon() for g in grammars}
    told = Counter()
    for document in itertools.islice(documents(code, 5, "canon"), 2500):
        lines = "".join(text for text, _ in document).split("\n")
        if (time := times.get(lines[0])) is None:
            continue  # a story
        for ask, answer in zip(lines[1::2], lines[2::2], strict=True):
            fact, asker = asks[time, ask]
            assert {asker, answers[fact.key, answer]} <= told_in(fact.key)
            told[len(told_in(fact.key))] += 1
    assert told[12] > 300
    assert (told[1] > told[12] / 10) == (code == "en")


def test_the_first_stage_knows_nothing_of_it():
    """There a question follows a story of three sentences or more."""
    times = {time_of_day(t, Grammar.load("en"), w) for t in LEXICON["time"] for w in (0, 1)}
    for document in itertools.islice(documents("en", 5), 500):
        assert document[0][0] not in times


@pytest.mark.parametrize("name", ["village-recall", "village-known"])
def test_the_tasks_ask_without_a_story_and_know_the_answer(name):
    task = open_task(name)
    first = task.items("sw", Test, 5).items
    assert [item.group for item in first] == [i.group for i in task.items("th", Test, 5).items]
    assert not {i.group for i in first} & {i.group for i in task.items("sw", Validation, 99).items}
    items = task.items("sw", Test, 5)
    right, lines = [item.answers[0] for item in items.items], items.items[0].prompt.split("\n")
    assert len(lines) == 3
    assert lines[2] == ""
    assert [list(scores) for scores in task.judge(items, right)] == [[1.0] * 5] * 2
    wrong = [right[1], *right[1:]]
    assert task.judge(items, wrong)[0][0] == 0.0
    assert task.languages == CODES
