"""Every supported architecture: found, left alone, steered, measured, generated with, baked."""

from __future__ import annotations

import copy
from functools import lru_cache

import pytest
import torch
from tiny import FAMILIES, SENTENCES, make_tokenizer, tiny_model
from torch import nn
from transformers import AutoModelForCausalLM

from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.model.architecture import Experts, LanguageModel, find_mlps
from clas_core.model.loading import load
from clas_core.model.taps import Site, Tap, tapped
from clas_core.running.generation import generate
from clas_core.running.states import BridgeCache, hidden_states
from clas_core.steering.baking import bake
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered
from clas_core.text.corpus import ParallelCorpus

TEXTS = ["The cat sleeps in the house.", "It rains.", "Mvua inanyesha."]
ROUTED = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "gpt_oss", "deepseek_v3"]
families = pytest.mark.parametrize("family", FAMILIES)


@lru_cache(maxsize=2)
def family_lm(family: str) -> LanguageModel:
    """Loaded only; tests that change a model take a copy."""
    return load(tiny_model(family), make_tokenizer())


def logits(lm: LanguageModel, plan=None, texts=TEXTS) -> torch.Tensor:
    with torch.no_grad(), steered(lm, plan):
        return lm.model(**lm.encode(texts).inputs).logits


def random_plan(lm: LanguageModel, *parts: str) -> SteeringPlan:
    """For the last two layers, each with its own width."""
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for layer in range(lm.num_layers - 2, lm.num_layers):
        drawn = {
            "scale": 1 + torch.randn(lm.widths[layer], generator=generator),
            "bias": 0.3 * torch.randn(lm.widths[layer], generator=generator),
            "shift": torch.randn(lm.hidden_size, generator=generator),
        }
        layers[layer] = LayerPlan(**{part: drawn[part] for part in parts})
    return SteeringPlan(layers)


@families
def test_the_neurons_are_where_the_model_has_them(family) -> None:
    sizes, down, gate = FAMILIES[family]
    lm = family_lm(family)
    assert len(lm.widths) == sizes.get("num_hidden_layers", 2)
    site = next(mlp for mlp in lm.mlps if mlp.layer == 1)
    named = lm.blocks[1].get_submodule(down)
    if isinstance(site, Experts):
        assert site.module is named
        assert (site.experts, site.start) == (4, 0)
        beside = {"qwen2_moe": 24, "deepseek_v3": 16}.get(family, 0)
        assert lm.widths[1] == 4 * site.per_expert + beside
    else:
        assert site.down is named
        assert site.gate is (gate and lm.blocks[1].get_submodule(gate))
        fused = gate is not None and gate.endswith("gate_up_proj")
        assert site.gate_slice == (slice(0, site.neurons) if fused else slice(None))
        assert site.stored_transposed == (family == "gpt2")
    widths = {"gemma4_text": (64, 64, 128, 128), "qwen3_moe": (64, 96), "deepseek_v3": (64, 80)}
    assert lm.widths == widths.get(family, lm.widths[:1] * 2)


@families
def test_hooks_that_change_nothing_change_no_bit(family) -> None:
    untouched = tiny_model(family)
    lm = family_lm(family)
    if family in ROUTED:  # of transformers' ways to add up experts, ours is this one
        untouched.set_experts_implementation("eager")
    batch = lm.encode(TEXTS)
    with torch.no_grad():
        expected = untouched.eval()(**batch.inputs).logits
    plan = random_plan(lm, "scale", "bias", "shift")
    assert torch.equal(logits(lm), expected)
    assert torch.equal(logits(lm, plan * 0), expected)
    assert torch.equal(logits(lm, [plan, None, plan * 0])[1:], expected[1:])
    with torch.no_grad(), tapped(lm, Tap()):
        assert torch.equal(lm.model(**batch.inputs).logits, expected)
    if family in ROUTED:
        untouched.set_experts_implementation("batched_mm")
        with torch.no_grad():
            other_way = untouched(**batch.inputs).logits
        torch.testing.assert_close(logits(lm), other_way, rtol=1e-4, atol=1e-4)


