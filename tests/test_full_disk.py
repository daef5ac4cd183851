"""A full disk: a sentence, the file as it was, nothing half-written, and others' texts go on.

The fault is the operating system's: the kernel refuses to write past a limit (as it does for a
full disk, by another number), or to make a folder, or to move a file to its place.
"""

from __future__ import annotations

import ast
import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fuzz_server
import gradio as gr
import pytest
import torch
from small_tasks import RECIPE, SmallTask
from tiny import SENTENCES
from tiny_studio import made_up_corpus, tiny_studio

from clas_core.atlas import unfinished
from clas_core.atlas.atlas import Atlas
from clas_core.atlas.cache import measure_cached
from clas_core.errors import ClasError
from clas_core.evaluation.judging.comparison import compare
from clas_core.evaluation.judging.conditions import standard_conditions
from clas_core.evaluation.judging.engine import load_items, run_tasks, tuning_runs
from clas_core.evaluation.judging.items import Validation
from clas_core.evaluation.judging.results import Log, Results, describe
from clas_core.evaluation.judging.sweep import save_chosen
from clas_core.evaluation.telling.report import write_report
from clas_core.paths import CantWrite
from clas_core.running.layout import Layout
from clas_core.steering.baking import bake
from clas_core.steering.control_vectors import write_control_vector
from clas_core.steering.plan import LayerPlan, SteeringPlan
from clas_core.steering.published import PublishedNeurons, PublishedVectors
from clas_core.studies import settings
from clas_core.text.corpus import ParallelCorpus
from clas_core.ui.behind.answered import Answered
from clas_core.ui.behind.choice import Choice
from clas_core.ui.behind.disk import drop_halves
from clas_core.ui.behind.downloads import Downloads
from clas_core.ui.behind.kept import Kept
from clas_core.ui.behind.outcome import Outcome
from clas_core.ui.behind.shelf import Shelf
from clas_core.ui.behind.texts import keep_text
from clas_core.ui.behind.trial import Asked, Trial
from clas_core.ui.tabs.measure import _Results

