"""How well a model speaks and understands the village: the figures of its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean

from ..evaluation.tasks.scoring import contains, exact_match, token_f1
from ..evaluation.tasks.village_texts import identify, split_story, story_starts
from ..model.architecture import LanguageModel
from ..running.answers import generate_batch
from ..running.batch import Progress
from ..running.likelihood import log_likelihoods, tokenise
from ..village.grammar import CODES, VERDICTS, Grammar
from ..village.tasks import (
    NLIItem,
    QAItem,
    RecallItem,
    nli_items,
    qa_items,
    recall_items,
)


@dataclass(frozen=True)
class LanguageScores:
    """One language's figures, each a share in [0, 1].

    QA: `exact`, token `f1` and `asked` (the asked-for words stand in the answer). NLI: `nli`
    accuracy by log-likelihood (chance: a third). Stories: `language` stays the prompt's, and
    `parses`, the share of sentences that the grammar can tell. Canon: `recall`, the share of facts
    that English alone tells whose asked-for words are said; `known`, of those told everywhere.
    """

    exact: float
    f1: float
    asked: float
    nli: float
    language: float
    parses: float
    recall: float
    known: float


def evaluate(
    lm: LanguageModel,
    codes: Sequence[str] = CODES,
    items: int = 300,
    split: str = "test",
    progress: Progress | None = None,
) -> dict[str, LanguageScores]:
    """Every language's figures on `items` items a task, the same items in every language."""
    questions, statements = qa_items(split, items), nli_items(split, items)
    result = {}
    for done, code in enumerate(codes):
        qa = score_qa(lm, code, questions)
        told = score_stories(lm, code, items // 3, split)
        nli = mean(nli_hits(lm, code, statements))
        canon = {
            name: score_recall(lm, code, recall_items(split, items, everywhere))
            for name, everywhere in (("recall", False), ("known", True))
        }
        result[code] = LanguageScores(**qa, nli=nli, **told, **canon)
        if progress:
            progress(done + 1, len(codes))
    return result


def score_qa(lm: LanguageModel, code: str, items: Sequence[QAItem]) -> dict[str, float]:
    """Means over `items` of exact match, token F1 and asked-for words."""
    prompts = [item.render(Grammar.load(code)) for item in items]
    answers = _say(lm, [prompt.text for prompt in prompts], 40)
    pairs = list(zip(answers, prompts))
    return {
        "exact": mean(exact_match(answer, prompt.answer) for answer, prompt in pairs),
        "f1": mean(token_f1(answer, prompt.answer, code) for answer, prompt in pairs),
        "asked": mean(contains(answer, prompt.asked, code) for answer, prompt in pairs),
    }


def nli_hits(lm: LanguageModel, code: str, items: Sequence[NLIItem]) -> list[bool]:
    """Of each item, whether its true verdict is the likeliest of the three."""
    prompts = [item.render(Grammar.load(code)) for item in items]
    (likely,) = log_likelihoods(lm, [tokenise(lm, p.text, p.choices) for p in prompts])
    return [
        VERDICTS[scores.index(max(scores))] == item.verdict for scores, item in zip(likely, items)
    ]


def score_recall(lm: LanguageModel, code: str, items: Sequence[RecallItem]) -> float:
    """Of facts of the canon, the share whose asked-for words the answer says."""
    prompts = [item.render(Grammar.load(code)) for item in items]
    answers = _say(lm, [prompt.text for prompt in prompts], 40)
    return mean(contains(said, prompt.asked, code) for said, prompt in zip(answers, prompts))


def score_stories(
    lm: LanguageModel, code: str, count: int, split: str = "test"
) -> dict[str, float]:
    """`count` stories told on from two words: in the language, in sentences that parse?"""
    grammar = Grammar.load(code)
    prompts = story_starts(code, count, lm.tokenizer, split)
    texts = [prompt + rest for prompt, rest in zip(prompts, _say(lm, prompts, 120))]
    sentences = [sentence for text in texts for sentence in split_story(text, grammar)]
    return {
        "language": mean(identify(text, code) == code for text in texts),
        "parses": mean(sentence in grammar.all_sentences for sentence in sentences),
    }


def _say(lm: LanguageModel, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    return generate_batch(lm, prompts, max_new_tokens=max_new_tokens, stop_at_newline=True)


def table(scores: dict[str, LanguageScores]) -> str:
    """The scores as a Markdown table, in percent."""
    names = list(asdict(next(iter(scores.values()))))
    lines = ["| language | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for code, score in scores.items():
        cells = (f"{100 * value:.1f}" for value in asdict(score).values())
        lines.append(f"| {code} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
