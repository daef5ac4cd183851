from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import tiny_llama_model

from clas_core.errors import ClasError
from clas_core.model.architecture import LanguageModel
from clas_core.model.loading import load
from clas_core.running.batch import arguments, new_cache
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered

TEXTS = ["The cat sleeps in the house.", "It rains.", "Mvua inanyesha."]


def random_plan(seed: int, layers=(1, 2), shift: bool = True, label: str = "") -> SteeringPlan:
    generator = torch.Generator().manual_seed(seed)

    def draw(size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    return SteeringPlan(
        {n: LayerPlan(1 + draw(64), draw(64), draw(32) if shift else None) for n in layers}, label
    )


def logits(lm: LanguageModel, plan=None, texts=TEXTS) -> torch.Tensor:
    with torch.no_grad(), steered(lm, plan):
        return lm.model(**lm.encode(texts).inputs).logits


def test_a_plan_crosses_to_another_process() -> None:
    plan = random_plan(3).at("answer")
    found = pickle.loads(pickle.dumps(plan))
    assert (found.label, found.where, list(found.layers)) == (plan.label, "answer", [1, 2])
    assert torch.equal(found.layers[1].shift, plan.layers[1].shift)
    with pytest.raises(TypeError):
        found.layers[3] = found.layers[1]


# What a plan does


def test_the_effect_is_that_of_the_weights_changed_by_hand(any_lm, tokenizer) -> None:
    plan = random_plan(0)
    twin = load(copy.deepcopy(any_lm.model), tokenizer)
    for index, layer in plan.layers.items():
        down = twin.mlps[index].down
        matrix = down.weight if twin.mlps[index].stored_transposed else down.weight.T  # [N, H]
        offset = layer.bias @ matrix + layer.shift
        if down.bias is None:
            down.bias = torch.nn.Parameter(torch.zeros(32))
        with torch.no_grad():
            down.bias += offset
            matrix *= layer.scale[:, None]
    torch.testing.assert_close(logits(any_lm, plan), logits(twin), rtol=1e-4, atol=1e-4)
    assert (logits(any_lm, plan) - logits(any_lm)).abs().max() > 0.1


def test_each_row_gets_its_own_plan(any_lm) -> None:
    plans = [None, random_plan(0), random_plan(1)]
    rows = logits(any_lm, plans)
    for r, plan in enumerate(plans):
        torch.testing.assert_close(rows[r], logits(any_lm, plan)[r])


def test_unsteered_rows_keep_every_bit(any_lm) -> None:
    bare = any_lm.model(**any_lm.encode(TEXTS).inputs).logits
    rows = logits(any_lm, [None, random_plan(0), SteeringPlan.identity()])
    assert torch.equal(rows[0], bare[0])
    assert torch.equal(rows[2], bare[2])
    assert not torch.equal(rows[1], bare[1])


def test_strength_zero_changes_no_bit(any_lm) -> None:
    bare = any_lm.model(**any_lm.encode(TEXTS).inputs).logits
    assert torch.equal(logits(any_lm, random_plan(0) * 0), bare)
    assert torch.equal(logits(any_lm, None), bare)


def test_half_precision_rows_keep_every_bit(tokenizer) -> None:
    lm = load(tiny_llama_model().to(torch.bfloat16), tokenizer)
    bare = lm.model(**lm.encode(TEXTS).inputs).logits
    rows = logits(lm, [None, random_plan(0), None])
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows[0].view(torch.int16), bare[0].view(torch.int16))
    assert not torch.equal(rows[1], bare[1])


def test_gradients_flow_after_the_plan_was_used_without_them(tiny_lm) -> None:
    plan = random_plan(0)
    with torch.inference_mode(), steered(tiny_lm, plan):
        tiny_lm.model(**tiny_lm.encode(TEXTS).inputs)
    with steered(tiny_lm, plan):
        tiny_lm.model(**tiny_lm.encode(TEXTS).inputs).logits.sum().backward()
    tiny_lm.model.zero_grad()


def test_cached_decoding_is_steered_at_every_position(tiny_lm) -> None:
    plan, inputs = random_plan(0), tiny_lm.encode(TEXTS[:1]).inputs
    whole = logits(tiny_lm, plan, TEXTS[:1])
    with torch.no_grad(), steered(tiny_lm, plan):
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        cache = new_cache(tiny_lm)
        pieces = torch.cat(
            [
                tiny_lm.model(**arguments(tiny_lm.model, *piece, cache)).logits
                for piece in ((ids[:, :3], mask[:, :3]), (ids[:, 3:], mask))
            ],
            dim=1,
        )
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-4)


