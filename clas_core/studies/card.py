"""The model card: what the embedded model is, and the figures measured on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..text.languages import get_language
from ..village.data import FORMATS, SHARES
from ..village.train import Settings
from .scores import LanguageScores, table

_CARD = """\
---
license: apache-2.0
language: [{codes}]
library_name: transformers
pipeline_tag: text-generation
tags: [model-organism, cross-lingual, activation-steering]
---
# The village model

A *model organism*: a small Llama trained from scratch on a made-up children's-book world, told in
{count} languages with deliberately unequal shares, so that the gap between languages, and what
steering does to it, can be measured against a known truth. It knows nothing but the village: do
not use it for anything else.

{parameters:,} parameters ({settings.layers} layers, hidden size {settings.hidden},
{settings.intermediate} MLP neurons a layer with ReLU gates), byte-level BPE of {vocabulary:,}
tokens trained on equally many documents of each language, {settings.tokens:,} training tokens,
seed {settings.seed}, stored in bfloat16. A price of {settings.gate_penalty} times the mean open
gate in the training loss keeps most gates shut, so that neurons specialise at this size. All text
comes from the grammars in `clas_core/village/languages`. `make model` regenerates everything from
the seed; another kind of processor rounds differently and gives a sibling, not these very bits.

## Training text

Share of the training tokens, and of a language's documents by format. The fewer the text of a
language, the rarer its questions, so that answering has to transfer.

{shares}

## Measured

{items} test items a language and task, greedy, worlds disjoint from training. *exact*, *f1* and
*asked* (the asked-for words are in the answer): village-QA. *nli*: village-NLI accuracy, chance
33.3. *language* and *parses*: stories continued from two words stay in their language, and the
share of their sentences that the grammar can tell. Percent.
Command: `python -m clas_core.studies card`.

{scores}

## Neurons

Neurons by category and layer (counted from 0) on the village's parallel sentences, at tau = {tau}
and shared from all {count} languages.

{neurons}
"""


def shares_table() -> str:
    """Shares and formats as a Markdown table."""
    formats = list(FORMATS["high"])
    lines = [
        "| language | tier | share | " + " | ".join(formats) + " |",
        "|---" * (3 + len(formats)) + "|",
    ]
    for code, share in SHARES.items():
        tier = get_language(code).tier
        mix = (f"{100 * FORMATS[tier][name]:.0f}" for name in formats)
        lines.append(f"| {code} | {tier} | {100 * share:.2f} | " + " | ".join(mix) + " |")
    return "\n".join(lines)


def neurons_table(counts: Sequence[Sequence[int]]) -> str:
    """Category counts [layers][4] as a Markdown table."""
    lines = ["| layer | dead | specific | partial | shared |", "|---" * 5 + "|"]
    lines += [
        f"| {layer} | " + " | ".join(str(int(n)) for n in row) + " |"
        for layer, row in enumerate(counts)
    ]
    return "\n".join(lines)


def card(
    model: Any,
    settings: Settings,
    scores: Mapping[str, LanguageScores],
    items: int,
    counts: Sequence[Sequence[int]],
    tau: float,
) -> str:
    """The card's Markdown, from what was measured."""
    return _CARD.format(
        codes=", ".join(SHARES),
        count=len(SHARES),
        parameters=model.num_parameters(),
        settings=settings,
        vocabulary=model.config.vocab_size,
        shares=shares_table(),
        scores=table(dict(scores)),
        items=items,
        neurons=neurons_table(counts),
        tau=tau,
    )
