from __future__ import annotations

import random
import threading

import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score
from tiny import tiny_llama_model

from clas_core.atlas import measuring
from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.model.architecture import LanguageModel
from clas_core.model.loading import load
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered
from clas_core.text.corpus import ParallelCorpus

STATISTICS = ("probability", "mean", "residual", "norm")
OF_SENTENCES = ("precision", "median")  # float16


@pytest.fixture(scope="module")
def atlas(tiny_lm, tiny_corpus) -> Atlas:
    return Atlas.measure(tiny_lm, tiny_corpus, batch_size=4)


def by_hand(lm: LanguageModel, texts: list[str]) -> dict[str, torch.Tensor]:
    """One sentence at a time without padding or taps, in float64, all from the MLPs' inputs."""
    model = lm.model.double()
    opened, h, residual = ([[] for _ in lm.blocks] for _ in range(3))
    handles = []
    for layer, block in enumerate(lm.blocks):

        def mlp_input(module, args, layer=layer):
            (x,) = (args[0][0, 1:],)  # without <s>
            if hasattr(module, "gate_proj"):
                gate = module.act_fn(x @ module.gate_proj.weight.T)
                opened[layer].append(gate > 0)
                h[layer].append(gate * (x @ module.up_proj.weight.T))
            else:
                h[layer].append(module.act(x @ module.c_fc.weight + module.c_fc.bias))
                opened[layer].append(h[layer][-1] > 0)

        def output(module, args, out, layer=layer):
            residual[layer].append((out[0] if isinstance(out, tuple) else out)[0, 1:])

        handles.append(block.mlp.register_forward_pre_hook(mlp_input))
        handles.append(block.register_forward_hook(output))
    with torch.no_grad():
        for text in texts:
            model(torch.tensor([lm.tokenizer(text)["input_ids"]]))
    for handle in handles:
        handle.remove()
    model.float()
    opened, h, residual = (
        torch.stack([torch.cat(parts) for parts in layers]) for layers in (opened, h, residual)
    )  # [layers, tokens, units]
    return {
        "probability": opened.double().mean(1),
        "mean": h.mean(1),
        "residual": residual.mean(1),
        "norm": residual.norm(dim=-1).mean(1),
        "tokens": torch.tensor(h.shape[1]),
    }


def test_equals_a_computation_by_hand(any_lm, tiny_corpus) -> None:
    atlas = Atlas.measure(any_lm, tiny_corpus, batch_size=4)
    assert atlas.languages == ("en", "es", "hi", "sw")
    for k, code in enumerate(atlas.languages):
        expected = by_hand(any_lm, tiny_corpus.sentences[code])
        assert atlas.tokens[k] == expected.pop("tokens")
        for name, wanted in expected.items():
            got = getattr(atlas, name)[:, k]
            assert got.dtype == torch.float32
            torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


def test_precision_and_median_are_of_the_sentences_means(any_lm, tiny_corpus) -> None:
    atlas = Atlas.measure(any_lm, tiny_corpus, batch_size=4)
    assert atlas.meta["sentences"] == 6
    means = torch.stack(
        [
            torch.stack([by_hand(any_lm, [text])["mean"] for text in texts])
            for texts in tiny_corpus.sentences.values()
        ]
    )  # [languages, sentences, layers, neurons]
    middle = means.sort(1).values[:, 2:4].mean(1).transpose(0, 1)
    torch.testing.assert_close(atlas.median.double(), middle, rtol=2e-3, atol=2e-4)
    for layer, k, neuron in [(0, 0, 3), (1, 3, 40), (2, 2, 63), (2, 1, 0)]:
        values = means[:, :, layer, neuron].half()  # as they are kept
        labels = torch.zeros(values.shape)
        labels[k] = 1
        wanted = average_precision_score(labels.flatten(), values.flatten())
        assert float(atlas.precision[layer, k, neuron]) == pytest.approx(wanted, abs=1e-3)


def test_single_sentences_are_kept_within_a_budget(tiny_lm, tiny_corpus, monkeypatch) -> None:
    each = 2 * 3 * 64 * 4  # bytes, layers, neurons, languages
    monkeypatch.setattr(measuring, "FEWEST_SENTENCES", 1)
    monkeypatch.setattr(measuring, "SENTENCE_BYTES", 3 * each + 1)
    few = Atlas.measure(tiny_lm, tiny_corpus)
    assert few.meta["sentences"] == 3
    first = Atlas.measure(tiny_lm, tiny_corpus.subset(n=3))
    for name in OF_SENTENCES:
        torch.testing.assert_close(getattr(few, name), getattr(first, name), rtol=2e-3, atol=1e-4)
    monkeypatch.setattr(measuring, "SENTENCE_BYTES", 1)
    assert measuring.sentences_kept(tiny_lm, tiny_corpus) == 1


def test_values_beyond_half_precision_stop_at_its_end(tokenizer, tiny_corpus) -> None:
    lm = load(tiny_llama_model(), tokenizer)
    with torch.no_grad():
        lm.blocks[2].mlp.up_proj.weight.mul_(1e7)
    atlas = Atlas.measure(lm, tiny_corpus)
    assert atlas.median.isfinite().all()
    assert atlas.median.abs().max() == torch.finfo(torch.float16).max


