"""Nothing that the page keeps, in memory or on disk, grows beyond its budget."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_studio import made_up_corpus, tiny_studio

from clas_core.running.layout import Layout
from clas_core.ui.behind.disk import keep_within, make_room, mark_used
from clas_core.ui.behind.downloads import Downloads
from clas_core.ui.behind.kept import Kept, nbytes_of
from clas_core.ui.behind.mapper import Mapper
from clas_core.ui.behind.memory import give_back
from clas_core.ui.behind.outcome import read_outcome
from clas_core.ui.behind.profile import PROFILES, read_profile
from clas_core.ui.behind.studio import VILLAGE, Studio, _json
from clas_core.ui.behind.texts import keep_text, kept_folders, kept_text, name_of_text

KB = 1000


@pytest.fixture(scope="module")
def studio() -> Studio:
    return tiny_studio()


class Owner:
    """Whoever keeps something."""


def block(size: int) -> torch.Tensor:
    return torch.zeros(size, dtype=torch.uint8)


def test_what_was_used_least_recently_makes_room() -> None:
    kept, owner = Kept(3 * KB), Owner()
    mine = kept.share(owner)
    for name in "abc":
        mine.put(block(KB), name)
    assert mine.find("a") is not None
    mine.put(block(KB), "d")
    assert [name for name in "abcd" if mine.find(name) is not None] == ["a", "c", "d"]
    assert kept.nbytes == 3 * KB
    mine.put(block(9 * KB), "large")  # it is in use, whatever it takes
    assert [name for name in ("a", "c", "d", "large") if mine.find(name) is not None] == ["large"]


def test_owners_share_the_budget_but_no_key() -> None:
    kept, one, two = Kept(3 * KB), Owner(), Owner()
    first, second = kept.share(one), kept.share(two)
    first.put(block(KB), "x")
    assert second.find("x") is None
    second.put(block(2 * KB), "x")
    second.put(block(KB), "y")
    assert first.find("x") is None
    del two
    gc.collect()
    first.put(block(KB), "z")
    assert kept.nbytes == KB  # what the owner that is gone had went with it


def test_the_first_of_two_threads_wins() -> None:
    kept, owner = Kept(9 * KB), Owner()
    mine, both, found = kept.share(owner), threading.Barrier(2), []

    def make() -> torch.Tensor:
        both.wait(10)
        return block(KB)

    threads = [threading.Thread(target=lambda: found.append(mine.get(make, "x"))) for _ in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]
    assert kept.nbytes == KB


@dataclass
class Part:
    tensor: torch.Tensor
    rest: Any


def test_bytes_are_counted_once_and_wherever_they_are(studio: Studio) -> None:
    one = block(KB)
    assert nbytes_of(Part(one, {"again": one, "array": [np.zeros(KB, np.uint8)]})) == 2 * KB
    assert nbytes_of((studio.lm, studio.lm.model)) == 0
    assert nbytes_of(studio.atlas) >= studio.atlas.mean.nbytes
    loop: list[Any] = [one]
    loop.append(loop)
    assert nbytes_of(loop) == KB


def test_hundreds_of_settings_stay_within_the_memory(studio: Studio, monkeypatch: Any) -> None:
    kept = Kept(100 * KB)
    monkeypatch.setattr(studio, "mine", kept.share(studio))
    start = {**studio.defaults(), "prompt": "x", "language": "sw", "strength": 1.0}
    for number in range(300):
        recipe = studio.recipe({**start, "tau": number / 300})
        plan = studio.plan(recipe)
        assert studio.plan(recipe) is plan
        assert kept.nbytes <= 100 * KB
    assert kept.nbytes > 50 * KB


def test_maps_stay_within_the_memory_and_are_the_same_again(
    studio: Studio, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Layout, "fit", lambda points: Layout(points[:, :2].clone(), points))
    monkeypatch.setattr(Layout, "place", lambda self, points: points[:, :2].clone())
    start = {**studio.defaults(), "prompt": "x", "language": "sw"}
    plans = [studio.plan(studio.recipe({**start, "strength": 0.5 * n})) for n in range(3)]
    roomy = Mapper(studio.lm, made_up_corpus(), studio.gate, Kept(10**9))
    kept = Kept(20 * KB)
    tight = Mapper(studio.lm, made_up_corpus(), studio.gate, kept)
    for plan in (*plans, *plans):
        one, two = roomy.compute(plan, 3), tight.compute(plan, 3)
        assert torch.equal(one.before, two.before)
        assert torch.equal(one.after, two.after)
        assert kept.nbytes <= 20 * KB or len(kept._entries) == 1


def write(path: Path, size: int, age: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (10**9 - age, 10**9 - age))
    return path


def test_files_make_room(tmp_path: Path) -> None:
    texts, logs = tmp_path / "texts", tmp_path / "logs"
    old = write(texts / "a" / "old", KB, 3)
    log = write(logs / "log", KB, 2)
    new = write(texts / "b" / "new", KB, 1)
    other = write(tmp_path / "other", 9 * KB, 9)
    make_room([texts, logs], 3 * KB)
    assert all(path.exists() for path in (old, log, new))
    mark_used(old)
    make_room([texts, logs], 2 * KB)
    assert [path.exists() for path in (old, log, new, other)] == [True, False, True, True]
    make_room([texts, logs], 0, {new})
    assert [path.exists() for path in (old, new)] == [True, True]  # used last, and needed
    mark_used(log)
    make_room([tmp_path / "nothing"], 0)
    make_room([texts], KB)
    assert old.exists()
    assert not new.parent.exists()


def test_uploads_are_watched(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1" / "x", KB, 2), write(tmp_path / "2" / "x", KB, 1)
    keep_within(tmp_path, KB, every=0.05)
    for _ in range(200):
        if not first.exists():
            break
        threading.Event().wait(0.05)
    assert not first.exists()
    assert second.exists()


def test_own_texts_make_room(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CLAS_CACHE", str(tmp_path))
    corpora = [made_up_corpus().subset(n=n) for n in (4, 5, 6)]
    size = 0
    for number, corpus in enumerate(corpora):
        keep_text(corpus, f"{number}.tsv", 10**9)
        size = max(size, sum(f.stat().st_size for f in kept_folders()[0].rglob("*.jsonl")))
    assert kept_text(corpora[0].fingerprint)[1] == "0.tsv"  # used, so that another one goes
    keep_text(corpora[2], "2.tsv", size - 1)
    names = [name_of_text(corpus.fingerprint) for corpus in corpora]
    assert names == ["0.tsv", "", "2.tsv"]


@pytest.mark.slow
def test_downloads_stay_as_long_as_they_are_offered() -> None:
    measured = VILLAGE / "measured.json"
    outcome = read_outcome(measured, _json(VILLAGE / "settings.json"))
    another = read_outcome(measured, _json(VILLAGE / "settings.json"))
    downloads = Downloads(0, lasting=outcome)
    first = downloads.of(outcome)
    for path in map(Path, first):
        os.utime(path, (0, 0))
    new, newer = downloads.of(another), downloads.of(another)
    assert downloads.of(outcome) == first
    assert all(map(os.path.exists, [*first, *newer]))
    assert not any(map(os.path.exists, new))


def test_every_profile_has_budgets() -> None:
    for path in PROFILES.glob("*.toml"):
        profile = read_profile(path.stem)
        assert profile.cache_mb > 0
        assert profile.disk_mb > 0


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heaps, told of by /proc")
def test_freed_memory_goes_back_to_the_system():
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    pieces = [bytearray(20_000) for _ in range(5000)]  # 100 MB, in pieces too small for a map
    pins = pieces[::50]
    pieces = []
    before = resident()
    give_back()
    assert resident() < before - 50
    assert len(pins) == 100


LARGE_PIECES = """
import subprocess
import sys
from pathlib import Path
from clas_core.ui.behind.memory import keep_giving_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "kept":
    keep_giving_back()
b"x" * (16 << 20)  # from now on glibc takes what is smaller from its heap
pieces = [b"x" * (8 << 20) for _ in range(20)]
before = resident()
stay = pieces[1::2]
del pieces
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at Linux's own figures")
def test_what_was_large_goes_back_at_once() -> None:
    freed = {}
    for kind in ("kept", "without"):
        command = [sys.executable, "-c", LARGE_PIECES, kind]
        path = os.pathsep.join(sys.path)
        said = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        freed[kind] = int(said.stdout)  # of 84 MB
    assert freed["without"] < 40 * 10**6 < 80 * 10**6 < freed["kept"]
