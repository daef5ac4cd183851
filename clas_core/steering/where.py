"""Where in a text a plan acts: on all of it, on the prompt, or on the answer.

What counts is the token that the model reads. The answer begins where its first token is predicted,
so at the prompt's last token: every position is of one of the two, none of both, and a prompt of a
single token is all answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ClasError

ALL = "all"


def check_where(where: object) -> str:
    """`where` in its shortest form: "all", "prompt", "answer", or "answer:3" for an answer from its
    third token on. Raises ClasError for anything else."""
    if isinstance(where, str):
        if where in (ALL, "prompt", "answer"):
            return where
        if re.fullmatch(r"answer:0*[1-9][0-9]{0,8}", where, re.ASCII):
            start = int(where.partition(":")[2])
            return "answer" if start == 1 else f"answer:{start}"
    raise ClasError(
        f"where must be all, prompt, answer, or answer:3 (from its third token on), not {where!r}."
    )


def acts(where: str, place: Tensor) -> Tensor:
    """Whether a plan acts on the tokens at these places, bool of the same shape.

    A token's place is how many tokens it lies behind the prompt's last one, negative before it.
    """
    if where == ALL:
        return torch.ones_like(place, dtype=torch.bool)
    if where == "prompt":
        return place < 0
    return place >= int(where.partition(":")[2] or 1) - 1


def steered_tokens(where: str, prompt: int, answer: int) -> tuple[bool, ...]:
    """Of the tokens of a prompt and then an answer, so many each, which a plan acts on as they are
    read. An answer's last token is read only if another one is to follow."""
    place = torch.arange(prompt + answer) - (prompt - 1)
    return tuple(acts(check_where(where), place).tolist())


def spread_over(where: str | Sequence[str] | None, rows: int) -> list[str] | None:
    """One place for each of so many rows; None for None. Raises ClasError for another number."""
    if where is None or isinstance(where, str):
        return where if where is None else [where] * rows
    if len(where) != rows:
        raise ClasError(f"Give one where for all rows, or one for each: {rows}, not {len(where)}.")
    return list(where)
