"""Several processes at one measurement: killed, begun again with another number, never at odds.

They run on the CPU and meet through gloo, and where there is a GPU, on that one; what several GPUs
do is not tested.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from halting import Halt, halt_after

from clas_core.atlas import measuring
from clas_core.atlas.atlas import Atlas
from clas_core.atlas.cache import measure_cached
from clas_core.atlas.processes import Processes, joined
from clas_core.atlas.unfinished import CantResume, Unfinished, unfinished_files
from clas_core.errors import ClasError
from clas_core.shell.options import _own_gpu

STATISTICS = ("probability", "mean", "residual", "tokens")
ROOT = Path(__file__).resolve().parents[2]

MEASURE = """
import os, sys
from pathlib import Path
from clas_core.atlas import unfinished
from clas_core.atlas.atlas import Atlas
from clas_core.atlas.cache import measure_cached
from clas_core.model.loading import load
from clas_core.text.corpus import ParallelCorpus

unfinished.SAVE_EVERY = 0.0
folder, stop, cached = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
lm, corpus = load(folder / "model"), ParallelCorpus.load(folder / "tiny.tsv")
calls = []

def progress(done, total):
    calls.append(done)
    if len(calls) == stop:
        os._exit(9)

rank = os.environ["RANK"]
if cached:
    own = folder / f"cache{rank}"
    atlas = measure_cached(lm, corpus, folder=own, batch_size=1, progress=progress)
else:
    atlas = Atlas.measure(lm, corpus, batch_size=1, progress=progress, resume=folder / "sums")
atlas.save(folder / f"atlas{rank}")
print(len(calls))
"""


def assert_near(a: Atlas, b: Atlas) -> None:
    for name in STATISTICS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-6, atol=1e-7)


@pytest.fixture
def folder(tiny_lm, tiny_corpus, tmp_path) -> Path:
    """A model and a text for other processes to open."""
    tiny_lm.model.save_pretrained(tmp_path / "model")
    tiny_lm.tokenizer.save_pretrained(tmp_path / "model")
    rows = zip(*tiny_corpus.sentences.values())
    lines = "\n".join("\t".join(line) for line in [tiny_corpus.languages, *rows])
    (tmp_path / "tiny.tsv").write_text(lines + "\n")
    return tmp_path


def start(count: int, *arguments: object, program: str = MEASURE) -> list[tuple[int, str]]:
    """Run a program in so many processes, as torchrun would: each one's exit status and output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    running = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **{k: str(v) for k, v in place.items()}, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    ended = []
    for process in running:
        out, error = process.communicate(timeout=300)
        assert process.returncode in (0, 9), error[-3000:]
        ended.append((process.returncode, out))
    return ended


@pytest.mark.slow
def test_killed_and_begun_again_with_another_number_of_processes(folder, tiny_lm, tiny_corpus):
    assert start(2, folder, 3) == [(9, ""), (9, "")]  # 6 of 24 sentences are summed
    assert sorted(path.name for path in folder.glob("sums*")) == ["sums", "sums.1"]
    assert [code for code, _ in start(3, folder, 2)] == [9, 9, 9]  # 6 more
    ended = start(2, folder, 0)
    assert sum(int(out) for _, out in ended) == 12
    assert not list(folder.glob("sums*"))
    whole = Atlas.measure(tiny_lm, tiny_corpus, batch_size=1)
    for rank in range(2):
        assert_near(Atlas.load(folder / f"atlas{rank}"), whole)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 1])
def test_where_one_has_a_kept_atlas_and_the_other_none_they_agree(
    kept, folder, tiny_lm, tiny_corpus
):
    """The first one's counts."""
    whole = Atlas.measure(tiny_lm, tiny_corpus, batch_size=1)
    measure_cached(tiny_lm, tiny_corpus, folder=folder / f"cache{kept}")
    ended = start(2, folder, 0, "cached")
    assert [int(out) for _, out in ended] == ([0, 0] if kept == 0 else [12, 12])
    for rank in range(2):
        assert_near(Atlas.load(folder / f"atlas{rank}"), whole)


DEAF = """
import os
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FakeProcessGroup
from clas_core.atlas.processes import joined

make = getattr(FakeProcessGroup, "_create_internal", FakeProcessGroup)
create = lambda store, rank, size, _: make(rank, size)
dist.Backend.register_backend("deaf", create, devices=["cpu"])
dist.init_process_group("deaf")
one = torch.ones(1)
dist.all_reduce(one)
assert one.item() == 1
with joined() as processes:
    processes.add([one])
    print(one.item(), flush=True)
os._exit(0)  # a group that does nothing may abort when the interpreter is torn down
"""


@pytest.mark.slow
def test_they_meet_in_a_group_of_their_own_whatever_the_programs_is_of():
    """As under NCCL: nothing on the CPU is added up in the program's group."""
    assert start(2, program=DEAF) == [(0, "2.0\n")] * 2


