"""Tokens into text, as they come."""

from __future__ import annotations

from collections.abc import Sequence

from .architecture import LanguageModel
from .prompts import Rendered


class TextStream:
    """Text of tokens as they come: whole characters, spaced as they follow `prompt_ids`.

    The last few tokens are decoded together, and what is new behind the text so far is given out.
    A character in parts is held back until it is whole. Its parts are at most four bytes: what is
    not whole then is no character, and given out as U+FFFD. (The library's own DecodeStream raises
    at byte tokens that are no valid UTF-8, which a strongly steered model does write.)
    """

    _CONTEXT = 8  # tokens before that suffice to space a word
    _WINDOW = 24  # tokens decoded at once, at most
    _PARTS = 4  # tokens that a character may come in

    def __init__(
        self, lm: LanguageModel, prompt_ids: Sequence[int] = (), *, keep_special: bool = False
    ) -> None:
        self._tokenizer = lm.tokenizer
        self._keep_special = keep_special
        added = {} if keep_special else lm.tokenizer.added_tokens_decoder
        self._unsaid = {number for number, token in added.items() if token.special}
        self._ids = self._context(prompt_ids)
        self._text = self._decode(self._ids)
        self._given = len(self._text)  # how many characters of it
        self._ages: list[int] = []  # of the others: how many tokens ago each one began
        self._whole = 0  # how many of the tokens came before the last text without a rest

    def push(self, token: int) -> str:
        """The text that `token` completes: often one word, empty within a character."""
        if token in self._unsaid:
            return ""
        self._ids.append(token)
        self._text = self._decode(self._ids)
        held = len(self._text) - self._given
        if held <= 0:  # a token without any text
            self._ids.pop()
            return ""
        self._ages = ([age + 1 for age in self._ages] + [1] * held)[:held]
        whole = max(0, len(self._text.rstrip("\ufffd")) - self._given)
        if not whole and self._ages[0] >= self._PARTS:
            whole = 1
        new = self._text[self._given : self._given + whole]
        self._given += whole
        del self._ages[:whole]
        if new and not self._ages:
            if len(self._ids) > self._CONTEXT:
                self._forget(self._whole)
            self._whole = len(self._ids)
        elif len(self._ids) > self._WINDOW:
            self._forget(len(self._ids) - self._PARTS)
        return new

    def finish(self) -> str:
        """What is held back, once no more tokens come."""
        new, self._given = self._text[self._given :], len(self._text)
        return new

    def _forget(self, count: int) -> None:
        """Go on without the first `count` tokens."""
        behind = len(self._text) - self._given
        del self._ids[:count]
        self._whole = max(0, self._whole - count)
        self._text = self._decode(self._ids)
        self._given = max(0, len(self._text) - behind)

    def _context(self, prompt_ids: Sequence[int]) -> list[int]:
        """The prompt's last tokens, from the start of a character on."""
        for length in range(self._CONTEXT, self._CONTEXT + self._PARTS):
            ids = list(prompt_ids[-length:])
            if "\ufffd" not in self._decode(ids):
                return ids
        return list(prompt_ids[-self._CONTEXT :])

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

    def push(self, token: int, last: bool = False) -> None:
        """Go on by `token`, the `last` one perhaps; one that comes after the end is left out."""
        if self.done:
            return
        self.token_ids.append(token)
        if token in self._ends:  # some templates' own are no special tokens, and would be text
            self.text += self._stream.finish()
            self.done = True
            return
        self.text += self._stream.push(token)
        if last:
            self.text += self._stream.finish()
        if self._stop_at_newline:
            blank = len(self.text) - len(self.text.lstrip())
            end = self.text.find("\n", blank)
            if end >= 0:
                self.text, self.done = self.text[:end], True
