"""What a row says beside others is what it says alone, whatever happens to them."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import time
from functools import lru_cache
from itertools import pairwise

import pytest
import torch
from oracles import make_plan
from tiny import SENTENCES, make_tokenizer, tiny_llama_model, windowed_model

from clas_core.errors import ClasError
from clas_core.model.loading import load
from clas_core.running.along import Along, read_along
from clas_core.running.decoder import Decoder
from clas_core.running.generation import generate
from clas_core.running.request import Request
from clas_core.steering.plan import steered

TEXTS = [text for texts in SENTENCES.values() for text in texts]
LONG = " ".join(TEXTS[:12])
PATH = os.pathsep.join(sys.path)
SOON = 60  # seconds, far more than anything here takes


@lru_cache
def windowed(family):
    return load(windowed_model(family), make_tokenizer())


@pytest.fixture
def own_lm():
    """A model that a test may break."""
    return load(tiny_llama_model(), make_tokenizer())


def draw(lm, rng):
    """A request of any kind."""
    plans = [make_plan(lm, rng.randrange(lm.num_layers), rng.randrange(9)) for _ in range(2)]
    return Request(
        LONG if rng.random() < 0.1 else rng.choice(TEXTS),
        [None, *plans[: rng.randint(0, 2)]],
        max_new_tokens=rng.randint(1, 12),
        temperature=rng.choice([0.0, 0.8]),
        seed=rng.randrange(1000),
        stop_at_newline=rng.random() < 0.5,
        where=rng.choice([None, "prompt", "answer", "answer:3"]),
    )


def alone(lm, request):
    return list(
        generate(
            lm,
            request.prompt,
            request.plans,
            max_new_tokens=request.max_new_tokens,
            temperature=request.temperature,
            seed=request.seed,
            stop_at_newline=request.stop_at_newline,
            where=request.where,
        )
    )


def interleave(lm, seed, requests=10):
    """Submit at random times, read in random order, let some leave: those who stay, and theirs."""
    rng = random.Random(seed)
    found = []
    with Decoder(lm, most_rows=8, most_tokens=600, tokens_at_once=rng.choice([7, 64])) as decoder:
        streams = []
        for k in range(requests):
            request = draw(lm, rng)
            streams.append((request, decoder.submit(request, rng.randrange(4)), []))
            for _ in range(rng.randint(0, 4)):
                request, stream, steps = rng.choice(streams)
                steps += [step for step in [next(stream, None)] if step]
            if k % 4 == 3:
                rng.choice(streams)[1].stop()
        for request, stream, steps in streams:
            steps += stream
            if not stream.stopped:
                found.append((request, steps))
    return found


@pytest.mark.parametrize(
    "family", ["llama", "gemma3_text", "mpt", "bloom", "gpt2", "qwen3_5_text", "lfm2"]
)
def test_rows_say_what_they_say_alone(family):
    lm = windowed(family)
    for request, steps in interleave(lm, family):
        assert steps == alone(lm, request)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_rows_say_what_they_say_alone_in_many_orders(seed):
    lm = windowed(["llama", "mistral", "gpt_neo", "mpt", "gpt2", "qwen3_5_text", "lfm2"][seed % 7])
    for request, steps in interleave(lm, seed, requests=25):
        assert steps == alone(lm, request)


def sizes_of(lm):
    """The rows of each forward from now on."""
    sizes = []
    lm.blocks[0].register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    return sizes


def test_they_are_written_together(own_lm):
    sizes = sizes_of(own_lm)
    plans = [make_plan(own_lm, 1, k) for k in range(6)]
    with Decoder(own_lm) as decoder:
        requests = [Request(text, [None, plan], 20) for text, plan in zip(TEXTS, plans)]
        steps = [list(stream) for stream in [decoder.submit(one) for one in requests]]
    assert max(sizes) == 12
    assert sum(len(one) for one in steps) > 1.5 * len(sizes)


def test_the_room_is_kept_and_used_again(own_lm):
    """Never more rows than it takes, and a row that ends makes room at once."""
    sizes = sizes_of(own_lm)
    with Decoder(own_lm, most_rows=4) as decoder:
        streams = [decoder.submit(Request(text, max_new_tokens=6)) for text in TEXTS[:9]]
        assert all(list(stream)[-1].index == 5 for stream in streams)
    assert max(sizes) == 4


def wait_for(condition):
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_stops_makes_room_within_a_token(own_lm):
    with Decoder(own_lm, most_rows=2) as decoder:
        endless = decoder.submit(Request(TEXTS[0], max_new_tokens=200))
        next(endless)
        waits = decoder.submit(Request(TEXTS[1], [None], 1), "a")
        full = decoder.submit(Request(TEXTS[2], max_new_tokens=200), "a")
        list(waits)
        next(full)
        endless.close()
        assert list(endless) == []
        full.close()
        assert list(decoder.submit(Request(TEXTS[3], max_new_tokens=2)))[-1].index == 1
        wait_for(lambda: not decoder._running)
        assert decoder._batches == []


def test_a_forgotten_stream_ends(own_lm):
    with Decoder(own_lm) as decoder:
        stream = decoder.submit(Request(TEXTS[0], max_new_tokens=240))
        next(stream)
        del stream
        gc.collect()
        count = len(sizes_of(own_lm))
        wait_for(lambda: not decoder._running)
        assert count == 0


def test_an_event_of_the_caller_ends_it(tiny_lm):
    stop = threading.Event()
    with Decoder(tiny_lm) as decoder:
        stream = decoder.submit(Request(TEXTS[0], max_new_tokens=240), stop=stop)
        next(stream)
        stop.set()
        assert list(stream) == []
        wait_for(lambda: not decoder._running)


def fail_at(lm, token):
    """Let every forward that reads `token` fail."""

    def check(module, args):
        if (args[0] == token).any():
            raise ZeroDivisionError(token)

    lm.model.get_input_embeddings().register_forward_pre_hook(check)


def test_a_row_that_fails_fails_alone(own_lm):
    """While it is read, and in the middle of its answer."""
    texts = TEXTS[:6]
    steps = [alone(own_lm, Request(text, max_new_tokens=24)) for text in texts]
    written = [step[-1].token_ids[0] for step in steps]
    known = [set(step[-1].prompt_ids[0]) for step in steps]
    used = [own | set(tokens[:-1]) for own, tokens in zip(known, written)]
    # A token that one text alone has.
    late = next(
        (k, t)
        for k, tokens in enumerate(written)
        for t in tokens[2:-1]
        if t not in known[k] and not any(t in u for j, u in enumerate(used) if j != k)
    )
    early = next(
        (k, t)
        for k, own in enumerate(known)
        for t in own
        if k != late[0] and not any(t in u for j, u in enumerate(used) if j != k)
    )
    fail_at(own_lm, late[1])
    fail_at(own_lm, early[1])
    with Decoder(own_lm) as decoder:
        streams = [decoder.submit(Request(text, max_new_tokens=24)) for text in texts]
        for k, stream in enumerate(streams):
            if k == late[0]:
                before = written[k].index(late[1]) + 1
                assert [next(stream) for _ in range(before)] == steps[k][:before]
            if k in (late[0], early[0]):
                with pytest.raises(ZeroDivisionError):
                    next(stream)
                assert list(stream) == []
            else:
                assert list(stream) == steps[k]


def test_an_error_that_passes_costs_nobody_a_token(own_lm):
    """What fails together and not alone is read again, and written on together."""
    requests = [
        Request(text, [None, make_plan(own_lm, 1)], 8, 0.9, k, where="answer:2")
        for k, text in enumerate(TEXTS[:4])
    ]
    wanted = [alone(own_lm, request) for request in requests]
    count = 0

    def fail(_, args):
        nonlocal count
        if len(args[0]) > 2:  # several requests' rows
            count += 1
            if count % 3 == 0:
                raise MemoryError

    own_lm.blocks[-1].register_forward_pre_hook(fail)
    with Decoder(own_lm) as decoder:
        streams = [decoder.submit(request) for request in requests]
        assert [list(stream) for stream in streams] == wanted
    assert count >= 3


def test_nobody_else_is_steered(own_lm):
    """Neither by those under way, nor are they by who submits or reads."""
    plan, other = make_plan(own_lm, 1), make_plan(own_lm, 0, 1)
    request = Request(TEXTS[0], [plan], 12)
    wanted = alone(own_lm, request)
    ids = own_lm.encode([TEXTS[1]]).inputs
    with torch.no_grad():
        before = own_lm.model(**ids).logits
    with Decoder(own_lm) as decoder:
        with steered(own_lm, other):
            stream = decoder.submit(request)
            found = [next(stream)]
        with torch.no_grad():
            assert torch.equal(own_lm.model(**ids).logits, before)
        with steered(own_lm, other):
            found += stream
    assert found == wanted


def test_generate_shares_a_decoder_that_was_entered(own_lm):
    """But not where the caller's own context steers, nor what is too large for it."""
    plan, other = make_plan(own_lm, 1), make_plan(own_lm, 0, 1)
    request, large = Request(TEXTS[0], [None, plan], 6), Request(TEXTS[:3], [plan] * 3, 4)
    wanted, wanted_large = alone(own_lm, request), alone(own_lm, large)
    with steered(own_lm, other):
        wanted_steered = alone(own_lm, request)
    threads = set()
    own_lm.blocks[0].register_forward_pre_hook(lambda *_: threads.add(threading.get_ident()))
    with Decoder(own_lm, most_rows=4):
        assert alone(own_lm, request) == wanted
        assert threading.get_ident() not in threads
        threads.clear()
        with steered(own_lm, other):
            assert alone(own_lm, request) == wanted_steered
        assert alone(own_lm, large) == wanted_large
        assert threads == {threading.get_ident()}
        with pytest.raises(ClasError, match="at least one new token"):
            generate(own_lm, TEXTS[0], max_new_tokens=0)
    assert alone(own_lm, request) == wanted


