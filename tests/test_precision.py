"""Half precision and GPUs say what float32 on the CPU says, as far as their precision goes.

Each model is compared with a copy in float32 on the CPU that has the very same weights, those that
are left once they are rounded: what differs is what rounding did on the way. How much that may be
is worked out from the type (`allowed`), not found by trying.

What needs a GPU is marked `cuda` and skipped without one: `pytest -m cuda`.
"""

from __future__ import annotations

import copy
import math
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import pytest
import torch
from tiny import make_tokenizer, tiny_gpt2_model, tiny_llama_model, tiny_model, tiny_qwen2_model
from torch import Tensor
from transformers import PreTrainedModel

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.selection import select
from clas_core.model.architecture import LanguageModel
from clas_core.model.loading import load
from clas_core.model.streaming import Answer
from clas_core.model.taps import Site, Tap, tapped
from clas_core.paths import ASSETS
from clas_core.running import answers
from clas_core.running.answers import write_answers
from clas_core.running.batch import next_logits
from clas_core.running.branches import Branches, logits
from clas_core.running.effects import compare
from clas_core.running.generation import generate
from clas_core.running.likelihood import log_likelihoods, tokenise
from clas_core.running.states import BridgeCache, hidden_states
from clas_core.running.trace import reruns
from clas_core.steering.baking import bake
from clas_core.steering.methods import CLAS, DiffMean
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered
from clas_core.text.corpus import ParallelCorpus

_HAS = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def _place(device: str, dtype: torch.dtype):
    absent = pytest.mark.skipif(not _HAS[device], reason=f"there is no {device} device")
    marks = [absent, *([pytest.mark.cuda] if device == "cuda" else [])]
    return pytest.param((device, dtype), id=f"{device}-{dtype}".replace("torch.", ""), marks=marks)


PLACES = [
    _place("cpu", torch.bfloat16),
    _place("cpu", torch.float16),
    _place("cuda", torch.float32),
    _place("cuda", torch.bfloat16),
    _place("cuda", torch.float16),
    _place("mps", torch.float32),
]
MODELS = {"llama": tiny_llama_model, "qwen2": tiny_qwen2_model, "gpt2": tiny_gpt2_model}
PROMPTS = ["The cat sleeps", "Who", "It rains in the old house. Two birds", "Anna gives Tom"]
NEW = 12  # tokens

_ROUNDINGS = 20  # a block: norms 4, projections 7, rotation 2, attention 2, product, plan 2, sums 2


def allowed(lm: LanguageModel) -> float:
    """The error that rounding may leave, as a share of a tensor's norm.

    A result is rounded to `eps` of itself: by at most eps / 2, by eps / 12 ** 0.5 in mean square.
    A kernel adds up in float32 and rounds its result once; in float32 itself it rounds at each of
    the terms, as many as the layer is wide. Independent errors add up by their squares, so n of
    them come to eps * (n / 12) ** 0.5; the rest of eps * n ** 0.5, a factor of 3.5, is for what the
    layers make of an error that is there.
    """
    count = _ROUNDINGS * lm.num_layers + 4  # embedding, last norm and head
    if lm.dtype == torch.float32:
        count *= lm.num_neurons
    return torch.finfo(lm.dtype).eps * math.sqrt(count)


def off(found: Tensor, wanted: Tensor) -> float:
    """How far `found` is from `wanted`, as a share of the norm of `wanted`."""
    assert found.isfinite().all()
    difference = found.detach().double().cpu() - wanted.detach().double().cpu()
    return float(difference.norm() / wanted.double().norm())


