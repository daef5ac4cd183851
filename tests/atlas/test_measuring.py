from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from halting import Halt, halt_after
from tiny import make_tokenizer, tiny_model

from clas_core.atlas import measuring, unfinished
from clas_core.atlas.atlas import Atlas
from clas_core.errors import ClasError
from clas_core.model.architecture import UnsupportedModel
from clas_core.model.loading import load
from clas_core.model.taps import Tap, tapped
from clas_core.text.corpus import ParallelCorpus

ROOT = Path(__file__).resolve().parents[2]
STATISTICS = ("probability", "mean", "residual", "norm", "tokens")
OF_SENTENCES = ("precision", "median")  # float16: equal to its last digit


def assert_equal(a: Atlas, b: Atlas) -> None:
    for name in (*STATISTICS, *OF_SENTENCES):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_cancelled_and_resumed_is_never_cancelled_bit_for_bit(any_lm, tiny_corpus, tmp_path):
    whole = Atlas.measure(any_lm, tiny_corpus, batch_size=4)
    file = tmp_path / "sums"
    seen = []
    for sentences in (4, 10, 17):
        with pytest.raises(Halt):
            Atlas.measure(
                any_lm, tiny_corpus, batch_size=4, resume=file, progress=halt_after(sentences)
            )
        assert [path.name for path in tmp_path.iterdir()] == ["sums"]
    resumed = Atlas.measure(
        any_lm, tiny_corpus, batch_size=4, resume=file, progress=lambda *at: seen.append(at)
    )
    assert seen[0][0] > 17
    assert seen[-1] == (24, 24)
    assert_equal(resumed, whole)
    assert not list(tmp_path.iterdir())


def test_sums_are_written_as_it_goes(tiny_lm, tiny_corpus, tmp_path, monkeypatch):
    """A killed run loses what came after the last writing, not more."""
    monkeypatch.setattr(unfinished, "SAVE_EVERY", 0.0)
    written = []

    def progress(done: int, total: int) -> None:
        written.append((tmp_path / "sums").stat().st_size)

    Atlas.measure(tiny_lm, tiny_corpus, batch_size=4, resume=tmp_path / "sums", progress=progress)
    assert len(written) == 8
    assert len(set(written)) == 1  # what is kept does not grow


def test_sums_of_another_measurement_are_refused(tiny_lm, tiny_corpus, tmp_path):
    file = tmp_path / "sums"
    with pytest.raises(Halt):
        Atlas.measure(tiny_lm, tiny_corpus, batch_size=4, resume=file, progress=halt_after(4))
    with pytest.raises(ClasError, match="of another measurement"):
        Atlas.measure(tiny_lm, tiny_corpus, ["en", "sw"], batch_size=4, resume=file)
    other = load(copy.deepcopy(tiny_lm.model), tiny_lm.tokenizer)
    with torch.no_grad():
        other.mlps[0].weight.mul_(1.01)
    half = load(copy.deepcopy(tiny_lm.model).bfloat16(), tiny_lm.tokenizer)
    for lm in (other, half):  # of the same name
        with pytest.raises(ClasError, match="of another measurement"):
            Atlas.measure(lm, tiny_corpus, batch_size=4, resume=file)
    file.write_text("no tensors")
    with pytest.raises(ClasError, match="Can't resume from"):
        Atlas.measure(tiny_lm, tiny_corpus, resume=file)


def test_padding_on_either_side_counts_for_nothing(tiny_lm, tiny_corpus, monkeypatch):
    right = Atlas.measure(tiny_lm, tiny_corpus, batch_size=6)
    encode = type(tiny_lm).encode
    monkeypatch.setattr(
        type(tiny_lm), "encode", lambda lm, texts: padded_left(lm, encode(lm, texts, "left"))
    )
    left = Atlas.measure(tiny_lm, tiny_corpus, batch_size=6)
    for name in STATISTICS:
        torch.testing.assert_close(getattr(left, name), getattr(right, name), rtol=1e-5, atol=1e-6)


def padded_left(lm, batch):
    """With the positions that go with left padding, which a base model doesn't make itself."""
    positions = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)
    return Positioned(batch.input_ids, batch.attention_mask, batch.content, positions)


class Positioned:
    def __init__(self, input_ids, attention_mask, content, position_ids):
        self.content = content
        self.inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
        }


def test_a_model_whose_neurons_are_never_heard_of_is_refused(tiny_corpus):
    lm = load(tiny_model("llama"), make_tokenizer())
    with torch.no_grad(), tapped(lm, Tap()):  # installs the hooks
        pass
    lm.mlps[1].down._forward_pre_hooks.clear()
    with pytest.raises(UnsupportedModel, match="can't be steered"):
        Atlas.measure(lm, tiny_corpus)


