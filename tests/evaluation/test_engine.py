"""Every condition's scores are what the model says when it is steered alone, item by item."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from chats import LLAMA3, chat_lm
from oracles import plain
from small_tasks import RECIPE, SmallTask

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.conditions import (
    UNSTEERED,
    Condition,
    controls_of,
    own_controls,
    standard_conditions,
    with_baselines,
)
from clas_core.evaluation.judging.engine import (
    Job,
    TaskRun,
    load_items,
    predict,
    reporting_runs,
    run_tasks,
    tuning_runs,
)
from clas_core.evaluation.judging.items import ChoiceItem, Chosen, Items, OpenItem, Test, Validation
from clas_core.evaluation.judging.prompting import Prompting
from clas_core.evaluation.tasks.parallel import Retrieval
from clas_core.model.prompts import render
from clas_core.running.answers import generate_batch, write_answers
from clas_core.running.likelihood import tokenise
from clas_core.running.states import hidden_states
from clas_core.steering.recipe import Recipe
from clas_core.text.corpus import ParallelCorpus

CONDITIONS = standard_conditions(with_baselines(RECIPE), controls=2)
KINDS = ("choice", "generate", "text", "states")


@pytest.fixture(scope="module")
def atlas(tiny_lm, tiny_corpus):
    return Atlas.measure(tiny_lm, tiny_corpus)


def scores_of(lm, atlas, runs):
    return [one for found in run_tasks(lm, atlas, runs) for one in found]


def expected(lm, task, items, condition, plan):
    """A condition's predictions, one item after the other."""
    asked = [
        condition.prefix(items.language) + items.prefix + getattr(i, "prompt", "")
        for i in items.items
    ]
    if task.kind == "choice":
        questions = [tokenise(lm, text, item.choices) for text, item in zip(asked, items.items)]
        return [[plain(lm, q.prompt, e, plan) for e in q.endings] for q in questions]
    if task.kind == "generate":
        return generate_batch(lm, asked, plan, max_new_tokens=6, stop_at_newline=True)
    if task.kind == "text":
        questions = [tokenise(lm, "", [item.text]) for item in items.items]
        return [plain(lm, q.prompt, q.endings[0], plan) for q in questions]
    sides = ([getattr(item, side) for item in items.items] for side in ("text", "anchor"))
    return [hidden_states(lm, side, plan).at(-1).numpy() for side in sides]


@pytest.mark.parametrize("kind", KINDS)
def test_every_condition_as_if_alone(tiny_lm, atlas, kind):
    task = SmallTask(kind, "A cat. " * 8 if kind in ("choice", "generate") else "")
    items = task.items("sw", Validation)
    (run,) = tuning_runs([(task, items)], CONDITIONS)
    every = scores_of(tiny_lm, atlas, [run])
    assert [one.condition for one in every[:: len(task.metrics)]] == [
        condition.name for condition in run.conditions
    ]
    for condition in run.conditions:
        wanted = task.score(
            items, expected(tiny_lm, task, items, condition, condition.plan(atlas, "sw"))
        )
        found = [one.scores for one in every if one.condition == condition.name]
        for one, other in zip(found, wanted, strict=True):
            assert one.keys == items.keys
            assert one.values == pytest.approx(other.values, abs=1e-4)


def test_conditions_differ_where_they_should(tiny_lm, atlas):
    task = SmallTask("choice")
    (run,) = tuning_runs([(task, task.items("sw", Validation))], CONDITIONS)
    found = {
        c.condition: c.scores.values
        for c in scores_of(tiny_lm, atlas, [run])
        if c.scores.metric == "log_p"
    }
    assert len(found) == len(CONDITIONS)
    assert len(set(found.values())) >= len(CONDITIONS) - 1  # one may find no neuron to steer


def test_the_anchor_is_steered_for_the_others(tiny_lm, atlas):
    """English items are dealt out to the plans for es, hi and sw; the scores are in item order."""
    task = SmallTask("text")
    loaded = load_items([task], Validation, None, None)
    conditions = (
        Condition("unsteered"),
        Condition("IntMu", replace(RECIPE, method="IntMu", alpha=1.0)),
    )
    runs = tuning_runs(loaded, conditions)
    assert runs[0].items.language == "en"
    assert [job.target for job in runs[0].jobs] == ["es", "hi", "sw"]
    assert [len(job.items) for job in runs[0].jobs] == [2, 2, 2]
    steered = {c.condition: c.scores for c in scores_of(tiny_lm, atlas, runs[:1])}["IntMu"]
    items = loaded[0][1]
    for k, item in enumerate(items.items):
        plan = conditions[1].plan(atlas, ("es", "hi", "sw")[k % 3])
        question = tokenise(tiny_lm, "", [item.text])
        value = plain(tiny_lm, question.prompt, question.endings[0], plan)
        assert steered.values[k] == pytest.approx(
            -value / np.log(2) / len(item.text.encode()), abs=1e-4
        )


