"""What the model really reads: a prompt as it stands, or as one turn of a chat.

A chat is written by the model's own template (Jinja, from its tokenizer). Two things are fixed, so
that a recipe gives the same tokens every day and the answer comes at once: templates that write
today's date get 26 July 2024, the one that Llama's falls back on; templates that can let the model
think first, as Qwen3's, are told not to (`enable_thinking=False`, Qwen's own switch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from ..errors import ClasError
from .architecture import LanguageModel

CHAT = ("auto", "on", "off")

# A template is a small program, and fails as programs do.
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError)
_SAME_DAY = (
    "{% macro strftime_now(format) %}{{ format | replace('%Y', '2024') | replace('%m', '07')"
    " | replace('%B', 'July') | replace('%b', 'Jul') | replace('%d', '26') }}{% endmacro %}\n"
)
_ANSWER = "clasanswer"  # no template writes this by itself


@dataclass(frozen=True)
class Rendered:
    """A prompt as the model gets it. `text` is what `token_ids` say, special tokens included.

    `templated`: whether it went through the chat template. `end_ids`: the tokens that end an
    answer to it.
    """

    text: str
    token_ids: tuple[int, ...]
    templated: bool
    end_ids: frozenset[int]


Prompt = str | Rendered  # a plain text is read as it stands


class _TemplateFailed(Exception):
    """Its message is one line, the template's own where it has one."""


def render(
    lm: LanguageModel,
    text: str,
    *,
    chat: str = "auto",
    system: str = "",
    examples: Sequence[tuple[str, str]] = (),
) -> Rendered:
    """`text` as `lm` reads it: as it stands, or as the user's turn of a chat.

    `chat` "on" takes the tokenizer's chat template, "off" the text with the special tokens that
    the tokenizer adds, "auto" the template if `is_chat_model(lm)`. What a template wrote is
    tokenized as it is: all marks in it are the template's, so none is there twice. `system` is the
    system prompt, in a chat only; left empty, the template may write one of its own. `examples`
    are turns that went before, in a chat only: what the user said, and the answer.

    An answer ends where the model's texts do; if the template ends it with none of those tokens,
    then also at the first one that it does put there.

    Raises ClasError for an empty text, for tokens that the model lacks, for a system prompt or
    examples that would not be read, and if the template is missing, fails or leaves the text out.
    """
    if chat not in CHAT:
        raise ClasError(f"chat must be one of {', '.join(CHAT)}, not {chat!r}.")
    _check_characters("prompt", text)
    _check_characters("system prompt", system)
    if not text.strip():
        raise ClasError("The prompt is empty: write at least one word.")
    has_system = bool(system.strip())
    templated = is_templated(lm, chat)
    if templated:
        shown = _render_chat(lm, text, system if has_system else "", examples)
        ids = lm.tokenizer(shown, add_special_tokens=False)["input_ids"]
    elif has_system:
        raise ClasError(
            "This prompt goes to the model without a chat template, where a system prompt has no "
            "place: leave it empty, or set chat to on."
        )
    elif examples:
        raise ClasError(
            "Turns that went before have no place in a prompt without a chat template: write them "
            "into the prompt, or set chat to on."
        )
    else:
        ids = lm.tokenizer(text)["input_ids"]
    if not ids:
        raise ClasError("The prompt has no tokens in this model: write at least one word.")
    lm.check_tokens(ids)
    ends = end_ids(lm)
    if templated and (marks := _marks_behind_answer(lm)) and ends.isdisjoint(marks):
        ends |= {marks[0]}
    seen = lm.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Rendered(seen, tuple(ids), templated, ends)


def from_nothing(lm: LanguageModel) -> Rendered:
    """What stands before a text that has no prompt: the tokenizer's mark that begins texts, or the
    one that ends them."""
    own = lm.tokenizer("")["input_ids"]
    marks = (*own[:1], lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id)
    first = next((mark for mark in marks if mark is not None), lm.pad_id)
    return Rendered("", (first,), False, end_ids(lm))


