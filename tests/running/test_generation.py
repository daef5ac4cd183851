from __future__ import annotations

import inspect
import threading

import pytest
import torch
from chats import CHATML, LLAMA3, MARKS, chat_lm
from tiny import SENTENCES, make_tokenizer, tiny_llama_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from clas_core.errors import ClasError
from clas_core.model.loading import load
from clas_core.model.prompts import render
from clas_core.running.answers import generate_batch
from clas_core.running.decoding import Chooser
from clas_core.running.generation import generate
from clas_core.steering.plan import LayerPlan, SteeringPlan

PROMPT = "The cat sleeps"
PROMPTS = ("Who", "It rains in the old house. Two birds")


def strong_plan(scale: float = 3.0) -> SteeringPlan:
    return SteeringPlan({layer: LayerPlan(scale=torch.full((64,), scale)) for layer in (1, 2)})


def last(steps):
    *_, step = steps
    return step


def say(lm, monkeypatch, *rows):
    """Make `lm` write the token sequences `rows`, whatever it is given."""
    forward = lm.model.forward
    index = -1

    def forced(*args, **kwargs):
        nonlocal index
        index += 1
        output = forward(*args, **kwargs)
        output.logits[...] = 0
        for row, tokens in enumerate(rows):
            output.logits[row, -1, tokens[min(index, len(tokens) - 1)]] = 1e4
        return output

    forced.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(lm.model, "forward", forced)


@pytest.fixture
def own_lm():
    """A model that a test may break."""
    return load(tiny_llama_model(), make_tokenizer())


def test_matches_transformers_generate(any_lm):
    batch = any_lm.encode([PROMPT])
    expected = any_lm.model.generate(**batch.inputs, max_new_tokens=24, do_sample=False)
    step = last(generate(any_lm, PROMPT, max_new_tokens=24))
    assert list(step.token_ids[0]) == expected[0, batch.input_ids.shape[1] :].tolist()
    assert list(step.prompt_ids[0]) == batch.input_ids[0].tolist()


def test_left_padding_equals_each_prompt_alone(any_lm):
    alone = [last(generate(any_lm, prompt, max_new_tokens=16)) for prompt in PROMPTS]
    together = last(generate(any_lm, PROMPTS, [None, None], max_new_tokens=16))
    assert together.token_ids == tuple(step.token_ids[0] for step in alone)
    assert together.prompt_ids == tuple(step.prompt_ids[0] for step in alone)


def test_steered_rows_equal_each_plan_alone(any_lm):
    plans = [None, strong_plan(), strong_plan(-1.0)]
    together = last(generate(any_lm, PROMPT, plans, max_new_tokens=16))
    alone = [last(generate(any_lm, PROMPT, [plan], max_new_tokens=16)) for plan in plans]
    assert together.token_ids == tuple(step.token_ids[0] for step in alone)
    assert len(set(together.token_ids)) > 1


def test_identity_rows_are_the_same_also_when_sampling(any_lm):
    plans = [None, SteeringPlan.identity(), strong_plan() * 0, None]
    step = last(generate(any_lm, PROMPT, plans, max_new_tokens=32, temperature=1.5, seed=3))
    assert len(set(step.token_ids)) == 1


def test_rows_that_can_not_differ_are_computed_once(tiny_lm):
    sizes = []
    handle = tiny_lm.blocks[0].register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    plan = strong_plan()
    step = last(generate(tiny_lm, PROMPT, [None, plan, plan * 0, plan], max_new_tokens=4))
    handle.remove()
    assert set(sizes) == {2}
    assert step.token_ids[0] == step.token_ids[2] != step.token_ids[1] == step.token_ids[3]


def test_noise_depends_on_the_seed_alone(tiny_lm):
    def sample(plans, seed):
        steps = generate(tiny_lm, PROMPT, plans, max_new_tokens=12, temperature=1.0, seed=seed)
        return last(steps).token_ids[0]

    assert sample([None], 1) == sample([None, strong_plan()], 1)
    assert sample([None], 1) != sample([None], 2)


def test_gumbel_max_draws_from_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5])
    choose = Chooser(temperature=0.7, seed=0)
    draws = torch.stack([choose(logits[None])[0] for _ in range(8000)])
    expected = (logits / 0.7).softmax(-1)
    assert torch.allclose(draws.bincount(minlength=5) / 8000, expected, atol=0.02)  # > 3 sigma


def test_stop_flag_ends_at_once(tiny_lm):
    stop = threading.Event()
    steps = generate(tiny_lm, PROMPT, max_new_tokens=50, stop=stop)
    next(steps)
    stop.set()
    assert list(steps) == []


