from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.selection import lape_select, select, telling_units
from clas_core.errors import ClasError
from clas_core.steering.methods import (
    CLAS,
    LAPE,
    METHODS,
    DiffMean,
    IntMu,
    Kojima,
    LanguageArithmetic,
    RandomControl,
    Silence,
    ThereAndBack,
    UnitDiffMean,
    bridge_layers,
)
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered

LANGUAGES = ("en", "es", "hi", "sw")


def random_atlas(layers: int = 8, neurons: int = 60, hidden: int = 16) -> Atlas:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    p = draw(layers, 4, neurons).sigmoid() * (draw(layers, 1, neurons) > -0.8)
    p[:, :, 0] = torch.tensor([0.99, 0.0, 0.0, 0.0])  # for LAPE: open in English alone
    mean, residual = draw(layers, 4, neurons), draw(layers, 4, hidden)
    norm = 5 * torch.rand(layers, 4, generator=generator)
    precision, median = p.flip(2).half(), draw(layers, 4, neurons).half()
    return Atlas(LANGUAGES, p, mean, residual, norm, precision, median, torch.full((4,), 100))


ATLAS = random_atlas()
SELECTION = select(ATLAS, tau=0.5)
H = torch.randn(60, generator=torch.Generator().manual_seed(1))


def act(plan, layer: int, h: torch.Tensor = H) -> torch.Tensor:
    part = plan.layers[layer]
    h = h if part.scale is None else h * part.scale
    return h if part.bias is None else h + part.bias


def test_the_test_atlas_has_every_category() -> None:
    assert (SELECTION.counts() > 0).all()


@pytest.mark.parametrize("specific", ["any", "target", "others"])
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 2.0])
def test_clas_is_the_papers_formula(alpha, specific) -> None:
    beta, gamma, target = 1.3, 0.6, 3
    method = CLAS(alpha, beta, gamma, layers=(2, 5), specific=specific)
    plan = method.plan(ATLAS, SELECTION, "sw")
    assert list(plan.layers) == [2, 3, 4]
    for layer in plan.layers:
        got = act(plan, layer)
        for i in range(60):
            active = [k for k in range(4) if ATLAS.probability[layer, k, i] >= 0.5]
            counts = {
                "any": True,
                "target": active == [target],
                "others": active != [target],
            }[specific]
            m = beta if len(active) == 4 else gamma if len(active) == 1 and counts else 1.0
            wanted = (1 - alpha) * H[i] + alpha * m * H[i]
            torch.testing.assert_close(got[i], wanted)


def test_clas_reaches_the_partial_neurons_that_the_selection_calls_shared() -> None:
    loose = select(ATLAS, tau=0.5, shared_from=2)
    plan = CLAS(1.0, beta=2.0, gamma=1.0, layers=(0, 1)).plan(ATLAS, loose, "sw")
    assert torch.equal(plan.layers[0].scale == 2, loose.active[0].sum(0) >= 2)


def test_int_mu_overwrites_the_targets_neurons_by_their_mean() -> None:
    own = SELECTION.neurons_of("sw")
    plan = IntMu(layers=(0, 8)).plan(ATLAS, SELECTION, "sw")
    for layer in range(8):
        wanted = H.clone()
        wanted[own[layer]] = ATLAS.mean[layer, 3][own[layer]]
        assert torch.equal(act(plan, layer), wanted)


def test_lape_silences_the_sources_neurons() -> None:
    own = lape_select(ATLAS).neurons_of("en")
    assert own.any()
    plan = LAPE(layers=(0, 8)).plan(ATLAS, SELECTION, "sw")
    for layer in range(8):
        assert torch.equal(act(plan, layer), H.masked_fill(own[layer], 0.0))


@pytest.mark.parametrize("source", [None, "en"])
@pytest.mark.parametrize("find", [select, lape_select])
def test_language_arithmetic_adds_and_takes_away(source, find) -> None:
    sel = find(ATLAS)
    method = LanguageArithmetic(lam=1.5, source=source, layers=(0, 8))
    plan = method.plan(ATLAS, sel, "sw")
    for layer in range(8):
        wanted = H.clone()
        if source is not None:
            wanted[sel.neurons_of(source)[layer]] = 0
        own = sel.neurons_of("sw")[layer]
        wanted[own] += 1.5 * ATLAS.mean[layer, 3][own]
        torch.testing.assert_close(act(plan, layer), wanted)


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm()


