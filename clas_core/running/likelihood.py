"""How likely the model finds given endings, under several plans at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ClasError
from ..model.architecture import LanguageModel
from ..model.prompts import Prompt, Rendered, from_nothing
from .batch import Plans, Progress
from .branches import logits
from .reading import TOKENS_AT_ONCE, Batch, common_start, read_prompts


@dataclass(frozen=True)
class Question:
    """A prompt and what may follow it, as tokens."""

    prompt: tuple[int, ...]
    endings: tuple[tuple[int, ...], ...]


def tokenise(lm: LanguageModel, prompt: Prompt, endings: Sequence[str]) -> Question:
    """Split prompt and endings into tokens as lm-evaluation-harness does, so that scores agree.

    Blanks at the prompt's end go over to the ending; both are tokenised as one text, and the
    ending's tokens are those past as many as the prompt alone has. An empty prompt stands for the
    token that begins a text. In a chat the answer begins with the ending's first letter. Raises
    ClasError for an ending without a token.
    """
    start = prompt.rstrip() if isinstance(prompt, str) else ""
    blanks = prompt[len(start) :] if isinstance(prompt, str) else ""
    if isinstance(prompt, Rendered):
        before = list(prompt.token_ids)
        shorn = [ending.lstrip() for ending in endings]
        after = lm.tokenizer(shorn, add_special_tokens=False)["input_ids"]
    elif start:
        before = lm.tokenizer(start)["input_ids"]
        whole = lm.tokenizer([start + blanks + ending for ending in endings])["input_ids"]
        after = [row[len(before) :] for row in whole]
    else:
        before = list(from_nothing(lm).token_ids)
        after = lm.tokenizer([blanks + e for e in endings], add_special_tokens=False)["input_ids"]
    if not all(after):
        raise ClasError(f"The answer {endings[after.index([])]!r} has no token: give it a letter.")
    return Question(tuple(before), tuple(map(tuple, after)))


def log_likelihoods(
    lm: LanguageModel,
    questions: Sequence[Question],
    plans: Plans = (None,),
    *,
    tokens_at_once: int = TOKENS_AT_ONCE,
    progress: Progress | None = None,
) -> list[list[list[float]]]:
    """log p(ending | prompt) in nats, summed over its tokens: [plans][questions][endings].

    `progress(done, total)` counts questions.
    """
    found: list[list[list[float]]] = [[[] for _ in questions] for _ in plans]
    asked = [_Asked.of(question) for question in questions]
    room = [sum(len(ending) for ending in one.endings) for one in asked]
    wanted = [len(one.shared) + 1 for one in asked]
    prompts = [(*one.prompt, *one.shared) for one in asked]
    done = 0
    for batch in read_prompts(lm, prompts, plans, room, wanted, tokens_at_once):
        for scores, column in zip(_score(lm, batch, [asked[i] for i in batch.rows]), found):
            values = iter(scores.tolist())
            for row in batch.rows:
                column[row] = [next(values) for _ in asked[row].endings]
        done += len(batch.rows)
        if progress:
            progress(done, len(questions))
    return found


@dataclass(frozen=True)
class _Asked:
    """A question whose endings' common beginning, `shared`, is read along with the prompt."""

    prompt: tuple[int, ...]
    shared: tuple[int, ...]
    endings: tuple[tuple[int, ...], ...]  # without `shared`, at least a token each

    @classmethod
    def of(cls, question: Question) -> _Asked:
        same = common_start(question.endings, min(map(len, question.endings)) - 1)
        rest = tuple(ending[same:] for ending in question.endings)
        return cls(question.prompt, question.endings[0][:same], rest)


def _score(lm: LanguageModel, batch: Batch, asked: Sequence[_Asked]) -> list[Tensor]:
    """Under each plan the score of every ending of every question, [endings of all]."""
    endings = [ending for one in asked for ending in one.endings]
    owner = _integers(lm, [row for row, one in enumerate(asked) for _ in one.endings])
    scores = _score_starts(lm, batch, asked)
    if max(map(len, endings)) == 1:
        return scores
    # The last token is only ever predicted: it needn't be read.
    ids, mask = lm.pad([ending[:-1] for ending in endings], "right")
    row, place = mask.nonzero(as_tuple=True)
    following = _integers(lm, [token for ending in endings for token in ending[1:]])
    each = torch.arange(len(row), device=lm.device)
    return [
        score.index_add(0, row, _log_p(lm, states[row, place], each, following))
        for score, states in zip(scores, batch.branches.select(owner).read(ids, mask))
    ]


def _score_starts(lm: LanguageModel, batch: Batch, asked: Sequence[_Asked]) -> list[Tensor]:
    """Of every ending the score of what all of its question's share, and of its first token."""
    length = batch.states[0].shape[1]
    rows: list[int] = []  # the states that predict
    places: list[int] = []
    state, token, question = [], [], []  # what is predicted; the question of a shared token
    for row, one in enumerate(asked):
        for k, shared in enumerate(one.shared):
            state.append(len(rows) + k)
            token.append(shared)
            question.append(row)
        rows += [row] * (len(one.shared) + 1)
        places += range(length - len(one.shared) - 1, length)
    last = [k for k, place in enumerate(places) if place == length - 1]
    owner = [row for row, one in enumerate(asked) for _ in one.endings]
    state += [last[row] for row in owner]
    token += [ending[0] for one in asked for ending in one.endings]
    found = []
    for states in batch.states:
        log_p = _log_p(lm, states[rows, places], _integers(lm, state), _integers(lm, token))
        of_shared, of_first = log_p[: len(question)], log_p[len(question) :]
        shared_sum = log_p.new_zeros(len(asked)).index_add(0, _integers(lm, question), of_shared)
        found.append(of_first + shared_sum[owner])
    return found


@torch.inference_mode()
def _log_p(lm: LanguageModel, states: Tensor, which: Tensor, tokens: Tensor) -> Tensor:
    """log p of `tokens` [n], the k-th after `states[which[k]]`; states [any number, hidden]."""
    found = torch.empty(len(tokens), device=lm.device)
    begin = 0
    for part in logits(lm, states):
        mine = (which >= begin) & (which < begin + len(part))
        row = which[mine] - begin
        found[mine] = part[row, tokens[mine]] - part.logsumexp(-1)[row]
        begin += len(part)
    return found


def _integers(lm: LanguageModel, values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long, device=lm.device)
