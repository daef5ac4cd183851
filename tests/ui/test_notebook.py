"""The page below a notebook's cell, on the model in memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from tiny import make_tokenizer, tiny_llama_model
from tiny_studio import made_up_corpus

import clas_core as clas
from clas_core.errors import ClasError
from clas_core.evaluation.marks import Marks
from clas_core.model.architecture import LanguageModel
from clas_core.running.generation import generate
from clas_core.ui.behind import studio as behind
from clas_core.ui.behind.studio import Studio
from clas_core.ui.behind.threads import Ending

RECIPE = {"target": "sw", "alpha": 2.0, "beta": 3.0, "gamma": 0.0, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def lm() -> Any:
    return clas.load(tiny_llama_model(), make_tokenizer())


@pytest.fixture(autouse=True)
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LanguageModel, str, Any]]:
    """Model, goal and progress of what marks are found for; UMAP takes seconds to import, and no
    map is drawn here."""
    found: list[tuple[LanguageModel, str, Any]] = []

    def opening(lm: LanguageModel, atlas: Any, corpus: Any, goal: str, progress: Any) -> Marks:
        found.append((lm, goal, progress))
        return Marks(goal, {"method": "Silence", "layers": [1, 3]}, ("sw",), 6, ())

    monkeypatch.setattr(Studio, "warm_up", lambda self: None)
    monkeypatch.setattr(behind, "opening", opening)
    return found


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notebook is given to show; where there is none, one is made up."""
    found: list[str] = []
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    core, getter = ModuleType("IPython.core"), ModuleType("IPython.core.getipython")
    getter.get_ipython = SimpleNamespace  # type: ignore[attr-defined]
    display.HTML = display.Javascript = str  # type: ignore[attr-defined]
    display.display = found.append  # type: ignore[attr-defined]
    for module in (ipython, display, core, getter):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return found


def test_it_opens_below_the_cell_and_goes_on(lm: Any, shown: list[str]) -> None:
    atlas = clas.Atlas.measure(lm, made_up_corpus())
    app = clas.studio(lm, made_up_corpus(), atlas=atlas, height=700)
    try:
        (frame,) = shown
        assert f'src="{app.local_url}"' in frame
        assert 'height="700"' in frame
        assert "CLAS Studio" in httpx.get(app.local_url).text
        client = Client(app.local_url, verbose=False, analytics_enabled=False)
        texts, _ = client.predict("", "Anna", RECIPE, api_name="/steer")
        assert texts["steered"]
        with pytest.raises(AppError, match="corpus must be one of"):
            client.predict("", "Anna", {**RECIPE, "corpus": "other"}, api_name="/steer")
    finally:
        app.close(verbose=False)


def test_marks_of_the_model_in_memory_are_found_until_the_page_is_closed(
    lm: Any, tried: list[tuple[LanguageModel, str, Any]]
) -> None:
    app = clas.studio(lm, made_up_corpus())
    try:
        for thread in threading.enumerate():
            if thread.name == "marks":
                thread.join(timeout=60)
        assert [(of, goal) for of, goal, _ in tried] == [(lm, goal) for goal in behind.FOUND]
        progress = tried[-1][2]
        progress(1, 2)
    finally:
        app.close(verbose=False)
    with pytest.raises(Ending):
        progress(2, 2)


def test_called_again_it_takes_the_place_of_the_page_before(lm: Any) -> None:
    first = clas.studio(lm, made_up_corpus())
    assert first.is_running
    second = clas.studio(lm, made_up_corpus())
    try:
        assert not first.is_running
        assert httpx.get(second.local_url).status_code == 200
    finally:
        second.close(verbose=False)


def test_the_steering_of_the_page_leaves_the_model_in_memory_as_it_was(lm: Any) -> None:
    *_, before = generate(lm, "Anna", max_new_tokens=8)
    app = clas.studio(lm, "everyday")
    try:
        client = Client(app.local_url, verbose=False, analytics_enabled=False)
        texts, effects = client.predict("", "Anna", RECIPE, api_name="/steer")
    finally:
        app.close(verbose=False)
    *_, after = generate(lm, "Anna", max_new_tokens=8)
    assert before.texts == after.texts == (texts["unsteered"],)
    assert effects["kl"]


def test_bad_input_gets_a_sentence(lm: Any) -> None:
    with pytest.raises(ClasError, match="Give a loaded model"):
        clas.studio("village")  # type: ignore[arg-type]
    with pytest.raises(ClasError, match="at least two languages"):
        clas.studio(lm, made_up_corpus().subset(["en"]))
    with pytest.raises(ClasError, match="no bundled corpus"):
        clas.studio(lm, "nowhere")
    few = clas.Atlas.measure(lm, made_up_corpus().subset(["en", "sw"]))
    with pytest.raises(ClasError, match="of another text"):
        clas.studio(lm, made_up_corpus(), atlas=few)
    other = clas.load(tiny_llama_model(num_hidden_layers=2), make_tokenizer())
    with pytest.raises(ClasError):
        clas.studio(other, made_up_corpus().subset(["en", "sw"]), atlas=few)


def test_importing_the_library_imports_no_page() -> None:
    assert "studio" in clas.__all__
    code = "import clas_core, sys; clas_core.ClasError; print('gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