def test_diff_mean_is_a_share_of_the_residual_streams_length() -> None:
    r, length = ATLAS.residual, ATLAS.norm.mean(1)
    plan = DiffMean(0.3, "en").plan(ATLAS, SELECTION, "sw")
    assert list(plan.layers) == [6]
    shift = 0.3 * length[6] * unit(r[6, 3] - r[6, 0])
    torch.testing.assert_close(plan.layers[6].shift, shift)
    plan = DiffMean(1.0, "others", layers=(1, 3)).plan(ATLAS, SELECTION, "sw")
    assert list(plan.layers) == [1, 2]
    for layer, part in plan.layers.items():  # away from the mean of all others, half in each
        others = (r[layer, 0] + r[layer, 1] + r[layer, 2]) / 3
        wanted = length[layer] / 2 * unit(r[layer, 3] - others)
        torch.testing.assert_close(part.shift, wanted)
    assert DiffMean(source="sw").plan(ATLAS, SELECTION, "sw").is_identity


def test_kojima_overwrites_the_telling_units_by_their_median() -> None:
    for ranking in ("both", "top", "bottom"):
        plan = Kojima(k=25, ranking=ranking).plan(ATLAS, SELECTION, "sw")
        assert list(plan.layers) == list(range(8))
        assert plan.touched == (25, 0)
        units = telling_units(ATLAS, "sw", 25, ranking)
        for layer in range(8):
            wanted = torch.where(units[layer], ATLAS.median[layer, 3].float(), H)
            assert torch.equal(act(plan, layer), wanted)
    few = Kojima(k=25, layers=(2, 4)).plan(ATLAS, SELECTION, "sw")
    assert (list(few.layers), few.touched) == ([2, 3], (25, 0))  # ranked among these layers


@pytest.mark.parametrize("source", ["others", "es"])
def test_unit_diff_mean_moves_the_telling_units(source) -> None:
    plan = UnitDiffMean(0.5, k=25, source=source).plan(ATLAS, SELECTION, "sw")
    units, mu = telling_units(ATLAS, "sw", 25), ATLAS.mean
    start = mu[:, 1] if source == "es" else mu[:, :3].mean(1)
    for layer in range(8):
        moved = H + 0.5 * (mu[layer, 3] - start[layer])
        torch.testing.assert_close(act(plan, layer), torch.where(units[layer], moved, H))


def test_silence_turns_the_units_that_tell_the_target_down() -> None:
    units = telling_units(ATLAS, "sw", 25, "top")
    for strength, factor in ((1.0, 0.0), (2.0, -1.0), (0.5, 0.5)):
        plan = Silence(strength, k=25).plan(ATLAS, SELECTION, "sw")
        for layer in range(8):
            assert torch.equal(act(plan, layer), torch.where(units[layer], factor * H, H))


def test_there_and_back_goes_to_the_anchor_early_and_returns_late() -> None:
    r, length = ATLAS.residual, ATLAS.norm.mean(1)
    plan = ThereAndBack(0.5, "es").plan(ATLAS, SELECTION, "sw")
    assert list(plan.layers) == [0, 1, 6, 7]
    for layer, sign in ((0, -1), (1, -1), (6, 1), (7, 1)):
        wanted = sign * 0.5 * length[layer] / 2 * unit(r[layer, 3] - r[layer, 1])
        torch.testing.assert_close(plan.layers[layer].shift, wanted)
    longer = ThereAndBack(early=(1, 4), layers=(5, 6)).plan(ATLAS, SELECTION, "sw")
    torch.testing.assert_close(longer.layers[2].shift.norm(), length[2] / 3)
    torch.testing.assert_close(longer.layers[5].shift.norm(), length[5])
    with pytest.raises(ClasError, match="which overlap"):
        ThereAndBack(early=(1, 6), layers=(5, 7)).plan(ATLAS, SELECTION, "sw")


