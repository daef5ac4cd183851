"""Tiny random models with chat templates, written here in the manner of three families."""

from __future__ import annotations

from tiny import make_tokenizer, tiny_llama_model

from clas_core.model.architecture import LanguageModel
from clas_core.model.loading import load

CHATML = """\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think></think>
{% endif %}
{% endif %}"""

LLAMA3 = """\
{{ bos_token }}
{%- if date is not defined %}{% set date = strftime_now("%d %b %Y") %}{% endif %}
{%- set rules = messages[0].content if messages[0].role == "system" else "" %}
<|head|>system<|/head|>

Today: {{ date }}

{{ rules }}<|eot|>
{%- for message in messages if message.role != "system" -%}
<|head|>{{ message.role }}<|/head|>

{{ message.content | trim }}<|eot|>
{%- endfor %}
{%- if add_generation_prompt %}<|head|>assistant<|/head|>

{% endif %}"""

GEMMA = """\
{{ bos_token }}{% for message in messages %}
{% if message.role == "system" %}{{ raise_exception("System role not supported.") }}{% endif %}
<|turn|>{{ "model" if message.role == "assistant" else message.role }}
{{ message.content | trim }}<|/turn|>
{% endfor %}
{% if add_generation_prompt %}<|turn|>model
{% endif %}"""

MARKS = {  # of each template; the last ends a turn
    CHATML: ["<|im_start|>", "<|im_end|>"],
    LLAMA3: ["<|head|>", "<|/head|>", "<|eot|>"],
    GEMMA: ["<|turn|>", "<|/turn|>"],
}


def chat_lm(template: str, *, tuned: bool = True) -> LanguageModel:
    """A random Llama with `template`; `tuned`: its generation config ends at the turn's end."""
    tokenizer = make_tokenizer(390)
    marks = MARKS.get(template, ["<|im_end|>"])
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = template
    model = tiny_llama_model()
    if tuned:
        end = tokenizer.convert_tokens_to_ids(marks[-1])
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    return load(model, tokenizer)
