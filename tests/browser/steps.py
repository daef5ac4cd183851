"""What several tests do on the page."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect

from clas_core.ui.behind.studio import Studio
from clas_core.ui.tabs.page import build, launch_options

MINE = (
    "en\trw\tyo\n"
    "The cat <b>sees</b> a boat.\tInjangwe ibona ubwato.\tOlogbo ri oko.\n"
    "The dog sleeps.\tImbwa irasinziriye.\tAja n sun.\n"
) + "".join(f"Line {n} is here.\tUmurongo {n} uri hano.\tIla {n} wa nibi.\n" for n in range(10))


@contextmanager
def launched(studio: Studio) -> Iterator[str]:
    """The page of a studio, at the address that this gives, until the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    studio.warm_up()
    app = build(studio)
    app.launch(**launch_options(studio, port), prevent_thread_lock=True, quiet=True)
    yield f"http://127.0.0.1:{port}/"
    app.close(verbose=False)


def choose_quick_tasks(page: Page) -> None:
    page.get_by_role("tab", name="Measure").click()
    for name, wanted in (("village-nli", False), ("village-qa", False), ("bits-per-byte", True)):
        page.locator("#measure-tasks").get_by_label(name).set_checked(wanted)


def choose(page: Page, model: str, text: str = "Village") -> None:
    page.get_by_role("tab", name="Model").click()
    box = page.locator("#model input")
    box.fill(model)
    page.keyboard.press("Enter")
    page.locator("#text label", has_text=text).click()


def upload(page: Page, tmp_path: Path, name: str = "mine.tsv", text: str = MINE) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    page.locator("#files input[type=file]").set_input_files(str(tmp_path / name))


def open_it(page: Page, name: str) -> None:
    page.click("#open")
    expect(page.locator("#model-line")).to_contain_text(name, timeout=60_000)