def test_every_token_goes_to_as_many_experts_as_the_router_picks(tiny_corpus):
    lm = load(tiny_model("mixtral"), make_tokenizer())
    atlas = Atlas.measure(lm, tiny_corpus)
    assert atlas.routed.shape == (2, 4, 4)
    assert torch.equal(atlas.routed.sum(2), 2 * atlas.tokens.expand(2, -1))
    assert Atlas.measure(load(tiny_model("llama"), make_tokenizer()), tiny_corpus).routed is None


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma4_text"])
def test_neither_batch_size_nor_order_matters_to_one_part_in_a_million(family, tiny_corpus):
    lm = load(tiny_model(family), make_tokenizer())
    one, many = (Atlas.measure(lm, tiny_corpus, batch_size=n) for n in (1, 24))
    for name in STATISTICS:
        a, b = getattr(one, name).double(), getattr(many, name).double()
        assert (a - b).abs().max() <= 1e-6 * a.abs().max(), name


def test_sums_do_not_drift(tiny_lm, tiny_corpus):
    """A hundred times the same batch is a hundred times its sums, far beyond float32."""
    once, often = (measuring.Sums(tiny_lm, 1) for _ in range(2))
    with torch.inference_mode():
        for sums, times in ((once, 1), (often, 100)):
            with tapped(tiny_lm, sums):
                for _ in range(times):
                    sums.add(tiny_lm, 0, tiny_corpus.sentences["en"])
    for name, total in often.tensors.items():
        torch.testing.assert_close(total, 100 * once.tensors[name], rtol=1e-13, atol=0)


def test_batches_are_sorted_by_tokens(tiny_lm, tiny_corpus):
    batches = list(measuring.batches_of(tiny_corpus, 4, tiny_lm.tokenizer))
    assert [k for k, _, _ in batches] == [0, 0, 1, 1, 2, 2, 3, 3]
    for k, rows, texts in batches:
        code = tiny_corpus.languages[k]
        assert texts == [tiny_corpus.sentences[code][row] for row in rows]
    for code, pair in zip(tiny_corpus.languages, zip(batches[::2], batches[1::2])):
        texts = [text for _, _, texts in pair for text in texts]
        assert sorted(texts) == sorted(tiny_corpus.sentences[code])
        lengths = [len(tiny_lm.tokenizer(text)["input_ids"]) for text in texts]
        assert lengths == sorted(lengths)


@pytest.mark.slow
def test_two_processes_measure_the_same_atlas(tiny_lm, tiny_corpus, tmp_path):
    tiny_lm.model.save_pretrained(tmp_path / "model")
    tiny_lm.tokenizer.save_pretrained(tmp_path / "model")
    rows = zip(*[tiny_corpus.sentences[code] for code in tiny_corpus.languages])
    lines = [tiny_corpus.languages, *rows]
    (tmp_path / "tiny.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")
    out = tmp_path / "atlas.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "clas_core", "measure"]
    command += ["--model", str(tmp_path / "model"), "--corpus", str(tmp_path / "tiny.tsv")]
    command += ["--out", str(out), "--batch-size", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("sentences in") == 1  # one of them speaks
    shared, alone = Atlas.load(out), Atlas.measure(tiny_lm, tiny_corpus, batch_size=4)
    assert json.dumps(shared.languages) == json.dumps(alone.languages)
    for name in ("probability", "mean", "residual", "tokens"):
        torch.testing.assert_close(
            getattr(shared, name), getattr(alone, name), rtol=1e-6, atol=1e-7
        )


LONG = " ".join(["The cat sleeps in the house."] * 8)


@pytest.mark.parametrize(
    ("family", "reads"),
    [("gpt2", False), ("opt", False), ("gptj", False), ("mpt", False), ("llama", True)],
)
def test_a_sentence_that_is_too_long_is_named_before_any_is_measured(family, reads, tiny_corpus):
    context = {"max_seq_len": 32} if family == "mpt" else {"max_position_embeddings": 32}
    lm = load(tiny_model(family, **context), make_tokenizer())
    texts = {code: list(lines) for code, lines in tiny_corpus.sentences.items()}
    texts = {"en": texts["en"], "sw": [*texts["sw"][:-1], LONG]}
    corpus = ParallelCorpus("long", texts)
    if reads:
        assert Atlas.measure(lm, corpus).tokens.all()
        return
    size = len(lm.tokenizer(LONG)["input_ids"])
    said = f"has {size} tokens, and .* reads 32 at most: shorten or leave out .*'The cat sleeps"
    with pytest.raises(ClasError, match=said):
        Atlas.measure(lm, corpus, progress=lambda done, total: pytest.fail("measured"))
