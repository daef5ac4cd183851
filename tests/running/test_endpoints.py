"""Texts of other servers: asked as said, shown as they come, and every fault a sentence."""

from __future__ import annotations

import io
import json
import random
import socket
import threading
import time

import pytest
from stand_in import Handler, StandIn, serving

from clas_core.errors import ClasError
from clas_core.running.endpoints import Endpoint, Question, Written, write_apart


@pytest.fixture
def server():
    with serving("left-alone") as (one,):
        yield one


def ask(server: StandIn, asked: Question | None = None, **limits: float) -> Written:
    endpoint = Endpoint(f"{server.url}#{server.model}", "It")
    *_, (last,) = write_apart([endpoint], asked or Question("Hi"), threading.Event(), **limits)
    return last


def test_two_servers_are_asked_at_once_and_texts_grow():
    with serving("left-alone", "baked") as servers:
        endpoints = [Endpoint(one.url, one.model) for one in servers]
        for endpoint in endpoints:
            endpoint.check()
        asked = Question("Habari", max_new_tokens=4, temperature=0.5, seed=7)
        servers[1].gate.clear()
        found = write_apart(endpoints, asked, threading.Event(), frame=0.01)
        seen = []
        for one in found:
            seen.append(one)
            if one[0].tokens is not None:  # the first has ended while the second waits
                servers[1].gate.set()
    assert seen[-1] == (Written("the cat sees a", False, 4), Written("el gato ve un", False, 4))
    assert any(one[0].text and not one[1].text for one in seen)
    bodies = [one.asked[0][2] for one in servers]
    assert [body.pop("model") for body in bodies] == ["left-alone", "baked"]
    assert bodies[0] == bodies[1]
    wanted = {"prompt": "Habari", "max_tokens": 4, "temperature": 0.5, "seed": 7, "stream": True}
    assert wanted.items() <= bodies[0].items()
    # Nothing that a server would do by itself to the model's own probabilities.
    plain = {"top_p": 1, "min_p": 0, "repeat_penalty": 1, "repetition_penalty": 1}
    assert plain.items() <= bodies[0].items()


def test_an_answer_that_ends_itself_says_so(server):
    assert ask(server) == Written("the cat sees a boat", True, 5)


def test_a_chat_goes_through_the_servers_own_template(server):
    asked = Question("Hi", chat=True, system="Be brief.")
    assert ask(server, asked).text == "the cat sees a boat"
    path, _, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert "prompt" not in body
    assert [one["role"] for one in body["messages"]] == ["system", "user"]


def test_the_key_goes_along(server):
    endpoint = Endpoint(server.url, "It", key="secret")
    endpoint.check()
    assert list(write_apart([endpoint], Question("Hi"), threading.Event()))
    assert server.asked[0][1]["Authorization"] == "Bearer secret"


def test_stop_hangs_up(server):
    server.behave = endless_signs_of_life
    stop = threading.Event()
    found = write_apart([Endpoint(f"{server.url}#m", "It")], Question("Hi"), stop)
    assert next(found) == (Written(),)
    assert server.begun.wait(10)
    stop.set()
    assert list(found) == []
    assert server.hung_up.wait(10)


def test_who_leaves_hangs_up(server):
    server.behave = endless_signs_of_life
    found = write_apart([Endpoint(f"{server.url}#m", "It")], Question("Hi"), threading.Event())
    next(found)
    assert server.begun.wait(10)
    found.close()
    assert server.hung_up.wait(10)


# -- faults ------------------------------------------------------------------------------------
def endless_signs_of_life(to: Handler) -> None:
    to.begin()
    while True:
        to.line(": ping")
        time.sleep(0.02)


def stream(*lines: str):
    def behave(to: Handler) -> None:
        to.begin()
        for line in lines:
            to.line(line)

    return behave


def whole(status: int, value: object, kind: str = "application/json", **more: str):
    return lambda to: to.whole(status, value, kind, **more)


def endless_text(to: Handler) -> None:
    to.begin()
    while True:
        to.text("word " * 50)


def endless_line(to: Handler) -> None:
    to.begin()
    while True:
        to.wfile.write(b"x" * 4096)


def endless_head(to: Handler) -> None:
    while True:
        to.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.005)