def test_place_and_wait(tiny_lm):
    with Decoder(tiny_lm, most_rows=2) as decoder:
        assert decoder.expected() == (0, 0)
        first = [decoder.submit(Request(text, max_new_tokens=200), text) for text in TEXTS[:2]]
        for stream in (*first, *first):  # so that a token's time is known
            next(stream)
        one, two = (decoder.submit(Request(t, max_new_tokens=50), t) for t in TEXTS[2:4])
        assert [first[0].place, one.place, two.place, decoder.expected().place] == [0, 0, 1, 2]
        assert first[0].wait == 0 < one.wait <= two.wait
        assert decoder.expected().wait > two.wait > 0
        for stream in first:
            stream.stop()
        next(one)
        assert one.wait == 0


def test_what_is_too_large_is_said_at_once(tiny_lm):
    decoder = Decoder(tiny_lm, most_rows=4, most_tokens=100, most_waiting=1)
    plans = [make_plan(tiny_lm, 1, seed) for seed in range(3)]
    with pytest.raises(ClasError, match=r"3 rows are more than one may ask for .* at most 2"):
        decoder.submit(Request(TEXTS[0], plans, 2))
    with pytest.raises(ClasError, match=r"up to .* tokens of memory, and there are 100: ask for"):
        decoder.submit(Request(TEXTS[0], max_new_tokens=100))
    with pytest.raises(ClasError, match="The prompt is empty"):
        decoder.submit(Request(" "))
    with pytest.raises(ClasError, match="make the plan for this model"):
        decoder.submit(Request(TEXTS[0], [make_plan(load_wide(), 1)], 2))
    with pytest.raises(ClasError, match="limits are whole numbers from 1 on"):
        Decoder(tiny_lm, most_rows=0)
    assert decoder._thread is None


