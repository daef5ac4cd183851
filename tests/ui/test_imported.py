from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_studio import tiny_studio

from clas_core.atlas.selection import SPECIFIC
from clas_core.errors import ClasError
from clas_core.steering.published import PublishedNeurons, PublishedVectors
from clas_core.ui.behind.imported import with_published
from clas_core.ui.behind.studio import Studio

CODES = ("sw", "en", "ar")


@pytest.fixture(scope="module")
def studio() -> Studio:
    return tiny_studio()


def recipe(studio, **changes):
    return studio.recipe({**studio.defaults(), "prompt": "Anna sees a boat.", **changes})


@pytest.fixture
def neurons(tmp_path) -> Path:
    """Two neurons of each language in the last of three layers, as LAPE's authors publish them."""
    nothing = torch.tensor([], dtype=torch.int64)
    lists = [[nothing, nothing, torch.tensor([k, 10 + k])] for k in range(len(CODES))]
    torch.save(lists, tmp_path / "lape.pth")
    return tmp_path / "lape.pth"


def test_published_neurons_are_the_specific_ones(studio, neurons):
    found = with_published(studio, str(neurons), "sw, en ar")
    assert found.codes == ("en", "ar", "sw")
    assert found.key != studio.key
    assert "lape.pth" in found.choice.title
    assert "lape.pth" in found.choice.private
    category = found.selection(recipe(found)).category
    assert (category[2] == SPECIFIC).nonzero().flatten().tolist() == [0, 1, 2, 10, 11, 12]
    assert not (category[:2] == SPECIFIC).any()


@pytest.mark.parametrize("method", ["IntMu", "LAPE", "LanguageArithmetic", "CLAS"])
def test_every_method_steers_with_them(studio, neurons, method):
    found = with_published(studio, str(neurons), "sw en ar")
    made = recipe(found, method=method, strength=1.0, beta=1.0, gamma=0.0, language="sw")
    layer = found.plan(made).layers[2]
    touched = torch.ones(64) if layer.scale is None else layer.scale
    touched = (touched != 1) | (torch.zeros(64) if layer.bias is None else layer.bias).bool()
    expected = {"IntMu": {0, 10}, "LAPE": {1, 11}, "LanguageArithmetic": {0, 10}}
    wanted = expected.get(method, {0, 1, 2, 10, 11, 12})
    live = {n for n in wanted if method != "LanguageArithmetic" or touched[n]}
    assert set(touched.nonzero().flatten().tolist()) == live
    found.plan(made, control=True)


def test_published_vectors_are_what_diffmean_shifts_by(studio, tmp_path):
    vectors = torch.randn(3, 2, 32)
    PublishedVectors(vectors, ("sw", "en")).save(tmp_path / "means.safetensors")
    found = with_published(studio, str(tmp_path / "means.safetensors"), "")
    made = recipe(found, method="DiffMean", strength=1.0, language="sw")
    shift = found.plan(made).layers[2].shift
    direction = vectors[2, 0] - vectors[2, 1]
    wanted = found.atlas.norm[2].mean() * direction / direction.norm()
    torch.testing.assert_close(shift, wanted)
    assert found.atlas.probability.shape == (3, 2, 64)


def test_what_does_not_fit_gets_a_sentence(studio, neurons, tmp_path):
    with pytest.raises(ClasError, match="3 languages, but 2 codes"):
        with_published(studio, str(neurons), "sw en")
    with pytest.raises(ClasError, match="measure at least two"):
        with_published(studio, str(neurons), "rw ig yo")
    wide = PublishedNeurons(torch.zeros(3, 2, 99, dtype=torch.bool), ("sw", "en"), (99,) * 3)
    wide.save(tmp_path / "wide.safetensors")
    with pytest.raises(ClasError, match="neurons"):
        with_published(studio, str(tmp_path / "wide.safetensors"), "")
    PublishedVectors(torch.randn(2, 2, 32), ("sw", "en")).save(tmp_path / "short.safetensors")
    with pytest.raises(ClasError, match="2 layers of size 32"):
        with_published(studio, str(tmp_path / "short.safetensors"), "")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ClasError, match="can't be read"):
        with_published(studio, str(tmp_path / "broken.safetensors"), "")
    found = with_published(studio, str(neurons), "sw en ar")
    with pytest.raises(ClasError, match="in use already"):
        with_published(found, str(neurons), "sw en ar")
