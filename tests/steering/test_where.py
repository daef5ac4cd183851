"""Which positions a plan for a part of a text really steers, however the text reaches the model."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from oracles import make_plan
from tiny import tiny_model

from clas_core.errors import ClasError
from clas_core.model.loading import load
from clas_core.running import branches
from clas_core.running.answers import write_answers
from clas_core.running.branches import Branches
from clas_core.running.effects import compare
from clas_core.running.generation import generate
from clas_core.running.likelihood import Question, log_likelihoods
from clas_core.running.states import hidden_states
from clas_core.steering.baking import bake
from clas_core.steering.control_vectors import write_control_vector
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered
from clas_core.steering.where import check_where, steered_tokens

WHERES = ("all", "prompt", "answer", "answer:3")
PROMPTS = ("Who", "It rains in the old house. Two birds", "The cat sleeps", "Ana anampa Tom")
LAYER = 1


def wish(where: str, prompt: int, total: int) -> list[bool]:
    """Token by token, of a text of `total` tokens that are read."""
    found = []
    for position in range(total):
        predicts = position - prompt + 2  # the answer's first token is 1
        start = {"answer": 1, "answer:3": 3}.get(where)
        found.append(where == "all" or (predicts < 1 if start is None else predicts >= start))
    return found


class Record:
    """Of each forward, where the input of a down-projection left it changed: [rows, tokens]."""

    def __init__(self) -> None:
        self.steered: list[torch.Tensor] = []

    @property
    def columns(self) -> torch.Tensor:
        return torch.cat(self.steered, dim=1)


@contextmanager
def recorded(lm):
    """Looked at from outside: by hooks before and behind all that the library does."""
    record, before = Record(), []
    down = lm.mlps[LAYER].down
    first = down.register_forward_pre_hook(
        lambda _, args: before.append(args[0].clone()), prepend=True
    )
    last = down.register_forward_pre_hook(
        lambda _, args: record.steered.append((args[0] != before.pop()).any(-1))
    )
    try:
        yield record
    finally:
        first.remove()
        last.remove()


def strong_plan(lm, seed: int = 0) -> SteeringPlan:
    return make_plan(lm, LAYER, seed)


def final(steps):
    *_, step = steps
    return step


# The rule


@pytest.mark.parametrize("where", WHERES)
def test_the_rule_by_hand(where) -> None:
    assert list(steered_tokens(where, 3, 4)) == wish(where, 3, 7)


def test_every_token_is_prompts_or_answers() -> None:
    prompt, answer = steered_tokens("prompt", 4, 3), steered_tokens("answer", 4, 3)
    assert prompt == (True, True, True, False, False, False, False)
    assert all(a != b for a, b in zip(prompt, answer))
    assert steered_tokens("answer:1", 1, 2) == steered_tokens("answer", 1, 2) == (True,) * 3


def test_other_parts_get_a_sentence() -> None:
    assert check_where("answer:1") == "answer"
    assert check_where("answer:03") == "answer:3"
    for wrong in ("", "question", "answer:", "answer:0", "answer:-1", "answer:1.5", "Answer", 3):
        with pytest.raises(ClasError, match="where must be all, prompt, answer, or answer:3"):
            check_where(wrong)


# What is steered


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rows_with_prompts_plans_and_wheres_of_their_own(any_lm, temperature) -> None:
    """Left-padded, with a cache, one token after another."""
    plans = [strong_plan(any_lm, seed) for seed in range(4)]
    with recorded(any_lm) as record:
        step = final(
            generate(
                any_lm, PROMPTS, plans, where=WHERES, max_new_tokens=6, temperature=temperature
            )
        )
    lengths = [len(ids) for ids in step.prompt_ids]
    width = max(lengths)
    assert len(set(lengths)) > 2
    for row, (where, length) in enumerate(zip(WHERES, lengths)):
        total = length + len(step.token_ids[row]) - 1  # the last is never read
        read = record.columns[row, width - length :][:total].tolist()
        assert read == wish(where, length, total), where
        assert read == list(steered_tokens(where, length, len(step.token_ids[row])))[:-1]


@pytest.mark.parametrize("where", WHERES)
def test_greedy_answers_are_those_of_whole_forwards(any_lm, where) -> None:
    """Without any cache, the whole text again for each token, and steered by hand."""
    plan = strong_plan(any_lm)
    layer = plan.layers[LAYER]
    ids = any_lm.encode([PROMPTS[2]]).input_ids
    prompt = ids.shape[1]

    def by_hand(_, args):
        at = torch.tensor(wish(where, prompt, args[0].shape[1]))[:, None]
        return (torch.where(at, args[0] * layer.scale, args[0]),)

    def shift(_, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        at = torch.tensor(wish(where, prompt, hidden.shape[1]))[:, None]
        hidden = torch.where(at, hidden + layer.shift, hidden)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handles = [
        any_lm.mlps[LAYER].down.register_forward_pre_hook(by_hand),
        any_lm.blocks[LAYER].register_forward_hook(shift),
    ]
    for _ in range(8):
        with torch.no_grad():
            token = any_lm.model(ids).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, token], dim=1)
    for handle in handles:
        handle.remove()
    step = final(generate(any_lm, PROMPTS[2], [plan], where=where, max_new_tokens=8))
    assert list(step.token_ids[0]) == ids[0, prompt : prompt + len(step.token_ids[0])].tolist()
    # A plan's own place is the same thing.
    own = final(generate(any_lm, PROMPTS[2], [plan.at(where), None], max_new_tokens=8))
    assert own.token_ids[0] == step.token_ids[0]


@pytest.mark.parametrize("where", ["prompt", "answer", "answer:3"])
def test_transformers_own_generate_inside_steered(any_lm, where) -> None:
    plan = strong_plan(any_lm).at(where)
    batch = any_lm.encode(PROMPTS[:2], "left")
    width = batch.input_ids.shape[1]
    with torch.no_grad(), recorded(any_lm) as record, steered(any_lm, plan, prompt=width):
        out = any_lm.model.generate(
            **batch.inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False
        )
    assert out.shape[1] == width + 5
    for row, mask in enumerate(batch.attention_mask):
        length = int(mask.sum())
        assert record.columns[row, width - length :].tolist() == wish(where, length, length + 4)


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "qwen3_5_text", "gemma3_text"])
def test_other_architectures(family, tokenizer) -> None:
    """Routed experts, linear attention, sliding windows: each row as it is alone."""
    lm = load(tiny_model(family), tokenizer)
    plans = [strong_plan(lm, seed).at(where) for seed, where in enumerate(WHERES)]
    together = final(generate(lm, PROMPTS, plans, max_new_tokens=6))
    for row, (prompt, plan) in enumerate(zip(PROMPTS, plans)):
        ids = lm.encode([prompt]).input_ids
        for token in together.token_ids[row]:
            with torch.no_grad(), steered(lm, plan, prompt=len(together.prompt_ids[row])):
                logits = lm.model(ids, use_cache=False).logits[0, -1]
            assert logits[token] >= logits.max() - 1e-4
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    assert len(set(together.token_ids)) > 1


@pytest.mark.parametrize("whole", [False, True])
def test_evaluation_reads_as_a_plain_forward_does(tiny_lm, whole, monkeypatch) -> None:
    """Of many prompts at once: a beginning that all share, endings that begin alike, padding."""
    monkeypatch.setattr(branches, "reruns", lambda lm: not whole)
    plans = [None, *(strong_plan(tiny_lm, seed).at(where) for seed, where in enumerate(WHERES))]
    few_shot = tuple(range(5, 25))
    questions = [
        Question((1, *few_shot, 50), ((60, 61, 62), (60, 61, 63, 64))),
        Question((1, *few_shot, 51, 52, 53), ((70,), (71, 72))),
        Question((1, *few_shot, 54, 55), ((80, 81), (80, 82))),
        Question((1, *few_shot, 56), ((90, 91, 92, 93, 94), (95, 96))),
    ]
    found = log_likelihoods(tiny_lm, questions, plans)
    for plan, scores in zip(plans, found):
        for question, of_question in zip(questions, scores):
            for ending, score in zip(question.endings, of_question):
                ids = torch.tensor([[*question.prompt, *ending]])
                prompt = len(question.prompt)
                with torch.no_grad(), steered(tiny_lm, plan, prompt=prompt):
                    log_p = tiny_lm.model(ids).logits[0].log_softmax(-1)
                wanted = sum(log_p[prompt - 1 + k, token] for k, token in enumerate(ending))
                assert score == pytest.approx(float(wanted), abs=1e-4)
    written = write_answers(tiny_lm, PROMPTS, plans, max_new_tokens=6, stop_at_newline=False)
    for plan, texts in zip(plans, written):
        alone = [final(generate(tiny_lm, p, [plan], max_new_tokens=6)).texts[0] for p in PROMPTS]
        assert texts == alone


@pytest.mark.parametrize("where", WHERES)
def test_texts_that_are_moved_keep_their_places(tiny_lm, where) -> None:
    """A prompt of three tokens and one of an answer, moved to the right, and read on."""
    plan = strong_plan(tiny_lm).at(where)
    read = Branches(tiny_lm, [plan])
    read.read(torch.tensor([[1, 50, 51, 52]]), torch.ones(1, 4).long(), torch.tensor([3]))
    moved = read.select(torch.tensor([0, 0]), torch.tensor([0, 2]))
    ids, mask = torch.tensor([[53, 54, 0, 0], [51, 52, 53, 54]]), torch.ones(2, 4).long()
    mask[0, 2:] = 0
    (found,) = moved.read(ids, mask)
    with torch.no_grad(), steered(tiny_lm, plan, prompt=3):
        wanted = tiny_lm.model(torch.tensor([[1, 50, 51, 52, 53, 54]])).logits[0, -1]
    for state in (found[0, 1], found[1, 3]):
        got = next(branches.logits(tiny_lm, state[None]))[0]
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_effects_begin_where_the_plan_does(tiny_lm) -> None:
    plan = strong_plan(tiny_lm).at("answer:3")
    step = final(generate(tiny_lm, PROMPTS[2], [None, plan], max_new_tokens=6))
    kl = compare(tiny_lm, PROMPTS[2], *step.token_ids, plan).kl
    assert not kl[:2].any()
    assert (kl[2:] > 0).all()


def test_nested_contexts_keep_each_its_place(tiny_lm) -> None:
    first, second = strong_plan(tiny_lm, 0), strong_plan(tiny_lm, 1)
    ids = tiny_lm.encode([PROMPTS[1]]).input_ids

    def logits(*contexts) -> torch.Tensor:
        with torch.no_grad():
            for context in contexts:
                context.__enter__()
            found = tiny_lm.model(ids).logits
            for context in reversed(contexts):
                context.__exit__(None, None, None)
        return found

    split = logits(
        steered(tiny_lm, first, where="prompt", prompt=4),
        steered(tiny_lm, first, where="answer", prompt=4),
    )
    torch.testing.assert_close(split, logits(steered(tiny_lm, first)))
    mixed = logits(steered(tiny_lm, first, where="prompt", prompt=4), steered(tiny_lm, second))
    assert not torch.allclose(mixed, logits(steered(tiny_lm, second @ first)))


# The plan


def test_a_plan_keeps_its_place(tmp_path) -> None:
    plan = SteeringPlan({1: LayerPlan(shift=torch.ones(4))}, "test", "answer:3")
    assert (plan * 0.5).where == "answer:3"
    assert plan.at("answer:3") is plan
    assert plan.at("prompt").where == "prompt"
    assert (plan @ SteeringPlan.identity()).where == "answer:3"
    assert (SteeringPlan.identity() @ plan).where == "answer:3"
    assert (plan @ plan).where == "answer:3"
    with pytest.raises(ClasError, match="one inside the other"):
        plan @ plan.at("all")
    plan.save(tmp_path / "plan")
    assert SteeringPlan.load(tmp_path / "plan").where == "answer:3"
    plan.at("all").save(tmp_path / "plan")
    assert SteeringPlan.load(tmp_path / "plan").where == "all"
    with pytest.raises(ClasError, match="where must be"):
        plan.at("question")


def test_what_has_no_prompt_says_so(tiny_lm, tmp_path) -> None:
    plan = strong_plan(tiny_lm).at("answer")
    with pytest.raises(ClasError, match=r"acts on a part of a text \(answer\)"):
        hidden_states(tiny_lm, PROMPTS, plan)
    with pytest.raises(ClasError, match="give the prompt's length"), steered(tiny_lm, plan):
        pass
    with pytest.raises(ClasError, match="2 prompt lengths for a batch of 1 rows"):  # noqa: SIM117
        with steered(tiny_lm, plan, prompt=[1, 2]):
            tiny_lm.model(torch.tensor([[1, 5]]))
    with pytest.raises(ClasError, match="one for each: 1, not 2"):
        generate(tiny_lm, PROMPTS[0], [plan], where=["all", "answer"])
    with pytest.raises(ClasError, match=r"A checkpoint steers all of a text, .*plan\.at\('all'\)"):
        bake(tiny_lm, plan, tmp_path / "baked")
    shifts = SteeringPlan({1: LayerPlan(shift=torch.ones(32))}, where="prompt")
    with pytest.raises(ClasError, match="A control vector steers all of a text"):
        write_control_vector(shifts, tmp_path / "vector", "llama")
    assert not list(tmp_path.iterdir())
