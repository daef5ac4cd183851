"""What the page opens with, stored from live runs: answers at every strength, and two curves.

The steering is CLAS with beta 1 and gamma 0 in the last quarter of the layers: language-specific
neurons are turned down, all else stays. At strength 1 they are off, at 2 they work the other way.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from ..errors import ClasError
from ..evaluation.tasks.scoring import contains, words
from ..paths import replacing
from ..running.answers import write_answers
from ..steering.methods import RandomControl, bridge_layers
from ..steering.recipe import Recipe
from ..ui.behind.asking import ANSWER
from ..ui.behind.goals import GOALS
from ..ui.behind.inputs import ALPHA, LENGTH, anchor
from ..ui.behind.profile import read_profile
from ..ui.behind.stored import STEP, Data, Stored
from ..ui.behind.studio import VILLAGE, Studio
from ..ui.behind.surprise import with_surprise
from ..ui.behind.words import Vocabulary, village_vocabulary
from ..village.grammar import CODES, Grammar
from ..village.tasks import Prompt, qa_items, recall_items
from .scores import story_starts

PATH = VILLAGE / "first_screen.json"
LEAST = 5  # words of an answer in which a language can be seen to melt
STRENGTHS = tuple(np.arange(ALPHA[0], ALPHA[1] + STEP / 2, STEP).tolist())
QUESTIONS, STORIES, CONTROLS = 40, 20, 3
CANDIDATES = 12  # test questions, of which one is asked beside the story
FACTS = 200  # test facts that every language tells, of which one is what steering helps with
OPENING = "en"


def first_recipe(num_layers: int) -> Recipe:
    """The steering that the first screen shows, off."""
    return replace(Recipe(), alpha=0.0, beta=1.0, gamma=0.0, layers=bridge_layers(num_layers))


def answers(
    studio: Studio,
    recipe: Recipe,
    code: str,
    strengths: Sequence[float] = STRENGTHS,
    question: Mapping[str, str] | None = None,
) -> Data:
    """The language's first example run live at every strength, with the page's other defaults,
    and what every goal opens with for it.

    `question`: what is asked beside it. Raises ClasError for a language without examples.
    """
    ready = studio.examples(code)
    if not ready:
        raise ClasError(f"There is no example in {code!r} to open the page with.")
    cells = []
    for alpha in strengths:
        made = cell_recipe(studio, recipe, code, ready[0], alpha)
        *_, view = studio.steer(made, True, threading.Event(), question)
        cells.append({"alpha": alpha, "view": {**view, "state": "stored"}})
    opened = [
        {"settings": settings, "view": goal_view(studio, ready[0], settings, question)}
        for settings in goal_settings(studio, code)
    ]
    return {"prompt": ready[0], "question": question, "cells": cells, "goals": opened}


def goal_settings(studio: Studio, code: str) -> list[dict[str, Any]]:
    """What the goals but the opening one set where the prompt is in the language: to silence it;
    to help it, where that can be shown; of the anchor's, which is the one to be written on from,
    for every target."""
    found = [GOALS["silence"].settings(studio, code)]
    if studio.stored and studio.stored.helped(code):
        found.append(GOALS["help"].settings(studio, code))
    if code == anchor(studio.codes):
        others = [other for other in studio.codes if other != code]
        found += [GOALS["write"].settings(studio, other) for other in others]
    return found


def goal_view(
    studio: Studio, prompt: str, settings: Mapping[str, Any], question: Mapping[str, str] | None
) -> Data:
    """The page's answers to `prompt`, or to the settings' own, under these settings and else its
    defaults, run live; `question` is beside `prompt` alone."""
    start = {**studio.defaults(), "prompt": prompt}
    recipe = studio.recipe({**start, **settings, "length": LENGTH})
    question = question if recipe.prompt == prompt else None
    halt = threading.Event()
    views = studio.steer(recipe, True, halt, question)
    *_, view = with_surprise(studio, recipe, True, views, halt)
    return {**view, "state": "stored"}


def cell_recipe(studio: Studio, recipe: Recipe, code: str, prompt: str, alpha: float) -> Recipe:
    """What the page runs for `prompt` where it has the steering of `recipe`, at this strength."""
    values = studio.values_of(replace(recipe, model=studio.choice.model, target=code))
    start = {**studio.defaults(), **values, "strength": alpha, "prompt": prompt}
    return studio.recipe({**start, "length": LENGTH})


def curves(
    studio: Studio, recipe: Recipe, code: str, vocabulary: Vocabulary, told: Callable[[], None]
) -> Data:
    """Over all strengths, steered and under random controls of the same numbers: the share of test
    questions answered rightly (`knows`), and the mean share of words in the prompt's language in
    stories told on from two words (`speaks`; a story that ends at once has none).

    Each as [share, low, high], the bounds at 95 %: Wilson's, and of a bootstrap over stories.
    `told` is called after every strength.
    """
    items = questions(code, QUESTIONS)
    begun = story_starts(code, STORIES, studio.lm.tokenizer)
    knows, speaks = [], []  # [strengths][plans][3]
    for alpha in STRENGTHS:
        plans = plans_at(studio, replace(recipe, alpha=alpha, target=code))
        asked = [item.text for item in items]
        said = write_answers(studio.lm, asked, plans, max_new_tokens=ANSWER)
        knows.append([_of_hits(_hits(row, items, code)) for row in said])
        written = write_answers(studio.lm, begun, plans, max_new_tokens=LENGTH)
        shares = ([vocabulary.share(text, code) for text in row] for row in written)
        speaks.append([_of_shares(row) for row in shares])
        told()
    return {
        "strengths": list(STRENGTHS),
        "knows": _by_line(knows),
        "speaks": _by_line(speaks),
    }


def questions(code: str, count: int) -> list[Prompt]:
    """The village's first test questions in a language."""
    return [item.render(Grammar.load(code)) for item in qa_items("test", count)]


