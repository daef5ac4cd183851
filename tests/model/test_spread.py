"""A model on several devices does what the whole one does; the hooks are accelerate's own.

The devices are stand-ins on the CPU, which refuse to mix as GPUs do (`devices.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from devices import FIRST, SECOND, several_devices
from oracles import make_plan
from tiny import SENTENCES, make_tokenizer, tiny_llama_model, windowed_model
from transformers import PreTrainedModel

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.fingerprint import fingerprint
from clas_core.model.architecture import LanguageModel
from clas_core.model.loading import load
from clas_core.running.batch import new_cache
from clas_core.running.decoder import Decoder
from clas_core.running.decoding import Rows
from clas_core.running.effects import compare
from clas_core.running.generation import generate
from clas_core.running.likelihood import log_likelihoods, tokenise
from clas_core.running.request import Request
from clas_core.running.states import BridgeCache, hidden_states
from clas_core.running.trace import reruns
from clas_core.steering import baking
from clas_core.steering.baking import bake
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered
from clas_core.ui.behind.firing import peaks

TEXTS = [text for texts in SENTENCES.values() for text in texts]
LATE = ("norm", "norm_f", "ln_f", "embedding_norm")
STATES = ("qwen3_5_text", "lfm2")  # keep more than keys and values
FAMILIES = ["llama", "gpt2", "gemma3_text", "qwen2_moe", "qwen3_5_text", "lfm2", "mpt"]


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two of them, in this thread and in those of decoders."""
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # other threads don't know of them
    work = Decoder._work

    def there(self: Decoder) -> None:
        with several_devices():
            work(self)

    monkeypatch.setattr(Decoder, "_work", there)
    with several_devices():
        yield


def spread(model: PreTrainedModel, folder: Path) -> tuple[LanguageModel, LanguageModel]:
    """The model in one place, and with all from its second layer on on another device."""
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    whole = load(folder)
    head, blocks = whole.model.get_output_embeddings(), {id(one) for one in whole.blocks}
    tied = head.weight is whole.model.get_input_embeddings().weight
    places: dict[str, torch.device] = {}
    for name, module in whole.model.named_modules():
        if any(name.startswith(f"{block}.") for block in places):
            continue
        if id(module) in blocks or next(module.children(), None) is None:
            late = (module is head and not tied) or name.rpartition(".")[2] in LATE
            late = late or (id(module) in blocks and module is not whole.blocks[0])
            places[name] = SECOND if late else FIRST
    lm = load(folder, device_map={name: str(place) for name, place in places.items()})
    assert {one.device for one in lm.model.parameters()} == {FIRST, SECOND}
    return whole, lm


def offloaded(model: PreTrainedModel, folder: Path) -> tuple[LanguageModel, LanguageModel]:
    """The model in one place, and with a layer and the head on disk, fetched at each use."""
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    names = ("embed_tokens", "layers.0", "layers.2", "norm", "rotary_emb")
    places = {f"model.{name}": "cpu" for name in names}
    places |= {"model.layers.1": "disk", "lm_head": "disk"}
    lm = load(folder, device_map=places)
    assert {one.device.type for one in lm.model.parameters()} == {"cpu", "meta"}
    return load(folder), lm


@pytest.fixture(params=[*FAMILIES, "offloaded"])
def both(request, tmp_path) -> tuple[LanguageModel, LanguageModel]:
    if request.param == "offloaded":
        return offloaded(tiny_llama_model().eval(), tmp_path)
    model = tiny_llama_model() if request.param == "llama" else windowed_model(request.param)
    return spread(model.eval(), tmp_path)


@pytest.fixture
def llamas(tmp_path) -> tuple[LanguageModel, LanguageModel]:
    return spread(tiny_llama_model().eval(), tmp_path)


def plan_for(lm: LanguageModel) -> SteeringPlan:
    """One that acts on both devices."""
    return make_plan(lm, lm.num_layers - 1, 1) @ make_plan(lm, 0, 0)


def logits_of(lm: LanguageModel, plan: SteeringPlan | None) -> torch.Tensor:
    with torch.inference_mode(), steered(lm, plan):
        return lm.model(**lm.encode(TEXTS[:4]).inputs).logits.cpu()


def test_the_stand_ins_refuse_to_mix() -> None:
    here, there = torch.ones(2, device=FIRST), torch.ones(2, device=SECOND)
    for mix in (
        lambda: here + there,
        lambda: here + torch.ones(2),
        lambda: here[torch.tensor([0], device=SECOND)],
        lambda: torch.ones(2)[torch.tensor([0], device=FIRST)],
        lambda: torch.cat([here, there]),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mix()
    assert (here[torch.tensor([0])] + there.to(FIRST)[:1]).tolist() == [2]


def test_it_is_steered(both) -> None:
    whole, lm = both
    plan = plan_for(whole)
    for one in (None, plan, make_plan(whole, 1, 2)):
        torch.testing.assert_close(logits_of(lm, one), logits_of(whole, one))
    assert (logits_of(lm, plan) - logits_of(lm, None)).abs().max() > 1e-3


def test_it_is_measured(both, tiny_corpus) -> None:
    whole, lm = both
    assert str(fingerprint(lm)) == str(fingerprint(whole))
    found, wanted = (Atlas.measure(one, tiny_corpus) for one in (lm, whole))
    for name in ("probability", "mean", "residual", "norm", "median", "precision"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), equal_nan=True)


