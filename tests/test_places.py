"""What the places of `spaces_config` say of themselves is true."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app import options
from clas_core.shell.cli import _parser
from clas_core.ui.behind.profile import PROFILES, read_profile

ROOT = PROFILES.parent
PAGES = sorted(PROFILES.glob("*.md"))
DOCKERFILE = (PROFILES / "docker" / "Dockerfile").read_text("utf-8")


def test_every_place_has_a_page_and_every_profile_a_place() -> None:
    names = {page.stem for page in PAGES}
    assert names == {"zerogpu", "cpu", "workshop", "docker", "jupyter", "serving"}
    profiles = names - {"jupyter", "serving"} | {"local"}
    assert {path.stem for path in PROFILES.glob("*.toml")} == profiles
    readme = (ROOT / "README.md").read_text("utf-8")
    assert all(f"(spaces_config/{name}.md)" in readme for name in names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_say_what_it_costs_and_name_what_there_is(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "osts" in text
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for words in re.findall(r"python -m clas_core (.*?)(?:`|\n|$)", text):
        _parser().parse_args(shlex.split(words))
    for words in re.findall(r"python app\.py (.*?)(?:`|\n|$)", text):
        options().parse_args(shlex.split(words))
    for name in re.findall(r"--profile (\w+)", text):
        read_profile(name)


def test_profiles_that_are_open_to_all_pin_their_models() -> None:
    for path in PROFILES.glob("*.toml"):
        profile = read_profile(path.stem)
        if profile.host == "0.0.0.0":
            commits = [name.partition("@")[2] for name in profile.models]
            assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits), path
            assert profile.uploads <= 2


@pytest.mark.slow
def test_the_page_opens_with_every_profile() -> None:
    """Within its limits: what the page opens with is longer than some would let it be."""
    from clas_core.ui.behind.calls import Forked
    from clas_core.ui.behind.studio import Studio
    from clas_core.ui.tabs.page import build

    first = Studio.open(read_profile("local"))
    lent = Forked(lambda *, duration: lambda task: task, {("village", None): first.lm})
    for path in PROFILES.glob("*.toml"):
        profile = read_profile(path.stem)
        calls = lent if profile.gpu else None
        build(Studio.around(first.lm, first.choice, profile, calls=calls)).close(verbose=False)


def test_the_image_is_nobody_in_particular_and_keeps_things_in_its_volume() -> None:
    lines = DOCKERFILE.splitlines()
    user = lines.index("USER clas")
    assert "--uid 1000 clas" in DOCKERFILE
    assert all("pip install" not in line for line in lines[:user])
    assert "CLAS_PROFILE=docker" in DOCKERFILE
    assert re.search(r"CLAS_CACHE=/data/", DOCKERFILE)
    assert "VOLUME /data" in lines
    profile = read_profile("docker")
    assert f"EXPOSE {profile.port}" in lines
    for name in re.findall(r"^COPY (?:--\S+ )?(\S+) \.$", DOCKERFILE, re.M):
        assert (ROOT / name).exists()


class _Answering(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_the_health_check_tells_a_page_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    (words,) = re.findall(r"CMD \[(.*healthy\.py)\"\]", DOCKERFILE)
    assert words.startswith('"python", "')
    script = ROOT / words.rpartition('"')[2]

    def check(port: int) -> int:
        address = f"http://127.0.0.1:{port}/"
        return subprocess.run([sys.executable, script, address], check=False).returncode

    with HTTPServer(("127.0.0.1", 0), _Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert check(server.server_port) == 0
        monkeypatch.setattr(_Answering, "status", 500)
        assert check(server.server_port) == 1
        server.shutdown()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    assert check(closed) == 1
