"""A Space as it would be written, and as a hub on this machine gets it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi

from clas_core.errors import ClasError
from clas_core.shell.cli import main
from clas_core.shell.publish import PLACES, ROOT, plan_space, send


class Hub(ThreadingHTTPServer):
    """Takes what the hub's own client sends, and keeps it. `refuses`: a status and its words."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {".gitattributes": b"", "old.py": b"", "app.py": b""}
        self.created: dict[str, Any] = {}
        self.variables: dict[str, str] = {}
        self.volumes: list[dict[str, Any]] = []
        self.commits = 0
        self.refuses: tuple[int, str] | None = None


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub = self.server
        if hub.refuses is not None:
            return self._answer({"error": "Repository not found"}, 404)
        if "/tree/" in self.path:
            tree = [
                {"type": "file", "path": n, "size": len(b), "oid": "0"}
                for n, b in hub.files.items()
            ]
            return self._answer(tree)
        siblings = [{"rfilename": name} for name in hub.files]
        return self._answer({"id": "me/space", "sha": "0" * 40, "siblings": siblings})

    def do_PUT(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        hub, body = self.server, self._body()
        if hub.refuses is not None:
            status, words = hub.refuses
            return self._answer({"error": words}, status)
        if self.path.endswith("/repos/create"):
            hub.created = json.loads(body)
            return self._answer({"url": "https://huggingface.co/spaces/me/space"})
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            modes = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in asked
            ]
            return self._answer({"files": modes})
        if self.path.endswith("/variables"):
            one = json.loads(body)
            hub.variables[one["key"]] = one["value"]
        if self.path.endswith("/volumes"):
            hub.volumes = json.loads(body)["volumes"]
        if "/commit/" in self.path:
            hub.commits += 1
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del hub.files[value["path"]]
            url = "https://huggingface.co/spaces/me/space/commit/" + "1" * 40
            return self._answer({"commitUrl": url, "commitOid": "1" * 40})
        return self._answer({})

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, found: Any, status: int = 200) -> None:
        body = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.address, token="hf_nobody")


def test_a_dry_run_sends_nothing(hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: Any):
    monkeypatch.setattr("clas_core.shell.publish.HfApi", lambda: 1 / 0)
    assert main(["publish", "me/space"]) == 0
    told = capsys.readouterr().out
    assert "zero-a10g" in told
    assert "costs: nothing" in told
    assert "Nothing was sent" in told
    assert hub.commits == 0


def test_what_is_sent_is_the_page_and_no_more() -> None:
    space = plan_space("me/space", "zerogpu")
    for name in ("app.py", "assets/village/model/config.json", "spaces_config/zerogpu.toml"):
        assert space.files[name] == ROOT / name
    assert not [name for name in space.files if "pycache" in name or name.startswith("tests")]
    assert all(len(name) < 200 for name in space.files)
    assert max(f.stat().st_size for f in space.files.values() if isinstance(f, Path)) < 10**7


@pytest.mark.parametrize("place", PLACES)
def test_the_card_is_of_its_place(place: str) -> None:
    space = plan_space("me/space", place)
    readme = space.files["README.md"]
    assert isinstance(readme, bytes)
    card = yaml.safe_load(readme.decode().split("---\n")[1])
    assert card == space.card
    assert "Qwen/Qwen3-0.6B" in card["models"]
    preloaded = card.get("preload_from_hub", [])
    assert [line.split()[0] for line in preloaded] == (card["models"] if preloaded else [])
    assert all(len(line.split()[2]) == 40 for line in preloaded)
    assert bool(preloaded) == (place == "zerogpu")
    requirements = space.files["requirements.txt"]
    assert isinstance(requirements, bytes)
    lines = requirements.decode().splitlines()
    assert ("torch>=2.8,<2.12" in lines) == (place == "zerogpu")
    assert sum(line.startswith("torch") for line in lines) == 1
    if place == "docker":
        assert card["sdk"] == "docker"
        assert card["app_port"] == 7860
        assert "app_file" not in card
        assert space.files["Dockerfile"] == ROOT / "spaces_config/docker/Dockerfile"
    else:
        assert card["sdk"] == "gradio"
        assert card["python_version"] == "3.12"


def test_the_hub_gets_it_in_one_commit(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    space = plan_space("me/space", "zerogpu")
    assert send(space, bucket="me/store", private=True, api=api).endswith("/spaces/me/space")
    assert hub.commits == 1
    assert hub.created["sdk"] == "gradio"
    assert hub.created["hardware"] == "zero-a10g"
    assert hub.created["visibility"] == "private"
    assert set(hub.files) == {*space.files, ".gitattributes"}  # old.py went
    assert hub.files["app.py"] == (ROOT / "app.py").read_bytes()
    assert hub.variables == {"CLAS_CACHE": "/data/clas"}
    assert [one["mountPath"] for one in hub.volumes] == ["/data"]
    # What arrived is whole: the shell runs from it.
    for name, content in hub.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    code = "import clas_core as c; print(c.__file__); print(c.load('village').num_layers)"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True, env={})
    path, layers = done.stdout.split()
    assert Path(path).is_relative_to(tmp_path)
    assert int(layers) > 1


@pytest.mark.parametrize("name", ["space", "me/space/more", "me/spa ce", "", "../x", "me/"])
def test_bad_names_get_a_sentence(name: str) -> None:
    with pytest.raises(ClasError, match="OWNER/NAME"):
        plan_space(name, "zerogpu")


def test_what_the_hub_says_is_a_sentence(hub: Hub, api: HfApi) -> None:
    hub.refuses = 402, "Subscribe to PRO to host a CPU Space."
    with pytest.raises(ClasError, match=r"The hub refuses: .*Subscribe to PRO"):
        send(plan_space("me/space", "cpu"), api=api)
    hub.refuses = 401, "Invalid credentials"
    with pytest.raises(ClasError, match=r"The hub refuses: .*Invalid"):
        send(plan_space("me/space", "cpu"), api=api)


def test_without_a_hub_or_a_login_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = HfApi(endpoint="http://127.0.0.1:9", token="hf_nobody")
    with pytest.raises(ClasError, match="can't be reached"):
        send(plan_space("me/space", "cpu"), api=nowhere)


def test_it_is_published_from_a_checkout_alone(tmp_path: Path) -> None:
    with pytest.raises(ClasError, match=r"Publish from a checkout: app\.py"):
        plan_space("me/space", "zerogpu", root=tmp_path)