def plans_at(studio: Studio, recipe: Recipe) -> list[Any]:
    """The plan of `recipe`, then those of its random controls."""
    selection = studio.selection(recipe)
    controls = [RandomControl(of=recipe.steering, seed=seed) for seed in range(CONTROLS)]
    methods = (recipe.steering, *controls)
    return [method.plan(studio.atlas, selection, recipe.target) for method in methods]


def choose_question(studio: Studio, recipe: Recipe, code: str, upto: float) -> Data:
    """Of the first test questions the one whose answer is right at most strengths from none to
    `upto`: one that shows what the curve of all questions says in the mean.

    Its story, its question and the asked-for words.
    """
    items = questions(code, CANDIDATES)
    strengths = [alpha for alpha in STRENGTHS if 0 <= alpha <= upto]
    selection = studio.selection(recipe)
    plans = [
        replace(recipe, alpha=alpha).steering.plan(studio.atlas, selection, code)
        for alpha in strengths
    ]
    said = write_answers(studio.lm, [item.text for item in items], plans, max_new_tokens=ANSWER)
    right = [sum(hits) for hits in zip(*(_hits(row, items, code) for row in said))]
    best = items[right.index(max(right))]
    story, ask = best.text.rstrip("\n").rsplit("\n", 1)
    number = items.index(best)
    others = [other for other in CODES if other != code]
    also = {other: questions(other, number + 1)[number].asked for other in others}
    return {"story": story, "ask": ask, "asked": best.asked, "also": also}


def choose_prompt(
    studio: Studio, recipe: Recipe, code: str, vocabulary: Vocabulary, upto: float
) -> str:
    """Of the language's beginnings of stories the one whose answer melts most at the strength
    `upto`, more than under the first random control: the share of words in other languages, in
    answers of `LEAST` words or more that are in the language unsteered. It shows the effect at its
    clearest; how often it is as clear, the curves tell."""
    ready = [text for text in studio.examples(code) if "\n" not in text]
    plans = plans_at(studio, replace(recipe, alpha=upto, target=code))[:2]
    written = write_answers(studio.lm, ready, [None, *plans], max_new_tokens=LENGTH)

    def melts(texts: tuple[str, ...]) -> float:
        alone, steered, control = (vocabulary.share(text, code) for text in texts)
        told = len(words(texts[0], code)) >= LEAST
        return control - steered if alone == 1 and told else -1.0

    scores = list(map(melts, zip(*written)))
    return ready[scores.index(max(scores))]