def silent(to: Handler) -> None:
    to.begin()
    to.text("so far")
    time.sleep(1)


PIECE = 'data: {"choices": [{"text": "so far", "finish_reason": null}]}'
FAULTS = {
    "a redirect": (whole(307, None, Location="http://127.0.0.1:1/"), "sends elsewhere .HTTP 307"),
    "no such model": (whole(404, {"error": {"message": "no model `m`"}}), "404.: no model `m`"),
    "in another form": (whole(400, {"object": "error", "message": "too long"}), "400.: too long"),
    "nothing there": (whole(404, b"<html>", "text/html"), "the /v1 at its end"),
    "a key": (whole(401, {"error": "Invalid API key"}), "wants another key"),
    "a failure": (whole(500, b"Traceback", "text/plain"), "failed .HTTP 500.\\."),
    "out of memory": (whole(503, {"error": {"message": "CUDA\nout of it"}}), ": CUDA out of it"),
    "a page": (whole(200, b"<html>hi", "text/html"), "sends text/html; is it an OpenAI"),
    "in one piece": (whole(200, {"choices": [{"text": "x"}]}), "doesn't stream its answer"),
    "no JSON": (stream(PIECE, "data: {'so': 'far'}"), "can't be read as JSON"),
    "deep JSON": (stream("data: " + "[" * 60_000), "can't be read as JSON"),
    "a list": (stream("data: [1, 2]"), "can't be read as JSON"),
    "an error within": (stream(PIECE, 'data: {"error": {"message": "halt"}}'), "gave up: halt"),
    "cut": (stream(PIECE), "broke off before"),
    "ended too soon": (stream(PIECE, "data: [DONE]"), "broke off before"),
    "nothing": (stream(), "broke off before"),
    "strange shapes": (stream('data: {"choices": {"text": 1}}', 'data: {"x": 2}'), "broke off"),
    "endless text": (endless_text, "more than was asked for"),
    "an endless line": (endless_line, "more than was asked for"),
    "no HTTP": (lambda to: to.wfile.write(b"SSH-2.0-x\r\n"), "doesn't speak HTTP"),
    "hung up": (lambda to: None, "doesn't speak HTTP|hung up"),
    "a long head": (
        lambda to: to.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10**5),
        "doesn't speak HTTP|hung up",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_get_a_sentence(server, name):
    server.behave, message = FAULTS[name]
    with pytest.raises(ClasError, match=message) as caught:
        ask(server)
    assert str(caught.value).startswith("It ")
    assert len(str(caught.value)) < 320
    assert str(caught.value).isprintable()


def test_silence_ends(server):
    server.behave = silent
    with pytest.raises(ClasError, match="takes too long"):
        ask(server, patience=0.3)


@pytest.mark.parametrize("behave", [endless_signs_of_life, endless_head])
def test_no_answer_takes_for_ever(server, behave):
    server.behave = behave
    with pytest.raises(ClasError, match=r"didn't end its answer within 0\.4 s"):
        ask(server, longest=0.4)
    assert server.hung_up.wait(10)


def test_one_failure_ends_the_other_too():
    with serving("left-alone", "baked") as (one, other):

        def fail(to: Handler) -> None:
            assert other.begun.wait(20)  # who was never asked can't be left
            to.whole(500, None)

        one.behave, other.behave = fail, endless_signs_of_life
        endpoints = [Endpoint(f"{each.url}#m", each.model) for each in (one, other)]
        with pytest.raises(ClasError, match="left-alone failed"):
            list(write_apart(endpoints, Question("Hi"), threading.Event()))
        assert other.hung_up.wait(10)


def test_halves_of_characters_are_none(server):
    """They can't be sent on; halves that belong together are whole again."""

    def behave(to: Handler) -> None:
        to.begin()
        to.line(r'data: {"choices": [{"text": "\ud83d"}]}')
        to.line(r'data: {"choices": [{"text": "\ude00 \ud83d", "finish_reason": "stop"}]}')

    server.behave = behave
    assert ask(server).text == "😀 �"


def test_an_away_server_gets_a_sentence():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = Endpoint(f"http://127.0.0.1:{unused.getsockname()[1]}/v1", "It")
        with pytest.raises(ClasError, match="It isn't there: is it running"):
            endpoint.check()
        with pytest.raises(ClasError, match="It isn't there: is it running"):
            list(write_apart([endpoint], Question("Hi"), threading.Event()))


@pytest.mark.parametrize(
    "address",
    [
        "", "127.0.0.1:8080", "ftp://host/v1", "http://", "http://host:port/v1", "http://h:99999/v1",
        "http://[::1/v1", "http://user:pass@host/v1", "http://host/v1?a=b", "http://ho\nst/v1",
        "file:///etc/passwd",
    ],
)  # fmt: skip
def test_no_address_is_refused(address):
    with pytest.raises(ClasError):
        Endpoint(address, "It")


def test_a_name_that_no_machine_has():
    with pytest.raises(ClasError, match="no machine has the name"):
        Endpoint("http://a..b/v1", "It").check()


@pytest.mark.parametrize("key", ["a\nb", "clé"])
def test_no_key_is_refused(key):
    with pytest.raises(ClasError, match="key must be"):
        Endpoint("http://host/v1", "It", key)


# -- which model -------------------------------------------------------------------------------
def names(*ids: object):
    return whole(200, {"data": [{"id": one} for one in ids]})


def test_the_only_model_is_taken(server):
    server.model = "/models/steered.gguf"
    endpoint = Endpoint(server.url, "It")
    endpoint.check()
    assert (endpoint.model, endpoint.title) == ("/models/steered.gguf", "steered.gguf")


def test_a_name_chooses_among_several(server):
    server.listing = names("a/b", "c", 7)
    endpoint = Endpoint(f"{server.url}#a/b", "It")
    endpoint.check()
    assert endpoint.title == "a/b"


@pytest.mark.parametrize(
    ("listing", "model", "message"),
    [
        (names("a", "b"), "", "serves a, b: name one"),
        (names(), "", "serves no model"),
        (names("a"), "#b", "has no model 'b', but a"),
        (names(*"abcdefg"), "#x", "but a, b, c, d, e, …"),
        (whole(200, b"<html>", "text/html"), "", "not as an OpenAI-compatible server"),
        (whole(200, [1]), "", "not as an OpenAI-compatible server"),
        (whole(500, None), "", "failed .HTTP 500"),
        (whole(302, None, Location="http://127.0.0.1:1/"), "", "sends elsewhere"),
    ],
)
def test_wrong_lists_get_a_sentence(server, listing, model, message):
    server.listing = listing
    with pytest.raises(ClasError, match=message):
        Endpoint(server.url + model, "It").check()


def test_a_server_without_a_list_is_believed(server):
    server.listing = whole(404, None)
    endpoint = Endpoint(f"{server.url}#any", "It")
    endpoint.check()
    assert endpoint.model == "any"


def test_strangers_words_stay_on_a_line(server):
    server.behave = whole(400, {"error": {"message": "a\r\n\x1b[31mb" + "c" * 999}})
    with pytest.raises(ClasError) as caught:
        ask(server)
    assert "a [31mb" in str(caught.value)
    assert json.dumps(str(caught.value))


def test_spoilt_streams_are_texts_or_sentences():
    """Whatever bytes come, nothing else is raised, and what is told can be sent on to a page."""
    whole = b"".join(
        b"data: " + json.dumps(one).encode() + b"\n\n"
        for one in (
            {"choices": [{"text": "the cat é", "finish_reason": None}]},
            {"choices": [{"delta": {"content": "\ud83d\ude00"}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"completion_tokens": 5}},
        )
    )
    whole += b"data: [DONE]\n\n"
    endpoint, drawn, ended = Endpoint("http://host/v1", "It"), random.Random(0), 0
    for _ in range(3000):
        spoilt = bytearray(whole)
        for _ in range(drawn.randint(0, 4)):
            place = drawn.randrange(len(spoilt))
            new = drawn.choice(
                [b"", b'"', b"{", b"[", b"\n", b"\xff", b"null", b"1e999", b"\\ud800"]
            )
            spoilt[place : place + drawn.choice([0, 1, 9])] = new
        try:
            for written in endpoint._written(io.BytesIO(spoilt), 8):  # type: ignore[arg-type]
                written.text.encode()
                assert written.tokens is None or isinstance(written.tokens, int)
        except ClasError:
            continue
        ended += 1
    assert 300 < ended < 3000
