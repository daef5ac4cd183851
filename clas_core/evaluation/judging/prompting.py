"""How questions are put to the model: as plain text, or as a turn of a chat."""

from __future__ import annotations

from dataclasses import dataclass

from ...model.architecture import LanguageModel
from ...model.prompts import Prompt, is_templated, render
from ...steering.recipe import Recipe


@dataclass(frozen=True)
class Prompting:
    """`chat` and `system` are as in `prompts.render`. In a chat, solved examples and the sentence
    that asks for a language stand in the user's one turn, before the question."""

    chat: bool = False
    system: str = ""

    @classmethod
    def of(cls, recipe: Recipe, lm: LanguageModel) -> Prompting:
        """How `recipe` prompts this model; "auto" is a chat if the model is tuned to chat."""
        chat = is_templated(lm, recipe.chat)
        return cls(chat, recipe.system if chat else "")

    def put(self, lm: LanguageModel, text: str) -> Prompt:
        """`text` as it is read. Raises ClasError where the template fails."""
        return render(lm, text, chat="on", system=self.system) if self.chat else text


PLAIN = Prompting()
