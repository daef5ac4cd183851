"""Fixtures every test may use: tiny random models of three families and a small corpus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from tiny import SENTENCES, make_tokenizer, tiny_gpt2_model, tiny_llama_model, tiny_qwen2_model
from transformers import PreTrainedTokenizerFast

from clas_core.model.architecture import LanguageModel
from clas_core.model.loading import load
from clas_core.text.corpus import ParallelCorpus

torch.set_num_threads(1)
# How long an example takes is the machine's affair: no test fails of it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def no_traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Atlases that tests measure are kept apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_lm(tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """A random 3-layer Llama with ReLU: hidden 32, 64 neurons a layer, vocabulary 400."""
    return load(tiny_llama_model(), tokenizer)


@pytest.fixture(scope="session")
def tiny_qwen2(tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    return load(tiny_qwen2_model(), tokenizer)


@pytest.fixture(scope="session")
def tiny_gpt2(tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    return load(tiny_gpt2_model(), tokenizer)


@pytest.fixture(scope="session")
def tiny_corpus() -> ParallelCorpus:
    """Six sentences in four languages and two scripts, from 1 to 11 words long."""
    return ParallelCorpus("tiny", SENTENCES)


@pytest.fixture(params=["tiny_lm", "tiny_qwen2", "tiny_gpt2"])
def any_lm(request: pytest.FixtureRequest) -> LanguageModel:
    """Each of the three families in turn: gated with ReLU, gated with SiLU, plain with Conv1D."""
    return request.getfixturevalue(request.param)