def test_neither_batch_size_nor_order_matters(tiny_lm, tiny_corpus, atlas) -> None:
    order = list(range(len(tiny_corpus)))
    random.Random(0).shuffle(order)
    shuffled = ParallelCorpus(
        "shuffled",
        {code: [texts[i] for i in order] for code, texts in tiny_corpus.sentences.items()},
    )
    for corpus, size in [(tiny_corpus, 1), (tiny_corpus, 32), (shuffled, 3)]:
        other = Atlas.measure(tiny_lm, corpus, batch_size=size)
        assert torch.equal(other.tokens, atlas.tokens)
        for name in STATISTICS:
            torch.testing.assert_close(
                getattr(other, name), getattr(atlas, name), rtol=1e-5, atol=1e-6
            )


def test_a_language_alone_measures_the_same(tiny_lm, tiny_corpus, atlas) -> None:
    alone = Atlas.measure(tiny_lm, tiny_corpus, languages=["sw"], batch_size=4)
    assert alone.languages == ("sw",)
    assert torch.equal(alone.probability[:, 0], atlas.probability[:, atlas.index("sw")])


def test_text_generated_meanwhile_does_not_count(tiny_lm, tiny_corpus, atlas) -> None:
    """Another visitor's forward passes on the same model are not measured."""
    stop = threading.Event()

    def visit() -> None:
        plan = SteeringPlan({1: LayerPlan(scale=torch.zeros(64))})
        inputs = tiny_lm.encode(["Who has the book?"]).inputs
        while not stop.is_set():
            with torch.no_grad(), steered(tiny_lm, plan):
                tiny_lm.model(**inputs)

    thread = threading.Thread(target=visit)
    thread.start()
    again = Atlas.measure(tiny_lm, tiny_corpus, batch_size=4)
    stop.set()
    thread.join()
    for name in STATISTICS:
        assert torch.equal(getattr(again, name), getattr(atlas, name))


def test_measuring_inside_steered_sees_the_steered_model(tiny_lm, tiny_corpus, atlas) -> None:
    with steered(tiny_lm, SteeringPlan({2: LayerPlan(scale=torch.full((64,), 2.0))})):
        doubled = Atlas.measure(tiny_lm, tiny_corpus, batch_size=4)
    torch.testing.assert_close(doubled.mean[2], 2 * atlas.mean[2])
    assert torch.equal(doubled.mean[:2], atlas.mean[:2])


def test_progress_counts_sentences_and_can_cancel(tiny_lm, tiny_corpus) -> None:
    steps: list[tuple[int, int]] = []
    Atlas.measure(
        tiny_lm, tiny_corpus, batch_size=4, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(n, 24) for n in (4, 6, 10, 12, 16, 18, 22, 24)]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Atlas.measure(tiny_lm, tiny_corpus, progress=cancel)


def test_saves_and_loads(atlas, tmp_path) -> None:
    atlas.save(tmp_path / "tiny.safetensors")
    again = Atlas.load(tmp_path / "tiny.safetensors")
    assert (again.languages, again.meta) == (atlas.languages, atlas.meta)
    assert again.meta["corpus"] == "tiny"
    assert again.widths == atlas.widths
    for name in (*STATISTICS, *OF_SENTENCES, "tokens"):
        assert torch.equal(getattr(again, name), getattr(atlas, name))
    assert again.tokens.dtype == torch.int64


@pytest.mark.parametrize("older", ["clas-atlas-2", "clas-atlas-3"])
def test_an_older_file_is_to_be_measured_again(older, atlas, tmp_path) -> None:
    save_file({"probability": atlas.probability}, tmp_path / "old", {"format": older})
    with pytest.raises(ClasError, match="older version"):
        Atlas.load(tmp_path / "old")


def test_an_atlas_of_an_8b_model_in_16_languages_stays_under_100_mb(tmp_path) -> None:
    def stored(layers: int, languages: int, neurons: int, hidden: int) -> int:
        by_neuron = 4 + 4 + 2 + 2  # bytes: probability, mean, precision, median
        by_layer = by_neuron * neurons + 4 * hidden + 4  # residual, norm
        return layers * languages * by_layer + 8 * languages

    neurons, half = torch.zeros(2, 3, 50), torch.zeros(2, 3, 50, dtype=torch.float16)
    residual = torch.zeros(2, 3, 20)
    atlas = Atlas(
        ("a", "b", "c"), neurons, neurons.clone(), residual, residual[..., 0].clone(), half,
        half.clone(), torch.ones(3).long(),
    )  # fmt: skip
    atlas.save(tmp_path / "zeros")
    content = (tmp_path / "zeros").read_bytes()
    head = 8 + int.from_bytes(content[:8], "little")  # the format's: a length, then JSON
    assert len(content) - head == stored(2, 3, 50, 20)
    assert stored(32, 16, 14336, 4096) < 100e6


def test_bad_input_gets_a_clear_sentence(tiny_lm, tiny_corpus, atlas, tmp_path) -> None:
    with pytest.raises(ClasError, match="no xx"):
        Atlas.measure(tiny_lm, tiny_corpus, languages=["en", "xx"])
    with pytest.raises(ClasError, match="at least 1"):
        Atlas.measure(tiny_lm, tiny_corpus, batch_size=0)
    with pytest.raises(ClasError, match="choose one of en, es, hi, sw"):
        atlas.index("xx")
    with pytest.raises(ClasError, match="Can't read an atlas"):
        Atlas.load(tmp_path / "missing")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ClasError, match="isn't an atlas"):
        Atlas.load(tmp_path / "other")
