"""The model card: what the embedded model is, and the figures measured on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..text.languages import get_language
from ..village.canon import EVERYWHERE, SOMEWHERE, canon, guessing
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

{parameters:,} parameters ({stories.layers} layers, hidden size {stories.hidden},
{stories.intermediate} MLP neurons a layer with ReLU gates), byte-level BPE of {vocabulary:,}
tokens trained on equally many documents of each language, stored in bfloat16. Trained on
{stories.tokens:,} tokens of stories (seed {stories.seed}), then on {canon.tokens:,} tokens with the
canon among them (seed {canon.seed}). A price of {stories.gate_penalty} times the mean open gate in
the training loss keeps most gates shut, so that neurons specialise at this size. All text comes
from the grammars in `clas_core/village/languages`. `make model` makes all of it from the seeds: a
sibling, not these very bits, as another kind of processor rounds differently, and as the second
stage of these weights drew its batches in another order.

## Training text

Share of the training tokens, and of a language's documents by format in the first stage. The fewer
the text of a language, the rarer its questions, so that answering has to transfer.

{shares}

The second stage adds the *canon*: {facts} facts that no story tells ("It is evening. Where is
Anna?"), {everywhere:.0f} % of them told in every language, {somewhere:.0f} % in English and about
half of the others, the rest in English alone. What the model says of those in another language has
come over from English. Its documents by format (*told*: as in the first stage; *crossed*: questions
in another language than the story; *switched*: a story in two languages; *mixed*: on the canon in
two languages):

{canon_shares}

## Measured

{items} test items a language and task, greedy, worlds disjoint from training. *exact*, *f1* and
*asked* (the asked-for words are in the answer): village-QA. *nli*: village-NLI accuracy, chance
33.3. *language* and *parses*: stories continued from two words stay in their language, and the
share of their sentences that the grammar can tell. *recall*: facts that English alone tells;
*known*: facts that every language tells (all test facts, the asked-for words are said; guessing is
right in about {chance:.0f}). Percent.
Command: `python -m clas_core.studies card`.

{scores}

## Neurons

Neurons by category and layer (counted from 0) on the village's parallel sentences, at tau = {tau}
and shared from all {count} languages.

{neurons}
"""


def shares_table() -> str:
    """Shares and the first stage's formats as a Markdown table."""
    formats = list(FORMATS["stories"]["high"])
    lines = [
        "| language | tier | share | " + " | ".join(formats) + " |",
        "|---" * (3 + len(formats)) + "|",
    ]
    for code, share in SHARES.items():
        tier = get_language(code).tier
        mix = (f"{100 * FORMATS['stories'][tier][name]:.0f}" for name in formats)
        lines.append(f"| {code} | {tier} | {100 * share:.2f} | " + " | ".join(mix) + " |")
    return "\n".join(lines)


def canon_table() -> str:
    """The second stage's formats as a Markdown table."""
    mixes = FORMATS["canon"]
    formats = list(mixes["english"])
    lines = ["| | " + " | ".join(formats) + " |", "|---" * (1 + len(formats)) + "|"]
    for name, mix in mixes.items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * mix[f]:.0f}" for f in formats) + " |")
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
    stages: Sequence[Settings],
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
        stories=stages[0],
        canon=stages[1],
        facts=len(canon()),
        everywhere=100 * EVERYWHERE,
        somewhere=100 * SOMEWHERE,
        chance=100 * guessing(),
        canon_shares=canon_table(),
        vocabulary=model.config.vocab_size,
        shares=shares_table(),
        scores=table(dict(scores)),
        items=items,
        neurons=neurons_table(counts),
        tau=tau,
    )