@lru_cache
def load_wide():
    return load(tiny_llama_model(intermediate_size=96), make_tokenizer())


def test_no_more_wait_than_may(tiny_lm):
    with Decoder(tiny_lm, most_rows=2, most_waiting=2) as decoder:
        streams = [decoder.submit(Request(t, max_new_tokens=200), t) for t in TEXTS[:2]]
        for stream in streams:
            next(stream)
        streams += [decoder.submit(Request(t, max_new_tokens=2), t) for t in TEXTS[2:4]]
        with pytest.raises(ClasError, match="2 requests are waiting, which takes about"):
            decoder.submit(Request(TEXTS[0]))


def test_closing_ends_everything(tiny_lm):
    decoder = Decoder(tiny_lm, most_rows=2)
    streams = [decoder.submit(Request(t, max_new_tokens=200), t) for t in TEXTS[:4]]
    next(streams[0])
    decoder.close()
    for stream in streams:
        for _ in stream:
            pass
    with pytest.raises(ClasError, match="closed"):
        decoder.submit(Request(TEXTS[0]))
    assert decoder._thread is None


LEAVES = """
from tiny import SENTENCES, make_tokenizer, tiny_llama_model
from clas_core.model.loading import load
from clas_core.running.decoder import Decoder
from clas_core.running.request import Request

decoder = Decoder(load(tiny_llama_model(), make_tokenizer()))
streams = [decoder.submit(Request(text, max_new_tokens=200)) for text in SENTENCES["en"]]
next(streams[0])
"""