def test_it_writes(both) -> None:
    """Also rows that leave, and with a part of the text steered."""
    whole, lm = both
    plans = [None, plan_for(whole), make_plan(whole, 1, 2).at("answer:2")]
    found, wanted = (list(generate(one, TEXTS[:3], plans, max_new_tokens=8)) for one in (lm, whole))
    assert found == wanted


def test_a_decoder_joins_and_parts_rows(both, monkeypatch) -> None:
    """Without taking refuge in writing each alone, as after an error."""
    whole, lm = both
    refuges: list[object] = []
    part = Decoder._part
    monkeypatch.setattr(Decoder, "_part", lambda *args: (refuges.append(args), part(*args)))
    requests = [
        Request(TEXTS[k], [None, make_plan(whole, k % 2, k)], 3 + 2 * k, temperature=0.5 * (k % 2))
        for k in (0, 1, 2, 3, 4, 5, 0, 1, 4)
    ]
    with Decoder(lm, most_rows=8, most_tokens=900, tokens_at_once=64) as decoder:
        found = [list(stream) for stream in [decoder.submit(one) for one in requests]]
    for request, steps in zip(requests, found):
        wanted = generate(
            whole,
            request.prompt,
            request.plans,
            max_new_tokens=request.max_new_tokens,
            temperature=request.temperature,
        )
        assert steps == list(wanted)
    assert not refuges


def test_rows_take_the_places_of_others(both) -> None:
    whole, lm = both
    found = []
    for one in (whole, lm):
        plan = make_plan(one, 1, 2)
        rows, other = (
            Rows(one, [None, plan], *one.pad(texts), new_cache(one, movable=True))
            for texts in ([[*range(5, 35)], [60, 61]], [[70, 71], [*range(40, 52)]])
        )
        for each in (rows, other):
            each.logits()
            each.append(torch.tensor([80, 81], device=one.device))
        rows = Rows.joined([(rows, [0, 1])])
        took = rows.put([1], other, [1])
        found.append((took, rows.logits().cpu()))
    assert found[0][0] == found[1][0] == (lm.model.config.model_type not in STATES)
    torch.testing.assert_close(found[1][1], found[0][1])


def test_likelihoods(both) -> None:
    whole, lm = both
    shown = "Anna gives Tom a red apple. It rains. Who has the book? "
    plans = [None, plan_for(whole), make_plan(whole, 1, 2)]
    questions = [
        tokenise(whole, shown + prompt, [" The cat", " The old tree.", " a"])
        for prompt in ("It", "Two birds sit", "")
    ]
    found, wanted = (
        torch.tensor(log_likelihoods(one, questions, plans), device="cpu") for one in (lm, whole)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_states_and_their_cache(both, tiny_corpus) -> None:
    whole, lm = both
    plan = make_plan(whole, 1, 2)
    assert reruns(lm) == reruns(whole)
    for one in (None, plan):
        found, wanted = (hidden_states(each, tiny_corpus, plan=one).pooled for each in both)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    found, wanted = (BridgeCache(one, tiny_corpus, 1).states(plan) for one in (lm, whole))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_steering_did(llamas) -> None:
    whole, lm = llamas
    plan = plan_for(whole)
    *_, last = generate(whole, TEXTS[0], [None, plan], max_new_tokens=8)
    found, wanted = (compare(one, TEXTS[0], *last.token_ids, plan) for one in (lm, whole))
    torch.testing.assert_close(found.kl, wanted.kl, rtol=1e-3, atol=1e-5)
    assert found.sentence == wanted.sentence


def test_which_sentences_fire_a_neuron(llamas) -> None:
    for layer in range(3):
        found, wanted = (peaks(one, TEXTS, layer) for one in llamas)
        torch.testing.assert_close(found, wanted)


@pytest.fixture
def plain_parameters(monkeypatch) -> None:
    """Stand-ins are taken for plain tensors, and written to files, as those of GPUs are."""
    folded = baking._folded
    monkeypatch.setattr(baking, "_check_weights", lambda lm: None)
    monkeypatch.setattr(
        baking, "_folded", lambda *args: {k: one.cpu() for k, one in folded(*args).items()}
    )


def test_it_is_baked(both, tmp_path, plain_parameters) -> None:
    whole, lm = both
    if any(one.is_meta for one in lm.model.parameters()):
        pytest.skip("it is refused: test_loading.py")
    plan = SteeringPlan({1: LayerPlan(scale=make_plan(whole, 1, 2).layers[1].scale)})
    baked = load(bake(lm, plan, tmp_path / "baked"), device="cpu")
    torch.testing.assert_close(logits_of(baked, None), logits_of(whole, plan))


def test_a_shift_is_baked(llamas, tmp_path, plain_parameters) -> None:
    whole, lm = llamas
    plan = plan_for(whole)
    baked = load(bake(lm, plan, tmp_path / "baked"), device="cpu")
    torch.testing.assert_close(logits_of(baked, None), logits_of(whole, plan))
