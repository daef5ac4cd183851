"""Calls in a process that is forked for them: nothing that they need stays behind in this one.

`spaces.GPU` is stood in for; where its package is installed, its own code forks too, with the GPU's
part left out. The model refuses to run in this process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from lent_gpu import LentGPU
from tiny import make_tokenizer, tiny_llama_model
from tiny_studio import examples, made_up_village, tiny_stored

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.fingerprint import settle
from clas_core.errors import ClasError
from clas_core.model.architecture import LanguageModel
from clas_core.model.loading import load
from clas_core.running.decoder import Decoder
from clas_core.running.generation import generate
from clas_core.running.layout import Layout
from clas_core.running.states import hidden_states
from clas_core.steering.recipe import Recipe
from clas_core.ui.behind.calls import Forked
from clas_core.ui.behind.choice import Choice
from clas_core.ui.behind.imported import with_published
from clas_core.ui.behind.lent import open_lent
from clas_core.ui.behind.profile import Profile, default_profile, read_profile
from clas_core.ui.behind.program import answer
from clas_core.ui.behind.shelf import Shelf
from clas_core.ui.behind.studio import Studio
from clas_core.ui.behind.surprise import steering
from clas_core.ui.behind.trial import Asked, Trial

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Recipe(
    prompt="Anna anaona mashua. Juma anaona",
    alpha=2.0, beta=3.0, gamma=0.0, layers=(1, 3), max_new_tokens=12,
)  # fmt: skip


class House:
    """The model; with `refuse` it runs in forked processes only, and with `slow` slowly there."""

    def __init__(self) -> None:
        self.lm: LanguageModel = load(tiny_llama_model(), make_tokenizer())
        self.choice = Choice("village", None, "village", made_up_village())
        self.atlas = Atlas.measure(self.lm, self.choice.corpus)
        self.here = self.studio()
        self.here.stored = tiny_stored(self.here)
        self.refuse, self.slow, self._home = False, False, os.getpid()
        for block in self.lm.blocks:
            block.register_forward_pre_hook(self._pass)
        settle(self.lm)

    def _pass(self, *_: Any) -> None:
        assert not self.refuse or os.getpid() != self._home, "the model ran in the parent"
        if self.slow and os.getpid() != self._home:
            time.sleep(0.02)

    def studio(self, **more: Any) -> Studio:
        return Studio(self.lm, self.choice, self.atlas, examples=examples, **more)


@pytest.fixture(scope="module")
def house() -> House:
    return House()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Studio, "warm_up", lambda self: None)


@pytest.fixture
def gpu() -> Iterator[LentGPU]:
    lent = LentGPU()
    yield lent
    lent.close()


@pytest.fixture
def far(house: House, gpu: LentGPU) -> Iterator[Studio]:
    """A studio whose calls are forked, while the model refuses to run here."""
    house.refuse, house.slow = True, False
    yield house.studio(stored=house.here.stored, calls=_forked(house, gpu))
    house.refuse = False


def _forked(house: House, gpu: Any) -> Forked:
    return Forked(gpu, {("village", None): house.lm})


@pytest.fixture
def spaces_far(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """The same by the package's own code, without the GPU and the service that lends it."""
    pytest.importorskip("spaces")
    no_gpu = ModuleType("spaces.zero.torch")  # its own needs a torch that was built for one
    for name in ("unpatch", "init", "move", "enter_mode"):
        setattr(no_gpu, name, lambda *_, **__: None)
    no_gpu.size = lambda: 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, no_gpu.__name__, no_gpu)
    from spaces.zero import wrappers

    lent = SimpleNamespace(allowToken="", nvidiaIndex=0, nvidiaUUID="", idle=True)
    monkeypatch.setattr(wrappers.client, "schedule", lambda **_: lent)
    monkeypatch.setattr(wrappers.client, "get_duration_seconds", lambda *_: 60)
    for name in ("allow", "release"):
        monkeypatch.setattr(wrappers.client, name, lambda *_, **__: None)

    def gpu(*, duration: Any) -> Callable[[Any], Any]:
        return lambda task: wrappers.generator_function_wrapper(task, duration, None)

    house.refuse, house.slow = True, False
    yield house.studio(stored=house.here.stored, calls=_forked(house, gpu))
    house.refuse = False