NCCL = """
import sys
from pathlib import Path
import torch.distributed as dist
from clas_core.atlas.atlas import Atlas
from clas_core.model.loading import load
from clas_core.text.corpus import ParallelCorpus

folder, calls = Path(sys.argv[1]), []
dist.init_process_group("nccl")
lm = load(folder / "model", device="cuda:0", dtype="float32")
corpus = ParallelCorpus.load(folder / "tiny.tsv")
atlas = Atlas.measure(lm, corpus, batch_size=1, progress=lambda *at: calls.append(at))
atlas.save(folder / f"atlas{dist.get_rank()}")
assert dist.get_backend() == "nccl"
print(len(calls))
"""


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("count", [1, 2])
def test_in_a_program_that_meets_through_nccl(count, folder, tiny_lm, tiny_corpus):
    """Which knows no tensor on the CPU, and no two processes on one GPU."""
    assert start(count, folder, program=NCCL) == [(0, f"{24 // count}\n")] * count
    whole = Atlas.measure(tiny_lm, tiny_corpus, batch_size=1)
    for rank in range(count):
        found = Atlas.load(folder / f"atlas{rank}")
        for name in STATISTICS:
            # A sum of 64 terms is rounded at each of them, at 20 places of 3 layers in turn.
            torch.testing.assert_close(
                getattr(found, name), getattr(whole, name), rtol=1e-5, atol=1e-5
            )


# The same on files alone


def halted(lm, corpus, path, processes, sentences, monkeypatch):
    """What this one of several processes leaves behind."""
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "joined", lambda: Alone(processes))
        patch.setattr(Processes, "agree", lambda self, label: None)
        patch.setattr(Unfinished, "resume", lambda self: list(range(self._batches)))
        with pytest.raises(Halt):
            Atlas.measure(lm, corpus, batch_size=1, resume=path, progress=halt_after(sentences))


class Alone:
    def __init__(self, processes):
        self.processes = processes

    def __enter__(self):
        return self.processes

    def __exit__(self, *error):
        return False


def test_what_all_processes_left_is_put_together(tiny_lm, tiny_corpus, tmp_path, monkeypatch):
    path = tmp_path / "sums"
    for rank in range(3):
        halted(tiny_lm, tiny_corpus, path, Processes(rank, 3), 9, monkeypatch)  # 3 batches each
    assert len(unfinished_files(path)) == 3
    (tmp_path / "sums.txt").write_text("not ours")
    seen: list[int] = []
    atlas = Atlas.measure(
        tiny_lm, tiny_corpus, batch_size=1, resume=path, progress=lambda n, _: seen.append(n)
    )
    assert seen == list(range(10, 25))
    assert_near(atlas, Atlas.measure(tiny_lm, tiny_corpus, batch_size=1))
    assert [one.name for one in tmp_path.iterdir()] == ["sums.txt"]


def test_no_batch_counts_twice(tiny_lm, tiny_corpus, tmp_path, monkeypatch):
    """Killed after the files were put together and before the others were removed."""
    path = tmp_path / "sums"
    for rank in range(2):
        halted(tiny_lm, tiny_corpus, path, Processes(rank, 2), 6, monkeypatch)
    other = (tmp_path / "sums.1").read_bytes()
    with pytest.raises(Halt):
        Atlas.measure(tiny_lm, tiny_corpus, batch_size=1, resume=path, progress=halt_after(8))
    (tmp_path / "sums.1").write_bytes(other)
    atlas = Atlas.measure(tiny_lm, tiny_corpus, batch_size=1, resume=path)
    assert torch.equal(atlas.tokens, Atlas.measure(tiny_lm, tiny_corpus).tokens)
    assert not list(tmp_path.iterdir())


def test_one_file_of_another_measurement_is_enough_to_refuse(tiny_lm, tiny_corpus, tmp_path):
    with pytest.raises(Halt):
        Atlas.measure(
            tiny_lm, tiny_corpus, batch_size=4, resume=tmp_path / "sums", progress=halt_after(4)
        )
    (tmp_path / "sums").rename(tmp_path / "sums.1")
    with pytest.raises(CantResume, match=r"sums\.1 is of another measurement"):
        Atlas.measure(tiny_lm, tiny_corpus, batch_size=1, resume=tmp_path / "sums")


def test_alone_it_asks_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as processes:
        assert (processes.rank, processes.count) == (0, 1)
        assert processes.first(time.monotonic) > 0
        processes.agree("label")
        one = torch.ones(2)
        processes.add([one])
        assert one.tolist() == [1, 1]
        with pytest.raises(ClasError):
            processes.first(lambda: Atlas.load("nowhere"))


def test_every_process_loads_on_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert _own_gpu() is None
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert _own_gpu() == "cuda:3"
    monkeypatch.setenv("LOCAL_RANK", "5")  # more processes than GPUs
    assert _own_gpu() == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _own_gpu() is None
