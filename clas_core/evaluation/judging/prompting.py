"""How questions are put to the model: as plain text, or as a turn of a chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...model.architecture import LanguageModel
from ...model.prompts import Prompt, is_templated, render
from ...steering.recipe import Recipe
from .items import Items


@dataclass(frozen=True)
class Prompting:
    """`chat` and `system` are as in `prompts.render`. In a chat each solved example is a turn of
    the user's and an answer, and the sentence that asks for a language stands before the question
    itself."""

    chat: bool = False
    system: str = ""

    @classmethod
    def of(cls, recipe: Recipe, lm: LanguageModel) -> Prompting:
        """How `recipe` prompts this model; "auto" is a chat if the model is tuned to chat."""
        chat = is_templated(lm, recipe.chat)
        return cls(chat, recipe.system if chat else "")

    def put(self, lm: LanguageModel, items: Items[Any], prompt: str) -> Prompt:
        """The prompt of one of `items` as it is read. Raises ClasError where the template fails."""
        if not self.chat:
            return items.lead + prompt
        turns = [(asked, answer.strip()) for asked, answer in items.examples]
        return render(lm, items.prefix + prompt, chat="on", system=self.system, examples=turns)


PLAIN = Prompting()