def test_each_row_ends_at_its_own_end(own_lm, monkeypatch):
    end = own_lm.tokenizer.eos_token_id
    word = own_lm.tokenizer.encode("house", add_special_tokens=False)
    say(own_lm, monkeypatch, [*word, end], [*word, *word, *word, end])
    *before, step = generate(own_lm, PROMPT, [None, strong_plan()], max_new_tokens=50)
    assert step.texts == ("house", "househousehouse")
    assert step.token_ids == ((*word, end), (*word, *word, *word, end))
    assert step.done == (True, True)
    assert before[-1].done == (True, False)
    assert [s.index for s in (*before, step)] == list(range(3 * len(word) + 1))


def test_cut_at_the_limit_is_not_done(own_lm, monkeypatch):
    say(own_lm, monkeypatch, own_lm.tokenizer.encode("house", add_special_tokens=False))
    assert last(generate(own_lm, PROMPT, max_new_tokens=3)).done == (False,)


def test_stop_at_newline_after_some_text(own_lm, monkeypatch):
    tokens = own_lm.tokenizer.encode("\nhouse\nhouse", add_special_tokens=False)
    say(own_lm, monkeypatch, tokens)
    step = last(generate(own_lm, PROMPT, max_new_tokens=50, stop_at_newline=True))
    assert step.texts == ("\nhouse",)
    assert step.done == (True,)


@pytest.mark.parametrize("text", [" ऋषि और ज्ञान", " สวัสดีตอนเช้า", " مرحبا بالعالم", " 市场🙂 é"])
def test_streams_whole_characters(own_lm, monkeypatch, text):
    tokens = own_lm.tokenizer.encode(text, add_special_tokens=False)
    say(own_lm, monkeypatch, tokens)
    steps = list(generate(own_lm, PROMPT, max_new_tokens=len(tokens)))
    for step in steps:
        assert text.startswith(step.texts[0])
    assert len({step.texts for step in steps}) < len(steps)  # some characters did come in parts
    assert steps[-1].texts == (text,)


def metaspace_tokenizer():
    """Words begin with a mark for the space, which is lost at the start of a decoded text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    marks = ["<unk>", "</s>", "[/INST]"]
    trainer = trainers.BpeTrainer(vocab_size=390, special_tokens=marks, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES["en"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="</s>",
        additional_special_tokens=["[/INST]"],
        chat_template="{{ messages[0].content }}[/INST]",
    )


@pytest.mark.parametrize("template", [CHATML, LLAMA3, None])
def test_an_answer_is_spaced_as_it_follows_the_chat(monkeypatch, template):
    """Behind a line break, and behind a mark that is left out of the text."""
    lm = chat_lm(template) if template else load(tiny_llama_model(), metaspace_tokenizer())
    tokens = lm.tokenizer.encode("The cat sleeps", add_special_tokens=False)
    prompt = render(lm, PROMPT, chat="on")
    say(lm, monkeypatch, tokens)
    step = last(generate(lm, prompt, max_new_tokens=len(tokens)))
    before = lm.tokenizer.decode(prompt.token_ids, skip_special_tokens=True)
    whole = lm.tokenizer.decode([*prompt.token_ids, *tokens], skip_special_tokens=True)
    assert before + step.texts[0] == whole
    assert step.texts[0].strip() == "The cat sleeps"


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize("template", [CHATML, LLAMA3])
def test_an_answer_ends_at_the_end_of_the_turn(monkeypatch, template, tuned):
    """Also where only the template knows that token, and where the tokenizer's own comes first."""
    lm = chat_lm(template, tuned=tuned)
    word = lm.tokenizer.encode("house", add_special_tokens=False)
    end = lm.tokenizer.convert_tokens_to_ids(MARKS[template][-1])
    say(lm, monkeypatch, [*word, end], [*word, *word, lm.tokenizer.eos_token_id])
    prompt = render(lm, PROMPT, chat="on")
    step = last(generate(lm, prompt, [None, strong_plan()], max_new_tokens=20))
    assert step.texts == ("house", "househouse")
    assert step.token_ids[0] == (*word, end)
    assert step.done == (True, True)


def test_an_end_that_is_no_special_token_is_not_text(monkeypatch):
    template = "{% for message in messages %}{{ message.content }}<end>{% endfor %}"
    lm = chat_lm(template)
    lm.tokenizer.add_tokens(["<end>"])
    word = lm.tokenizer.encode("house", add_special_tokens=False)
    end = lm.tokenizer.convert_tokens_to_ids("<end>")
    say(lm, monkeypatch, [*word, end])
    step = last(generate(lm, render(lm, PROMPT, chat="on"), max_new_tokens=20))
    assert (step.texts, step.done) == (("house",), (True,))