def test_a_plan_says_how_much_it_touches() -> None:
    assert DiffMean(layers=(1, 3)).plan(ATLAS, SELECTION, "sw").touched == (0, 32)
    assert SteeringPlan.identity().touched == (0, 0)
    both = LayerPlan(torch.tensor([2.0, 1, 1]), torch.tensor([1.0, 0, 1]), torch.tensor([0.0, 1]))
    touched = SteeringPlan({0: both, 3: both}).touched
    assert touched == (4, 2)
    assert str(touched) == "4 neurons and 2 residual coordinates"
    assert str(SteeringPlan.identity().touched) == "nothing"
    assert str(SteeringPlan({0: LayerPlan(torch.tensor([2.0]))}).touched) == "1 neuron"
    clas = CLAS(alpha=1.0, layers=(6, 7)).plan(ATLAS, SELECTION, "sw")
    assert clas.touched.neurons == int(
        torch.isin(SELECTION.category[6], torch.tensor([1, 3])).sum()
    )


def test_a_random_shift_adds_up_over_layers_as_the_real_one() -> None:
    real = DiffMean(layers=(2, 5)).plan(ATLAS, SELECTION, "sw")
    control = RandomControl(DiffMean(layers=(2, 5))).plan(ATLAS, SELECTION, "sw")
    total = [sum(layer.shift for layer in plan.layers.values()) for plan in (real, control)]
    torch.testing.assert_close(total[0].norm(), total[1].norm())
    assert not torch.allclose(*total)


@pytest.mark.parametrize(
    "of",
    [
        CLAS(0.7),
        LanguageArithmetic(source="en"),
        DiffMean(),
        LAPE(layers=(0, 8)),
        Kojima(k=25),
        UnitDiffMean(k=25),
        Silence(k=25),
        ThereAndBack(),
    ],
)
def test_random_control_keeps_the_numbers_and_the_dead(of) -> None:
    original = of.plan(ATLAS, SELECTION, "sw")
    control = RandomControl(of, seed=3).plan(ATLAS, SELECTION, "sw")
    moved = False
    assert control.layers.keys() == original.layers.keys()
    for index, layer in original.layers.items():
        dead = SELECTION.category[index] == 0
        for part in ("scale", "bias", "shift"):
            a, b = getattr(layer, part), getattr(control.layers[index], part)
            if a is None:
                assert b is None
                continue
            assert torch.equal(a.sort().values, b.sort().values)
            if part != "shift":
                assert torch.equal(a[dead], b[dead])
            moved |= not torch.equal(a, b)
    assert moved


def test_random_control_is_a_function_of_its_seed_and_layer() -> None:
    def scale(layer: int, **changes) -> torch.Tensor:
        seed = changes.pop("seed", 0)
        of = CLAS(**{"alpha": 1.0, "layers": (4, 8), **changes})
        plan = RandomControl(of, seed).plan(ATLAS, SELECTION, "sw")
        return plan.layers[layer].scale

    assert torch.equal(scale(6), scale(6))
    assert torch.equal(scale(6), scale(6, layers=(6, 7)))
    assert torch.equal((scale(6) - 1) * 0.5 + 1, scale(6, alpha=0.5))
    assert not torch.equal(scale(6), scale(6, seed=1))


METHOD_NAMES = [name for name in METHODS if name != "RandomControl"]