# Steering is never global


def test_two_threads_with_two_plans_get_what_each_gets_alone(tiny_lm) -> None:
    plans = [random_plan(0), random_plan(1), None]
    alone = [logits(tiny_lm, plan) for plan in plans]
    wrong: list[int] = []
    start = threading.Barrier(len(plans))

    def visit(index: int) -> None:
        start.wait()
        for _ in range(25):
            if not torch.equal(logits(tiny_lm, plans[index]), alone[index]):
                wrong.append(index)

    threads = [threading.Thread(target=visit, args=(i,)) for i in range(len(plans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_thread_started_inside_is_not_steered(tiny_lm) -> None:
    bare, seen = logits(tiny_lm), []

    def visit() -> None:
        seen.append(tiny_lm.model(**tiny_lm.encode(TEXTS).inputs).logits)

    with steered(tiny_lm, random_plan(0)):
        thread = threading.Thread(target=visit)
        thread.start()
        thread.join()
    assert torch.equal(seen[0], bare)


def test_an_exception_leaves_the_model_unsteered(tiny_lm) -> None:
    bare = logits(tiny_lm)
    with pytest.raises(RuntimeError, match="stop"), steered(tiny_lm, random_plan(0)):
        raise RuntimeError("stop")
    assert torch.equal(logits(tiny_lm), bare)
    with pytest.raises(ClasError), steered(tiny_lm, [random_plan(0), random_plan(1)]):
        tiny_lm.model(**tiny_lm.encode(TEXTS).inputs)  # two plans, three rows
    assert torch.equal(logits(tiny_lm), bare)


def test_hooks_of_the_user_stay_and_ours_are_installed_once(tokenizer) -> None:
    lm = load(tiny_llama_model(), tokenizer)
    calls = []
    mlp = lm.mlps[0]
    mlp.down.register_forward_pre_hook(lambda module, args: calls.append(1))
    keys = set(lm.model.state_dict())
    for seed in range(3):
        logits(lm, random_plan(seed))
    again = load(lm.model, tokenizer)  # a second handle on the same model
    logits(again, random_plan(0))
    assert len(calls) == 4
    assert len(mlp.down._forward_pre_hooks) == 2
    assert len(lm.blocks[0]._forward_hooks) == len(mlp.gate._forward_hooks) == 1
    assert set(lm.model.state_dict()) == keys


def test_a_copy_of_the_model_is_another_model(tiny_lm, tokenizer) -> None:
    bare = logits(tiny_lm)
    twin = load(copy.deepcopy(tiny_lm.model), tokenizer)
    batch = tiny_lm.encode(TEXTS).inputs
    with torch.no_grad(), steered(tiny_lm, random_plan(0)):
        assert torch.equal(twin.model(**batch).logits, bare)
        with steered(twin, random_plan(0)):
            assert torch.equal(twin.model(**batch).logits, tiny_lm.model(**batch).logits)


def test_a_model_no_longer_used_is_freed(tokenizer) -> None:
    lm = load(tiny_llama_model(), tokenizer)
    logits(lm, random_plan(0))
    gone = weakref.ref(lm.model)
    del lm
    gc.collect()
    assert gone() is None


def test_nested_contexts_act_outer_first(any_lm) -> None:
    outer, inner = random_plan(0), random_plan(1)
    with torch.no_grad(), steered(any_lm, outer), steered(any_lm, inner):
        nested = any_lm.model(**any_lm.encode(TEXTS).inputs).logits
    composed = logits(any_lm, inner @ outer)
    torch.testing.assert_close(nested, composed, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(composed, logits(any_lm, outer @ inner), atol=1e-2)


# Algebra

floats = st.floats(-3, 3, width=32)
vectors = st.lists(floats, min_size=4, max_size=4).map(torch.tensor)
layers = st.builds(LayerPlan, *[st.none() | vectors] * 3)
plans = st.builds(SteeringPlan, st.dictionaries(st.integers(0, 3), layers, max_size=3))


def act(plan: SteeringPlan, layer: int, h: torch.Tensor, x: torch.Tensor):
    """What the plan does to a neuron vector and a residual vector, in float64."""
    part = plan.layers.get(layer, LayerPlan())
    h = h.double()
    if part.scale is not None:
        h = h * part.scale.double()
    if part.bias is not None:
        h = h + part.bias.double()
    return h, x.double() if part.shift is None else x.double() + part.shift.double()


def assert_same(a: SteeringPlan, b: SteeringPlan) -> None:
    for layer in range(4):
        for h, x in [(torch.zeros(4), torch.zeros(4)), (torch.ones(4), torch.ones(4))]:
            for got, wanted in zip(act(a, layer, h, x), act(b, layer, h, x), strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@given(plans, plans, vectors)
def test_composition_is_one_after_the_other(second, first, h) -> None:
    for layer in range(4):
        expected = act(second, layer, *act(first, layer, h, h))
        for got, wanted in zip(act(second @ first, layer, h, h), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@given(plans, plans, plans)
def test_composition_is_associative_and_has_an_identity(a, b, c) -> None:
    assert_same((a @ b) @ c, a @ (b @ c))
    assert_same(a @ SteeringPlan.identity(), a)
    assert_same(SteeringPlan.identity() @ a, a)


@given(plans, floats, floats)
def test_strength_interpolates_from_the_identity(plan, a, b) -> None:
    assert (plan * 0).is_identity
    assert_same(plan * 1, plan)
    assert_same((plan * a) * b, a * b * plan)
    h = torch.ones(4)
    for layer in range(4):
        for start, end, got in zip(
            (h.double(), h.double()),
            act(plan, layer, h, h),
            act(plan * a, layer, h, h),
            strict=True,
        ):
            torch.testing.assert_close(got, start + a * (end - start), rtol=1e-4, atol=1e-4)


# Edges


def test_saves_and_loads(tmp_path) -> None:
    plan = random_plan(0, label="CLAS für sw")
    plan.save(tmp_path / "plan.safetensors")
    again = SteeringPlan.load(tmp_path / "plan.safetensors")
    assert again.label == plan.label
    assert list(again.layers) == [1, 2]
    for index, layer in plan.layers.items():
        for part in ("scale", "bias", "shift"):
            assert torch.equal(getattr(again.layers[index], part), getattr(layer, part))
    SteeringPlan.identity().save(tmp_path / "plan.safetensors")
    assert SteeringPlan.load(tmp_path / "plan.safetensors").is_identity
    assert [path.name for path in tmp_path.iterdir()] == ["plan.safetensors"]


def test_foreign_files_are_refused(tmp_path) -> None:
    with pytest.raises(ClasError, match="Can't read a steering plan"):
        SteeringPlan.load(tmp_path / "missing")
    (tmp_path / "text").write_text("no tensors here")
    with pytest.raises(ClasError, match="Can't read a steering plan"):
        SteeringPlan.load(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ClasError, match="isn't a steering plan"):
        SteeringPlan.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (SteeringPlan({3: LayerPlan()}), "has layers 0 to 2"),
        (SteeringPlan({0: LayerPlan(scale=torch.ones(65))}), r"scale in layer 0 \(from 0\) has 65"),
        (SteeringPlan({0: LayerPlan(shift=torch.ones(64))}), r"shift in layer 0 \(from 0\) has 64"),
    ],
)
def test_plans_of_other_models_are_refused(tiny_lm, plan, message) -> None:
    with pytest.raises(ClasError, match=message), steered(tiny_lm, plan):
        pass


def test_rows_and_plans_must_match(tiny_lm) -> None:
    with pytest.raises(ClasError, match="2 plans for a batch of 3 rows"):
        logits(tiny_lm, [None, random_plan(0)])
    with pytest.raises(ClasError, match="1 plans for a batch of 3 rows"):
        logits(tiny_lm, [random_plan(0)])
    with pytest.raises(ClasError, match="no row to steer"):
        logits(tiny_lm, [])


def test_numbers_must_be_finite() -> None:
    with pytest.raises(ClasError, match="isn't finite"):
        LayerPlan(scale=torch.tensor([1.0, float("nan")]))
    with pytest.raises(ClasError, match="finite number"):
        SteeringPlan.identity() * float("nan")
    with pytest.raises(ClasError, match="Layers count from 0"):
        SteeringPlan({-1: LayerPlan()})
