from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.selection import lape_select, select, telling_units
from clas_core.errors import ClasError

LANGUAGES = ("en", "es", "hi", "sw", "th")


def atlas_of(p: torch.Tensor) -> Atlas:
    """An atlas with only activation probabilities p, [layers, languages, neurons]."""
    residual = torch.zeros(*p.shape[:2], 8)
    tokens = torch.full(p.shape[1:2], 100)
    zeros = torch.zeros_like(p)
    codes = LANGUAGES[: p.shape[1]]
    return Atlas(codes, p, zeros, residual, residual[..., 0], p.half(), zeros.half(), tokens)


probabilities = npst.arrays(
    "float32",
    st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(1, 12)),
    elements=st.integers(0, 20).map(lambda n: n / 20),  # ties and zeros are common, as in reality
).map(torch.from_numpy)


def test_categories_by_hand() -> None:
    p = torch.tensor([[[0.0, 0.5, 0.5, 0.5, 0.1], [0.0, 0.1, 0.5, 0.5, 0.1], [0, 0, 0, 0.2, 0.2]]])
    selection = select(atlas_of(p), tau=0.2)
    assert selection.category.tolist() == [[0, 1, 2, 3, 1]]
    assert selection.owner.tolist() == [[-1, 0, -1, -1, 2]]
    assert selection.neurons_of("hi").tolist() == [[False, False, False, False, True]]
    assert selection.counts().tolist() == [[1, 2, 1, 1]]
    assert select(atlas_of(p), tau=0.2, shared_from=2).category.tolist() == [[0, 1, 3, 3, 1]]
    assert (selection.category.dtype, selection.owner.dtype) == (torch.int8, torch.int16)
    # Active in en: 1 2 3, es: 2 3, hi: 3 4.
    expected = torch.tensor([[1, 2 / 3, 1 / 4], [2 / 3, 1, 1 / 3], [1 / 4, 1 / 3, 1]])
    torch.testing.assert_close(selection.overlap(), expected)


@given(probabilities, st.floats(0, 1), st.data())
def test_select_follows_its_definition(p, tau, data) -> None:
    shared_from = data.draw(st.integers(2, p.shape[1]))
    selection = select(atlas_of(p), tau, shared_from)
    for layer in range(p.shape[0]):
        for neuron in range(p.shape[2]):
            column = p[layer, :, neuron]
            active = [k for k, value in enumerate(column) if value >= tau and value > 0]
            n = len(active)
            wanted = 0 if n == 0 else 1 if n == 1 else 3 if n >= shared_from else 2
            assert selection.category[layer, neuron] == wanted
            assert selection.owner[layer, neuron] == (active[0] if n == 1 else -1)
    assert (selection.counts().sum(1) == p.shape[2]).all()


@given(probabilities, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["absolute", "quantile"]))
def test_a_higher_bar_never_wakes_a_neuron(p, a, b, mode) -> None:
    low, high = (select(atlas_of(p), tau, mode=mode) for tau in sorted((a, b)))
    assert not (high.active & ~low.active).any()
    dead_low, dead_high = low.counts()[:, 0], high.counts()[:, 0]
    assert (dead_high >= dead_low).all()


@given(probabilities, st.floats(0, 1))
def test_sharing_from_fewer_languages_only_moves_partial_to_shared(p, tau) -> None:
    strict, loose = select(atlas_of(p), tau), select(atlas_of(p), tau, shared_from=2)
    changed = strict.category != loose.category
    assert (strict.category[changed] == 2).all()
    assert (loose.category[changed] == 3).all()


def test_quantile_mode_scales_with_each_layer() -> None:
    p = torch.rand(2, 4, 100, generator=torch.Generator().manual_seed(0))
    p[1] /= 10
    selection = select(atlas_of(p), tau=0.75, mode="quantile")
    assert selection.active.float().mean(dim=(1, 2)).tolist() == pytest.approx([0.25, 0.25])


def test_a_neuron_that_never_opens_is_dead_at_any_threshold() -> None:
    p = torch.zeros(1, 3, 4)
    for mode in ("absolute", "quantile"):
        assert (select(atlas_of(p), tau=0.0, mode=mode).category == 0).all()
    assert select(atlas_of(p)).overlap().tolist() == [[0.0] * 3] * 3


