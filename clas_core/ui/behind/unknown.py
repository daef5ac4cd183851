"""Prompts that the village's model can't know, said before anyone wonders at its answer."""

from __future__ import annotations

from .words import Vocabulary, is_word, split

MANY = 0.25  # of the prompt's words: so many unseen ones are too many
NAMED = 3  # of the unseen words that are named


def notice_of(vocabulary: Vocabulary, prompt: str, answer: str, code: str) -> dict[str, str] | None:
    """What is to be said of a prompt with words that no language of the village has, or of an
    unsteered `answer` in another language than the prompt's `code`; None if there is nothing.

    `text`: the sentence. `word`: what another model would have to know.
    """
    said = [piece for piece in split(prompt) if is_word(piece)]
    unseen = [word for word in dict.fromkeys(said) if not vocabulary.languages_of(word)]
    if said and len(unseen) >= MANY * len(set(said)):
        names = [word for word in unseen if word[0].isupper() and word != said[0]]
        listed = ", ".join(f"“{word}”" for word in unseen[:NAMED])
        more = " and more" if len(unseen) > NAMED else ""
        text = (
            f"This small model has never seen {listed}{more}: all it knows is a village, its "
            "people, places and things. Whatever it answers means nothing."
        )
        return {"text": text, "word": names[0] if names else unseen[0]}
    told = [piece for piece in split(answer) if is_word(piece)]
    if len(told) > 1 and vocabulary.share(answer, code) < 0.5:
        text = (
            "Left alone, this small model doesn't go on in the language of the prompt: it can't "
            "make sense of it."
        )
        return {"text": text, "word": "more words"}
    return None
