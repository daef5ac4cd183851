"""Log-likelihoods of endings, against whole sequences scored one by one."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import make_plan, plain

from clas_core.errors import ClasError
from clas_core.running.likelihood import Question, log_likelihoods, tokenise

QUESTIONS = [
    Question((1, 40, 41, 42), ((50, 51), (52,), (53, 54, 55))),
    Question((1, 43), ((50, 51), (56, 57))),
    Question((1, 44, 45, 46, 47, 48), ((58,),)),
    Question((1,), ((50, 51, 52, 53), (50, 51, 54), (50, 51))),
    Question((1,), ((60, 61, 62, 63, 64, 65),)),
]


@pytest.mark.parametrize("tokens_at_once", [1, 25, 8192])
def test_against_whole_sequences(any_lm, tokens_at_once):
    plans = [None, make_plan(any_lm, 1), make_plan(any_lm, 2, 1)]
    seen = []
    found = log_likelihoods(
        any_lm, QUESTIONS, plans, tokens_at_once=tokens_at_once, progress=lambda *d: seen.append(d)
    )
    for plan, column in zip(plans, found):
        for question, scores in zip(QUESTIONS, column):
            wanted = [plain(any_lm, question.prompt, e, plan) for e in question.endings]
            assert scores == pytest.approx(wanted, abs=1e-4)
    assert seen[-1] == (5, 5)


def test_a_long_common_beginning_is_read_once(tiny_lm):
    """Few-shot examples: the same scores, and the model reads the beginning once."""
    beginning = tuple(range(1, 41))
    questions = [Question((*beginning, 60 + k, 70), ((80, 81), (82,))) for k in range(3)]
    tokens = 0

    def count(_, args):
        nonlocal tokens
        tokens += args[0].numel()

    handle = tiny_lm.model.get_input_embeddings().register_forward_pre_hook(count)
    found = log_likelihoods(tiny_lm, questions)[0]
    handle.remove()
    for question, scores in zip(questions, found):
        wanted = [plain(tiny_lm, question.prompt, ending) for ending in question.endings]
        assert scores == pytest.approx(wanted, abs=1e-4)
    assert tokens < 2 * len(beginning)


def test_what_endings_share_is_read_once(tiny_lm):
    """Whole texts as choices: "premise, right? Yes, ..." against "premise, right? No, ..."."""
    questions = [Question((1,), (tuple(range(9, 60)), (*range(9, 58), 70, 71))) for _ in range(2)]
    tokens = 0

    def count(_, args):
        nonlocal tokens
        tokens += args[0].numel()

    handle = tiny_lm.model.get_input_embeddings().register_forward_pre_hook(count)
    found = log_likelihoods(tiny_lm, questions)[0]
    handle.remove()
    wanted = [plain(tiny_lm, (1,), ending) for ending in questions[0].endings]
    assert found == [pytest.approx(wanted, abs=1e-4)] * 2
    assert tokens < 120


def test_endings_of_one_token_need_no_second_look(tiny_lm):
    question = Question((1, 40), ((50,), (51,), (52,)))
    (scores,) = log_likelihoods(tiny_lm, [question])[0]
    assert scores == pytest.approx([plain(tiny_lm, (1, 40), (k,)) for k in (50, 51, 52)], abs=1e-4)


@settings(max_examples=30)
@given(prompt=st.text(max_size=20), ending=st.text(min_size=1, max_size=20))
def test_prompt_and_ending_make_up_the_text(tiny_lm, prompt, ending):
    """Whatever moves over the border, the tokens spell prompt and ending (merges aside)."""
    start = prompt.rstrip()
    own = tiny_lm.tokenizer(start)["input_ids"] if start else [1]
    whole = tiny_lm.tokenizer(prompt + ending)["input_ids"]
    assume(len(whole) > len(own))  # else the ending has no token of its own, and is refused
    question = tokenise(tiny_lm, prompt, [ending])
    assert list(question.prompt) == own
    assert list(question.endings[0]) == whole[len(own) :]


def test_blanks_belong_to_the_ending(tiny_lm):
    question = tokenise(tiny_lm, "It rains.\n", ["Yes", "No"])
    assert tiny_lm.tokenizer.decode(question.endings[0]) == "\nYes"
    assert tiny_lm.tokenizer.decode(question.prompt) == "<s>It rains."


def test_an_empty_ending_is_refused(tiny_lm):
    with pytest.raises(ClasError, match="has no token"):
        tokenise(tiny_lm, "It rains.", ["Yes", ""])


def test_too_long_an_item_is_refused(tiny_lm):
    question = Question(tuple(range(1, 257)), ((5,),))
    with pytest.raises(ClasError, match="256 tokens and 1 new ones exceed the model's 256"):
        log_likelihoods(tiny_lm, [question])
