"""Forcing: is what was written in the language, and any good?"""

import math
import random

import pytest
from tiny import SENTENCES

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.comparison import compare
from clas_core.evaluation.judging.conditions import Condition, standard_conditions
from clas_core.evaluation.judging.engine import (
    Job,
    load_items,
    predict,
    run_tasks,
    tuning_runs,
)
from clas_core.evaluation.judging.items import Items, StartItem, Test, Validation, Written
from clas_core.evaluation.judging.results import Results, describe
from clas_core.evaluation.judging.sweep import grid, summarise, sweep_runs
from clas_core.evaluation.tasks import open_task
from clas_core.evaluation.tasks.forcing import (
    Forcing,
    VillageForcing,
    different_pairs,
    is_broken,
    likelihood_share,
    parsed_share,
)
from clas_core.evaluation.telling.figures import gains_figure, sweep_heatmap
from clas_core.evaluation.telling.report import write_report
from clas_core.evaluation.telling.tables import to_csv, to_latex, to_text
from clas_core.model.prompts import Rendered, end_ids
from clas_core.running.answers import write_answers
from clas_core.running.generation import generate
from clas_core.running.likelihood import log_likelihoods, tokenise
from clas_core.steering.recipe import Recipe
from clas_core.text.corpus import ParallelCorpus
from clas_core.village.grammar import CODES, Grammar
from clas_core.village.tasks import render_story
from clas_core.village.world import stories

RECIPE = Recipe(method="DiffMean", alpha=3.0, source="en", layers=(1, 2))


@pytest.fixture(scope="module")
def atlas(tiny_lm, tiny_corpus):
    return Atlas.measure(tiny_lm, tiny_corpus)


@pytest.fixture(scope="module")
def task(tiny_corpus):
    return Forcing(tiny_corpus, max_new_tokens=6)


def told(code, seed=3):
    (story,) = stories(seed, "test", 1)
    return render_story(story, Grammar.load(code), random.Random(0))


# -- what has no quality ---------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "  ", "...", "\u200b"])
def test_an_empty_output_is_broken(text):
    assert is_broken(text, "es")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("de la escuela de la escuela de la escuela de la escuela", "es"),
        ("very very very very very", "en"),
        ("我们我们我们我们我们", "zh"),
        ("çok güzel. Çocuklar çok güzel. Çocuklar çok güzel. Çocuklar çok", "tr"),
    ],
)
def test_a_loop_is_broken(text, code):
    assert is_broken(text, code)


def test_the_prompt_again_is_broken():
    assert is_broken("Tom goes, Tom goes.", "en", "Tom goes")
    assert not is_broken("Tom goes home.", "en", "Tom goes")


def test_unreadable_bytes_are_broken():
    assert is_broken("El gato \ufffd duerme", "es")