ROOM = Path(__file__).resolve().parents[1] / "clas_core"
Writers = dict[str, Callable[[Path], object]]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def no_more_than(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: the kernel refuses (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def refused(call: str) -> Iterator[None]:
    """The system call behind `os.<call>` finds the disk full."""

    def fail(*_: object, **__: object) -> None:
        raise FULL

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, fail)
        yield


FAULTS: dict[str, Callable[[], Any]] = {
    "no byte": lambda: no_more_than(0),
    "some bytes": lambda: no_more_than(100),
    "no folder": lambda: refused("mkdir"),
    "no move": lambda: refused("replace"),
}


@pytest.fixture(scope="module")
def atlas(tiny_lm, tiny_corpus) -> Atlas:
    return Atlas.measure(tiny_lm, tiny_corpus)


@pytest.fixture(scope="module")
def runs():
    loaded = load_items([SmallTask("text")], Validation, ["en", "sw"], 4)
    return tuning_runs(loaded, standard_conditions([RECIPE], controls=1))


@pytest.fixture(scope="module")
def results(tiny_lm, atlas, runs) -> Results[Validation]:
    about = describe(tiny_lm, atlas, Validation, runs)
    return Results(tuple(one for some in run_tasks(tiny_lm, atlas, runs) for one in some), about)


@pytest.fixture(scope="module")
def writers(tiny_lm, atlas, results) -> Writers:
    """All that writes a file or a folder at a path that is asked for."""
    plan = SteeringPlan({1: LayerPlan(torch.full((64,), 2.0))})
    shifts = SteeringPlan({1: LayerPlan(shift=torch.ones(32))})
    neurons = PublishedNeurons(torch.ones(2, 2, 6, dtype=torch.bool), ("en", "sw"), (6, 6))
    return {
        "plan": plan.save,
        "atlas": atlas.save,
        "neurons": neurons.save,
        "vectors": PublishedVectors(torch.rand(2, 2, 4), ("en", "sw")).save,
        "layout": Layout(torch.rand(12, 2), torch.rand(12, 4)).save,
        "control vector": lambda path: write_control_vector(shifts, path, "llama"),
        "results": results.save,
        "chosen": lambda path: save_chosen(path, []),
        "report": lambda path: write_report(path, compare(results), [], None),
        "settings": lambda path: settings.save(path, {"strength": [1.0] * 40}),
        "checkpoint": lambda path: bake(tiny_lm, plan, path),
    }


NAMES = [
    "plan", "atlas", "neurons", "vectors", "layout", "control vector", "results", "chosen",
    "report", "settings", "checkpoint",
]  # fmt: skip


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_for_is_refused_whole(name, fault, writers, tmp_path) -> None:
    assert [*writers] == NAMES
    write, path = writers[name], tmp_path / "file"
    if name == "chosen" and fault == "some bytes":
        pytest.skip("its file has fewer bytes")
    if name != "checkpoint":  # which never replaces another
        write(path)
    before = everything(tmp_path)
    with FAULTS[fault](), pytest.raises(ClasError, match=r"^Can't write .*file: .+\.$"):
        write(path)
    assert everything(tmp_path) == before
    write(path)  # once there is room
    assert path.exists()


def test_the_sentence_says_that_the_disk_is_full(writers, tmp_path) -> None:
    with refused("replace"), pytest.raises(CantWrite, match=r"the disk is full\. Make room"):
        writers["plan"](tmp_path / "file")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file systems of a size are mounted here")
def test_a_disk_that_really_is_full(tmp_path) -> None:
    """A file system of 16 KB, in a name space of its own: safetensors, text, and a bare log."""
    script = tmp_path / "write.py"
    script.write_text(
        "import sys, torch; from pathlib import Path\n"
        "from clas_core.paths import CantWrite, replacing\n"
        "from clas_core.evaluation.judging.items import Validation\n"
        "from clas_core.evaluation.judging.results import Log\n"
        "from clas_core.steering.plan import LayerPlan, SteeringPlan\n"
        "disk = Path(sys.argv[1])\n"
        "def text(path):\n"
        "    with replacing(path) as scratch: scratch.write_text('x' * 10**6)\n"
        "big = SteeringPlan({1: LayerPlan(torch.ones(10**5))})\n"
        "log = lambda path: Log(path, Validation, {'texts': {}, 'x': 'x' * 10**6})\n"
        "for write in (text, big.save, log):\n"
        "    try: write(disk / 'file')\n"
        "    except CantWrite as error: print(error)\n"
        "    print([(p.name, p.stat().st_size) for p in disk.iterdir()])\n"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=16k none {disk} && {sys.executable} {script} {disk}"
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount]
    if subprocess.run([*command[:3], "true"], capture_output=True).returncode:
        pytest.skip("no name spaces for this user")
    environment = {**os.environ, "PYTHONPATH": str(ROOM.parent)}
    said = subprocess.run(command, capture_output=True, text=True, env=environment).stdout
    sentence = f"Can't write {disk / 'file'}: the disk is full. Make room, then do it again."
    assert said.splitlines() == [sentence, "[]", sentence, "[]", sentence, "[('file', 0)]"]


def test_a_log_ends_with_a_whole_line(tiny_lm, atlas, runs, results, tmp_path) -> None:
    """What doesn't fit is taken back, so that what comes once there is room can be read."""
    path, about = tmp_path / "log", describe(tiny_lm, atlas, Validation, runs)
    log = Log(path, Validation, about)
    first, second = results.scores[:3], results.scores[3:]
    log.add(first)
    whole = path.read_bytes()
    with no_more_than(len(whole) + 100), pytest.raises(CantWrite):
        log.add(second)
    assert path.read_bytes() == whole
    assert log.scores == [*first]
    log.add(second)
    assert Log(path, Validation, about).scores == [*results.scores]


def test_a_log_that_could_not_begin_begins_later(tiny_lm, atlas, runs, tmp_path) -> None:
    path, about = tmp_path / "log", describe(tiny_lm, atlas, Validation, runs)
    with no_more_than(100), pytest.raises(CantWrite):
        Log(path, Validation, about)
    assert Log(path, Validation, about).scores == []


def test_what_is_measured_is_there_though_not_kept(tiny_lm, tiny_corpus, tmp_path, caplog) -> None:
    with no_more_than(100):
        atlas = measure_cached(tiny_lm, tiny_corpus, folder=tmp_path)
    assert "The measured atlas isn't kept." in caplog.text
    assert not everything(tmp_path)
    again = measure_cached(tiny_lm, tiny_corpus, folder=tmp_path)
    assert torch.equal(atlas.probability, again.probability)
    assert len(everything(tmp_path)) == 1


def test_sums_that_cant_be_written_on_the_way_are_added_up(
    tiny_lm, tiny_corpus, tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(unfinished, "SAVE_EVERY", 0.0)
    wanted = Atlas.measure(tiny_lm, tiny_corpus)
    with no_more_than(100):
        found = Atlas.measure(tiny_lm, tiny_corpus, resume=tmp_path / "file")
    assert "What is measured isn't kept yet." in caplog.text
    assert torch.equal(found.probability, wanted.probability)
    assert not everything(tmp_path)


def test_a_text_of_ones_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CLAS_CACHE", str(tmp_path / "cache"))
    with no_more_than(100), pytest.raises(CantWrite):
        keep_text(ParallelCorpus("mine", SENTENCES), "mine.tsv", 10**6)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_files_to_take_away(results) -> None:
    outcome = Outcome(compare(results), (), None, 3)
    downloads = Downloads(10**6)
    with no_more_than(3000), pytest.raises(CantWrite):  # the report is larger
        downloads.of(outcome)
    assert not everything(downloads.folder)
    assert len(downloads.of(outcome)) == 4


def test_a_result_is_shown_without_its_files(results) -> None:
    downloads = Downloads(10**6)
    with gr.Blocks():
        shown = _Results(None, None, downloads)
    with no_more_than(3000):
        updates = shown.show(Outcome(compare(results), (), None, 3))
    assert "Can&#x27;t write" in updates[shown.progress]
    assert "<table" in updates[shown.table]
    assert [updates[button]["value"] for button in shown.buttons] == [None] * 4


@pytest.mark.slow
def test_a_visitors_upload() -> None:
    """It is refused, the page goes on, and the half that Gradio leaves is dropped."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="text.tsv"\r\n'
        b"Content-Type: text/plain\r\n\r\n" + b"en\tsw\n" * 5000 + b"\r\n--x--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}

    def upload(address: str) -> tuple[int, str]:
        request = urllib.request.Request(f"{address}gradio_api/upload", body, kind)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    with fuzz_server.served_page() as address:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        with no_more_than(1000):
            status, said = upload(address)
        assert status >= 400
        assert "Traceback" not in said
        assert upload(address)[0] == 200
        drop_halves(folder, age=0)  # as the page does of those that are an hour old
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["text.tsv"]


@pytest.mark.slow
def test_compiled_loops(tmp_path) -> None:
    """What UMAP compiles it keeps on disk: the map says that it can't, in a process of its own."""
    script = (
        "import resource, torch\n"
        "from clas_core.errors import ClasError\n"
        "from clas_core.running.layout import Layout\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "try: Layout.fit(torch.rand(20, 4))\n"
        "except ClasError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOM.parent), "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.stdout.startswith("Can't write the loops that UMAP compiles: "), run.stderr


class Visitor(threading.Thread):
    """Generates again and again while `going`; the last frame of each answer."""

    def __init__(self, studio: Any, seed: int, going: threading.Event) -> None:
        super().__init__()
        prompt = SENTENCES["en"][seed % 6]
        values = {**studio.defaults(), "strength": 1.0, "prompt": prompt, "length": 12}
        values |= {"temperature": 0.8, "seed": seed, "language": "sw"}
        self._studio, self._recipe, self._going = studio, studio.recipe(values), going
        self.answers: list[Any] = []

    def answer(self) -> Any:
        """What all panes say in the end; its effects are numbers of a batch of any size."""
        self._studio._answered = Answered(Kept(10**6).share(self._studio))  # written anew
        *_, last = self._studio.steer(self._recipe, True, threading.Event())
        return last["panes"], last["sentence"]

    def run(self) -> None:
        while not self.answers or self._going.is_set():
            self.answers.append(self.answer())


@pytest.mark.slow
def test_visitors_write_on_while_the_disk_is_full(tmp_path, monkeypatch, caplog) -> None:
    """One measures, one opens a text of their own, one takes files away; six generate."""
    monkeypatch.setenv("CLAS_CACHE", str(tmp_path / "cache"))
    studio = tiny_studio()
    shelf, downloads = Shelf(studio), Downloads(10**6)
    going = threading.Event()
    visitors = [Visitor(studio, seed, going) for seed in range(6)]
    alone = [visitor.answer() for visitor in visitors]
    recipe = studio.recipe({**studio.defaults(), "strength": 1.0, "prompt": ""})
    asked = Asked(("bits-per-byte",), ("en", "sw"), (), 20)
    own = ParallelCorpus("own", made_up_corpus().sentences)
    choice = Choice("village", None, "own", own.subset(["en", "sw", "th"]))

    def measured() -> Trial:
        trial = Trial(studio, recipe, asked)
        trial.start()
        assert trial.finished.wait(120)
        return trial

    going.set()
    with no_more_than(0):
        for visitor in visitors:
            visitor.start()
        failed = measured()
        job = shelf.open(choice)
        opened = job.result.result(120)
        opened.mapper.warm()
        written = everything(tmp_path), everything(downloads.folder)
        going.clear()
        for visitor in visitors:
            visitor.join()
    assert "Can't write" in str(failed.error)
    assert failed.outcome is None
    assert "The measured atlas isn't kept." in caplog.text
    assert not any(content for files in written for content in files.values())
    for visitor, wanted in zip(visitors, alone):
        assert visitor.answers
        assert all(answer == wanted for answer in visitor.answers)
    assert opened.codes == ("en", "sw", "th")
    again = measured()  # once there is room
    assert again.error is None
    assert len(downloads.of(again.outcome)) == 4


WRITES = {"save_file", "write_text", "write_bytes", "save_pretrained", "GGUFWriter", "save"}
WHOLE = {"replacing", "writing"}


def test_nothing_else_writes() -> None:
    """Whatever in the house writes a file does so inside of `replacing` or `writing`."""
    strays = []
    for path in ROOM.rglob("*.py"):
        if "village" in path.parts or path.name == "paths.py":
            continue  # training writes into folders of its own, at build time
        tree = ast.parse(path.read_text("utf-8"))
        inside = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.With)
            if any(_called(item.context_expr) in WHOLE for item in block.items)
            for node in ast.walk(block)
        }
        strays += [
            f"{path.name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and _writes(node) and id(node) not in inside
        ]
    assert not strays


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _writes(call: ast.Call) -> bool:
    name = _called(call)
    if name == "open":
        modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
        return any(isinstance(mode, str) and mode[:1] in {"w", "a", "x"} for mode in modes)
    owner = getattr(getattr(call.func, "value", None), "id", "")
    return name in WRITES - {"save"} or (name == "save" and owner in {"torch", "np", "numpy"})