def steer_by_hand(model: nn.Module, plan: SteeringPlan) -> None:
    """Change the weights of `model` (or, among experts, what they compute) as the plan says."""
    blocks, mlps = find_mlps(model)
    for mlp in mlps:
        layer = plan.layers.get(mlp.layer)
        if layer is None:
            continue
        scale, bias = (x[mlp.start : mlp.start + mlp.neurons] for x in (layer.scale, layer.bias))
        if isinstance(mlp, Experts):
            steer_experts(mlp, scale.view(mlp.experts, -1), bias.view(mlp.experts, -1))
            continue
        with torch.no_grad():
            matrix = mlp.down.weight if mlp.stored_transposed else mlp.down.weight.T
            offset = bias @ matrix
            matrix *= scale[:, None]
            if mlp.down.bias is None:
                mlp.down.bias = nn.Parameter(torch.zeros_like(offset))
            mlp.down.bias += offset
    for index, layer in plan.layers.items():
        if layer.shift is not None:
            blocks[index].register_forward_hook(
                lambda _, __, out, shift=layer.shift: (
                    (out[0] + shift, *out[1:]) if isinstance(out, tuple) else out + shift
                )
            )


def steer_experts(mlp: Experts, scale: torch.Tensor, bias: torch.Tensor) -> None:
    """Under transformers' "batched_mm", where rows stand in the order of the router's choices."""
    rows: list[torch.Tensor] = []
    mlp.module.register_forward_pre_hook(lambda _, args: rows.append(args[1].flatten()))
    plain = mlp.module._apply_gate

    def apply_gate(up: torch.Tensor) -> torch.Tensor:
        experts = rows.pop()
        return scale[experts] * plain(up) + bias[experts]

    mlp.module._apply_gate = apply_gate