@pytest.mark.parametrize("code", CODES)
def test_stories_are_whole(code):
    for seed in range(20):
        text = told(code, seed)
        assert not is_broken(text, code, "Tom goes")
        assert parsed_share(text, code) == 1
        # Cut anywhere, all that was finished still parses.
        assert parsed_share(text[: len(text) * 2 // 3], code) in (0, 1)


def test_pairs_of_words():
    assert different_pairs("a b c a b", "en") == 3 / 4
    assert different_pairs("a", "en") == different_pairs("", "en") == 1


# -- the village -----------------------------------------------------------------------------
def judge(task, code, texts, prompt="Tom goes"):
    item = [StartItem(str(k), str(k), prompt, (), 9) for k in range(len(texts))]
    items = Items(task.name, code, Validation, tuple(item))
    return [list(values) for values in task.judge(items, [Written(text) for text in texts])]


def test_village_texts_are_scored_by_grammar_and_words():
    task = open_task("village-forcing")
    good, english = "va a la escuela. " + told("es"), told("en")
    first, *rest = told("es").split(". ")
    spoilt = ". ".join([first, "Tom tom el la", *rest])
    both, spoken, quality = judge(task, "es", [good, english, spoilt, "", "va va va va va va."])
    assert spoken[:4] == [1, 0, 1, 0]
    assert quality[0] == both[0] == 1
    assert quality[1] == both[1] == 0  # quality is judged in the language that is wanted
    assert 0 < quality[2] < 1
    assert both[2] == pytest.approx(2 * quality[2] / (1 + quality[2]))
    assert quality[3:] == both[3:] == [0, 0]


def test_without_a_prompt_the_first_sentence_counts():
    task, text = open_task("village-from-nothing"), "Tom tom el. " + told("es")
    with_prompt, without = judge(task, "es", [text])[2], judge(task, "es", [text], "")[2]
    assert with_prompt == [1]
    assert 0 < without[0] < 1


def test_village_prompts_are_different_words_of_the_source():
    task = VillageForcing(source="es")
    assert task.languages == tuple(code for code in CODES if code != "es")
    starts = [item.prompt for item in task.items("en", Test).of(StartItem)]
    assert len(starts) == len(set(starts)) > 30
    assert all(len(start.split(" ")) == 2 for start in starts)
    with pytest.raises(ClasError, match="first two words in 'th'"):
        VillageForcing(source="th")


# -- any model -------------------------------------------------------------------------------
def test_prompts_are_the_beginnings_of_the_source(task):
    assert task.languages == ("es", "hi", "sw")
    for item in task.items("sw", Test).of(StartItem):
        number = SENTENCES["sw"].index(item.real)
        assert SENTENCES["en"][number].startswith(item.prompt)
        assert 1 <= len(item.prompt.split()) <= 3
        assert item.before in SENTENCES["sw"]
        assert item.before != item.real
    with pytest.raises(ClasError, match="starts from texts in 'tr'"):
        Forcing(task.corpus, source="tr")


def test_likelihood_is_the_unsteered_models_after_a_text_of_the_language(tiny_lm, atlas, task):
    items = task.items("sw", Test)
    job = Job(task.kind, items, standard_conditions([RECIPE], 1), "sw")
    prompts = [item.prompt for item in items.of(StartItem)]
    plan = RECIPE.build(atlas)
    plain, steered, *_ = predict(tiny_lm, atlas, job)
    texts = write_answers(tiny_lm, prompts, [None, plan], max_new_tokens=6)
    for found, written in zip((plain, steered), texts):
        assert [said.text for said in found] == [text.strip() for text in written]
        for item, said in zip(items.of(StartItem), found):
            pair = [tokenise(tiny_lm, item.before + "\n", [x]) for x in (said.text, item.real)]
            likely = [scores[0] for scores in log_likelihoods(tiny_lm, pair)[0]]
            assert [said.log_p, said.real_log_p] == pytest.approx(likely, rel=1e-4)
    assert texts[0] != texts[1]


def test_quality_is_a_share_of_real_text():
    item = StartItem("0", "0", "x", (), 9, before="b", real="0123456789")
    assert likelihood_share(item, Written("01234", -10.0, -10.0)) == 0.5
    assert likelihood_share(item, Written("01234", -1.0, -10.0)) == 1
    assert likelihood_share(item, Written("")) == 0
    assert likelihood_share(item, Written("0", -math.inf, -10.0)) == 0


def test_any_text_is_scored_by_detection_likelihood_and_words():
    names = ("Tom", "Ana", "Leo", "Nina", "Sara", "Omar", "Lena", "Maya", "Juma")
    english, spanish = (
        [f"{name} {rest}" for name in names] for rest in ("is at home today.", "está en casa hoy.")
    )
    task = Forcing(ParallelCorpus("little", {"en": english, "es": spanish}))
    (item,) = task.items("es", Test, 1).of(StartItem)
    items = Items(task.name, "es", Test, (item,))
    spanish = "va a la escuela con su madre y juega en el jardín"
    english = "goes to the school with his mother and plays in the garden"
    size = len(item.real.encode())

    def score(text, nats_a_byte):
        said = Written(text, -nats_a_byte * len(text.encode()), -1.0 * size)
        return [values[0] for values in task.judge(items, [said])]

    assert score(spanish, 1.0) == [1, 1, 1]
    assert score(spanish, 4.0) == [0.4, 1, 0.25]
    assert score(english, 1.0) == [0, 0, 1]
    assert score("", 1.0) == [0, 0, 0]
    assert score("va a la va a la va a la va a la", 0.1) == [0, 0, 0]


def test_samples_are_those_of_generate(tiny_lm, atlas, tiny_corpus):
    """From the mark that begins a text, a seed an item; the sentence that asks goes before."""
    task = Forcing(tiny_corpus, "from-nothing", nothing=True, max_new_tokens=6)
    items = task.items("sw", Test, 2)
    rows = (Condition("unsteered"), Condition("steered", RECIPE), Condition("asked", ask=True))
    plain, steered, asked = predict(tiny_lm, atlas, Job(task.kind, items, rows, "sw"))
    assert [item.seed for item in items.of(StartItem)] == [1, 3]
    begin = Rendered("", (tiny_lm.tokenizer.bos_token_id,), False, end_ids(tiny_lm))
    for found, prompt in ((plain, begin), (asked, "Answer in Swahili.\n")):
        for said, seed in zip(found, (1, 3)):
            settings = {"max_new_tokens": 6, "temperature": 0.7, "seed": seed}
            *_, last = generate(tiny_lm, prompt, stop_at_newline=True, **settings)
            assert said.text == last.texts[0].strip()
    assert plain != steered


def test_it_is_told_like_every_other_task(tiny_lm, atlas, task, tmp_path):
    """Conditions, controls, sweep, tables, heatmap and report."""
    loaded = load_items([task], Validation, None, None)
    conditions = standard_conditions([RECIPE], 2)
    runs = tuning_runs(loaded, conditions)
    scores = [one for some in run_tasks(tiny_lm, atlas, runs) for one in some]
    results = Results(tuple(scores), describe(tiny_lm, atlas, Validation, runs))
    found = compare(results)
    assert found.measures[0] == ("forcing", "forcing")
    names = ("DiffMean", "asked", "random control 0", "random control 1")
    assert found.conditions == names
    assert ("DiffMean", "forcing", "forcing") in found.control_wins
    settings = grid(RECIPE, {"alpha": [1.0, 3.0], "source": ["en", "others"]})
    runs = sweep_runs(loaded, settings)
    scores = [one for some in run_tasks(tiny_lm, atlas, runs) for one in some]
    about = describe(tiny_lm, atlas, Validation, runs)
    swept = summarise(Results(tuple(scores), about), settings, num_layers=tiny_lm.num_layers)
    assert [one.name for one in swept.tried][1] == "alpha=1 source=others"
    for text in (to_text(found, "forcing", "language"), to_csv(found), to_latex(found)):
        assert "language" in text
    assert gains_figure(found, "forcing", "forcing").data
    assert sweep_heatmap(swept, tiny_lm.num_layers).data
    write_report(tmp_path / "report.html", found, [], (swept, tiny_lm.num_layers))
    assert "forcing" in (tmp_path / "report.html").read_text("utf-8")
