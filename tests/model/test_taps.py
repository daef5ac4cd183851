"""Taps reach every position of every forward pass, in whatever order things happened before."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from tiny import FAMILIES, make_tokenizer, tiny_llama_model, tiny_model
from torch import nn
from transformers import CompileConfig

from clas_core.errors import ClasError
from clas_core.model.architecture import LanguageModel
from clas_core.model.loading import load
from clas_core.model.taps import Site, Tap, tapped
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered

TEXTS = ["The cat sleeps in the house.", "It rains.", "Mvua inanyesha."]
LAYER = 1  # the one that plans here steer


def plan_for(lm: LanguageModel, *parts: str) -> SteeringPlan:
    """A plan for the last two layers, with all parts if none is named."""
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for layer in range(lm.num_layers - 2, lm.num_layers):
        drawn = {
            "scale": 2 + torch.rand(lm.widths[layer], generator=generator),
            "bias": 1 + torch.rand(lm.widths[layer], generator=generator),
            "shift": torch.randn(lm.hidden_size, generator=generator),
        }
        layers[layer] = LayerPlan(**{part: drawn[part] for part in parts or drawn})
    return SteeringPlan(layers)


@pytest.fixture
def lm(tokenizer) -> LanguageModel:
    """A tiny Llama of the test's own."""
    return load(tiny_llama_model(), tokenizer)


def logits(lm: LanguageModel, plan=None, call=None) -> torch.Tensor:
    with torch.no_grad(), steered(lm, plan):
        call = lm.model if call is None else call
        return call(**lm.encode(TEXTS).inputs).logits


# Which positions are steered