@dataclass(frozen=True, eq=False)
class Pair:
    """A model in the type and on the device that are tested, and its twin in float32 on the CPU."""

    lm: LanguageModel
    exact: LanguageModel

    @property
    def plans(self) -> list[SteeringPlan | None]:
        """One for each of PROMPTS; all parts of a plan, in several layers."""
        one, other = (a_plan(self.lm, seed) for seed in (0, 1))
        return [None, one, other * -0.5, other @ one]

    def truth(self, prompt: Sequence[int], ids: Sequence[int], plan: SteeringPlan | None) -> Tensor:
        """The twin's logits of each of `ids` after `prompt` and those before: [ids, vocabulary]."""
        read = torch.tensor([[*prompt, *ids[:-1]]])
        return next_logits(self.exact, plan, read, torch.ones_like(read), keep=len(ids))[0]

    def slack(self, truth: Tensor) -> Tensor:
        """By how much the difference of two logits may be wrong, [ids]: each by its share of the
        largest."""
        return 2 * allowed(self.lm) * truth.abs().amax(-1)

    def check(self, prompt: Sequence[int], ids: Sequence[int], plan: SteeringPlan | None) -> None:
        """Each token is the likeliest of float32, or so near to it that rounding decided."""
        truth = self.truth(prompt, ids, plan)
        chosen = truth.gather(-1, torch.tensor(ids)[:, None])[:, 0]
        assert (truth.amax(-1) - chosen <= self.slack(truth)).all()

    def check_same(
        self,
        prompt: Sequence[int],
        one: Sequence[int],
        two: Sequence[int],
        plan: SteeringPlan | None,
    ) -> None:
        """The texts are the same, up to a token between which and the other's rounding decided."""
        place = next((k for k, both in enumerate(zip(one, two)) if both[0] != both[1]), None)
        if place is None:
            assert len(one) == len(two)
            return
        truth = self.truth(prompt, one[: place + 1], plan)[-1]
        assert abs(truth[one[place]] - truth[two[place]]) <= self.slack(truth)


def a_plan(lm: LanguageModel, seed: int, parts: str = "scale bias shift") -> SteeringPlan:
    """All layers but the first: neurons scaled by up to 2, moved, and the stream shifted."""
    generator = torch.Generator().manual_seed(seed)

    def layer(index: int) -> LayerPlan:
        neurons = lm.widths[index]
        scale = 2 * torch.rand(neurons, generator=generator)
        bias = 0.1 * torch.randn(neurons, generator=generator)
        shift = 0.1 * torch.randn(lm.hidden_size, generator=generator)
        made = {"scale": scale, "bias": bias, "shift": shift}
        return LayerPlan(**{part: made[part] for part in parts.split()})

    return SteeringPlan({index: layer(index) for index in range(1, lm.num_layers)})


def make_pair(model: PreTrainedModel, place: tuple[str, torch.dtype]) -> Pair:
    device, dtype = place
    tokenizer = make_tokenizer()
    rounded = model.to(dtype)
    twin = copy.deepcopy(rounded).float()
    return Pair(load(rounded.to(device), tokenizer), load(twin, tokenizer))


@pytest.fixture(scope="module", params=PLACES)
def place(request) -> tuple[str, torch.dtype]:
    """A device and a type, other than the CPU's float32."""
    return request.param


@pytest.fixture(scope="module", params=MODELS)
def pair(request, place) -> Pair:
    """Each of three families in turn."""
    return make_pair(MODELS[request.param](), place)


@pytest.fixture(scope="module")
def llama(place) -> Pair:
    return make_pair(tiny_llama_model(), place)


def rows_of(lm: LanguageModel, plans) -> Tensor:
    """Logits after each of PROMPTS, padded at the left; [rows, vocabulary]."""
    batch = lm.encode(PROMPTS, "left")
    return next_logits(lm, plans, batch.input_ids, batch.attention_mask)[:, -1]


def write(lm: LanguageModel, prompts, plans) -> list[tuple[int, ...]]:
    *_, step = generate(lm, prompts, plans, max_new_tokens=NEW)
    return list(step.token_ids)


def ids_of(lm: LanguageModel, text: str) -> list[int]:
    return lm.encode([text]).input_ids[0].tolist()


# Running


def test_logits_of_rows_with_plans_of_their_own(pair):
    found, wanted = (rows_of(lm, pair.plans) for lm in (pair.lm, pair.exact))
    unsteered = rows_of(pair.exact, None)
    for row, plan in enumerate(pair.plans):
        assert off(found[row], wanted[row]) < allowed(pair.lm)
        if plan is not None:  # else the test would see no missing plan
            assert off(unsteered[row], wanted[row]) > 2 * allowed(pair.lm)


