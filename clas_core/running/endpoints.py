"""Text of models that other programs serve, by OpenAI's protocol: vLLM, llama.cpp's server, ...

A steered model is baked first (`steering.baking`), so that its server knows of no steering. Answers
are believed in nothing: what is no answer, doesn't end or leads elsewhere is a sentence. Redirects
and proxies are not followed, so that nobody but the named server gets the prompt and the key.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ClasError

CONNECT = 5.0  # seconds until a server takes a call,
PATIENCE = 60.0  # until it says more,
LONGEST = 600.0  # and that an answer may take in all
LIST = 2**20  # bytes of a list of models,
LINE = 2**16  # that a line of an answer may have,
EVENT = 2**12  # and all its lines have in the mean, a line a token
EVENTS = 64  # lines more than tokens are asked for: the last one, signs of life
FOUND = 5  # names of models in a sentence
# Else some servers would choose among the likeliest tokens only, or punish repetition, and answers
# were not the model's own. Those that don't know a name leave it out.
PLAIN = {"top_p": 1, "top_k": 2**20, "min_p": 0, "repeat_penalty": 1, "repetition_penalty": 1}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Question:
    """What is asked of a server. `chat`: in the form of its model's own template, with `system` as
    the system prompt unless that is empty; else `prompt` is gone on with as it is."""

    prompt: str
    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    chat: bool = False
    system: str = ""


@dataclass(frozen=True)
class Written:
    """An answer so far. `done`: it ended itself, rather than being cut. `tokens`: how many the
    server counts, None where it doesn't tell."""

    text: str = ""
    done: bool = False
    tokens: int | None = None


