from __future__ import annotations

import pytest
from chats import CHATML, GEMMA, LLAMA3, MARKS, chat_lm
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_tokenizer, tiny_llama_model

from clas_core.errors import ClasError
from clas_core.model.loading import load
from clas_core.model.prompts import as_rendered, end_ids, is_chat_model, render

PROMPT = "Who has the book?"
SHOWN = {  # what each template makes of PROMPT, by hand
    CHATML: f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n<think></think>\n",
    LLAMA3: (
        "<s><|head|>system<|/head|>\n\nToday: 26 Jul 2024\n\n<|eot|>"
        f"<|head|>user<|/head|>\n\n{PROMPT}<|eot|><|head|>assistant<|/head|>\n\n"
    ),
    GEMMA: f"<s><|turn|>user\n{PROMPT}<|/turn|>\n<|turn|>model\n",
}


@pytest.fixture(scope="module", params=SHOWN, ids=["chatml", "llama3", "gemma"])
def template(request):
    return request.param


@pytest.fixture(scope="module")
def chat(template):
    return chat_lm(template)


@pytest.fixture(scope="module")
def chatml():
    return chat_lm(CHATML)


def test_shows_the_chat_that_the_model_reads(chat, template):
    rendered = render(chat, PROMPT)
    assert rendered.text == SHOWN[template]
    assert rendered.templated
    assert rendered.text == chat.tokenizer.decode(rendered.token_ids)
    marks = chat.tokenizer.convert_tokens_to_ids(MARKS[template])
    assert set(marks) <= set(rendered.token_ids)  # marks, not letters that look like them


def test_begins_once(chat, template):
    ids = render(chat, PROMPT).token_ids
    assert ids.count(chat.tokenizer.bos_token_id) == (template is not CHATML)


def test_turns_that_went_before_are_shown_in_their_order(chat, template):
    shown = render(chat, PROMPT, examples=[("What is red?", "The fox."), ("And blue?", "Mud.")])
    places = [shown.text.index(said) for said in ("What is red?", "The fox.", "And blue?", "Mud.")]
    assert places == sorted(places)
    assert shown.text.index(PROMPT) > places[-1]
    assert shown.end_ids == render(chat, PROMPT).end_ids
    messages = [
        {"role": "user", "content": "What is red?"},
        {"role": "assistant", "content": "The fox."},
        {"role": "user", "content": PROMPT},
    ]
    if template is CHATML:
        expected = chat.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
        one = render(chat, PROMPT, examples=[("What is red?", "The fox.")])
        assert list(one.token_ids) == expected


def test_turns_need_a_template_that_shows_them(tiny_lm):
    with pytest.raises(ClasError, match="no place in a prompt without a chat template"):
        render(tiny_lm, PROMPT, examples=[("a", "b")])
    last = "<|im_start|>{{ messages[-1].content }}<|im_end|>"
    with pytest.raises(ClasError, match="leaves turns that went before out"):
        render(chat_lm(last), PROMPT, chat="on", examples=[("What is red?", "The fox.")])


def test_tokens_are_those_of_the_library(chatml):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    expected = chatml.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    assert list(render(chatml, PROMPT, system="Be brief.").token_ids) == expected


def test_system_prompt(chatml):
    shown = f"<|im_start|>system\nBe brief.<|im_end|>\n{SHOWN[CHATML]}"
    assert render(chatml, PROMPT, system="Be brief.").text == shown
    assert render(chatml, PROMPT, system=" \n").text == SHOWN[CHATML]
    assert "\n\nBe brief.<|eot|>" in render(chat_lm(LLAMA3), PROMPT, system="Be brief.").text


def test_off_is_the_text_as_it_stands(chat):
    rendered = render(chat, PROMPT, chat="off")
    assert rendered.text == f"<s>{PROMPT}"
    assert list(rendered.token_ids) == chat.encode([PROMPT]).input_ids[0].tolist()
    assert not rendered.templated
    assert rendered == as_rendered(chat, PROMPT) == as_rendered(chat, rendered)


def test_auto_is_off_without_a_template(tiny_lm):
    assert not is_chat_model(tiny_lm)
    assert render(tiny_lm, PROMPT) == render(tiny_lm, PROMPT, chat="off")