def test_rows_that_are_not_steered_keep_every_bit(pair):
    """On one device and in one batch: nothing of the others' plans comes into them."""
    one, other = pair.plans[1:3]
    bare = rows_of(pair.lm, None)
    for plans in ([None, one, one * 0, other], [other * 0, None, SteeringPlan.identity(), one]):
        found = rows_of(pair.lm, plans)
        for row, plan in enumerate(plans):
            assert torch.equal(found[row], bare[row]) == (plan is None or plan.is_identity)


def test_generate(pair):
    together = write(pair.lm, PROMPTS, pair.plans)
    for prompt, plan, among_others in zip(PROMPTS, pair.plans, together):
        (alone,) = write(pair.lm, prompt, [plan])
        ids = ids_of(pair.lm, prompt)
        pair.check(ids, alone, plan)
        pair.check(ids, among_others, plan)
        pair.check_same(ids, alone, among_others, plan)


def test_unsteered_texts_are_the_same_whatever_stands_beside_them(pair):
    one, other = pair.plans[1:3]
    wanted = write(pair.lm, PROMPTS, [None, one, None, one])
    found = write(pair.lm, PROMPTS, [other * 0, other, SteeringPlan.identity(), None])
    assert [found[row] for row in (0, 2)] == [wanted[row] for row in (0, 2)]
    assert found[1] != wanted[1]


def test_branches(pair):
    """The blocks that plans share are run once: rounding must not look like a block that can't."""
    assert reruns(pair.lm)
    batch = pair.lm.encode(PROMPTS, "left")
    found = Branches(pair.lm, pair.plans).read(batch.input_ids, batch.attention_mask)
    for plan, hidden in zip(pair.plans, found):
        ends = torch.cat(list(logits(pair.lm, hidden[:, -1])))
        for prompt, end in zip(PROMPTS, ends):
            wanted = pair.truth(ids_of(pair.lm, prompt), [0], plan)[0]
            assert off(end, wanted) < allowed(pair.lm)


def test_likelihoods(pair):
    """Of prompts that begin alike, so that the beginning is read once and moved."""
    start = "The boy goes to the market in the morning. Two birds sit on the old tree. "
    endings = [" apple", " house in the morning", " old tree."]
    questions = [tokenise(pair.lm, start + prompt, endings) for prompt in PROMPTS]
    found = log_likelihoods(pair.lm, questions, pair.plans)
    for plan, column in zip(pair.plans, found):
        for question, scores in zip(questions, column):
            for ending, score in zip(question.endings, scores):
                truth = pair.truth(question.prompt, ending, plan)
                log_p = truth.log_softmax(-1).gather(-1, torch.tensor(ending)[:, None])
                # A log p is a logit less a mean of logits: wrong as the difference of two.
                assert abs(score - float(log_p.sum())) < float(pair.slack(truth).sum())


def test_answers(pair, monkeypatch):
    made: list[Answer] = []

    class Noted(Answer):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(answers, "Answer", Noted)
    texts = write_answers(pair.lm, PROMPTS, pair.plans, max_new_tokens=NEW, stop_at_newline=False)
    owners = [plan for plan in pair.plans for _ in PROMPTS]
    assert sorted(answer.text for answer in made) == sorted(chain.from_iterable(texts))
    for answer, plan in zip(made, owners, strict=True):
        pair.check(answer.prompt_ids, answer.token_ids, plan)


def test_effects(pair):
    ids = write(pair.lm, PROMPTS[0], [None])[0]
    plan = pair.plans[1]
    assert not compare(pair.lm, PROMPTS[0], ids, ids, plan * 0).kl.any()
    found, wanted = (compare(lm, PROMPTS[0], ids, ids, plan).kl for lm in (pair.lm, pair.exact))
    assert found.device.type == "cpu"
    assert off(found, wanted) < 2 * allowed(pair.lm) * _steepness(pair, ids, plan)


def _steepness(pair: Pair, ids: Sequence[int], plan: SteeringPlan) -> float:
    """Largest logit over smallest KL that matters: how a share of the one grows in the other.

    KL = sum p (log p - log q) moves by at most twice a log p's error and by p's relative error
    times the spread of log p - log q, which the logits bound.
    """
    prompt = ids_of(pair.lm, PROMPTS[0])
    p, q = (pair.truth(prompt, ids, one).log_softmax(-1) for one in (plan, None))
    kl = (p.exp() * (p - q)).sum(-1)
    largest = pair.truth(prompt, ids, plan).abs().amax()
    return float(largest * (2 + (p - q).abs().amax()) / kl.square().mean().sqrt())