def helped(studio: Studio, code: str) -> Data | None:
    """What CLAS helps with at the setting that was measured best: of the test facts that every
    language tells, the first whose answer is wrong left alone and under a random control, and right
    steered, with what it means in the anchor's language (`asks`, `says`). `fixed` and `broken`: how
    many of them all it turns right and wrong, of `of`.

    None where there is none such.
    """
    facts = recall_items("test", FACTS, everywhere=True)
    items = [fact.render(Grammar.load(code)) for fact in facts]
    assert studio.suggested is not None
    plans = [None, *plans_at(studio, replace(studio.suggested, target=code))[:2]]
    said = write_answers(studio.lm, [item.text for item in items], plans, max_new_tokens=ANSWER)
    rows = [_hits(row, items, code) for row in said]
    shown = [steered > max(alone, control) for alone, steered, control in zip(*rows)]
    if not any(shown):
        return None
    chosen = items[shown.index(True)]
    means = facts[shown.index(True)].render(Grammar.load(anchor(studio.codes)))
    return {
        "prompt": chosen.text,
        "right": chosen.answer,
        "asks": " ".join(means.text.split()),
        "says": means.answer,
        "fixed": sum(alone < steered for alone, steered, _ in zip(*rows)),
        "broken": sum(alone > steered for alone, steered, _ in zip(*rows)),
        "of": len(items),
    }


def write_first_screen(path: Path = PATH, codes: Sequence[str] = CODES) -> None:
    """Write the first screen of the embedded model, and the layouts of its map, under assets."""
    studio = Studio.open(read_profile("local"), with_stored=False)
    recipe, vocabulary = first_recipe(studio.num_layers), village_vocabulary()
    found = {}
    with tqdm(total=len(codes) * len(STRENGTHS), desc="Curves", unit="strength") as bar:
        for code in codes:
            found[code] = curves(studio, recipe, code, vocabulary, lambda: bar.update() and None)
    index = {
        "opening": OPENING,
        "recipe": {name: getattr(recipe, name) for name in ("alpha", "beta", "gamma", "layers")},
        "counts": {"questions": QUESTIONS, "stories": STORIES, "controls": CONTROLS},
        "layers": [_rounded(*pair) for pair in studio.mapper.profile()],
        "curves": found,
        "vocabulary": vocabulary.as_dict(),
    }
    _write(path, index)
    studio.stored = stored = _opened(path)
    prompts = {}
    for code in codes:
        upto = stored.marks(code).melts or STRENGTHS[-1]
        prompts[code] = choose_prompt(studio, recipe, code, vocabulary, upto)
    shown = {code: one for code in codes if (one := helped(studio, code)) is not None}
    _write(path, {**index, "prompts": prompts, "helped": shown})
    studio.stored = stored = _opened(path)
    for code in tqdm(codes, desc="Answers", unit="language"):
        upto = stored.marks(code).melts or STRENGTHS[-1]
        asked = choose_question(studio, recipe, code, upto)
        _write(path.with_suffix("") / f"{code}.json", answers(studio, recipe, code, question=asked))
    studio.mapper.save_layouts()


def _opened(path: Path) -> Stored:
    """What is at `path`, but for the answers, which are still to be made."""
    prompts = json.loads(path.read_text("utf-8")).get("prompts", {})

    def answers_to_come(code: str) -> Data:
        return {"question": None, "cells": [], "prompt": prompts.get(code, "")}

    found = Stored.load(path, read=answers_to_come)
    assert found is not None  # just written
    return found


def _write(path: Path, data: Data) -> None:
    """As compact JSON, a cell or a curve a line."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for start in ('{"alpha"', '"curves"', '"vocabulary"', '"knows"', '"speaks"'):
        text = text.replace(start, f"\n{start}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        scratch.write_text(text + "\n", "utf-8")


def _hits(texts: Sequence[str], items: Sequence[Prompt], code: str) -> list[float]:
    return [contains(text, item.asked, code) for text, item in zip(texts, items)]


def _of_hits(hits: Sequence[float]) -> list[float]:
    result = binomtest(int(sum(hits)), len(hits))
    found = result.proportion_ci(method="wilson")
    return _rounded(result.statistic, found.low, found.high)


def _of_shares(shares: Sequence[float]) -> list[float]:
    drawn = np.random.default_rng(0).choice(np.asarray(shares), (2000, len(shares))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return _rounded(float(np.mean(shares)), low, high)


def _rounded(*values: float) -> list[float]:
    return [round(float(value), 4) for value in values]


def _by_line(rows: list[list[list[float]]]) -> Data:
    """Of [strengths][plans] the steered line and those of the controls."""
    steered, *controls = ([row[plan] for row in rows] for plan in range(1 + CONTROLS))
    return {"steered": steered, "controls": controls}
