"""A hub on this machine, as far as loading a model asks for one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """Serves the folders in `repos`, all at COMMIT, which is what main and v1 name too.

    Repositories in `gated` show their list of files only. `requests` holds every path asked for.
    """

    def __init__(self, repos: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos = repos
        self.gated: set[str] = set()
        self.requests: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.requests.append(f"{self.command} {path}")
        if not any(repo in path for repo in (*self.server.repos, "models/")) or "/tree/" in path:
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        if path.startswith("api/models/"):
            repo, _, rest = path.removeprefix("api/models/").partition("/revision/")
            return self._about(repo, rest or "main")
        repo, _, rest = path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        return self._file(repo, revision, name)

    def _about(self, repo: str, revision: str) -> None:
        if repo not in self.server.repos:
            return self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", "v1", COMMIT):
            return self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        folder = self.server.repos[repo]
        files = [{"rfilename": f.name, "size": f.stat().st_size} for f in sorted(folder.iterdir())]
        gated = "manual" if repo in self.server.gated else False
        about = {"id": repo, "sha": COMMIT, "siblings": files, "gated": gated}
        return self._answer(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _file(self, repo: str, revision: str, name: str) -> None:
        if repo in self.server.gated:
            return self._answer(401, b"", {"X-Error-Code": "GatedRepo"})
        file = self.server.repos[repo] / name
        headers = {"X-Repo-Commit": COMMIT}
        if not file.is_file():
            return self._answer(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        data = file.read_bytes()
        headers["ETag"] = f'"{hashlib.sha1(data).hexdigest()}"'
        return self._answer(200, data, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving(repos: dict[str, Path], cache: Path, monkeypatch) -> Iterator[FakeHub]:
    """Make the hub one that serves `repos`, with an empty cache in `cache`."""
    with FakeHub(repos) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        here = f"http://127.0.0.1:{hub.server_port}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, here)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", here)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        # transformers keeps a client of its own, which knows where the hub was.
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
