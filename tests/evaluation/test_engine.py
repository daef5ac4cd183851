"""Every row's scores are what the model says when it is steered alone, item by item."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from chats import LLAMA3, chat_lm
from oracles import plain
from small_tasks import RECIPE, SmallTask

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.evaluation.judging.engine import (
    Column,
    Work,
    load_items,
    predict,
    reporting_columns,
    run,
    tuning_columns,
)
from clas_core.evaluation.judging.items import ChoiceItem, Chosen, Items, Test, Validation
from clas_core.evaluation.judging.prompting import Prompting
from clas_core.evaluation.judging.rows import UNSTEERED, Row, standard_rows, with_baselines
from clas_core.evaluation.tasks.parallel import Retrieval
from clas_core.model.prompts import render
from clas_core.running.answers import write_answers
from clas_core.running.generation import generate_batch
from clas_core.running.likelihood import tokenise
from clas_core.running.states import hidden_states
from clas_core.steering.recipe import Recipe
from clas_core.text.corpus import ParallelCorpus

ROWS = standard_rows(with_baselines(RECIPE), controls=2)
KINDS = ("choice", "generate", "text", "states")


@pytest.fixture(scope="module")
def atlas(tiny_lm, tiny_corpus):
    return Atlas.measure(tiny_lm, tiny_corpus)


def cells_of(lm, atlas, columns):
    return [cell for cells in run(lm, atlas, columns) for cell in cells]


def expected(lm, task, items, row, plan):
    """A row's predictions, one item after the other."""
    asked = [
        row.prefix(items.language) + items.prefix + getattr(i, "prompt", "") for i in items.items
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
def test_every_row_as_if_alone(tiny_lm, atlas, kind):
    task = SmallTask(kind, "A cat. " * 8 if kind in ("choice", "generate") else "")
    items = task.items("sw", Validation)
    (column,) = tuning_columns([(task, items)], ROWS)
    cells = cells_of(tiny_lm, atlas, [column])
    assert [cell.row for cell in cells[:: len(task.metrics)]] == [row.name for row in column.rows]
    for row in column.rows:
        wanted = task.score(items, expected(tiny_lm, task, items, row, row.plan(atlas, "sw")))
        found = [cell.scores for cell in cells if cell.row == row.name]
        for one, other in zip(found, wanted, strict=True):
            assert one.keys == items.keys
            assert one.values == pytest.approx(other.values, abs=1e-4)


def test_rows_differ_where_they_should(tiny_lm, atlas):
    task = SmallTask("choice")
    (column,) = tuning_columns([(task, task.items("sw", Validation))], ROWS)
    found = {
        c.row: c.scores.values
        for c in cells_of(tiny_lm, atlas, [column])
        if c.scores.metric == "log_p"
    }
    assert len(found) == len(ROWS)
    assert len(set(found.values())) >= len(ROWS) - 1  # one may find no neuron to steer


def test_the_anchor_is_steered_for_the_others(tiny_lm, atlas):
    """English items are dealt out to the plans for es, hi and sw; the scores are in item order."""
    task = SmallTask("text")
    loaded = load_items([task], Validation, None, None)
    rows = (Row("unsteered"), Row("IntMu", replace(RECIPE, method="IntMu", alpha=1.0)))
    columns = tuning_columns(loaded, rows)
    assert columns[0].items.language == "en"
    assert [work.target for work in columns[0].works] == ["es", "hi", "sw"]
    assert [len(work.items) for work in columns[0].works] == [2, 2, 2]
    steered = {c.row: c.scores for c in cells_of(tiny_lm, atlas, columns[:1])}["IntMu"]
    items = loaded[0][1]
    for k, item in enumerate(items.items):
        plan = rows[1].plan(atlas, ("es", "hi", "sw")[k % 3])
        question = tokenise(tiny_lm, "", [item.text])
        value = plain(tiny_lm, question.prompt, question.endings[0], plan)
        assert steered.values[k] == pytest.approx(
            -value / np.log(2) / len(item.text.encode()), abs=1e-4
        )


def test_states_are_merged_in_order(tiny_lm, atlas):
    task = SmallTask("states")
    loaded = load_items([task], Validation, ["en", "sw", "hi"], 5)
    found = cells_of(tiny_lm, atlas, tuning_columns(loaded, [Row("unsteered")]))
    assert [cell.scores.language for cell in found] == ["en", "hi", "sw"]
    wanted = hidden_states(tiny_lm, [item.text for item in loaded[0][1].items]).at(-1)
    assert found[0].scores.values == pytest.approx((wanted * wanted).sum(1).tolist(), rel=1e-4)


def test_asking_leaves_likelihood_of_text_alone(tiny_lm, atlas):
    rows = (Row("unsteered"), Row("asked", ask=True))
    loaded = [(task, task.items("sw", Validation)) for task in map(SmallTask, KINDS)]
    columns = tuning_columns(loaded, rows)
    assert [len(column.rows) for column in columns] == [2, 2, 1, 1]
    assert rows[1].prefix("sw") == "Answer in Swahili.\n"


def test_progress_counts_items(tiny_lm, atlas):
    tasks = [SmallTask("choice"), SmallTask("generate"), SmallTask("states")]
    columns = tuning_columns(load_items(tasks, Validation, ["en", "sw", "es"], 4), ROWS[:3])
    seen = []
    list(run(tiny_lm, atlas, columns, lambda *done: seen.append(done)))
    assert {total for _, total in seen} == {36}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (36, 36)


def test_test_items_take_chosen_settings_only(tiny_lm, atlas):
    task = SmallTask("choice")
    validation, test = task.items("sw", Validation), task.items("sw", Test)
    cells = cells_of(tiny_lm, atlas, tuning_columns([(task, validation)], [Row("CLAS", RECIPE)]))
    chosen = Chosen(RECIPE, tuple(cell.scores for cell in cells))
    (column,) = reporting_columns([(task, test)], [chosen], controls=1)
    assert [row.name for row in column.rows] == ["unsteered", "CLAS", "asked", "random 0"]
    with pytest.raises(ClasError, match="these are test items"):
        tuning_columns([(task, test)], ROWS)
    with pytest.raises(ClasError, match="these are validation items"):
        reporting_columns([(task, validation)], [chosen])
    with pytest.raises(ClasError, match="no setting to report on"):
        reporting_columns([(task, test)], [])
    same = Items(test.task, "sw", Test, validation.items)
    with pytest.raises(ClasError, match="chosen on 6 of the groups"):
        reporting_columns([(task, same)], [chosen])
    with pytest.raises(ClasError, match="CLAS: a setting is told of test items after"):
        Column(task, test, (Row("CLAS", RECIPE),))
    assert Column(task, test, (Row(UNSTEERED),)).works


def test_a_choice_among_whole_texts_is_no_chat(tiny_corpus):
    """As XNLI's, whose prompt is empty."""
    lm = chat_lm(LLAMA3)
    item = ChoiceItem("k", "k", "", ("a house", "the moon is"), 0)
    work = Work("choice", Items("t", "sw", Validation, (item,)), (Row("x"),), "sw", Prompting(True))
    (found,) = predict(lm, Atlas.measure(lm, tiny_corpus), work)
    alone = tokenise(lm, "", item.choices)
    assert found[0] == pytest.approx([plain(lm, alone.prompt, e, None) for e in alone.endings])


def test_a_task_may_lack_the_anchor():
    task = Retrieval(ParallelCorpus("x", {code: [f"{code} {k}" for k in range(40)]
                                          for code in ("en", "sw")}))  # fmt: skip
    found = load_items([task], Validation, ["en", "sw"], 2)
    assert [items.language for _, items in found] == ["sw"]


def test_names_are_told_apart():
    with pytest.raises(ClasError, match="Two rows are called 'CLAS'"):
        standard_rows([RECIPE, replace(RECIPE, alpha=1.0)])


def test_unknown_languages_are_refused():
    with pytest.raises(ClasError, match="No task has the language 'xx'"):
        load_items([SmallTask("text")], Validation, ["sw", "xx"], None)


def test_a_control_deals_the_same_numbers_to_other_neurons(atlas):
    row, control = Row("CLAS", RECIPE), Row("random 1", RECIPE, control=1)
    plan, dealt = row.plan(atlas, "sw"), control.plan(atlas, "sw")
    assert plan.layers.keys() == dealt.layers.keys()
    for index, layer in plan.layers.items():
        assert not torch.equal(layer.scale, dealt.layers[index].scale)
        assert torch.equal(layer.scale.sort().values, dealt.layers[index].scale.sort().values)


def test_one_work_alone(tiny_lm, atlas):
    """`predict` gives a prediction a row, in the order of the rows."""
    task = SmallTask("generate")
    (column,) = tuning_columns([(task, task.items("hi", Validation, 2))], ROWS[::-1])
    (work,) = column.works
    found = predict(tiny_lm, atlas, work)
    assert [len(texts) for texts in found] == [2] * len(ROWS)
    assert found[-1] == generate_batch(
        tiny_lm, [i.prompt for i in work.items.items], max_new_tokens=6, stop_at_newline=True
    )


@pytest.mark.parametrize("kind", ["choice", "generate"])
def test_a_chat_is_put_through_the_template(tiny_corpus, kind):
    """As one turn that holds examples, the sentence that asks, and the question."""
    lm = chat_lm(LLAMA3)
    atlas = Atlas.measure(lm, tiny_corpus)
    task = SmallTask(kind, "A cat. " * 8)
    loaded = load_items([task], Validation, ["sw"], 3)
    rows = [Row(UNSTEERED), Row("asked", ask=True)]
    prompting = Prompting.of(Recipe(model="x", chat="on", system="Be brief."), lm)
    (column,) = tuning_columns(loaded, rows, prompting=prompting)
    found = predict(lm, atlas, column.works[0])
    for row, predictions in zip(rows, found, strict=True):
        for item, said in zip(column.items.items, predictions, strict=True):
            text = row.prefix("sw") + task.prefix + item.prompt
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