def test_states_are_merged_in_order(tiny_lm, atlas):
    task = SmallTask("states")
    loaded = load_items([task], Validation, ["en", "sw", "hi"], 5)
    found = scores_of(tiny_lm, atlas, tuning_runs(loaded, [Condition("unsteered")]))
    assert [one.scores.language for one in found] == ["en", "hi", "sw"]
    wanted = hidden_states(tiny_lm, [item.text for item in loaded[0][1].items]).at(-1)
    assert found[0].scores.values == pytest.approx((wanted * wanted).sum(1).tolist(), rel=1e-4)


def test_asking_leaves_likelihood_of_text_alone(tiny_lm, atlas):
    conditions = (Condition("unsteered"), Condition("asked", ask=True))
    loaded = [(task, task.items("sw", Validation)) for task in map(SmallTask, KINDS)]
    runs = tuning_runs(loaded, conditions)
    assert [len(run.conditions) for run in runs] == [2, 2, 1, 1]
    assert conditions[1].prefix("sw") == "Answer in Swahili.\n"


def test_progress_counts_items(tiny_lm, atlas):
    tasks = [SmallTask("choice"), SmallTask("generate"), SmallTask("states")]
    runs = tuning_runs(load_items(tasks, Validation, ["en", "sw", "es"], 4), CONDITIONS[:3])
    seen = []
    list(run_tasks(tiny_lm, atlas, runs, lambda *done: seen.append(done)))
    assert {total for _, total in seen} == {36}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (36, 36)


def test_test_items_take_chosen_settings_only(tiny_lm, atlas):
    task = SmallTask("choice")
    validation, test = task.items("sw", Validation), task.items("sw", Test)
    found = scores_of(
        tiny_lm, atlas, tuning_runs([(task, validation)], [Condition("CLAS", RECIPE)])
    )
    chosen = Chosen(RECIPE, tuple(one.scores for one in found))
    (run,) = reporting_runs([(task, test)], [chosen], controls=1)
    assert [condition.name for condition in run.conditions] == [
        "unsteered",
        "CLAS",
        "asked",
        "random control 0",
    ]
    with pytest.raises(ClasError, match="these are test items"):
        tuning_runs([(task, test)], CONDITIONS)
    with pytest.raises(ClasError, match="these are validation items"):
        reporting_runs([(task, validation)], [chosen])
    with pytest.raises(ClasError, match="no setting to report on"):
        reporting_runs([(task, test)], [])
    same = Items(test.task, "sw", Test, validation.items)
    with pytest.raises(ClasError, match="chosen on 6 of the groups"):
        reporting_runs([(task, same)], [chosen])
    with pytest.raises(ClasError, match="CLAS: a setting is told of test items after"):
        TaskRun(task, test, (Condition("CLAS", RECIPE),))
    assert TaskRun(task, test, (Condition(UNSTEERED),)).jobs


@pytest.mark.parametrize("chat", [False, True])
def test_examples_are_turns_of_a_chat_and_text_before_a_plain_prompt(tiny_corpus, chat):
    lm = chat_lm(LLAMA3)
    item = OpenItem("k", "k", "the house is", ("red",), 6)
    solved = (("the moon is", " on the hill"), ("a cat is", " here"))
    items = Items("t", "en", Validation, (item,), examples=solved)
    asked = Condition("asked", ask=True)
    job = Job("generate", items, (Condition("x"), asked), "en", Prompting(chat))
    found = predict(lm, Atlas.measure(lm, tiny_corpus), job)
    for prefix, (said,) in zip(("", "Answer in English.\n"), found, strict=True):
        text = f"{prefix}the moon is on the hill\n\na cat is here\n\nthe house is"
        turns = [(prompt, answer.strip()) for prompt, answer in solved]
        prompt = render(lm, f"{prefix}the house is", chat="on", examples=turns) if chat else text
        assert [said] == generate_batch(lm, [prompt], max_new_tokens=6, stop_at_newline=True)


def test_a_choice_among_whole_texts_is_no_chat(tiny_corpus):
    """As XNLI's, whose prompt is empty."""
    lm = chat_lm(LLAMA3)
    item = ChoiceItem("k", "k", "", ("a house", "the moon is"), 0)
    job = Job(
        "choice", Items("t", "sw", Validation, (item,)), (Condition("x"),), "sw", Prompting(True)
    )
    (found,) = predict(lm, Atlas.measure(lm, tiny_corpus), job)
    alone = tokenise(lm, "", item.choices)
    assert found[0] == pytest.approx([plain(lm, alone.prompt, e, None) for e in alone.endings])


def test_a_task_may_lack_the_anchor():
    task = Retrieval(ParallelCorpus("x", {code: [f"{code} {k}" for k in range(40)]
                                          for code in ("en", "sw")}))  # fmt: skip
    found = load_items([task], Validation, ["en", "sw"], 2)
    assert [items.language for _, items in found] == ["sw"]


