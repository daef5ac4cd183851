"""Whatever a visitor, a file, a model or a tokenizer says is text, never markup."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from clas_core.evaluation.telling.report import write_report
from clas_core.evaluation.telling.tables import from_json
from clas_core.ui.behind import first
from clas_core.ui.behind.studio import VILLAGE
from clas_core.ui.parts.components import result_value

pytestmark = pytest.mark.browser
Open = Callable[..., Page]

# A tag, an entity, and what Gradio's two kinds of templates and Plotly's hovers would fill in.
EVIL = """<img src=hit.png onerror="window.hit=1">&lt;${1+1}{{value}}%{x}<a href="//hit">q</a>"""
FILE = "<img src=hit.png onerror=window.hit=1>"  # as a file can be called


@pytest.fixture
def open_watched(open_page: Open) -> Any:
    """As `open_page`, which fails on whatever can't be fetched, as EVIL's picture; in the end fails
    if anything of EVIL ran or became an element."""
    pages: list[Page] = []

    def open_(query: str = "") -> Page:
        pages.append(open_page(query))
        return pages[-1]

    yield open_
    for page in pages:
        unharmed(page)


def unharmed(page: Page) -> None:
    assert page.evaluate("window.hit === undefined")
    assert page.locator("img[src*=hit], a[href='//hit'], svg a").count() == 0


@pytest.mark.parametrize(
    "name",
    ["model", "revision", "corpus", "method", "alpha", "layers", "target", "dtype", "prompt",
     "system", EVIL],
)  # fmt: skip
def test_links(open_watched: Open, name: str) -> None:
    page = open_watched(f"?method=CLAS&{quote(name)}={quote(EVIL)}")
    if name in ("prompt", "system"):
        return
    expect(page.locator(".toast-body, #offer")).not_to_have_count(0)
    page.wait_for_timeout(300)


def test_prompts(open_watched: Open) -> None:
    page = open_watched()
    page.locator("#prompt textarea").fill(EVIL)
    page.locator("[data-state]").evaluate("e => delete e.dataset.state")
    page.click("#generate")
    page.wait_for_selector("[data-state=done]")
    expect(page.locator("#steer-stamp")).to_contain_text("<img src=hit.png")


def test_what_a_model_writes(open_watched: Open, studio: Any, monkeypatch: Any) -> None:
    stored = next(iter(first.stored_cells(studio, "sw").values()))
    view = json.loads(json.dumps(stored["view"]))
    view |= {"state": "done", "sentence": EVIL, "facts": [[EVIL] * 3]}
    for pane in view["panes"]:
        pane |= {"spans": [[EVIL, True, EVIL]], "title": EVIL, "note": EVIL, "badges": [EVIL]}
        pane["asked"] = {"ask": EVIL, "answer": EVIL, "right": True}
    view["notice"] = {"text": EVIL, "word": EVIL}
    view["parting"] |= {"after": EVIL, "before": [[EVIL, 0.5]], "now": [[EVIL, 0.5]]}
    view["strip"] |= {"tokens": [EVIL], "kl": [0.1], "peak": 0, "title": EVIL}
    assert result_value(view)
    monkeypatch.setattr(studio, "steer", lambda *_, **__: iter([view]))
    page = open_watched()
    page.click("#generate")
    expect(page.locator(".pane-text mark").first).to_have_text(EVIL)
    expect(page.locator(".strip-token").first).to_have_text(EVIL)


def test_files_and_models(open_watched: Open, model_folder: str, tmp_path: Path) -> None:
    model = tmp_path / FILE
    shutil.copytree(model_folder, model)
    text = tmp_path / f"{FILE}.tsv"
    rows = [f"{EVIL} {number}.\tUmurongo {EVIL} {number}.\n" for number in range(12)]
    text.write_text("en\trw\n" + "".join(rows), "utf-8")
    page = open_watched()
    page.get_by_role("tab", name="Model").click()
    page.locator("#model input").fill(str(model))
    page.keyboard.press("Enter")
    page.locator("#text label", has_text="My own files").click()
    page.locator("#files input[type=file]").set_input_files(str(text))
    expect(page.locator("#report")).to_contain_text("2 languages, 12 sentences in each")
    page.click("#check")
    expect(page.locator("#report table")).to_be_visible(timeout=60_000)
    expect(page.locator("#report li").first).to_contain_text(EVIL)
    page.click("#open")
    expect(page.locator("#model-line")).to_contain_text(FILE, timeout=60_000)
    page.get_by_role("tab", name="Map").click()
    page.wait_for_selector("#map .plotly-panel-plot[data-drawn]", timeout=60_000)
    expect(page.locator("#map-note")).not_to_contain_text("getting ready", timeout=60_000)
    page.wait_for_timeout(1500)
    plot = page.locator("#map .plotly-panel-plot")
    plot.press("ArrowRight")
    said = page.locator("#map .plotly-panel-said")
    expect(said).to_contain_text(EVIL)  # read from the hover: just these characters
    page.keyboard.press("Enter")
    expect(page.locator("#parallels li").first).to_contain_text(EVIL)
    page.get_by_role("tab", name="Neurons").click()
    page.wait_for_selector("#mosaic .plotly-panel-plot[data-drawn]", timeout=60_000)
    page.get_by_role("tab", name="Model").click()
    page.locator("#before input").click()
    expect(page.get_by_role("option", name=re.compile("onerror"))).not_to_have_count(0)


def test_language_codes(open_watched: Open, tmp_path: Path) -> None:
    text = tmp_path / "mine.tsv"
    text.write_text(f"en\t{EVIL}\nOne.\tTwo.\n", "utf-8")
    page = open_watched()
    page.get_by_role("tab", name="Model").click()
    page.locator("#text label", has_text="My own files").click()
    page.locator("#files input[type=file]").set_input_files(str(text))
    expect(page.locator("#report .note").first).to_contain_text("<img")
    page.click("#open")
    expect(page.locator("#progress .note")).to_contain_text("<img")


def test_reports(open_page: Open, tmp_path: Path) -> None:
    data = json.loads((VILLAGE / "measured.json").read_text("utf-8"))
    for one in (*data["differences"], *data["control_wins"]):
        one |= {"condition": one["condition"] + EVIL, "task": one["task"] + EVIL}
    data["about"] |= {"model": EVIL, "split": EVIL}
    write_report(tmp_path / "report.html", from_json(json.dumps(data)))
    page = open_page().context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    expect(page.locator("svg.main-svg").first).to_be_visible()
    expect(page.locator("h1")).to_contain_text(EVIL)
    legend = page.locator("svg .legendtext").first
    assert "<img src=hit.png" in (legend.text_content() or "")
    unharmed(page)
    assert [url for url in asked if "hit.png" in url] == []
    page.close()