def test_a_chat_matches_transformers_generate():
    lm = chat_lm(CHATML)
    batch = lm.tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}],
        add_generation_prompt=True,
        enable_thinking=False,
        return_tensors="pt",
    )
    expected = lm.model.generate(**batch, max_new_tokens=24, do_sample=False)[0].tolist()
    step = last(generate(lm, render(lm, PROMPT), max_new_tokens=24))
    assert [*step.prompt_ids[0], *step.token_ids[0]] == expected


def test_plain_and_chat_rows_together_equal_each_alone():
    lm = chat_lm(LLAMA3)
    prompts = [PROMPT, render(lm, PROMPT), render(lm, PROMPT, chat="off"), "Who"]
    steps = [last(generate(lm, prompt, max_new_tokens=12)) for prompt in prompts]
    together = last(generate(lm, prompts, [None] * 4, max_new_tokens=12))
    assert together.token_ids == tuple(step.token_ids[0] for step in steps)
    assert together.prompt_ids == tuple(step.prompt_ids[0] for step in steps)
    assert together.token_ids[0] == together.token_ids[2] != together.token_ids[1]
    texts = generate_batch(lm, prompts, max_new_tokens=12, tokens_at_once=90)
    assert texts == [step.texts[0] for step in steps]


def test_equal_chats_share_a_lane():
    lm = chat_lm(CHATML)
    sizes = []
    lm.blocks[0].register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    prompts = [render(lm, PROMPT), render(lm, PROMPT), PROMPT, render(lm, PROMPT, chat="off")]
    last(generate(lm, prompts, [None] * 4, max_new_tokens=3, temperature=1.0))
    assert set(sizes) == {2}


def logits(lm):
    with torch.no_grad():
        return lm.model(**lm.encode([PROMPT]).inputs).logits


def test_the_caller_is_never_steered(tiny_lm):
    before = logits(tiny_lm)
    steps = generate(tiny_lm, PROMPT, [strong_plan()], max_new_tokens=9)
    next(steps)
    assert torch.equal(logits(tiny_lm), before)
    steps.close()
    assert torch.equal(logits(tiny_lm), before)


def test_an_error_leaves_the_model_unsteered(own_lm):
    before = logits(own_lm)
    failing = own_lm.blocks[-1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(generate(own_lm, PROMPT, [strong_plan()]))
    failing.remove()
    assert torch.equal(logits(own_lm), before)


def test_two_users_do_not_meet(tiny_lm):
    """Two generators, advanced in turn and each from changing threads, as a web page does."""
    plans = [strong_plan(), strong_plan(-2.0)]
    alone = [last(generate(tiny_lm, PROMPT, [p], max_new_tokens=12)).token_ids for p in plans]
    users = [generate(tiny_lm, PROMPT, [p], max_new_tokens=12) for p in plans]
    found = [None, None]

    def advance(user):
        found[user] = next(users[user]).token_ids

    for _ in range(12):
        threads = [threading.Thread(target=advance, args=(user,)) for user in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == alone


def test_batch_keeps_the_order_and_equals_single(tiny_lm):
    prompts = ["Who has the book?", "It", "The boy goes to the market", "Two birds"]
    seen = []
    texts = generate_batch(
        tiny_lm,
        prompts,
        strong_plan(),
        max_new_tokens=8,
        tokens_at_once=60,
        progress=lambda done, total: seen.append((done, total)),
    )
    single = [last(generate(tiny_lm, p, [strong_plan()], max_new_tokens=8)) for p in prompts]
    assert texts == [step.texts[0] for step in single]
    assert seen == [(3, 4), (4, 4)]
    assert generate_batch(tiny_lm, []) == []


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "The prompt is empty"),
        (" \n", {}, "The prompt is empty"),
        ("cat " * 400, {}, r"too long: \d+ tokens and 64 new ones exceed the model's 256"),
        ("cat", {"max_new_tokens": 300}, "ask for fewer new tokens"),
        ("cat", {"max_new_tokens": 0}, "at least one new token"),
        ("cat", {"temperature": float("nan")}, "Temperature must be"),
        ("cat", {"temperature": -1.0}, "Temperature must be"),
        ("cat", {"seed": 2**70}, "seed must be"),
        ("cat", {"plans": []}, "one plan for each row"),
        (["cat", "dog"], {}, "2 prompts, 1 plans"),
        ("\ud800", {}, "lone surrogate"),
    ],
)
def test_bad_input_is_refused_before_the_first_step(tiny_lm, prompt, options, message):
    with pytest.raises(ClasError, match=message):
        generate(tiny_lm, prompt, **options)