class Endpoint:
    """One server's model. `name` stands for it in sentences, as its address is nobody's business.

    `address` leads to `/v1`, and may end in `#MODEL` where several models are served. `key` goes
    along as a bearer token. Raises ClasError for what is no such address.
    """

    def __init__(self, address: str, name: str, key: str = "") -> None:
        self.name, self.address, self._key = name, address, key
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https") or _CONTROL.search(address):
            raise ClasError(
                f"{address!r} is no address of a server: write it as in http://127.0.0.1:8080/v1."
            )
        if parts.query or parts.username is not None:
            raise ClasError(f"Leave user, password and query out of {host}'s address.")
        if not (key.isascii() and key.isprintable()):
            raise ClasError("The servers' key must be of plain ASCII characters.")
        self._host, self._port, self._secure = host, port, parts.scheme == "https"
        self._path = parts.path.rstrip("/")
        self.model = unquote(parts.fragment)

    @property
    def title(self) -> str:
        """The model's name, without the folders that a file lies in."""
        if self.model.endswith(".gguf"):
            return re.split(r"[/\\]", self.model)[-1]
        return self.model or "a model without a name"

    def check(self) -> None:
        """Find out which model is served, unless it is named. Raises ClasError if the server isn't
        there, or doesn't have it."""
        names = self._models()
        if names is None:  # it keeps no list: what is named is believed
            return
        said = ", ".join(names[:FOUND]) + (", …" if len(names) > FOUND else "")
        if self.model and self.model not in names:
            raise ClasError(f"{self.name} has no model {self.model!r}, but {said or 'none'}.")
        if not self.model:
            if len(names) != 1:
                raise ClasError(
                    f"{self.name} serves {said or 'no model'}: name one of them behind the "
                    "address, as in http://127.0.0.1:8080/v1#NAME."
                )
            (self.model,) = names

    def _models(self) -> list[str] | None:
        connection = self.connect()
        try:
            with self._response(connection, "GET", "/models") as response:
                if response.status in (404, 405, 501):
                    return None
                body = response.read(LIST)
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error
        finally:
            connection.close()
        if response.status != 200:
            raise self._refusal(response.status, body)
        found = _read(body)
        listed = found.get("data") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            raise ClasError(
                f"{self.name} answers, but not as an OpenAI-compatible server: has its address "
                "the /v1 at its end?"
            )
        ids = [entry.get("id") for entry in listed if isinstance(entry, dict)]
        return [_one_line(name) for name in ids if isinstance(name, str)]

    def answer(self, connection: http.client.HTTPConnection, asked: Question) -> Iterator[Written]:
        """The answer as it grows, asked over a `connection` that `connect` made.

        Raises ClasError, in a sentence, for all else that a server may do.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": asked.max_new_tokens,
            "temperature": asked.temperature,
            "seed": asked.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **PLAIN,
        }
        path = "/completions"
        if asked.chat:
            path = "/chat/completions"
            system = [{"role": "system", "content": asked.system}] if asked.system else []
            body["messages"] = [*system, {"role": "user", "content": asked.prompt}]
        else:
            body["prompt"] = asked.prompt
        try:
            with self._response(connection, "POST", path, body) as response:
                if response.status != 200:
                    raise self._refusal(response.status, response.read(LINE))
                kind = response.headers.get_content_type()
                if kind != "text/event-stream":
                    said = _message(_read(response.read(LINE)))
                    raise ClasError(
                        f"{self.name} doesn't stream its answer, but sends {_one_line(kind)}"
                        f"{f': {said}' if said else '; is it an OpenAI-compatible server?'}"
                    )
                yield from self._written(response, asked.max_new_tokens)
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error

    def _written(self, response: http.client.HTTPResponse, tokens: int) -> Iterator[Written]:
        raw, reason, count, seen = "", None, None, 0
        while True:
            line = response.readline(LINE + 1)
            seen += len(line)
            if len(line) > LINE or seen > (tokens + EVENTS) * EVENT:
                raise ClasError(f"{self.name} sends more than was asked for: stopped listening.")
            field, _, value = line.strip().partition(b":")
            if line and field != b"data":  # blank lines, signs of life, names of events
                continue
            if not line or value.strip() == b"[DONE]":
                break
            found = _read(value)
            if not isinstance(found, dict):
                raise ClasError(f"{self.name} sends what can't be read as JSON.")
            if "error" in found:
                raise ClasError(f"{self.name} gave up: {_message(found) or 'it says no reason'}")
            text, reason, count = _piece(found, reason, count)
            raw += text
            yield Written(_whole(raw), False, count)
        if reason is None:
            raise ClasError(
                f"{self.name} broke off before its answer's end: does it serve several requests at "
                "a time, and has it the memory?"
            )
        yield Written(_whole(raw), reason != "length", count)

    def connect(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        """A connection that gives up after `timeout` seconds of silence. Raises ClasError."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT)
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:  # an unheard-of letter in a host's name
            raise self._away(error) from error
        connection.sock.settimeout(timeout)
        return connection

    def _response(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any = None
    ) -> http.client.HTTPResponse:
        headers = {"Connection": "close", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        sent = None if body is None else json.dumps(body).encode()
        connection.request(method, self._path + path, sent, headers)
        return connection.getresponse()

    def _away(self, error: Exception) -> ClasError:
        if isinstance(error, TimeoutError):
            return ClasError(f"{self.name} takes too long: is it busy, or still loading?")
        if isinstance(error, ConnectionRefusedError):
            return ClasError(f"{self.name} isn't there: is it running, and is its port right?")
        if isinstance(error, (socket.gaierror, UnicodeError)):
            return ClasError(f"{self.name} isn't there: no machine has the name in its address.")
        if isinstance(error, OSError):
            said = error.strerror or type(error).__name__
            return ClasError(f"{self.name} can't be reached, or hung up ({_one_line(said)}).")
        return ClasError(f"{self.name} doesn't speak HTTP as it should ({type(error).__name__}).")

    def _refusal(self, status: int, body: bytes) -> ClasError:
        said = _message(_read(body))
        if 300 <= status < 400:
            return ClasError(
                f"{self.name} sends elsewhere (HTTP {status}), which isn't followed: give the "
                "address that it leads to."
            )
        if status in (401, 403):
            return ClasError(f"{self.name} wants another key: set CLAS_ENDPOINT_KEY.")
        if status == 404 and not said:
            return ClasError(f"{self.name} has nothing there: has its address the /v1 at its end?")
        what = "can't do that" if status < 500 else "failed"
        return ClasError(f"{self.name} {what} (HTTP {status}){f': {said}' if said else '.'}")


def write_apart(
    endpoints: Sequence[Endpoint],
    asked: Question,
    stop: threading.Event,
    *,
    frame: float = 1 / 15,
    patience: float = PATIENCE,
    longest: float = LONGEST,
) -> Iterator[tuple[Written, ...]]:
    """The answer of each server, all asked at once: what is new, every `frame` seconds.

    Ends early once `stop` is set; whoever leaves closes the connections, at which servers stop
    writing. Raises ClasError as soon as one server fails, or `longest` seconds have passed.
    """
    streams = [_Stream(endpoint, asked, patience) for endpoint in endpoints]
    end, shown = time.monotonic() + longest, None
    try:
        while True:
            over = all(stream.over.is_set() for stream in streams)
            now = tuple(stream.latest for stream in streams)
            for stream in streams:
                if stream.error is not None:
                    raise stream.error
            if now != shown:
                yield now
                shown = now
            if over or stop.wait(frame):
                return
            if time.monotonic() > end:
                (late, *_) = (one for one in streams if not one.over.is_set())
                raise ClasError(
                    f"{late.endpoint.name} didn't end its answer within {longest:g} s: ask for "
                    "fewer tokens, or try later."
                )
    finally:
        for stream in streams:
            stream.close()


class _Stream:
    """A server's answer, read by a thread of its own."""

    def __init__(self, endpoint: Endpoint, asked: Question, patience: float) -> None:
        self.endpoint = endpoint
        self.latest = Written()
        self.error: ClasError | None = None
        self.over = threading.Event()
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        read = threading.Thread(target=self._read, args=(asked, patience), daemon=True)
        read.start()

    def _read(self, asked: Question, patience: float) -> None:
        try:
            with closing(self.endpoint.connect(patience)) as connection:
                self._socket = connection.sock  # which the connection forgets once it is read from
                if self._closed.is_set():
                    return
                for written in self.endpoint.answer(connection, asked):
                    if self._closed.is_set():
                        return
                    self.latest = written
        except ClasError as error:
            self.error = error
        finally:
            self.over.set()

    def close(self) -> None:
        """Hang up, whatever the thread waits for."""
        self._closed.set()
        if (open_ := self._socket) is not None:
            with suppress(OSError):
                open_.shutdown(socket.SHUT_RDWR)


def _read(body: bytes) -> Any:
    """JSON, or None for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _piece(found: dict[str, Any], reason: Any, count: int | None) -> tuple[str, Any, int | None]:
    """What an event adds to the text, why it ends and how many tokens it has, as far as is told."""
    usage, choices = found.get("usage"), found.get("choices")
    if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
        count = usage["completion_tokens"]
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):  # the last event of some servers has no text
        return "", reason, count
    text, delta = first.get("text"), first.get("delta")
    if isinstance(delta, dict):
        text = delta.get("content")
    return text if isinstance(text, str) else "", first.get("finish_reason") or reason, count


def _whole(text: str) -> str:
    """`text` without halves of characters, which no page could be sent; JSON may hold some."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _message(found: Any) -> str:
    """What a server says of an error, in the two forms that are about; empty if it says nothing."""
    error = found.get("error", found) if isinstance(found, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    return _one_line(said) if isinstance(said, str) else ""


def _one_line(text: str) -> str:
    """A stranger's words within a sentence of ours."""
    line = " ".join(_CONTROL.sub(" ", _whole(text)).split())
    return line if len(line) <= 200 else f"{line[:199]}…"
