"""The real page on a tiny model, in the system's Chromium."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chats import CHATML, chat_lm
from playwright.sync_api import Browser, BrowserContext, Page, expect
from steps import launched
from tiny import tiny_qwen2_model
from tiny_studio import tiny_studio

from clas_core.running.decoder import Decoder
from clas_core.ui.behind import works
from clas_core.ui.behind.answered import Answered
from clas_core.ui.behind.kept import Kept
from clas_core.ui.behind.studio import Studio

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
expect.set_options(timeout=30_000)  # on a busy machine too
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: run `make browser`")
    quiet = ["--disable-background-networking", "--disable-component-update", "--no-sandbox"]
    return {"executable_path": CHROMIUM, "args": quiet}


@pytest.fixture(scope="session")
def studio() -> Studio:
    return tiny_studio()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a tiny Qwen2 with a chat template; 4 layers, unlike the studio's 3."""
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    lm = chat_lm(CHATML)
    tiny_qwen2_model(num_hidden_layers=4).save_pretrained(folder)
    lm.model.generation_config.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def url(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    os.environ["CLAS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    with launched(studio) as address:
        yield address


@pytest.fixture(scope="session")
def contexts(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """A browser's profile for these options, kept so that its cache has the page's code."""
    made: dict[str, BrowserContext] = {}

    def context(**options: Any) -> BrowserContext:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = browser.new_context(**options)
        return made[key]

    yield context
    for one in made.values():
        one.close()


@pytest.fixture
def open_page(contexts: Callable[..., BrowserContext], url: str) -> Iterator[Callable[..., Page]]:
    """Opens the page; afterwards fails on a console error and on any external request."""
    used: list[BrowserContext] = []
    problems: list[str] = []

    def watch(page: Page) -> None:
        page.on("console", lambda m: problems.append(m.text) if is_fault(m) else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: None if is_own(r.url) else problems.append(r.url))

    def is_fault(message: Any) -> bool:
        # A reload cuts off what the page was asking for, and Gradio says so.
        cut = ("AbortError", "errored out")
        return message.type == "error" and not any(word in message.text for word in cut)

    def is_own(address: str) -> bool:
        return address.startswith((url, "data:", "blob:"))

    def open_(query: str = "", width: int = 1440, height: int = 900, **options: Any) -> Page:
        # The opening sweep would move what is tested: it has a test of its own.
        # Swahili is what the tiny page opens in, unless a browser asks for a language that it has.
        options = {"reduced_motion": "reduce", "locale": "sw", **options}
        used.append(contexts(viewport={"width": width, "height": height}, **options))
        page = used[-1].new_page()
        watch(page)
        page.goto(url + query)
        for part in ("#generate", ".result-sentence"):
            page.wait_for_selector(part, state="attached")  # unseen when a link opened another tab
        return page

    yield open_
    for page in [page for context in used for page in context.pages]:
        page.close()
    assert problems == []


@pytest.fixture(autouse=True)
def unanswered(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test asked is no answer to another's."""
    monkeypatch.setattr(studio, "_answered", Answered(Kept(10**7).share(studio)))


@pytest.fixture
def slow_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch takes half a second more."""
    quick = works.measure_cached

    def slow(lm: Any, corpus: Any, *, progress: Callable[[int, int], None]) -> Any:
        def slowly(done: int, total: int) -> None:
            time.sleep(0.5)
            progress(done, total)

        return quick(lm, corpus, progress=slowly)

    monkeypatch.setattr(works, "measure_cached", slow)


@pytest.fixture
def slow_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token takes a twentieth of a second more."""
    quick = Decoder._turn

    def slow(decoder: Decoder) -> None:
        time.sleep(0.05)
        quick(decoder)

    monkeypatch.setattr(Decoder, "_turn", slow)