@pytest.mark.slow
def test_a_program_may_end_in_the_middle():
    done = subprocess.run([sys.executable, "-c", LEAVES], env={**os.environ, "PYTHONPATH": PATH})
    assert done.returncode == 0


def test_a_worker_without_work_ends_and_another_begins(tiny_lm, monkeypatch):
    monkeypatch.setattr("clas_core.running.decoder._IDLE", 0.01)
    decoder = Decoder(tiny_lm)
    request = Request(TEXTS[0], max_new_tokens=2)
    wanted = alone(tiny_lm, request)
    for _ in range(2):
        assert list(decoder.submit(request)) == wanted
        wait_for(lambda: decoder._thread is None)


def test_a_long_prompt_lets_others_write(own_lm):
    """While it is read, piece by piece, they get a token a piece."""
    events = []
    own_lm.blocks[0].register_forward_hook(lambda _, args, __: events.append(args[0].shape[:2]))
    with Decoder(own_lm, tokens_at_once=16) as decoder:
        short = decoder.submit(Request(TEXTS[0], max_new_tokens=100))
        next(short)
        list(decoder.submit(Request(LONG, max_new_tokens=1)))
        short.close()
    pieces = [k for k, (_, tokens) in enumerate(events) if tokens > 1][1:]
    assert len(pieces) > 5
    assert max(tokens for _, tokens in events) <= 16
    assert all(later - k == 2 for k, later in pairwise(pieces))


def test_what_was_thought_at_each_token_is_kept(own_lm):
    """The same as is read along the answer, whoever else is written; nothing that wasn't asked."""
    plan = make_plan(own_lm, 1)
    with Decoder(own_lm) as decoder:
        asked = Request(TEXTS[0], [None, plan], 6, seed=3, guesses=True)
        streams = [decoder.submit(asked), decoder.submit(Request(TEXTS[1], [plan, None], 4))]
        last, _ = (list(stream)[-1] for stream in streams)
    prompt = last.prompt_ids[0]
    ((wanted,),) = read_along(own_lm, [Along(prompt, last.token_ids[0], (None,))])
    assert torch.allclose(streams[0].guesses, wanted[:-1], atol=1e-4)
    assert streams[1].guesses is None


def test_guesses_that_are_much_are_not_kept(own_lm, monkeypatch):
    monkeypatch.setattr("clas_core.running.decoder._GUESSES", 100)
    with Decoder(own_lm) as decoder:
        stream = decoder.submit(Request(TEXTS[0], [None], 6, guesses=True))
        assert list(stream)
    assert stream.guesses is None
