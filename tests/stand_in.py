"""A server that speaks OpenAI's protocol, as well or as badly as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SAYS = {"left-alone": "the cat sees a boat", "baked": "el gato ve un barco"}


class StandIn(ThreadingHTTPServer):
    """`asked` holds the path, headers and body of every question so far. `behave(handler)` answers
    in place of what is usual. `gate`, while it is cleared, keeps answers from going on."""

    daemon_threads = True

    def __init__(self, model: str = "left-alone") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.behave: Callable[[_Handler], None] | None = None
        self.listing: Callable[[_Handler], None] | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()  # somebody has asked
        self.hung_up = threading.Event()  # who asked has gone before the end

    @property
    def url(self) -> str:
        """What a client is given."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.listing is not None:
            self.server.listing(self)
        elif self.path == "/v1/models":
            self.whole(200, {"object": "list", "data": [{"id": self.server.model}]})
        else:
            self.whole(404, None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        self.server.begun.set()
        try:
            (self.server.behave or _Handler.usual)(self)
        except OSError:
            self.server.hung_up.set()

    def usual(self) -> None:
        """The model's words, one a token, as vLLM and llama.cpp's server send them."""
        _, _, body = self.server.asked[-1]
        if body["model"] != self.server.model:
            message = f"The model `{body['model']}` does not exist."
            self.whole(404, {"error": {"message": message, "code": 404}})
            return
        self.begin()
        words = SAYS[self.server.model].split()
        said = words[: body["max_tokens"]]
        for number, word in enumerate(said):
            self.server.gate.wait(20)
            self.text(word if number == 0 else f" {word}")
        self.text("", "stop" if body["max_tokens"] > len(words) else "length")
        self.event({"choices": [], "usage": {"completion_tokens": len(said)}})
        self.line("data: [DONE]")

    def whole(self, status: int, value: Any, kind: str = "application/json", **more: str) -> None:
        """An answer in one piece; `value` bytes as they are, None for no body."""
        body = value if isinstance(value, bytes) else b"" if value is None else _bytes(value)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, text in more.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def begin(self, kind: str = "text/event-stream; charset=utf-8") -> None:
        """The head of a stream."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def line(self, text: str) -> None:
        """A line of a stream, and the blank one after it."""
        self.wfile.write(f"{text}\n\n".encode())

    def event(self, value: Any) -> None:
        """An event of a stream."""
        self.line(f"data: {json.dumps(value)}")

    def text(self, text: str, reason: str | None = None) -> None:
        """A piece of the answer, in the form that was asked for."""
        chat = self.path.endswith("/chat/completions")
        piece = {"delta": {"content": text}} if chat else {"text": text}
        self.event({"choices": [{"index": 0, **piece, "finish_reason": reason}]})


Handler = _Handler


def _bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


@contextmanager
def serving(*models: str) -> Iterator[list[StandIn]]:
    """A server for each model, until the end."""
    servers = [StandIn(model) for model in models]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield servers
    finally:
        for server in servers:
            server.gate.set()
            server.shutdown()
            server.server_close()