@given(st.sampled_from(METHOD_NAMES), st.floats(-2, 2, width=32))
def test_alpha_is_the_strength_of_every_method(name, alpha) -> None:
    full = METHODS[name](alpha=1.0).plan(ATLAS, SELECTION, "sw")
    scaled = METHODS[name](alpha=alpha).plan(ATLAS, SELECTION, "sw")
    assert METHODS[name](alpha=0.0).plan(ATLAS, SELECTION, "sw").is_identity
    for index, layer in (full * alpha).layers.items():
        for part in ("scale", "bias", "shift"):
            a, b = getattr(layer, part), getattr(scaled.layers[index], part)
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_steers_a_real_model_and_does_nothing_at_zero(
    name, tiny_lm, tiny_corpus
) -> None:
    atlas = Atlas.measure(tiny_lm, tiny_corpus)
    sel = select(atlas, tau=0.5)
    target = max(atlas.languages[1:], key=lambda code: sel.neurons_of(code)[2].sum())
    assert sel.neurons_of(target)[2].any()
    inputs = tiny_lm.encode(["Paka analala nyumbani."]).inputs

    def logits(plan) -> torch.Tensor:
        with torch.no_grad(), steered(tiny_lm, plan):
            return tiny_lm.model(**inputs).logits

    method = METHODS[name]()
    full = method.plan(atlas, sel, target)
    assert target in full.label
    if name != "LAPE":  # 1 % of so few neurons may hold none of the source's
        assert not torch.equal(logits(full), logits(None))
    assert torch.equal(logits(full * 0), logits(None))


def test_methods_are_plain_values() -> None:
    for method in METHODS.values():
        assert method() == dataclasses.replace(method())


@pytest.mark.parametrize(
    ("layers", "bridge"), [(1, (0, 1)), (3, (2, 3)), (8, (6, 8)), (28, (21, 28)), (32, (24, 32))]
)
def test_bridge_layers_are_the_last_quarter(layers, bridge) -> None:
    assert bridge_layers(layers) == bridge


@pytest.mark.parametrize("layers", [(-1, 2), (3, 3), (7, 9), (5, 2)])
def test_layers_out_of_range_get_a_clear_sentence(layers) -> None:
    with pytest.raises(ClasError, match=r"half-open range within \(0, 8\)"):
        CLAS(layers=layers).plan(ATLAS, SELECTION, "sw")


def test_bad_input_gets_a_clear_sentence() -> None:
    with pytest.raises(ClasError, match="beta must be a finite number"):
        CLAS(beta=float("nan"))
    with pytest.raises(ClasError, match="'any', 'target' or 'others'"):
        CLAS(specific="all")
    with pytest.raises(ClasError, match="no language 'xx'"):
        CLAS().plan(ATLAS, SELECTION, "xx")
    for method in (LAPE, DiffMean, LanguageArithmetic, UnitDiffMean, ThereAndBack):
        method = method(source="xx")
        with pytest.raises(ClasError, match="'xx'"):
            method.plan(ATLAS, SELECTION, "sw")
    other = dataclasses.replace(SELECTION, languages=("a", "b", "c", "d"))
    alone = dataclasses.replace(
        ATLAS,
        languages=("en",),
        **{name: getattr(ATLAS, name)[:, :1] for name in ("residual", "mean", "norm")},
    )
    with pytest.raises(ClasError, match="measure at least two languages"):
        DiffMean(source="others").plan(
            alone, dataclasses.replace(SELECTION, languages=("en",)), "en"
        )
    with pytest.raises(ClasError, match="another atlas"):
        CLAS().plan(ATLAS, other, "sw")


@pytest.mark.parametrize("name", METHODS)
def test_a_plan_is_as_wide_as_each_layer(name) -> None:
    narrow = dataclasses.replace(ATLAS, widths=(60, 60, 60, 60, 45, 60, 45, 60))
    for tensor in (narrow.probability, narrow.mean):
        assert tensor.shape[-1] == 60
    method = METHODS[name](**({"layers": (3, 8)} if name != "RandomControl" else {}))
    plan = method.plan(narrow, select(narrow, tau=0.5), "sw")
    for index, layer in plan.layers.items():
        assert layer.neurons in (None, narrow.widths[index])
        assert layer.shift is None or len(layer.shift) == 16


def test_lape_takes_neurons_from_elsewhere() -> None:
    other = lape_select(ATLAS, keep=0.1, bar=0.6)
    plan = LAPE(source="es", layers=(0, 8)).plan(ATLAS, other, "sw")
    for index, layer in plan.layers.items():
        assert torch.equal(layer.scale == 0, other.neurons_of("es")[index])