def as_rendered(lm: LanguageModel, prompt: Prompt) -> Rendered:
    """`prompt` itself, or a plain text as it stands."""
    return prompt if isinstance(prompt, Rendered) else render(lm, prompt, chat="off")


def is_templated(lm: LanguageModel, chat: str) -> bool:
    """Whether a prompt goes through the chat template, `chat` being as in `render`."""
    return chat == "on" or (chat == "auto" and is_chat_model(lm))


def is_chat_model(lm: LanguageModel) -> bool:
    """Whether `lm` is tuned to chat, as far as one can tell.

    It is if it has a chat template, and one of the tokens that the template puts behind an answer
    ends the model's texts. Some base models, Qwen's among them, come with a template that their
    own end contradicts. A template that puts no token of its own there is believed.
    """
    if not _has_template(lm):
        return False
    marks = _marks_behind_answer(lm)
    return not marks or not end_ids(lm).isdisjoint(marks)


def end_ids(lm: LanguageModel) -> frozenset[int]:
    """The tokens that end a text: the generation config's and the tokenizer's own."""
    config = lm.model.generation_config
    ids = config.eos_token_id if config is not None else None
    configured = ids if isinstance(ids, list) else [ids]
    return frozenset({*configured, lm.tokenizer.eos_token_id} - {None})


def _has_template(lm: LanguageModel) -> bool:
    return bool(getattr(lm.tokenizer, "chat_template", None))


def _render_chat(
    lm: LanguageModel, text: str, system: str, examples: Sequence[tuple[str, str]]
) -> str:
    if not _has_template(lm):
        raise ClasError(f"{lm.name} has no chat template: set chat to off.")
    user = {"role": "user", "content": text}
    turns = [
        {"role": role, "content": said}
        for example in examples
        for role, said in zip(("user", "assistant"), example)
    ]
    messages = [*([{"role": "system", "content": system}] if system else []), *turns, user]
    try:
        shown = _apply_template(lm, messages, answer_next=True)
    except _TemplateFailed as error:
        if system and _works(lm, [user]):
            raise ClasError(
                f"The model's chat template takes no system prompt ({error}): leave it empty, or "
                "begin the prompt with it."
            ) from error
        raise ClasError(f"The model's chat template fails ({error}): set chat to off.") from error
    if system.strip() not in shown:
        raise ClasError(
            "The model's chat template leaves the system prompt out: leave it empty, or begin the "
            "prompt with it."
        )
    if not all(turn["content"].strip() in shown for turn in turns):
        raise ClasError(
            "The model's chat template leaves turns that went before out: take no examples, or set "
            "chat to off."
        )
    if text.strip() not in shown:
        raise ClasError("The model's chat template leaves the prompt out: set chat to off.")
    return shown


def _works(lm: LanguageModel, messages: list[dict[str, str]]) -> bool:
    try:
        _apply_template(lm, messages, answer_next=True)
    except _TemplateFailed:
        return False
    return True


def _marks_behind_answer(lm: LanguageModel) -> tuple[int, ...]:
    """The tokens of its own that the template puts behind what the model said."""
    user, model = {"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}
    try:
        shown = _apply_template(lm, [user, model], answer_next=False)
    except _TemplateFailed:
        return ()
    _, answer, after = shown.rpartition(_ANSWER)
    if not answer:
        return ()
    marks = {*lm.tokenizer.get_added_vocab().values(), *lm.special_ids}
    ids = lm.tokenizer(after, add_special_tokens=False)["input_ids"]
    return tuple(token for token in ids if token in marks)


def _apply_template(lm: LanguageModel, messages: list[dict[str, str]], *, answer_next: bool) -> str:
    try:
        template = lm.tokenizer.get_chat_template()
        if "strftime_now" in template:
            template = _SAME_DAY + template
        return lm.tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            add_generation_prompt=answer_next,
            tokenize=False,
            enable_thinking=False,
        )
    except _TEMPLATE_ERRORS as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise _TemplateFailed(reason) from error


def _check_characters(what: str, text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ClasError(f"The {what} holds half a character (a lone surrogate): type it again.")