class Watch(Tap):
    """Keeps the neurons of one layer of every forward pass: [rows, positions, neurons] each."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def neurons(self, site: Site, h: torch.Tensor) -> None:
        if site.layer == LAYER:
            self.seen.append(h)


class Touched:
    """The (row, position) at which the neurons of LAYER changed, filled when `tracing` ends."""

    def __init__(self) -> None:
        self.positions: list[tuple[int, int]] = []
        self.rows_and_positions = (0, 0)


@contextmanager
def tracing(lm: LanguageModel, plan) -> Iterator[Touched]:
    before, after, touched = Watch(), Watch(), Touched()
    with tapped(lm, before), steered(lm, plan), tapped(lm, after):
        yield touched
    whole = [torch.cat(watch.seen, dim=1) for watch in (before, after)]
    touched.rows_and_positions = tuple(whole[0].shape[:2])
    changed = (whole[0] != whole[1]).any(-1).nonzero().tolist()
    touched.positions = [(row, position) for row, position in changed]


def wished(lm: LanguageModel, plans, positions: int) -> list[tuple[int, int]]:
    return [(r, t) for r, plan in enumerate(plans) if plan for t in range(positions)]


WAYS = {  # of generating
    "dynamic cache": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "compiled static cache": {"cache_implementation": "static", "compile": True},
}
slow = pytest.mark.slow  # compiling takes seconds


@pytest.mark.parametrize(
    "way", ["forward", *(pytest.param(way, marks=slow if "comp" in way else ()) for way in WAYS)]
)
@pytest.mark.parametrize("used_before", [False, True])
def test_every_position_of_the_wished_rows_is_steered(way, used_before, lm) -> None:
    plans = [None, plan_for(lm), None, plan_for(lm) * 0.5]
    batch = lm.encode([TEXTS[0]] * len(plans)).inputs
    length, new = batch["input_ids"].shape[1], 6

    def run() -> torch.Tensor:
        if way == "forward":
            return lm.model(**batch).logits
        options = dict(WAYS[way])
        if options.pop("compile", False):
            options["compile_config"] = CompileConfig(backend="eager", mode=None)
            options["compile_config"]._compile_all_devices = True
        return lm.model.generate(
            **batch, max_new_tokens=new, min_new_tokens=new, do_sample=False, **options
        )

    with torch.no_grad():
        if used_before:
            run()
        bare = run()
        with tracing(lm, plans) as touched:
            found = run()
        if way == "no cache":  # reads all tokens again for each new one
            expected = sum(length + step for step in range(new))
        else:
            expected = length if way == "forward" else length + new - 1
        assert touched.rows_and_positions == (len(plans), expected)
        assert touched.positions == wished(lm, plans, expected)
        assert torch.equal(found[[0, 2]], bare[[0, 2]])
        assert torch.equal(run(), bare)


# Compiled code


def compiled(model: nn.Module, way: str = "wrapped"):
    if way == "wrapped":
        return torch.compile(model, backend="eager")
    model.compile(backend="eager")
    return model


@slow
@pytest.mark.parametrize("way", ["wrapped", "in place"])
@pytest.mark.parametrize("when", ["before loading", "after loading", "after steering"])
def test_a_compiled_model_is_steered_like_any(way, when, lm, tokenizer) -> None:
    one, other = plan_for(lm), plan_for(lm, "scale")
    expected = [logits(lm, plan) for plan in (None, one, other)]
    torch.compiler.reset()
    model = tiny_llama_model().eval()
    if when == "before loading":
        call = compiled(model, way)
        with torch.no_grad():
            call(**lm.encode(TEXTS).inputs)
        mine = load(call, tokenizer)
    else:
        mine = load(model, tokenizer)
        if when == "after steering":
            logits(mine, one)
        call = compiled(mine.model, way)
    for _ in range(2):
        for plan, wanted in zip((None, one, None, other), [*expected[:2], *expected[::2]]):
            torch.testing.assert_close(logits(mine, plan, call), wanted)
    with torch.no_grad(), steered(mine, one), steered(mine, other):
        nested = call(**mine.encode(TEXTS).inputs).logits
    torch.testing.assert_close(nested, logits(lm, other @ one), rtol=1e-4, atol=1e-4)
    assert not any(torch.equal(expected[0], steer) for steer in expected[1:])


@slow
def test_code_compiled_for_another_model_of_the_class_is_not_taken(lm) -> None:
    """Compiled code is shared among models of one class, hooked or not."""
    torch.compiler.reset()
    stranger = compiled(tiny_llama_model().eval())
    with torch.no_grad():
        stranger(**lm.encode(TEXTS).inputs)
    plan = plan_for(lm)
    assert torch.equal(logits(lm, plan, compiled(lm.model)), logits(lm, plan))


@slow
def test_with_the_default_compiler(lm) -> None:
    torch.compiler.reset()
    plan, call = plan_for(lm), torch.compile(lm.model)
    for wanted in (None, plan, None, plan * 0.5):
        torch.testing.assert_close(
            logits(lm, wanted, call), logits(lm, wanted), rtol=1e-4, atol=1e-4
        )


@slow
def test_an_unsteered_model_compiles_to_one_graph(lm) -> None:
    torch.compiler.reset()
    call = torch.compile(lm.model, backend="eager", fullgraph=True)
    batch = {**lm.encode(TEXTS[:1]).inputs, "use_cache": False}
    with torch.no_grad():
        bare = call(**batch).logits
        assert torch.equal(bare, lm.model(**batch).logits)
        with steered(lm, plan_for(lm)):
            assert not torch.equal(call(**batch).logits, bare)
        assert torch.equal(call(**batch).logits, bare)


@slow
def test_a_compiled_function_can_not_steer(lm) -> None:
    torch.compiler.reset()
    plan = plan_for(lm)

    @torch.compile(backend="eager")
    def both(ids: torch.Tensor) -> torch.Tensor:
        with steered(lm, plan):
            return lm.model(input_ids=ids + 0).logits

    with pytest.raises(ClasError, match="compile the model alone"), torch.no_grad():
        both(lm.encode(TEXTS[:1]).input_ids)
    assert torch.equal(logits(lm, plan), logits(lm, plan, compiled(lm.model)))


@slow
def test_two_threads_that_overlap_both_steer_compiled_code(lm) -> None:
    """The one that began first ends first, and takes nothing from the other."""
    torch.compiler.reset()
    plan, call = plan_for(lm), compiled(lm.model)
    bare, moved = logits(lm, None, call), logits(lm, plan)
    began, go_on, found = threading.Event(), threading.Event(), []

    def visit() -> None:
        with torch.no_grad(), steered(lm, plan):
            began.set()
            go_on.wait()
            found.append(call(**lm.encode(TEXTS).inputs).logits)

    thread = threading.Thread(target=visit)
    with steered(lm, plan):
        thread.start()
        began.wait()
    torch.testing.assert_close(logits(lm, None, call), bare)
    go_on.set()
    thread.join()
    assert torch.equal(found[0], moved)
    torch.testing.assert_close(logits(lm, None, call), bare)


# Hidden states that transformers collects


@pytest.mark.parametrize("family", [*FAMILIES])
def test_collected_hidden_states_are_the_steered_ones(family) -> None:
    model = tiny_model(family).eval()
    fresh, plan = load(copy.deepcopy(model), make_tokenizer()), None
    batch = {**fresh.encode(TEXTS).inputs, "output_hidden_states": True, "use_cache": False}
    plan = plan_for(fresh, "shift")
    with torch.no_grad():
        bare = model(**batch).hidden_states  # asked for before the model was loaded
        used = load(model, make_tokenizer())
        found = []
        for one in (used, fresh):
            with steered(one, plan):
                found.append(one.model(**batch).hidden_states)
    steered_layer = fresh.num_layers - 2
    moved = found[0][steered_layer + 1] - bare[steered_layer + 1]
    shift = plan.layers[steered_layer].shift.expand_as(moved)
    torch.testing.assert_close(moved, shift, rtol=1e-3, atol=1e-4)
    for used_before, never in zip(*found):
        assert torch.equal(used_before, never)


# Rows


@pytest.mark.parametrize("family", [*FAMILIES])
def test_plans_that_do_not_fit_the_batch_are_refused(family) -> None:
    """Also where an MLP sees tokens without their rows: 3 rows of 2 plans have an even number."""
    lm = load(tiny_model(family), make_tokenizer())
    plan = plan_for(lm, "scale", "bias")
    ids = torch.arange(3 * 14).reshape(3, 14) + 10
    for plans in ([plan, None], [plan], [None, plan] * 3, [None] * 7):
        asked = torch.no_grad(), steered(lm, plans)
        with contextlib.ExitStack() as stack:
            for context in asked:
                stack.enter_context(context)
            if any(plans):
                with pytest.raises(ClasError, match=f"{len(plans)} plans for a batch of 3 rows"):
                    lm.model(input_ids=ids)
            else:
                lm.model(input_ids=ids)


@pytest.mark.parametrize("family", ["opt", "gpt2", "qwen2_moe", "gpt_oss"])
def test_rows_in_bfloat16_keep_every_bit(family) -> None:
    lm = load(tiny_model(family).to(torch.bfloat16), make_tokenizer())
    bare, plan = logits(lm), plan_for(lm)
    rows = logits(lm, [None, plan, None])
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows[[0, 2]].view(torch.int16), bare[[0, 2]].view(torch.int16))
    torch.testing.assert_close(rows[1], logits(lm, plan)[1], rtol=0.05, atol=0.05)
    assert (rows[1] - bare[1]).norm() > 0.05 * bare[1].norm()


@pytest.mark.parametrize("family", ["opt", "llama", "qwen2_moe", "deepseek_v3"])
def test_taps_see_tokens_by_text(family) -> None:
    lm, shapes = load(tiny_model(family), make_tokenizer()), set()

    class Shapes(Tap):
        def gate(self, site: Site, gate: torch.Tensor) -> None:
            self.neurons(site, gate)

        def neurons(self, site: Site, h: torch.Tensor) -> None:
            shapes.add(site.batch if site.tokens is not None else tuple(h.shape[:2]))

    with torch.no_grad(), tapped(lm, Shapes()):
        lm.model(input_ids=torch.arange(3 * 14).reshape(3, 14) + 10)
    assert shapes == {(3, 14)}


# Copies, and modules that change


def test_a_steered_model_can_be_pickled_and_copied(lm, tokenizer, tmp_path) -> None:
    plan = plan_for(lm)
    bare, moved = logits(lm), logits(lm, plan)
    buffer = io.BytesIO()
    with steered(lm, plan):
        torch.save(lm.model, buffer)
        pickled, copied = pickle.dumps(lm.model), copy.deepcopy(lm.model)
    buffer.seek(0)
    for model in (torch.load(buffer, weights_only=False), pickle.loads(pickled), copied):
        with torch.no_grad(), steered(lm, plan):  # not this model's plan
            assert torch.equal(model(**lm.encode(TEXTS).inputs).logits, bare)
        again = load(model, tokenizer)
        assert torch.equal(logits(again), bare)
        assert torch.equal(logits(again, plan), moved)
    lm.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = load(tmp_path, device="cpu")
    assert torch.equal(logits(again, plan), moved)


@pytest.mark.parametrize("family", ["qwen2_moe", "gpt_oss"])
def test_steered_experts_can_be_pickled_and_saved(family, tokenizer, tmp_path) -> None:
    lm = load(tiny_model(family), tokenizer)
    plan = plan_for(lm, "scale")
    bare, moved = logits(lm), logits(lm, plan)
    again = load(pickle.loads(pickle.dumps(lm.model)), tokenizer)
    assert torch.equal(logits(again), bare)
    assert torch.equal(logits(again, plan), moved)
    lm.model.save_pretrained(tmp_path)
    assert "clas" not in (tmp_path / "config.json").read_text()


class Adapted(nn.Module):
    """A linear map with an adapter of low rank beside it, as PEFT builds them."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.lora_A = nn.Linear(base.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


