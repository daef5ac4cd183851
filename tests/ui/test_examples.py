from __future__ import annotations

import pytest
from chats import CHATML, chat_lm

from clas_core.atlas.atlas import Atlas
from clas_core.text.corpus import ParallelCorpus
from clas_core.ui.behind.choice import Choice
from clas_core.ui.behind.examples import examples_of
from clas_core.ui.behind.studio import Studio
from clas_core.ui.tabs.measure import _ticked


@pytest.fixture(scope="module")
def everyday() -> ParallelCorpus:
    return ParallelCorpus.bundled("everyday")


def test_a_base_model_goes_on_from_sentences(everyday) -> None:
    examples = examples_of(Choice("owner/base", None, "everyday", everyday))
    assert list(examples("en")) == list(everyday.sentences["en"][:6])


def test_a_chat_model_is_asked_questions_in_every_language(everyday) -> None:
    examples = examples_of(Choice("owner/chat", None, "everyday", everyday), chats=True)
    rows = [everyday.sentences["en"].index(text) for text in examples("en")]
    assert len(rows) == 6
    assert all(text.endswith("?") for text in examples("en"))
    assert all(text.endswith(";") for text in examples("el"))  # the Greek mark
    for code in everyday.languages:  # the same ones, also where no mark tells
        assert list(examples(code)) == [everyday.sentences[code][row] for row in rows]


def test_a_text_without_questions_offers_its_sentences() -> None:
    text = ParallelCorpus("own", {"en": ["One.", "Two."], "sw": ["Moja.", "Mbili."]})
    assert examples_of(Choice("x/y", None, "own", text), chats=True)("sw") == ["Moja.", "Mbili."]


def test_a_chat_model_is_offered_what_it_can_do(tiny_lm, tiny_corpus) -> None:
    chat = chat_lm(CHATML)
    for lm, chats in ((tiny_lm, False), (chat, True)):
        choice = Choice("owner/x", None, "tiny", tiny_corpus)
        studio = Studio(lm, choice, Atlas.measure(lm, tiny_corpus))
        asked = ["Who has the book?"] if chats else tiny_corpus.sentences["en"]
        assert list(studio.examples("en")) == list(asked)
        assert {"retrieval", "bits-per-byte", "fidelity"} <= set(_ticked(studio))
        assert ("from-nothing" in _ticked(studio)) != chats