def test_states_of_the_map(pair, tiny_corpus):
    for plan in pair.plans[:2]:
        found, wanted = (hidden_states(lm, tiny_corpus, plan) for lm in (pair.lm, pair.exact))
        assert (found.pooled.dtype, found.pooled.device.type) == (torch.float32, "cpu")
        for mine, twin in zip(found.pooled, wanted.pooled):
            assert off(mine, twin) < allowed(pair.lm)
    cached = BridgeCache(pair.lm, tiny_corpus, 1).states(plan)
    assert off(cached, found.at(-1)) < allowed(pair.lm)


def test_stop_leaves_the_model_as_it_was(pair):
    before = rows_of(pair.lm, None)
    stop = threading.Event()
    steps = generate(pair.lm, PROMPTS, pair.plans, max_new_tokens=NEW, stop=stop)
    next(steps)
    assert torch.equal(rows_of(pair.lm, None), before)  # while the caller holds a step
    next(steps)
    stop.set()
    assert list(steps) == []
    assert torch.equal(rows_of(pair.lm, None), before)
    abandoned = generate(pair.lm, PROMPTS, pair.plans, max_new_tokens=NEW)
    next(abandoned)
    del abandoned
    assert torch.equal(rows_of(pair.lm, None), before)


# Measuring


def test_an_atlas(pair, tiny_corpus):
    found, wanted = (Atlas.measure(lm, tiny_corpus) for lm in (pair.lm, pair.exact))
    assert_near(found, wanted, allowed(pair.lm))
    one_by_one = Atlas.measure(pair.lm, tiny_corpus, batch_size=1)
    assert_near(one_by_one, found, allowed(pair.lm))


def test_sums_are_of_what_the_model_computed(pair, tiny_corpus):
    """However roughly that was: gates are counted one by one, and sums lose nothing to see."""
    atlas, lm = Atlas.measure(pair.lm, tiny_corpus, batch_size=1), pair.lm
    for k, code in enumerate(tiny_corpus.languages):
        total, is_open = torch.zeros(2, lm.num_layers, lm.num_neurons, dtype=torch.float64)
        for text in tiny_corpus.sentences[code]:
            batch, heard = lm.encode([text]), Heard()
            with torch.no_grad(), tapped(lm, heard):
                lm.model.base_model(**batch.inputs, use_cache=False)
            content = batch.content[0].cpu()
            total += torch.stack(heard.h)[:, content].sum(1)
            is_open += (torch.stack(heard.gates or heard.h)[:, content] > 0).sum(1)
        assert torch.equal(atlas.probability[:, k], (is_open / atlas.tokens[k]).float())
        assert off(atlas.mean[:, k], total / atlas.tokens[k]) < 1e-6


class Heard(Tap):
    """What one text's MLPs compute, in order of the layers; float64 on the CPU."""

    def __init__(self) -> None:
        self.gates: list[Tensor] = []
        self.h: list[Tensor] = []

    def gate(self, site: Site, gate: Tensor) -> None:
        self.gates.append(gate[0].cpu().double())

    def neurons(self, site: Site, h: Tensor) -> None:
        self.h.append(h[0].cpu().double())


def assert_near(found: Atlas, wanted: Atlas, share: float) -> None:
    """Means as near as what they are of; gates are read otherwise where they are near 0.

    A gate of spread 1 with a normal error of `share` changes its sign at a share of the tokens of
    E|error| * density at 0 = 0.8 * 0.4 of `share`.
    """
    assert torch.equal(found.tokens, wanted.tokens)
    for name in ("probability", "mean", "residual"):
        statistic = getattr(found, name)
        assert (statistic.dtype, statistic.device.type) == (torch.float32, "cpu")
    assert off(found.mean, wanted.mean) < share
    assert off(found.residual, wanted.residual) < share
    assert (found.probability - wanted.probability).abs().mean() < share