@pytest.mark.parametrize("name", ["down_proj", "gate_proj"])
def test_an_adapter_added_after_loading_is_noticed(name, lm, tokenizer) -> None:
    plan, mlp = plan_for(lm, "scale", "bias"), lm.blocks[LAYER].mlp
    moved = logits(lm, plan)
    plain = getattr(mlp, name)
    setattr(mlp, name, Adapted(plain))
    with pytest.raises(ClasError, match="were replaced since it was loaded"):
        logits(lm, plan)
    adapted = load(lm.model, tokenizer)
    with torch.no_grad():  # by hand: the adapter's input is steered too
        watch = Watch()
        with steered(adapted, plan), tapped(adapted, watch):
            adapted.model(**adapted.encode(TEXTS).inputs)
    twin = copy.deepcopy(adapted.model)
    with torch.no_grad():
        for index, layer in plan.layers.items():
            block = twin.model.layers[index].mlp
            block.down_proj.register_forward_pre_hook(
                lambda _, args, layer=layer: (args[0] * layer.scale + layer.bias,)
            )
        expected = twin(**lm.encode(TEXTS).inputs).logits
    torch.testing.assert_close(logits(adapted, plan), expected)
    with pytest.raises(ClasError, match="were replaced"):  # the old handle stays refused
        logits(lm, plan)
    setattr(mlp, name, plain)
    with pytest.raises(ClasError, match="were replaced"):
        logits(adapted, plan)
    assert torch.equal(logits(lm, plan), moved)


def test_a_whole_mlp_that_is_replaced_is_noticed(lm) -> None:
    lm.blocks[LAYER].mlp = copy.deepcopy(lm.blocks[LAYER].mlp)
    with pytest.raises(ClasError, match="were replaced since it was loaded"):
        logits(lm, plan_for(lm))


# Gradients


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_refused(reentrant, lm) -> None:
    newer = hasattr(lm.model, "activation_checkpointing_enable")
    name = "activation" if newer else "gradient"
    getattr(lm.model, f"{name}_checkpointing_enable")({"use_reentrant": reentrant})
    lm.model.train()
    batch = {**lm.encode(TEXTS).inputs, "use_cache": False}
    with steered(lm, plan_for(lm)), pytest.raises(ClasError, match="gradient_checkpointing_dis"):
        lm.model(**batch)
    lm.model(**batch).logits.sum().backward()  # unsteered it is the user's own business
    lm.model.eval()
    logits(lm, plan_for(lm))