def lape_by_loops(p: torch.Tensor, keep: float, bar: float) -> set[tuple[int, int, int]]:
    """(layer, language, neuron), written from the paper with Python floats and sorting."""
    layers, languages, neurons = p.shape
    values = sorted(p.flatten().tolist())
    threshold = values[round(bar * len(values)) - 1]
    scored = []
    for layer in range(layers):
        for neuron in range(neurons):
            column = p[layer, :, neuron].tolist()
            total = sum(column)
            shares = [x / total if total else 0.0 for x in column]
            entropy = -sum(x * math.log(x) for x in shares if x > 0)
            if any(x > threshold for x in column):
                scored.append((entropy, layer, neuron))
    kept = sorted(scored)[: round(keep * layers * neurons)]
    return {
        (layer, k, neuron)
        for _, layer, neuron in kept
        for k in range(languages)
        if p[layer, k, neuron] > threshold
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("keep", "bar"), [(0.01, 0.95), (0.1, 0.8), (0.5, 0.95)])
def test_lape_equals_independent_code(seed, keep, bar) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(3, 5, 200, generator=generator) ** 4
    p[:, :, :20] = 0  # dead: 0 / 0
    p[:, 1:, 20:40] = 0  # open in one language only: entropy 0
    selection = lape_select(atlas_of(p), keep, bar)
    assert {tuple(i) for i in selection.belongs.nonzero().tolist()} == lape_by_loops(p, keep, bar)
    assert torch.equal(selection.neurons_of("es"), selection.belongs[:, 1])


def test_lape_neurons_may_belong_to_several_languages() -> None:
    p = torch.full((1, 4, 100), 0.1)
    p[0, :2, 7] = 0.9
    selection = lape_select(atlas_of(p))
    assert selection.belongs.nonzero().tolist() == [[0, 0, 7], [0, 1, 7]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": float("nan")}, "tau must be between 0 and 1"),
        ({"tau": 1.5}, "tau must be between 0 and 1"),
        ({"shared_from": 1}, "2 to 4 languages"),
        ({"shared_from": 5}, "2 to 4 languages"),
        ({"mode": "relative"}, "'absolute' or 'quantile'"),
    ],
)
def test_thresholds_out_of_range_get_a_clear_sentence(arguments, message) -> None:
    with pytest.raises(ClasError, match=message):
        select(atlas_of(torch.rand(1, 4, 5)), **arguments)


def test_one_language_is_not_enough() -> None:
    with pytest.raises(ClasError, match="at least two"):
        select(atlas_of(torch.rand(1, 1, 5)))
    with pytest.raises(ClasError, match="choose one of en, es"):
        select(atlas_of(torch.rand(1, 2, 5))).neurons_of("sw")
    with pytest.raises(ClasError, match="LAPE's keep"):
        lape_select(atlas_of(torch.rand(1, 2, 5)), keep=0)


@pytest.mark.parametrize("mode", ["absolute", "quantile"])
def test_what_lies_beyond_a_narrow_layer_is_no_neuron(mode) -> None:
    p = torch.rand(2, 3, 40, generator=torch.Generator().manual_seed(0))
    p[1, :, 25:] = 0
    padded = dataclasses.replace(atlas_of(p), widths=(40, 25))
    selection = select(padded, 0.6, mode=mode)
    alone = select(atlas_of(p[1:, :, :25]), 0.6, mode=mode)
    assert torch.equal(selection.category[1, :25], alone.category[0])
    assert (selection.category[1, 25:] == -1).all()
    assert (selection.owner[1, 25:] == -1).all()
    assert not selection.active[1, :, 25:].any()
    assert selection.counts().sum(1).tolist() == [40, 25]
    lape, crowded = lape_select(padded, 0.2, 0.7), lape_select(atlas_of(p), 0.2, 0.7)
    assert not lape.belongs[1, :, 25:].any()
    assert lape.belongs.any(1).sum() == 13  # a fifth of the 65 that there are
    assert crowded.belongs.any(1).sum() == 16


def test_telling_units_by_hand() -> None:
    atlas = atlas_of(torch.zeros(2, 2, 4))
    precision = torch.tensor([[0.9, 0.1, 0.5, 0.5], [0.7, 0.2, 0.6, 0.99]])  # the last is no neuron
    atlas = dataclasses.replace(
        atlas, precision=torch.stack([precision, 1 - precision], 1), widths=(4, 3)
    )

    def found(*arguments) -> list[list[int]]:
        return telling_units(atlas, *arguments).nonzero().tolist()

    assert found("en", 2) == [[0, 0], [0, 1]]  # one of the highest and one of the lowest
    assert found("en", 3) == [[0, 0], [0, 1], [1, 1]]
    assert found("en", 2, "top") == [[0, 0], [1, 0]]
    assert found("en", 2, "bottom") == [[0, 1], [1, 1]]
    assert found("es", 1, "top") == [[0, 1]]
    assert found("en", 1, "top", [1]) == [[1, 0]]
    assert found("en", 4, "top") == [[0, 0], [0, 2], [1, 0], [1, 2]]  # of equal ones the first
    assert len(found("en", 100)) == len(found("en", 7)) == 7
    with pytest.raises(ClasError, match="at least one unit"):
        found("en", 0)
    with pytest.raises(ClasError, match="ranking must be one of both, top, bottom"):
        found("en", 2, "best")
    with pytest.raises(ClasError, match="no language 'xx'"):
        found("xx", 2)