def test_experts(place, tiny_corpus):
    """Rounding sends a token elsewhere only where two experts are about as good."""
    pair = make_pair(tiny_model("mixtral"), place)
    share = allowed(pair.lm)
    found, wanted = (Atlas.measure(lm, tiny_corpus) for lm in (pair.lm, pair.exact))
    assert found.routed.sum(-1).tolist() == [(2 * found.tokens).tolist()] * pair.lm.num_layers
    elsewhere = (found.routed - wanted.routed).abs().sum() / 2
    assert elsewhere <= share * wanted.routed.sum()


def test_rows_that_are_not_steered_keep_every_bit_beside_steered_experts(place):
    """Even where those have sent other tokens to the same experts."""
    lm = make_pair(tiny_model("mixtral", num_hidden_layers=4), place).lm
    plan = a_plan(lm, 0)
    bare, rows = rows_of(lm, None), rows_of(lm, [None, plan, plan * 0, plan * 2])
    assert [torch.equal(*both) for both in zip(rows, bare)] == [True, False, True, False]


# Baking and compiling


def test_a_baked_model_is_the_hooked_one(pair, tmp_path):
    parts = "scale" if pair.lm.model.config.model_type == "qwen2" else "scale bias shift"
    plan = a_plan(pair.lm, 0, parts)
    bare = rows_of(pair.lm, None)
    out = bake(pair.lm, plan, tmp_path / "baked")
    assert torch.equal(rows_of(pair.lm, None), bare)
    baked = load(out, dtype=pair.lm.dtype, device=pair.lm.device)
    assert (baked.dtype, baked.device) == (pair.lm.dtype, pair.lm.device)
    hooked = rows_of(pair.lm, plan)
    assert off(rows_of(baked, None), hooked) < allowed(pair.lm)
    assert off(bare, hooked) > 2 * allowed(pair.lm)


@pytest.mark.slow
def test_a_compiled_model_is_steered_like_any(llama):
    """On a GPU by the default compiler, which needs one of C."""
    lm, plan = llama.lm, llama.plans[1]
    default = lm.device.type == "cuda" and any(map(shutil.which, ("cc", "gcc", "clang")))
    backend = "inductor" if default else "eager"
    torch.compiler.reset()
    call = torch.compile(lm.model, backend=backend)
    batch = {**lm.encode(PROMPTS[:1]).inputs, "use_cache": False}
    with torch.no_grad():
        bare = lm.model(**batch).logits
        for _ in range(2):
            assert off(call(**batch).logits, bare) < allowed(lm)
            with steered(lm, plan):
                found, hooked = call(**batch).logits, lm.model(**batch).logits
            assert torch.equal(found, hooked)
            assert off(bare, hooked) > 2 * allowed(lm)


# The embedded model


def test_the_embedded_model(place):
    device, dtype = place
    lm = load("village", device=device, dtype=dtype)
    pair = Pair(lm, load(copy.deepcopy(lm.model).cpu().float(), lm.tokenizer))
    # In float16 its smallest weights are others, so the atlas is unchecked: it only makes plans.
    atlas = Atlas.load(ASSETS / "village" / "atlas.safetensors")
    selection, target = select(atlas), atlas.languages[-1]
    plans = [None, CLAS().plan(atlas, selection, target), DiffMean().plan(atlas, selection, target)]
    corpus = ParallelCorpus.bundled("village").subset(atlas.languages[:3], 20)
    assert_near(*(Atlas.measure(one, corpus) for one in (pair.lm, pair.exact)), allowed(lm))
    prompts = ["Anna gives Tom a", "The", "Two birds sit on the old"]
    assert (lm.device.type, lm.dtype) == place
    for prompt, plan, ids in zip(prompts, plans, write(lm, prompts, plans)):
        (alone,) = write(lm, prompt, [plan])
        pair.check(ids_of(lm, prompt), ids, plan)
        pair.check_same(ids_of(lm, prompt), ids, alone, plan)


@pytest.mark.cuda
@pytest.mark.skipif(not _HAS["cuda"], reason="there is no cuda device")
def test_where_there_is_a_gpu_a_model_goes_there_in_its_own_type(tmp_path):
    model = tiny_llama_model().bfloat16()
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    lm = load(tmp_path)
    assert (lm.device.type, lm.dtype) == ("cuda", torch.bfloat16)