@families
def test_a_plan_does_what_changed_weights_do(family) -> None:
    lm = family_lm(family)
    plan = random_plan(lm, "scale", "bias", "shift")
    twin = tiny_model(family).eval()
    if family in ROUTED:
        twin.set_experts_implementation("batched_mm")
    steer_by_hand(twin, plan)
    with torch.no_grad():
        expected = twin(**lm.encode(TEXTS).inputs).logits
    got = logits(lm, plan)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    assert (got - logits(lm)).abs().max() > 0.01
    rows = logits(lm, [None, plan, plan * 0.5])  # each row its own plan, padding and all
    torch.testing.assert_close(rows[1], got[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rows[2], logits(lm, plan * 0.5)[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "qwen2_moe", "gpt_oss"])
def test_gradients_are_those_of_changed_weights(family) -> None:
    lm = load(tiny_model(family), make_tokenizer())
    plan, twin = random_plan(lm, "scale", "bias", "shift"), tiny_model(family).eval()
    if family in ROUTED:
        twin.set_experts_implementation("batched_mm")
    steer_by_hand(twin, plan)
    with steered(lm, plan):
        found = lm.model(**lm.encode(TEXTS).inputs).logits
    expected = twin(**lm.encode(TEXTS).inputs).logits
    for outputs in (found, expected):  # outside of the context, as a training loop may
        outputs.square().mean().backward()
    for name, parameter in lm.model.named_parameters():
        changed = twin.get_parameter(name)
        if torch.equal(parameter, changed):  # not the down-projections that took up the scale
            torch.testing.assert_close(parameter.grad, changed.grad, rtol=1e-3, atol=1e-5)


@families
def test_statistics_are_of_the_gate_and_the_tokens_that_get_there(family, monkeypatch) -> None:
    """Against what the activation functions themselves were given, token by token."""
    lm = family_lm(family)
    given: list[torch.Tensor] = []  # what passed through the activation function, in order
    named = [
        getattr(m, name, None) for m in lm.model.modules() for name in ("act_fn", "activation_fn")
    ]
    activations = {type(m) for m in named if isinstance(m, nn.Module)}
    functions: list = [(cls, "forward") for cls in activations]
    if family == "lfm2":
        functions = [(torch.nn.functional, "silu")]

    def spy(owner, name):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            given.append(args[-1])
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner, name in functions:
        spy(owner, name)

    class Watch(Tap):
        def __init__(self):
            self.gates, self.hs = [], []

        def gate(self, site: Site, gate: torch.Tensor) -> None:
            self.gates.append(gate.reshape(-1, gate.shape[-1]))

        def neurons(self, site: Site, h: torch.Tensor) -> None:
            assert site.gated == gated(lm, site)
            self.hs.append(h.reshape(-1, h.shape[-1]))

    watch = Watch()
    with torch.no_grad(), tapped(lm, watch):
        lm.model(**lm.encode(TEXTS).inputs)
    if not watch.gates:  # plain: nothing but h, whose sign is read
        assert len(watch.hs) == lm.num_layers
        return
    if family == "gpt_oss":  # no activation module: its formula by hand, from h back to the gate
        for gate, h in zip(watch.gates, watch.hs):
            glu = gate * torch.sigmoid(1.702 * gate)
            up = h / glu - 1
            assert up.abs().max() < 7.01
        return
    flat = [x.reshape(-1, x.shape[-1]) for x in given]
    for gate in watch.gates:
        assert any(x.shape == gate.shape and torch.equal(x, gate) for x in joined(flat, gate))


def gated(lm: LanguageModel, site: Site) -> bool:
    mlp = next(m for m in lm.mlps if (m.layer, m.start) == (site.layer, site.neurons.start))
    return mlp.gated if isinstance(mlp, Experts) else mlp.gate is not None


def joined(pieces: list[torch.Tensor], like: torch.Tensor):
    """Every run of pieces that has as many rows as `like`: experts are computed one by one."""
    for begin in range(len(pieces)):
        rows: list[torch.Tensor] = []
        for piece in pieces[begin:]:
            if piece.shape[-1] != like.shape[-1]:
                break
            rows.append(piece)
            if sum(map(len, rows)) >= len(like):
                yield torch.cat(rows)
                break


@pytest.mark.parametrize("family", [*ROUTED, "gemma4_text", "llama"])
def test_measured_by_hand(family) -> None:
    """Each neuron over the tokens that reach it: everything kept in float64, counted one by one."""
    lm = family_lm(family)
    corpus = ParallelCorpus("tiny", {code: SENTENCES[code] for code in ("en", "sw")})
    atlas = Atlas.measure(lm, corpus, batch_size=4)
    assert atlas.widths == lm.widths

    class Keep(Tap):
        def __init__(self):
            self.gate_of = {}
            self.seen = {}

        def gate(self, site, gate):
            self.gate_of[site.layer, site.neurons.start] = gate

        def neurons(self, site, h):
            gate = self.gate_of.get((site.layer, site.neurons.start), h)
            width = h.shape[-1]
            gate, h = gate.reshape(-1, width), h.reshape(-1, width).double()
            for row in range(len(h)):
                token = row if site.tokens is None else int(site.tokens[row])
                first = 0 if site.experts is None else int(site.experts[row]) * width
                first += site.neurons.start
                self.seen.setdefault((site.layer, first, width), []).append(
                    (token, gate[row], h[row])
                )

    for k, code in enumerate(corpus.languages):
        kept: dict = {}
        for text in corpus.sentences[code]:
            batch, keep = lm.encode([text]), Keep()
            with torch.no_grad(), tapped(lm, keep):
                lm.model(**batch.inputs)
            for place, rows in keep.seen.items():
                counted = [(g, h) for token, g, h in rows if batch.content[0, token]]
                kept.setdefault(place, []).extend(counted)
        covered = torch.zeros(atlas.num_layers, atlas.num_neurons, dtype=torch.bool)
        for (layer, first, width), rows in kept.items():
            if not rows:
                continue
            at = (layer, k, slice(first, first + width))
            gates, hs = (torch.stack(column) for column in zip(*rows))
            covered[layer, first : first + width] = True
            for name, expected in (
                ("probability", (gates > 0).double().mean(0)),
                ("mean", hs.mean(0)),
            ):
                torch.testing.assert_close(
                    getattr(atlas, name)[at].double(), expected, rtol=1e-4, atol=1e-5
                )
        assert not atlas.probability[:, k][~covered].any()  # never reached, or beyond the width
        assert not atlas.mean[:, k][~covered].any()


@families
def test_generates_and_maps_like_the_whole_model(family) -> None:
    lm = family_lm(family)
    plan = random_plan(lm, "scale")
    steps = list(generate(lm, TEXTS[0], [None, plan], max_new_tokens=4))
    alone = [list(generate(lm, TEXTS[0], [p], max_new_tokens=4))[-1] for p in (None, plan)]
    prompt = lm.encode(TEXTS[:1])
    with torch.no_grad():
        reference = lm.model.generate(**prompt.inputs, max_new_tokens=4, do_sample=False)
    expected = tuple(reference[0, prompt.input_ids.shape[1] :].tolist())
    assert alone[0].token_ids[0][: len(expected)] == expected
    assert steps[-1].token_ids == (alone[0].token_ids[0], alone[1].token_ids[0])
    start = lm.num_layers - 2
    cache = BridgeCache(lm, TEXTS, start, batch_size=2)
    whole = hidden_states(lm, TEXTS, plan, batch_size=2)
    torch.testing.assert_close(cache.states(plan), whole.at(-1), rtol=1e-4, atol=1e-4)


# In these the down-projection has a bias, or an option for one, and it reaches the stream as is.
TAKES_BIAS = {
    "llama", "smollm3", "granite", "phi", "starcoder2", "gpt2", "gptj", "gpt_neo", "gpt_neox",
    "bloom", "falcon", "opt", "xglm", "gpt_oss",
}  # fmt: skip
TAKES_SHIFT = TAKES_BIAS - {"granite", "gpt_oss"}


@families
def test_bakes_into_an_ordinary_checkpoint(family, tmp_path) -> None:
    lm = family_lm(family)
    parts = ["scale"]
    for part, able in (("bias", family in TAKES_BIAS), ("shift", family in TAKES_SHIFT)):
        if able:
            parts.append(part)
        else:
            with pytest.raises(ClasError, match=r"(can|can't) be baked"):
                bake(lm, random_plan(lm, part), tmp_path / part)
            assert not list(tmp_path.iterdir())
    plan = random_plan(lm, *parts)
    folder = bake(lm, plan, tmp_path / "baked")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=lm.dtype, use_safetensors=True)
    with torch.no_grad():
        baked = model.eval()(**lm.encode(TEXTS).inputs).logits
    torch.testing.assert_close(baked, logits(lm, plan), rtol=1e-3, atol=1e-4)
    assert (baked - logits(lm)).abs().max() > 0.01


@pytest.mark.parametrize("family", ROUTED)
def test_a_copy_of_routed_experts_is_another_model(family) -> None:
    lm = family_lm(family)
    bare, plan = logits(lm), random_plan(lm, "scale")
    twin = load(copy.deepcopy(lm.model), lm.tokenizer)
    with torch.no_grad(), steered(lm, plan):
        assert torch.equal(twin.model(**lm.encode(TEXTS).inputs).logits, bare)


@pytest.mark.slow
@families
def test_in_bfloat16_it_is_what_transformers_makes(family, tmp_path) -> None:
    """Parameters and buffers, which are made under a default dtype of this thread's own."""
    tiny_model(family).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    ours = load(tmp_path, dtype="bfloat16").model
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for mine, theirs in ((ours.state_dict(), plain.state_dict()), buffers(ours, plain)):
        assert mine.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert mine[name].dtype == tensor.dtype, name
            assert torch.equal(mine[name], tensor), name


def buffers(*models: nn.Module) -> list[dict[str, torch.Tensor]]:
    return [dict(model.named_buffers()) for model in models]