@contextlib.contextmanager
def at_home(house: House) -> Iterator[None]:
    house.refuse = False
    try:
        yield
    finally:
        house.refuse = True


def steered(studio: Studio, recipe: Recipe = RECIPE, **options: Any) -> list[dict[str, Any]]:
    return list(studio.calls(steering, studio, recipe, True, **options))


def assert_equal(view: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Shifts differ by rounding where other rows were decoded beside them."""
    assert {**view, "strip": None} == {**wanted, "strip": None}
    strip, other = view["strip"], wanted["strip"]
    assert {**strip, "kl": None} == {**other, "kl": None}
    assert strip["kl"] == pytest.approx(other["kl"], abs=1e-4)


def test_panes_are_as_at_home(house: House, far: Studio, gpu: LentGPU) -> None:
    with at_home(house):
        wanted = steered(house.here)[-1]
    found = steered(far)
    assert_equal(found[-1], wanted)
    assert found[-1]["panes"][1]["spans"] != found[-1]["panes"][0]["spans"]
    assert found[-1]["panes"][0]["asked"]
    assert len(found) > 1
    other = replace(RECIPE, alpha=1.0)
    with at_home(house):
        wanted = steered(house.here, other)[-1]
    assert_equal(steered(far, other)[-1], wanted)
    assert gpu.forks == 1  # the second call came to the same process
    assert set(gpu.asked) == {25}


def test_the_package_itself_forks_as_its_stand_in(house: House, spaces_far: Studio) -> None:
    with at_home(house):
        wanted = steered(house.here)[-1]
    assert steered(spaces_far)[-1] == wanted
    assert steered(spaces_far)[-1] == wanted
    with pytest.raises(ClasError, match="shorten it to 2000"):
        steered(spaces_far, replace(RECIPE, prompt="Anna " * 5000))
    house.slow, stop, long = True, threading.Event(), replace(RECIPE, max_new_tokens=200)
    for view in spaces_far.calls(steering, spaces_far, long, False, stop=stop):
        last = view
        stop.set()
    assert last["state"] == "stopped"
    left = spaces_far.calls(steering, spaces_far, long, False)
    next(left)
    left.close()  # type: ignore[attr-defined]
    house.slow = False
    assert steered(spaces_far)[-1] == wanted


def test_no_lock_of_this_process_is_waited_for(house: House, far: Studio) -> None:
    locks = [far.kept._lock, far.gate._condition, far.mapper._lock, far.mapper._running]
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in (*locks, *filter(None, [getattr(far, "lock", None)])):
                stack.enter_context(lock)
            held.set()
            enough.wait(120)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert steered(far)[-1]["state"] == "done"
    finally:
        enough.set()
        thread.join()


def test_a_decoder_of_this_process_is_not_waited_for(house: House, far: Studio) -> None:
    with at_home(house), Decoder(house.lm) as decoder:
        *_, wanted = generate(house.lm, RECIPE.prompt, max_new_tokens=12)
        house.refuse = True
        with decoder._changed:  # a lock that the fork copies as held, for ever
            found = answer(Shelf(far), "", RECIPE.prompt, {"max_new_tokens": 12})
    assert found.texts[0] == wanted.texts[0]


def test_a_program_gets_the_same(house: House, far: Studio) -> None:
    fields = {"alpha": 2.0, "beta": 3.0, "gamma": 0.0, "max_new_tokens": 12}
    with at_home(house):
        wanted = answer(Shelf(house.here), "", RECIPE.prompt, fields)
    found = answer(Shelf(far), "", RECIPE.prompt, fields)
    assert found.as_dict() == wanted.as_dict()
    assert found.recipe == wanted.recipe


def test_maps_and_neurons_are_the_same(
    house: House, far: Studio, gpu: LentGPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Layout, "fit", lambda points: Layout(points[:, :2].clone(), points))
    monkeypatch.setattr(Layout, "place", lambda self, points: points[:, :2].clone())
    plan = far.plan(RECIPE)
    with at_home(house):
        after = hidden_states(house.lm, far.mapper.corpus, plan).at(3)
        wanted = house.here.most_fired(1, 5)
        profile = house.here.mapper.profile()
    assert not far.mapper.begun
    result = far.mapper.compute(plan, 3)
    assert torch.equal(result.after, after[:, :2])
    assert far.mapper.begun
    asked = len(gpu.asked)
    assert far.mapper.compute(plan, 3) is result  # kept here
    assert torch.allclose(torch.tensor(far.mapper.profile()), torch.tensor(profile))
    assert len(gpu.asked) == asked
    assert far.most_fired(1, 5) == wanted


def test_another_text_is_measured_there_and_kept(house: House, far: Studio, gpu: LentGPU) -> None:
    steered(far)  # the process is there before anyone asks for this text
    corpus = made_up_village().subset(["en", "sw", "ar"])
    choice = replace(house.choice, corpus=corpus, whole=False)
    with at_home(house):
        wanted = Atlas.measure(house.lm, corpus)
    shelf = Shelf(far)
    job = shelf.open(choice)
    studio = job.result.result(60)
    shelf.leave(job)
    assert job.done == job.total > 0
    assert torch.equal(studio.atlas.mean, wanted.mean)
    assert torch.equal(studio.atlas.probability, wanted.probability)
    assert steered(studio)[-1]["state"] == "done"  # made anew where the fork didn't see it
    assert gpu.forks == 1
    asked = len(gpu.asked)
    again = Shelf(far)
    job = again.open(choice)
    job.result.result(60)
    again.leave(job)
    assert len(gpu.asked) == asked


def test_what_others_published_crosses_too(house: House, far: Studio, tmp_path: Path) -> None:
    """It is in no cache from which the forked process could have it."""
    steered(far)
    none = torch.tensor([], dtype=torch.int64)
    torch.save([[none, none, torch.tensor([k, 10 + k])] for k in range(3)], tmp_path / "lape.pth")
    found = with_published(far, str(tmp_path / "lape.pth"), "sw en ar")
    with at_home(house):
        wanted = steered(with_published(house.here, str(tmp_path / "lape.pth"), "sw en ar"))
    assert steered(found)[-1]["panes"] == wanted[-1]["panes"]
    assert steered(found)[-1]["panes"][1] != steered(far)[-1]["panes"][1]


def test_measuring_whether_it_helps_is_the_same(house: House, far: Studio) -> None:
    asked = Asked(("bits-per-byte",), ("en", "sw"), (), 6)
    with at_home(house):
        wanted = _done(Trial(house.here, RECIPE, asked)).outcome
    Path(os.environ["CLAS_CACHE"]).joinpath("measurements").rename(
        Path(os.environ["CLAS_CACHE"]) / "elsewhere"
    )
    found = _done(Trial(far, RECIPE, asked))
    assert found.error is None
    assert found.outcome is not None
    assert wanted is not None
    gains = [one.gain for one in found.outcome.comparison.differences]
    assert gains == [one.gain for one in wanted.comparison.differences]
    assert found.done == found.total > 0


def _done(trial: Trial) -> Trial:
    trial.start()
    assert trial.finished.wait(120)
    return trial


def test_stop_gets_there(house: House, far: Studio) -> None:
    house.slow, stop = True, threading.Event()
    views, began = [], time.monotonic()
    long = replace(RECIPE, max_new_tokens=200)
    for view in far.calls(steering, far, long, False, stop=stop):
        views.append(view)
        stop.set()
    assert views[-1]["state"] == "stopped"
    assert time.monotonic() - began < 8  # of more than 12 s for all tokens
    stopped = steered(far, stop=stop)
    assert stopped == []  # set before the start


def test_who_leaves_ends_the_call(house: House, far: Studio, gpu: LentGPU) -> None:
    house.slow, began = True, time.monotonic()
    views = far.calls(steering, far, replace(RECIPE, max_new_tokens=200), False)
    next(views)
    views.close()  # type: ignore[attr-defined]
    house.slow = False
    assert time.monotonic() - began < 8
    assert steered(far)[-1]["state"] == "done"
    assert gpu.forks == 1


def test_errors_come_back_as_sentences(house: House, far: Studio, gpu: LentGPU) -> None:
    with pytest.raises(ClasError, match="The prompt"):
        steered(far, replace(RECIPE, prompt="Anna " * 5000))
    with pytest.raises(ClasError, match="ZeroGPU worker error: TypeError"):
        list(far.calls(steering, far, RECIPE, True, nonsense=1))
    assert steered(far)[-1]["state"] == "done"
    gpu.seconds_left = 3
    with pytest.raises(ClasError, match=r"ZeroGPU quota exceeded: 60s requested vs\. 0s left"):
        steered(far)


def test_no_other_model_gets_onto_the_device(far: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far, "profile", Profile(models=("owner/name",)))
    shelf = Shelf(far)
    shelf.profile = far.profile
    job = shelf.open(Choice("owner/name", None, "village", made_up_village()))
    with pytest.raises(ClasError, match="not one of this page's models: choose village"):
        job.result.result(60)
    shelf.leave(job)


def identity(*, duration: Any) -> Callable[[Any], Any]:
    """As `spaces.GPU` where there is no ZeroGPU."""
    return lambda task: task


@pytest.mark.slow
@pytest.mark.parametrize("package", [False, True])
def test_the_profile_opens_without_a_gpu(
    package: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu: Any = pytest.importorskip("spaces").GPU if package else identity
    tiny_llama_model().save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    tiny, nowhere = str(tmp_path / "tiny"), str(tmp_path / "nowhere")
    profile = replace(read_profile("zerogpu"), models=(tiny, nowhere, "local"), map_sentences=4)
    studio = open_lent(profile, gpu)
    assert "nowhere isn't offered" in caplog.text
    assert studio.stored is not None
    views = steered(studio, replace(studio.opening, prompt="Anna yuko wapi?", max_new_tokens=4))
    assert views[-1]["state"] == "done"
    shelf = Shelf(studio)
    job = shelf.open(Choice(tiny, None, "made-up", made_up_village().subset(n=2)))
    opened = job.result.result(60)
    shelf.leave(job)
    assert steered(opened, replace(RECIPE, model=tiny))[-1]["state"] == "done"


def test_a_space_with_a_lent_gpu_takes_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLAS_PROFILE", raising=False)
    monkeypatch.setenv("SPACE_ID", "owner/name")
    assert default_profile() == "cpu"
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert default_profile() == "zerogpu"
    assert read_profile("zerogpu").gpu
    assert all("@" in model for model in read_profile("zerogpu").models)


def test_spaces_comes_before_torch(tmp_path: Path) -> None:
    """In the order in which `app.py` does things."""
    text = "import sys\nassert 'torch' not in sys.modules\nGPU = 'lent'\n"
    (tmp_path / "spaces.py").write_text(text, "utf-8")
    code = "import app; print(app.lent_gpu()); import torch; app.lent_gpu()"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == "lent"
    assert "torch was imported first" in done.stderr


@pytest.mark.skipif(find_spec("spaces") is not None, reason="spaces is installed")
def test_without_its_package_there_is_a_sentence() -> None:
    code = [sys.executable, "app.py", "--profile", "zerogpu"]
    done = subprocess.run(code, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.strip() == "The profile needs the package spaces: pip install spaces."
