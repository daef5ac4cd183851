"""Tokens into text, as they come."""

from __future__ import annotations

from collections.abc import Sequence

from .architecture import LanguageModel
from .prompts import Rendered


class TextStream:
    """Text of tokens as they come: whole characters, spaced as they follow `prompt_ids`.

    Each token is decoded behind the few before it, and what they add is the new text. (The
    library's own DecodeStream does this too, but raises at byte tokens that are no valid UTF-8,
    which a strongly steered model does write.)
    """

    _CONTEXT = 8  # prompt tokens that suffice to space the first word

    def __init__(
        self, lm: LanguageModel, prompt_ids: Sequence[int] = (), *, keep_special: bool = False
    ) -> None:
        self._tokenizer = lm.tokenizer
        self._keep_special = keep_special
        self._ids = list(prompt_ids[-self._CONTEXT :])
        self._said = len(self._ids)  # how many of them are in the text already

    def push(self, token: int) -> str:
        """The text that `token` completes: often one word, empty within a character."""
        self._ids.append(token)
        new = self._decode(self._ids)[len(self._decode(self._ids[: self._said])) :]
        if not new or new.endswith("\ufffd"):
            return ""
        del self._ids[: self._said]
        self._said = len(self._ids)
        return new

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(
            ids,
            skip_special_tokens=not self._keep_special,
            clean_up_tokenization_spaces=False,
        )


class Answer:
    """What was said to `prompt` so far: done at a token that ends an answer, and, if
    `stop_at_newline`, at the first line break after some text."""

    def __init__(self, lm: LanguageModel, prompt: Rendered, stop_at_newline: bool) -> None:
        self.prompt_ids = prompt.token_ids
        self.token_ids: list[int] = []
        self.text = ""
        self.done = False
        self._ends = prompt.end_ids
        self._stop_at_newline = stop_at_newline
        self._stream = TextStream(lm, prompt.token_ids)

    def push(self, token: int) -> None:
        """Go on by `token`; one that comes after the end is left out."""
        if self.done:
            return
        self.token_ids.append(token)
        if token in self._ends:  # some templates' own are no special tokens, and would be text
            self.done = True
            return
        self.text += self._stream.push(token)
        if self._stop_at_newline:
            blank = len(self.text) - len(self.text.lstrip())
            end = self.text.find("\n", blank)
            if end >= 0:
                self.text, self.done = self.text[:end], True