def test_auto_is_off_where_the_turns_end_is_not_the_models(template):
    base = chat_lm(template, tuned=False)
    assert not is_chat_model(base)
    assert render(base, PROMPT).text == f"<s>{PROMPT}"
    assert render(base, PROMPT, chat="on").text == SHOWN[template]


def test_auto_believes_a_template_without_an_end():
    lm = chat_lm("{% for message in messages %}{{ message.content }}\n{% endfor %}")
    assert is_chat_model(lm)
    assert render(lm, PROMPT).text == f"{PROMPT}\n"


def test_all_ends_count(template):
    mark = MARKS[template][-1]
    base = chat_lm(template, tuned=False)
    end = base.tokenizer.convert_tokens_to_ids(mark)
    assert end_ids(base) == render(base, PROMPT, chat="off").end_ids == {2}
    assert render(base, PROMPT, chat="on").end_ids == {2, end}
    base.tokenizer.eos_token = mark
    assert end_ids(base) == {2, end}  # the generation config's, and the tokenizer's
    assert is_chat_model(base)


def test_an_end_behind_another_mark():
    """The answer is closed by one mark, the turn by another, as Cohere's are."""
    closed = CHATML.replace("<|im_end|>", "<|close|><|im_end|>")
    lm = chat_lm(closed)
    lm.tokenizer.add_tokens(["<|close|>"])
    assert is_chat_model(lm)
    end, close = lm.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|close|>"])
    assert render(lm, PROMPT).end_ids == {2, end}
    lm.model.generation_config.eos_token_id = 2
    assert render(lm, PROMPT, chat="on").end_ids == {2, close}


def test_ends_where_nothing_defines_one():
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    lm = load(tiny_llama_model(eos_token_id=None), tokenizer)
    assert end_ids(lm) == frozenset()


def test_named_templates():
    lm = chat_lm(CHATML)
    lm.tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ nothing.at.all }}"}
    assert render(lm, PROMPT).text == SHOWN[CHATML]
    lm.tokenizer.chat_template = {"tool_use": CHATML}
    with pytest.raises(ClasError, match="chat template fails"):
        render(lm, PROMPT, chat="on")


@pytest.mark.parametrize(
    ("template", "options", "message"),
    [
        (GEMMA, {"system": "Be brief."}, r"no system prompt \(System role not supported\): leave"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
         {"system": "Be brief."}, "leaves the system prompt out"),
        ("Hello", {}, "leaves the prompt out: set chat to off"),
        ("{{ raise_exception('No.') }}", {}, r"template fails \(No\): set chat to off"),
        ("{{ raise_exception('No.') }}", {"system": "x"}, r"template fails \(No\): set chat"),
        ("{% for %}", {}, "chat template fails"),
        ("{{ messages[9].role.name }}", {}, "chat template fails"),
        ("{{ 'a' + 1 }}", {}, "chat template fails"),
        ("{{ 1 / 0 }}", {}, "chat template fails"),
        (CHATML, {"chat": "off", "system": "x"}, "a system prompt has no place"),
        (CHATML, {"chat": "yes"}, "chat must be one of auto, on, off"),
        (CHATML, {"system": "\ud800"}, "system prompt holds half a character"),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence(template, options, message):
    with pytest.raises(ClasError, match=message) as refused:
        render(chat_lm(template), PROMPT, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", " \n"])
@pytest.mark.parametrize("chat_option", ["on", "off"])
def test_an_empty_prompt_is_refused(chatml, text, chat_option):
    with pytest.raises(ClasError, match="The prompt is empty"):
        render(chatml, text, chat=chat_option)


def test_a_model_without_template_takes_no_chat(tiny_lm):
    with pytest.raises(ClasError, match="has no chat template: set chat to off"):
        render(tiny_lm, PROMPT, chat="on")
    with pytest.raises(ClasError, match="without a chat template"):
        render(tiny_lm, PROMPT, system="Be brief.")


@settings(max_examples=50)
@given(text=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_any_text_is_in_the_chat_as_it_is(chatml, text):
    expected = SHOWN[CHATML].replace(PROMPT, text)
    assert render(chatml, text).text == expected