def test_each_method_has_controls_of_its_own():
    """Named after it, of its recipe; those named after nobody stand for any other."""
    first, *others = with_baselines(RECIPE)
    of_first = [one.name for one in standard_conditions([first, *others], 1)]
    assert controls_of("IntMu", of_first) == ["random control 0"]
    own = own_controls(others, 2)
    assert all(one.recipe is not None and one.recipe.method in one.name for one in own)
    names = of_first + [one.name for one in own]
    assert controls_of("IntMu", names) == ["random control 0 of IntMu", "random control 1 of IntMu"]
    assert controls_of("CLAS", names) == ["random control 0"]


def test_names_are_told_apart():
    with pytest.raises(ClasError, match="Two of these recipes are of CLAS"):
        standard_conditions([RECIPE, replace(RECIPE, alpha=1.0)])
    with pytest.raises(ClasError, match="Two conditions are called 'x'"):
        tuning_runs([], [Condition("x"), Condition("x", RECIPE)])


def test_a_language_is_named_in_any_spelling():
    found = load_items([SmallTask("text")], Validation, ["swh_Latn", "eng"], 2)
    assert [items.language for _, items in found] == ["en", "sw"]
    with pytest.raises(ClasError, match="No task has the language 'es-MX'"):
        load_items([SmallTask("text")], Validation, ["es-MX"], None)


def test_unknown_languages_are_refused():
    with pytest.raises(ClasError, match="No task has the language 'xx'"):
        load_items([SmallTask("text")], Validation, ["sw", "xx"], None)


def test_a_control_acts_where_the_recipe_does(atlas):
    recipe = replace(RECIPE, where="answer")
    for seed in (None, 1):
        assert Condition("x", recipe, control=seed).plan(atlas, "sw").where == "answer"


def test_a_control_deals_the_same_numbers_to_other_neurons(atlas):
    condition, control = Condition("CLAS", RECIPE), Condition("random control 1", RECIPE, control=1)
    plan, dealt = condition.plan(atlas, "sw"), control.plan(atlas, "sw")
    assert plan.layers.keys() == dealt.layers.keys()
    for index, layer in plan.layers.items():
        assert not torch.equal(layer.scale, dealt.layers[index].scale)
        assert torch.equal(layer.scale.sort().values, dealt.layers[index].scale.sort().values)


def test_one_work_alone(tiny_lm, atlas):
    """`predict` gives a prediction a condition, in the order of the conditions."""
    task = SmallTask("generate")
    (run,) = tuning_runs([(task, task.items("hi", Validation, 2))], CONDITIONS[::-1])
    (job,) = run.jobs
    found = predict(tiny_lm, atlas, job)
    assert [len(texts) for texts in found] == [2] * len(CONDITIONS)
    assert found[-1] == generate_batch(
        tiny_lm, [i.prompt for i in job.items.items], max_new_tokens=6, stop_at_newline=True
    )


@pytest.mark.parametrize("kind", ["choice", "generate"])
def test_a_chat_is_put_through_the_template(tiny_corpus, kind):
    """As one turn that holds examples, the sentence that asks, and the question."""
    lm = chat_lm(LLAMA3)
    atlas = Atlas.measure(lm, tiny_corpus)
    task = SmallTask(kind, "A cat. " * 8)
    loaded = load_items([task], Validation, ["sw"], 3)
    conditions = [Condition(UNSTEERED), Condition("asked", ask=True)]
    prompting = Prompting.of(Recipe(model="x", chat="on", system="Be brief."), lm)
    (run,) = tuning_runs(loaded, conditions, prompting=prompting)
    found = predict(lm, atlas, run.jobs[0])
    for condition, predictions in zip(conditions, found, strict=True):
        for item, said in zip(run.items.items, predictions, strict=True):
            text = condition.prefix("sw") + task.prefix + item.prompt
            prompt = render(lm, text, chat="on", system="Be brief.")
            assert "Be brief." in prompt.text
            if kind == "generate":
                (alone,) = write_answers(lm, [prompt], max_new_tokens=6)
                assert said == alone[0]
                continue
            endings = [lm.tokenizer(c.lstrip(), add_special_tokens=False) for c in item.choices]
            alone = [plain(lm, prompt.token_ids, tuple(e["input_ids"]), None) for e in endings]
            assert said == pytest.approx(alone, abs=1e-4)


def test_only_models_tuned_to_chat_are_chatted_with():
    assert Prompting.of(Recipe(), chat_lm(LLAMA3)).chat
    assert not Prompting.of(Recipe(), chat_lm(LLAMA3, tuned=False)).chat
    assert not Prompting.of(Recipe(chat="off"), chat_lm(LLAMA3)).chat
