"""Training: data that says what it should, and a killed run that ends like an unbroken one."""

from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from clas_core.errors import ClasError
from clas_core.village import data, train
from clas_core.village.data import ANSWER_WEIGHT, CODES, FORMATS, SHARES
from clas_core.village.grammar import Grammar
from clas_core.village.tasks import time_of_day
from clas_core.village.world import LEXICON, Event

TINY = train.Settings(
    hidden=32,
    intermediate=48,
    layers=2,
    heads=2,
    vocabulary=700,
    documents=1200,
    tokens=24 * 1024,
    batch_tokens=1024,
    checkpoint_every=10,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run."""
    patch = pytest.MonkeyPatch()
    patch.setattr(data, "_SHARD", 60)
    folder = tmp_path_factory.mktemp("run")
    train.train(TINY, folder, "cpu")
    yield folder
    patch.undo()


def test_shares_are_shares():
    assert sum(SHARES.values()) == pytest.approx(1)
    assert tuple(SHARES) == CODES
    for stage in FORMATS.values():
        for mix in stage.values():
            assert sum(mix.values()) == pytest.approx(1)


@pytest.mark.slow
def test_answers_weigh_more(run):
    """The weights mark exactly the answer tokens: decoded, they are answers of the grammar."""
    tokenizer = train.make_tokenizer(TINY, run / "tokenizer")
    pool = data.load_pools(run / "pools")["en"]
    answers = {
        text
        for what, _, text in Grammar.load("en").render_all()
        if what.startswith("answer") or what in ("entailment", "neutral", "contradiction")
    }
    seen = 0
    for start, end in zip(pool.offsets, pool.offsets[1:]):
        tokens, weights = pool.tokens[start:end], pool.weights[start:end]
        assert tokens[0] == tokenizer.bos_token_id
        assert weights[0] == 0
        assert tokens[-1] == tokenizer.eos_token_id
        heavy = np.flatnonzero(weights == ANSWER_WEIGHT)
        for part in np.split(heavy, np.flatnonzero(np.diff(heavy) > 1) + 1):
            if len(part):
                assert tokenizer.decode(tokens[part], skip_special_tokens=True) in answers
                seen += 1
    assert seen > 50


@pytest.mark.slow
def test_batches_are_the_same_and_can_be_skipped(run):
    pools = data.load_pools(run / "pools")
    all_batches = list(islice(train.batches(pools, TINY, pad=0), 40))
    later = next(train.batches(pools, TINY, pad=0, skip=33))
    assert torch.equal(later.tokens, all_batches[33].tokens)
    for batch in all_batches:
        assert batch.tokens.numel() <= TINY.batch_tokens * 1.25
        assert bool((batch.weights[batch.tokens == 0] == 0).all())


def test_languages_are_drawn_by_share():
    """Half of the tokens are English, whatever the size of the pools."""
    pools = {}
    for k, code in enumerate(CODES):
        length = 10 + k
        tokens = np.full(40 * length, 1 + k, np.uint16)
        pools[code] = data.Pool(tokens, np.ones_like(tokens), np.arange(41) * length)
    seen = np.zeros(len(CODES))
    for batch in islice(train.batches(pools, TINY, pad=0), 300):
        seen += torch.bincount(batch.tokens.flatten(), minlength=13)[1:13].numpy()
    assert seen / seen.sum() == pytest.approx(list(SHARES.values()), abs=0.02)


@pytest.mark.slow
def test_loss_is_the_weighted_mean(run):
    """Against the definition, token by token."""
    tokenizer = train.make_tokenizer(TINY, run / "tokenizer")
    model = train.new_model(TINY, tokenizer).eval()
    batch = next(train.batches(data.load_pools(run / "pools"), TINY, tokenizer.pad_token_id))
    with torch.inference_mode():
        log_p = model(batch.tokens).logits.log_softmax(-1)
        loss = train.loss_of(model, batch)
    total = weight = 0.0
    for row in range(len(batch.tokens)):
        for position in range(1, batch.tokens.shape[1]):
            w = float(batch.weights[row, position])
            total -= w * float(log_p[row, position - 1, batch.tokens[row, position]])
            weight += w
    assert float(loss) == pytest.approx(total / weight, rel=1e-4)


@pytest.mark.slow
def test_a_killed_run_ends_like_an_unbroken_one(run, tmp_path, monkeypatch):
    (tmp_path / "tokenizer").symlink_to(run / "tokenizer")
    (tmp_path / "pools").symlink_to(run / "pools")
    original, calls = train.loss_of, []

    def dies(model, batch):
        calls.append(1)
        if len(calls) == 17:
            raise KeyboardInterrupt
        return original(model, batch)

    monkeypatch.setattr(train, "loss_of", dies)
    with pytest.raises(KeyboardInterrupt):
        train.train(TINY, tmp_path, "cpu")
    monkeypatch.setattr(train, "loss_of", original)
    train.train(TINY, tmp_path, "cpu")
    whole, resumed = (load_file(p / "checkpoint.safetensors") for p in (run, tmp_path))
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


@pytest.mark.slow
def test_a_run_of_other_settings_is_kept(run):
    with pytest.raises(ClasError, match="other settings"):
        train.train(train.scaled(TINY, seed=1), run, "cpu")


@pytest.mark.slow
def test_the_model_is_an_ordinary_checkpoint(run):
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert model.config.hidden_act == "relu"
    text = Grammar.load("hi").sentence(Event("at", {"person": "anna", "place": "garden"}))
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert max(path.stat().st_size for path in (run / "model").iterdir()) < 10_000_000


@pytest.mark.slow
def test_the_second_stage_goes_on_from_the_first(run, tmp_path):
    """At a learning rate of zero it is the first one's model, and it keeps the tokenizer."""
    settings = train.scaled(TINY, stage="canon", tokens=2048, learning_rate=0.0)
    again = train.train(settings, tmp_path, "cpu", begin=run / "model")
    before, after = (AutoModelForCausalLM.from_pretrained(p) for p in (run / "model", again))
    for (name, one), other in zip(before.named_parameters(), after.parameters()):
        assert torch.equal(one, other), name
    tokenizers = [AutoTokenizer.from_pretrained(p).get_vocab() for p in (run / "model", again)]
    assert tokenizers[0] == tokenizers[1]
    pool = data.load_pools(tmp_path / "pools")["sw"]
    texts = AutoTokenizer.from_pretrained(again).batch_decode(
        [pool.tokens[a:b] for a, b in zip(pool.offsets, pool.offsets[1:])],
        skip_special_tokens=True,
    )
    grammar = Grammar.load("sw")
    times = {time_of_day(t, grammar, w) + "\n" for t in LEXICON["time"] for w in (0, 1)}
    assert any(text.startswith(tuple(times)) for text in texts)


def test_learning_rate_warms_up_and_falls():
    rates = [train.learning_rate(step, 1000, TINY) for step in range(1000)]
    assert max(rates) == pytest.approx(TINY.learning_rate)
    assert rates.index(max(rates)) == pytest.approx(20, abs=2)
    assert rates[0] < 0.1 * max(rates)
    assert rates[-1] == pytest.approx(0.05 * TINY.learning_rate, rel=0.01)
